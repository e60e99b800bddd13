"""What time and meters give evidence of: commands without an answer, done, or left again."""

import numpy as np

from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet
from kapelle.fleet.desired import holds_setpoint, in_force
from kapelle.model.blocks import Phases
from kapelle.model.enums import Exclusion, Freshness, Metric, Phase
from kapelle.model.ids import NS_PER_S, Flags, Longs


def among(*phases: Phase) -> Flags:
    """Return a table by phase: whether it is one of these."""
    chosen: Flags = np.isin(np.arange(32), [int(phase) for phase in phases])
    return chosen


WAITING = among(Phase.PLANNED, Phase.SENT, Phase.RECEIVED)
IN_FORCE = among(Phase.ACCEPTED, Phase.APPLIED, Phase.VERIFIED)
_ANSWERED = among(Phase.ACCEPTED, Phase.APPLIED)
_PROVEN_BY_METER = among(
    Phase.SENT, Phase.RECEIVED, Phase.ACCEPTED, Phase.APPLIED, Phase.UNKNOWN, Phase.EXPIRED
)


def findings(
    fleet: Fleet, settings: DispatchSettings, epoch: int, later_ns: Longs
) -> Phases | None:
    """Return the phases that are due at `fleet.now_ns`, one per device at most; None without any.

    Args:
        fleet: The partition.
        settings: How long devices have, and how often meters must agree.
        epoch: Of the owner.
        later_ns: How much longer each device has for an answer, shape (size,). [ns]
    """
    size, now_ns = fleet.size, fleet.now_ns
    phase = fleet.phase[:size]
    if not phase.any():
        return None
    found = np.zeros(size, np.uint8)
    waiting = WAITING[phase]
    unknown_ns = int(settings.unknown_s * NS_PER_S) + later_ns
    overdue = now_ns - fleet.planned_at_ns[:size] >= unknown_ns
    found[waiting & overdue] = Phase.UNKNOWN
    # After its last try's time has passed a device would refuse it.
    late = now_ns - fleet.not_after_ns[:size] >= int(settings.unknown_s * NS_PER_S)
    found[(phase == Phase.UNKNOWN) & late] = Phase.EXPIRED
    # A lost refresh costs nothing until the timer ends or the meter leaves the mark; and nobody
    # has to be replaced in an order that is over.
    unheeded = np.flatnonzero(
        ((phase == Phase.UNKNOWN) | (phase == Phase.EXPIRED))
        & (fleet.excluded[:size] == Exclusion.NONE)
    ).astype(np.int32)
    running = np.array([signal.order_no for signal in in_force(fleet)], np.int32)
    unheeded = unheeded[np.isin(fleet.order_no[unheeded], running)]
    found[unheeded[~holds_setpoint(fleet, unheeded)]] = Phase.UNKNOWN
    gone = (fleet.freshness[:size] == Freshness.LOST) & (fleet.reverts_at_ns[:size] <= now_ns)
    found[gone & IN_FORCE[phase]] = Phase.LOST
    asked = fleet.order_no[:size] != 0
    followed = fleet.followed[:size] >= settings.verify_after
    # Without an answer, what the meter showed before this command proves nothing about it.
    # (By our clock: the device's own may err.)
    is_held = fleet.seen_at_ns[:size] == fleet.measured_at_ns[Metric.POWER_W, :size]
    is_held &= fleet.heard_at_ns[:size] > fleet.tried_at_ns[:size]
    followed &= _ANSWERED[phase] | is_held
    found[followed & asked & _PROVEN_BY_METER[phase]] = Phase.VERIFIED
    strayed = has_strayed(fleet, settings) & (fleet.epoch[:size] == epoch)
    found[strayed & asked & IN_FORCE[phase]] = Phase.DIVERGED
    rows = np.flatnonzero(found).astype(np.int32)
    if not len(rows):
        return None
    return Phases(
        device_no=fleet.device_nos(rows),
        revision=fleet.revision[rows],
        phase=found[rows],
        at_ns=np.full(len(rows), now_ns, np.int64),
    )


def has_strayed(fleet: Fleet, settings: DispatchSettings) -> Flags:
    """Tell whose meter has left the setpoint for good."""
    strayed: Flags = fleet.strayed[: fleet.size] >= settings.diverge_after
    return strayed
