"""One device as everybody should see it: what is desired, what it reports, what is observed.

Each of the three has one writer: desired comes through dispatch alone, in rising (epoch, revision);
reported from the device's newest session alone, in the order of its own reports; and what is
enrolled from the registry alone. So each has a version of its own.
"""

from dataclasses import dataclass
from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.fleet.desired import NEVER_NS
from kapelle.fleet.reconciliation.conditions import DISTRUSTED
from kapelle.fleet.traits import opted_out
from kapelle.model.enums import (
    Condition,
    DeviceMode,
    Exclusion,
    Freshness,
    Metric,
    Phase,
    Standing,
)
from kapelle.model.ids import NS_PER_S, Ints

_NO_SKEW_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Desired:
    """What is asked. Version: (`epoch`, `revision`)."""

    setpoint_w: float
    """NaN: nothing, the device follows its own schedule. [W]"""
    order_no: int
    """0: none."""
    revision: int
    """0: it was never asked for anything."""
    epoch: int
    phase: Phase
    attempt: int
    since_ns: int
    """When this was first asked; 0: never."""
    tried_at_ns: int
    not_after_ns: int


@dataclass(frozen=True, slots=True)
class Reported:
    """What the device says of itself. Version: `order`."""

    order: int
    """Rank of the newest report among the device's, see `Readings.order`."""
    mode: DeviceMode | None
    """None: it does not say."""
    setpoint_w: float
    """NaN: it does not say, or has none now. [W]"""
    applied_at_ns: int
    """When it said that it follows the present command; 0: it has not."""
    session: int
    connected: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """What its meter shows, and what it does now as far as that can be known."""

    power_w: float
    soc: float
    measured_at_ns: int
    """By the device's clock; 0: never."""
    received_at_ns: int
    freshness: Freshness
    cadence_s: float
    skew_s: float
    """How far its clock lags ours, and its quickest way here; NaN: not known. [s]"""
    estimate_w: float
    estimate_std_w: float


@dataclass(frozen=True, slots=True)
class DeviceState:
    """Desired, reported and observed, how they agree, and what is in the way."""

    device_no: int
    desired: Desired
    reported: Reported
    observed: Observed
    standing: Standing
    standing_since_ns: int
    conditions: tuple[Condition, ...]
    conditions_since_ns: int
    """When any of them last came or went."""
    exclusion: Exclusion
    """Why it is not counted on; NONE: it is."""
    excluded_until_ns: int
    revert_s: float
    """Its revert timer; NaN: it has none and stays where it was set. [s]"""
    reverts_at_ns: int
    """When it goes back to its own schedule by itself; 0: it follows none of ours or never will."""
    enrolments: int
    """Version of what is enrolled."""


def describe(fleet: Fleet, row: int) -> DeviceState:
    """Return the state of one row as of `fleet.now_ns`.

    Raises:
        IndexError: No such row.
    """
    if not 0 <= row < fleet.size:
        raise IndexError(row)
    return DeviceState(
        device_no=row * fleet.partitions + fleet.partition,
        desired=_desired(fleet, row),
        reported=_reported(fleet, row),
        observed=_observed(fleet, row),
        standing=Standing(int(fleet.standing[row])),
        standing_since_ns=int(fleet.standing_at_s[row]) * NS_PER_S,
        conditions=tuple(bit for bit in Condition if int(fleet.condition[row]) & bit),
        conditions_since_ns=int(fleet.condition_at_s[row]) * NS_PER_S,
        exclusion=exclusion_of(fleet, row),
        excluded_until_ns=_excluded_until_ns(fleet, row),
        revert_s=float(fleet.revert_s[row]),
        reverts_at_ns=_reverts_at_ns(fleet, row),
        enrolments=int(fleet.enrolments[row]),
    )


def exclusion_of(fleet: Fleet, row: int) -> Exclusion:
    """Return why a device is not counted on, by the rules the sums are made with."""
    return Exclusion(int(exclusions_of(fleet, np.array([row], np.int32))[0]))


def exclusions_of(fleet: Fleet, rows: Ints) -> NDArray[np.uint8]:
    """Return the same of many rows at once, as numbers of `Exclusion`."""
    found = np.where(fleet.connected[rows], Exclusion.NONE, Exclusion.UNREACHABLE).astype(np.uint8)
    found[~np.isin(fleet.freshness[rows], (Freshness.LIVE, Freshness.LATE))] = Exclusion.SILENT
    found[(fleet.condition[rows] & int(DISTRUSTED)) != 0] = Exclusion.CONDITION
    excluded = fleet.excluded[rows]
    kept: NDArray[np.uint8] = np.where(excluded != 0, excluded, found).astype(np.uint8)
    kept[opted_out(fleet, rows)] = Exclusion.OPTED_OUT
    return kept


def _excluded_until_ns(fleet: Fleet, row: int) -> int:
    """Return when it is counted on again, as far as that is known; the owner's word counts most."""
    if opted_out(fleet, np.array([row], np.int32))[0]:
        return int(fleet.opted_out_until_s[row]) * NS_PER_S
    return int(fleet.excluded_until_ns[row])


def _desired(fleet: Fleet, row: int) -> Desired:
    return Desired(
        setpoint_w=float(fleet.desired_w[row]),
        order_no=int(fleet.order_no[row]),
        revision=int(fleet.revision[row]),
        epoch=int(fleet.epoch[row]),
        phase=Phase(int(fleet.phase[row])),
        attempt=int(fleet.attempt[row]),
        since_ns=int(fleet.planned_at_ns[row]),
        tried_at_ns=int(fleet.tried_at_ns[row]),
        not_after_ns=int(fleet.not_after_ns[row]),
    )


def _reported(fleet: Fleet, row: int) -> Reported:
    measured_at_ns = fleet.measured_at_ns[:, row]
    newest = int(measured_at_ns.argmax())
    mode = float(fleet.value[Metric.MODE, row])
    # A setpoint is left out on the own schedule: one of an older report is over.
    present = measured_at_ns[Metric.SETPOINT_W] == measured_at_ns[newest]
    return Reported(
        order=int(fleet.order[newest, row]),
        mode=None if isnan(mode) else DeviceMode(int(mode)),
        setpoint_w=float(fleet.value[Metric.SETPOINT_W, row]) if present else nan,
        applied_at_ns=int(fleet.applied_at_ns[row]),
        session=int(fleet.session[row]),
        connected=bool(fleet.connected[row]),
    )


def _observed(fleet: Fleet, row: int) -> Observed:
    skew_ns = min(int(fleet.skew_ns[row]), int(fleet.skew_before_ns[row]))
    return Observed(
        power_w=float(fleet.value[Metric.POWER_W, row]),
        soc=float(fleet.value[Metric.SOC, row]),
        measured_at_ns=int(fleet.measured_at_ns[Metric.POWER_W, row]),
        received_at_ns=int(fleet.received_at_ns[row]),
        freshness=Freshness(int(fleet.freshness[row])),
        cadence_s=float(fleet.cadence_s[row]),
        skew_s=nan if skew_ns == _NO_SKEW_NS else skew_ns / NS_PER_S,
        estimate_w=float(fleet.estimate_w[row]),
        estimate_std_w=float(fleet.estimate_std_w[row]),
    )


def _reverts_at_ns(fleet: Fleet, row: int) -> int:
    at_ns = int(fleet.reverts_at_ns[row])
    return at_ns if fleet.now_ns < at_ns < NEVER_NS else 0
