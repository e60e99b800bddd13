"""Whom a setpoint reaches, who is counted on to follow it, and what is about to be lost."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, is_heard, span
from kapelle.fleet.curve.division import Rows, shares
from kapelle.fleet.desired import NEVER_NS
from kapelle.fleet.reconciliation.conditions import distrusted
from kapelle.fleet.silence import STRAGGLERS, Level, age_s, codes_of, is_due
from kapelle.fleet.traits import any_of, has, opted_out
from kapelle.model.enums import Exclusion, Freshness, Trait
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints

_AHEAD_S = 0.9
"""From a summary to the commands that follow from it, and the device's own start. [s]"""
_ANSWER_S = 1.0
"""How long an answer takes where none has come yet. [s]"""
_ANSWER_S_MAX = 4.0
"""An answer that took longer was one to a lost command. [s]"""
_ASKED = 4096
"""So many devices tell how long answers take."""
_GONE = 0.5
"""When more than this part of a group's devices is late, the group is."""
_GROUP_MIN = 5


def controllable(fleet: Fleet, rows: Rows) -> Flags:
    """Tell which devices a setpoint will reach now and who can be counted on to follow it."""
    trusted: Flags = fleet.excluded[span(rows)] == np.uint8(Exclusion.NONE)
    trusted &= ~distrusted(fleet, rows)
    trusted &= ~fleet.waits[span(rows)]
    if has(any_of(fleet.traits[span(rows)]), Trait.OPTED_OUT):
        trusted &= ~opted_out(fleet, rows)
    return reachable(fleet, rows) & trusted


def reachable(fleet: Fleet, rows: Rows) -> Flags:
    """Tell which devices report and have a session: a command sent now would meet them."""
    at = span(rows)
    return is_heard(fleet.freshness[at]) & fleet.active[at] & fleet.connected[at]


def left_alone_w(fleet: Fleet, rows: Rows, power_w: Floats) -> Floats:
    """Return what devices that no setpoint will reach do by the time others could make up for it.

    A silent device holds its setpoint until its revert timer ends. That moment is known, so its
    replacement is under way when it comes, and not only afterwards.

    Args:
        fleet: The partition.
        rows: Devices that are not controllable.
        power_w: What they do now.
    """
    at = span(rows)
    left_ns = fleet.reverts_at_ns[at] - fleet.now_ns
    ends = (left_ns > 0) & (left_ns <= int((_AHEAD_S + _ANSWER_S_MAX) * NS_PER_S))
    ends &= fleet.freshness[at] >= np.uint8(Freshness.STALE)
    if not ends.any():
        return power_w
    ends &= left_ns <= int((_AHEAD_S + _answer_s(fleet)) * NS_PER_S)
    return np.where(ends, fleet.own_w[at], power_w)


def _answer_s(fleet: Fleet) -> float:
    """Return how long devices take, on average, from a command to their answer. [s]

    Too long a look ahead overshoots as much as too short a one falls short, so it is measured.
    """
    sample = slice(0, fleet.size, max(fleet.size // _ASKED, 1))
    took_ns = fleet.applied_at_ns[sample] - fleet.planned_at_ns[sample]
    took_ns = took_ns[fleet.applied_at_ns[sample] > 0]
    if not len(took_ns):
        return _ANSWER_S
    return float(np.clip(took_ns / NS_PER_S, 0.0, _ANSWER_S_MAX).mean())


class Fading(NamedTuple):
    """What is about to be lost with devices that have fallen silent. [W]"""

    power_w: float
    """What those no setpoint will reach do beyond their own schedule, until their timers end."""
    up_w: float
    """Headroom of those still counted on, whose vendor or provider falls silent as a whole."""
    down_w: float


def fading(fleet: Fleet, rows: Rows, states: Mapping[Level, NDArray[np.intp]]) -> Fading:
    """Return what will be lost within a revert time unless somebody speaks again.

    One late device has lost a report. When most of a group's are late at once, the group is gone,
    and that is known seconds before each of them counts as stale; where the others of the group are
    due as well, they are gone with it.

    Args:
        fleet: The partition.
        rows: Of one resource.
        states: Of vendors and providers: devices in each `Freshness`, shape (groups, states).
    """
    is_silent = fleet.freshness[span(rows)] >= np.uint8(Freshness.STALE)
    for level, counts in states.items():
        late = counts[:, Freshness.LATE :].sum(axis=1)
        devices = counts.sum(axis=1)
        gone = (late > _GONE * devices) & (devices >= _GROUP_MIN)
        if level == "provider":
            # To have none that is named is nothing shared.
            gone[0] = False
        if gone.any():
            is_silent |= _silent_with(fleet, rows, codes_of(fleet, level), gone)
    silent = rows[np.flatnonzero(is_silent)]
    silent = silent[fleet.active[silent]]
    counted = controllable(fleet, silent)
    left, fading_ = silent[~counted], silent[counted]
    ends_ns = fleet.reverts_at_ns[left]
    held = left[(ends_ns > fleet.now_ns) & (ends_ns < NEVER_NS)]
    power_w = float((fleet.estimate_w[held] - fleet.own_w[held]).sum())
    if not len(fading_):
        return Fading(power_w, 0.0, 0.0)
    part = shares(fleet, fading_)
    return Fading(power_w, float(part.up_w.sum()), float(part.down_w.sum()))


def _silent_with(fleet: Fleet, rows: Rows, codes: Ints, gone: Flags) -> Flags:
    """Tell who is late of groups most of which are, and who is not yet where nearly all are due."""
    freshness = fleet.freshness[span(rows)]
    heard = np.flatnonzero(gone[codes[span(rows)]] & is_heard(freshness))
    own, group = rows[heard], codes[rows[heard]]
    due = np.bincount(group[is_due(fleet, own, age_s(fleet, own))], minlength=len(gone))
    whole = due >= (1.0 - STRAGGLERS) * np.bincount(group, minlength=len(gone))
    silent: Flags = np.zeros(len(rows), np.bool_)
    silent[heard] = whole[group] | (freshness[heard] == np.uint8(Freshness.LATE))
    return silent
