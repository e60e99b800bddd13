"""What each device does now, as far as we can know: a mean and an honest standard deviation.

The error grows with the age `a` of the last reading as `share · nameplate · sqrt(a / (a + tau))`:
it starts at the meter's own error, reaches half its variance at `tau`, and never exceeds what such
a device does in the long run.
"""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, Floats32, is_heard
from kapelle.fleet.estimation.news import step_anchors
from kapelle.fleet.settings import FleetSettings
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints

_CHUNK = 1 << 15
"""Rows handled at once, so that what is computed stays in the cache."""
_S_PER_NS = 1e-9


def step_estimate(fleet: Fleet, settings: FleetSettings) -> None:
    """Estimate the power of every device as of `fleet.now_ns`; needs `step_freshness` before.

    - Live or late, and the reading newer than the last answered command: the reading.
    - Answered a command, and the reading is too early to show it: from there to what was asked, at
      its ramp.
    - Stale or lost: to what was asked while its revert timer runs, then to its own schedule.
    - Asked, and nothing can show it yet: the reading, doubted by a part of the move.
    - Never heard: nothing to the mean; a standard deviation of its own, independent of all others.
    """
    for start in range(0, fleet.size, _CHUNK):
        at = slice(start, min(start + _CHUNK, fleet.size))
        _learn_own(fleet, settings, at)
        _estimate(fleet, settings, at)
    step_anchors(fleet)


def _learn_own(fleet: Fleet, settings: FleetSettings, at: slice) -> None:
    """Take the readings of devices under no command for what they do on their own schedule."""
    free = np.isnan(fleet.desired_w[at]) & is_heard(fleet.freshness[at])
    if not free.any():
        return
    heard_at_ns, answered_at_ns = fleet.heard_at_ns[at], fleet.applied_at_ns[at]
    if answered_at_ns.any() or fleet.reverts_at_ns[at].any():
        # A release that was not answered leaves the device under its old command until the timer
        # ends; one that was answered ends it after the time to settle.
        since_ns = np.where(answered_at_ns > 0, answered_at_ns, fleet.reverts_at_ns[at])
        settled_ns = since_ns + int(settings.settle_s * NS_PER_S)
        free &= (since_ns == 0) | (heard_at_ns > settled_ns)
    np.copyto(fleet.own_w[at], fleet.value[Metric.POWER_W, at], where=free)


def _estimate(fleet: Fleet, settings: FleetSettings, at: slice) -> None:
    heard_at_ns = fleet.heard_at_ns[at]
    reading_w = fleet.value[Metric.POWER_W, at]
    heard = is_heard(fleet.freshness[at])
    nameplate_w = np.maximum(fleet.nameplate_up_w[at], fleet.nameplate_down_w[at]).astype(
        np.float32
    )
    age_s = ((fleet.now_ns - heard_at_ns) * _S_PER_NS).astype(np.float32)
    np.maximum(age_s, 0, out=age_s)

    desired_w = fleet.desired_w[at]
    kind = fleet.kind[at].astype(np.intp)
    share = np.array(settings.drift_share, np.float32).take(kind, mode="clip")
    held = fleet.reverts_at_ns[at] > fleet.now_ns
    if held.any():
        held &= ~np.isnan(desired_w)
        share[held] = settings.commanded_share
    half_s = np.array(settings.drift_s, np.float32).take(kind, mode="clip")
    half_s += age_s
    std_w = np.sqrt(age_s / half_s)
    std_w *= share
    std_w += np.float32(settings.meter_share)
    std_w *= nameplate_w

    mean_w = fleet.estimate_w[at]
    mean_w[:] = reading_w
    moving = np.flatnonzero(~heard | _on_the_way(fleet, settings, at, held))
    if len(moving):
        _move(fleet, settings, at, moving, held, heard, mean_w, std_w)
    flying = _unanswered(fleet, settings, at, heard)
    if len(flying):
        move_w = _goal(fleet, at, flying, ~np.isnan(desired_w)) - reading_w[flying]
        std_w[flying] += (np.abs(move_w) * settings.flight_share).astype(np.float32)
    never = heard_at_ns == 0
    if never.any():
        mean_w[never] = 0.0
        std_w[never] = nameplate_w[never] * np.float32(settings.never_share)
    fleet.estimate_std_w[at] = std_w


def _move(
    fleet: Fleet,
    settings: FleetSettings,
    at: slice,
    moving: NDArray[np.intp],
    held: Flags,
    heard: Flags,
    mean_w: Floats,
    std_w: Floats32,
) -> None:
    """Carry the devices that have left their last reading, or may have, to where they go."""
    goal_w = _goal(fleet, at, moving, held)
    from_w = mean_w[moving]
    since_ns = np.maximum(fleet.heard_at_ns[at][moving], fleet.applied_at_ns[at][moving])
    ramp = fleet.ramp_w_per_s[at][moving].astype(np.float64)
    reach_w = np.where(
        np.isnan(ramp), np.inf, ramp * ((fleet.now_ns - since_ns) * _S_PER_NS).clip(0.0)
    )
    move_w = goal_w - from_w
    mean_w[moving] = from_w + np.clip(move_w, -reach_w, reach_w)
    doubt = np.where(heard[moving], settings.follow_share, settings.silent_share)
    std_w[moving] += (np.abs(move_w) * doubt).astype(np.float32)


def _goal(fleet: Fleet, at: slice, rows: NDArray[np.intp], asked: Flags) -> Floats:
    """Return where devices go: what they are asked for, else their own schedule."""
    up_w, down_w = fleet.nameplate_up_w[at][rows], fleet.nameplate_down_w[at][rows]
    goal_w = np.where(asked[rows], fleet.desired_w[at][rows], fleet.own_w[at][rows])
    return np.clip(goal_w, -down_w, up_w)


def _on_the_way(fleet: Fleet, settings: FleetSettings, at: slice, held: Flags) -> Flags:
    """Tell who said that it follows, and was last heard before it can have got there."""
    told_at_ns, heard_at_ns = fleet.applied_at_ns[at], fleet.heard_at_ns[at]
    if held.any():
        # A newer command that awaits its answer does not undo the one before it.
        waiting = np.flatnonzero((told_at_ns == 0) & held)
        if len(waiting):
            told_at_ns = told_at_ns.copy()
            told_at_ns[waiting] = fleet.tried_at_ns[at][waiting]
    moves: Flags = told_at_ns > 0
    if moves.any():
        moves &= heard_at_ns < told_at_ns + int(settings.settle_s * NS_PER_S)
        # Whose meter has contradicted him is believed only until his next reading.
        moves &= (fleet.strayed[at] == 0) | (heard_at_ns < told_at_ns)
    return moves


def _unanswered(fleet: Fleet, settings: FleetSettings, at: slice, heard: Flags) -> NDArray[np.intp]:
    """Return which of these rows are in flight, and nobody but us says so."""
    asked_at_ns = fleet.tried_at_ns[at]
    asked = np.flatnonzero((asked_at_ns > 0) & (fleet.applied_at_ns[at] == 0))
    shown_at_ns = asked_at_ns[asked] + int(settings.settle_s * NS_PER_S)
    return asked[(fleet.heard_at_ns[at][asked] < shown_at_ns) & heard[asked]]


def in_flight(
    fleet: Fleet, settings: FleetSettings, at: slice | Ints | NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return which of these rows were asked for something no reading can have shown yet.

    Their errors are common: they were asked together, over the same links.
    """
    asked_at_ns = np.maximum(fleet.tried_at_ns[at], fleet.applied_at_ns[at])
    flying = asked_at_ns > 0
    if not flying.any():
        return np.empty(0, np.intp)
    shown_at_ns = asked_at_ns + int(settings.settle_s * NS_PER_S)
    flying &= (fleet.heard_at_ns[at] < shown_at_ns) & is_heard(fleet.freshness[at])
    return np.flatnonzero(flying)
