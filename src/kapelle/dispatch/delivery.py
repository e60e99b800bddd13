"""What to tell the devices of a partition now: new desires, retries, refreshes, releases, findings.

`decide` reads the fleet and writes nothing. What it returns takes effect when it comes back through
the journal; called again before that, or after a crash, it returns the same.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.dispatch.caps.keeping import in_doubt, past_caps
from kapelle.dispatch.findings import IN_FORCE, WAITING, among, findings, has_strayed
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.claims import active_rows, by_rank, not_yet, resting
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, limits, steps, trust
from kapelle.fleet.curve.ramps import SOON_S
from kapelle.fleet.desired import in_force
from kapelle.fleet.reconciliation.conditions import VOID
from kapelle.model.blocks import Commands
from kapelle.model.entries import Body
from kapelle.model.enums import Exclusion, Phase, Trait
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints, Longs

_NS_PER_MS = 1_000_000
_GOLDEN = 0.7548776662466927
"""Another irrational than the one that orders switched devices."""
_REFRESH_S = 120.0
"""A device without a revert timer is asked again as one with such a timer would be. [s]"""
_PAUSE_S_MAX = 30.0
"""Longest pause between two tries, so that a release follows soon after a hold. [s]"""
_LIFE_S_MIN = 2.0
"""No command lives shorter: it has to get there. [s]"""
_TRIES_MAX = 32
"""Pauses grow no further."""
_BOUND = np.uint8(Trait.DWELLS | Trait.MUST_RUN | Trait.SLOW)


_OPEN = among(Phase.PLANNED, Phase.SENT, Phase.RECEIVED, Phase.UNKNOWN)
"""The device may still answer, and is not asked for anything else meanwhile."""
_HELD_BACK = among(Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED, Phase.LOST)


class _Wanted(NamedTuple):
    """What the signals in force ask of each device."""

    order_no: Ints
    """0: nothing."""
    setpoint_w: Floats
    """NaN: its own schedule."""
    ends_at_ns: Longs


def decide(
    fleet: Fleet, settings: DispatchSettings, epoch: int, later_s: Floats | None = None
) -> list[Body]:
    """Return the commands and phases that are due at `fleet.now_ns`, if any.

    Args:
        fleet: The partition.
        settings: How long devices have, and how far they may be off.
        epoch: Of the owner.
        later_s: How much later each device is told than one with a connection, because it looks
            for commands now and then: so much longer it has for an answer, shape (size,). [s]
            None: all are told at once.
    """
    size = fleet.size
    if not size:
        return []
    later_ns = np.zeros(size, np.int64)
    if later_s is not None:
        later_ns += (later_s * NS_PER_S).astype(np.int64)
    phases = findings(fleet, settings, epoch, later_ns)
    wanted = _wanted(fleet)
    reached = trust.reachable(fleet, np.arange(size, dtype=np.int32))
    rests = resting(fleet)
    if rests is not None:
        reached &= ~rests
    is_due = _is_due(fleet, settings, later_ns)
    new = _new_desires(fleet, settings, wanted, reached, is_due, epoch)
    released = reached & (fleet.order_no[:size] != 0) & _unwanted(fleet, wanted)
    new |= released
    again = _retries(fleet, settings, wanted, reached & is_due) & ~new
    bodies: list[Body] = []
    if phases is not None:
        bodies.append(phases)
    rows = np.flatnonzero(new | again).astype(np.int32)
    if len(rows):
        ttl_ns = int(settings.command_ttl_s * NS_PER_S) + later_ns[rows]
        bodies.append(_commands(fleet, wanted, rows, new[rows], released[rows], epoch, ttl_ns))
    return bodies


def _wanted(fleet: Fleet) -> _Wanted:
    """Evaluate the signals. A device in several resources follows the earliest (`fleet.claims`)."""
    size = fleet.size
    claimed = np.zeros(size, np.bool_)
    order_no = np.zeros(size, np.int32)
    setpoint_w = np.full(size, np.nan)
    ends_at_ns = np.zeros(size, np.int64)
    for signal in by_rank(in_force(fleet)):
        rows = active_rows(fleet, signal.resource)
        rows = rows[~claimed[rows]]
        claimed[rows] = True
        waiting = not_yet(fleet, signal)
        if waiting is not None:
            rows = rows[~waiting[rows]]
        rationing = division.rationing_of(fleet, signal.resource)
        horizon = division.horizon_s(fleet, signal.resource, rationing)
        levels = signal.level, signal.block_level
        setpoint_w[rows] = division.setpoints(
            fleet, rows, *levels, horizon, rationing, signal.prices
        )
        if not fleet.envelopes.is_idle(fleet.now_ns):
            doubted = in_doubt(fleet, rows)
            setpoint_w[doubted] = division.setpoints(fleet, doubted, 0.0, 0.0, horizon, rationing)
        order_no[rows] = signal.order_no
        ends_at_ns[rows] = signal.ends_at_ns
    setpoint_w[fleet.waits[:size]] = np.nan
    return _Wanted(order_no, setpoint_w, ends_at_ns)


def _unwanted(fleet: Fleet, wanted: _Wanted) -> Flags:
    """Tell who follows an order that asks nothing of him any more, or must not be left to act."""
    size = fleet.size
    over = (wanted.order_no == 0) | np.isnan(wanted.setpoint_w)
    # A meter that shows something else may be frozen: released, both stories end alike.
    over |= (fleet.phase[:size] == Phase.DIVERGED) & ~_may_be_probed(fleet)
    over |= (fleet.condition[:size] & VOID) != 0
    unwanted: Flags = over
    return unwanted


def _may_be_probed(fleet: Fleet) -> Flags:
    may: Flags = fleet.excluded_until_ns[: fleet.size] <= fleet.now_ns
    return may


def _new_desires(
    fleet: Fleet,
    settings: DispatchSettings,
    wanted: _Wanted,
    reached: Flags,
    is_due: Flags,
    epoch: int,
) -> Flags:
    """Choose who is told something new: in general nobody whose last command is still open."""
    size, now_ns = fleet.size, fleet.now_ns
    phase, desired_w = fleet.phase[:size], fleet.desired_w[:size]
    trusted = fleet.excluded[:size] == Exclusion.NONE
    # What a deaf device does not hear does no harm, and an answer cures it.
    void = (fleet.condition[:size] & VOID) != 0
    asked = reached & ~np.isnan(wanted.setpoint_w) & (trusted | _may_be_probed(fleet)) & ~void
    # An unknown one may still obey its old command until that runs out.
    free = asked & ~_OPEN[phase]
    free |= asked & ~trusted & (phase == Phase.UNKNOWN) & (fleet.not_after_ns[:size] < now_ns)
    # What the last hop held back is not asked again at once: it would hold that back too.
    free &= (phase != Phase.CANCELLED) | is_due
    # What is on its way for nobody any more is overtaken: the order that follows must not wait.
    free |= asked & (fleet.order_no[:size] != wanted.order_no)

    same = (fleet.order_no[:size] == wanted.order_no) & ~np.isnan(desired_w)
    follows = IN_FORCE[phase] & same
    fresh = free & ~follows
    part = settings.refresh_at * (1.0 - settings.refresh_spread * _spread(fleet, fleet.revision))
    due = now_ns >= _refresh_ns(fleet, part)
    # What it has been told since by an owner we never heard of, as after a restore from a backup,
    # is told again before it is called astray.
    due |= has_strayed(fleet, settings) & (fleet.epoch[:size] < epoch)
    refresh = free & follows & due
    moved = _moved(fleet, settings, wanted, free & follows)
    kept = refresh & ~moved
    wanted.setpoint_w[kept] = desired_w[kept]
    chosen: Flags = fresh | refresh | moved
    # What is asked meanwhile has moved so far that the answer is not worth waiting for.
    waited = now_ns - fleet.tried_at_ns[:size] >= int(settings.overtake_s * NS_PER_S)
    far = np.abs(wanted.setpoint_w - desired_w) > settings.overtake * _nameplate_w(fleet)
    chosen |= asked & trusted & same & _OPEN[phase] & waited & far
    return chosen


def _moved(fleet: Fleet, settings: DispatchSettings, wanted: _Wanted, candidates: Flags) -> Flags:
    """Choose whose setpoint changes enough, and some others so that the sum comes out right.

    A slight move of λ asks a little of everyone. Instead of telling everyone, those left within
    their dead-band are summed up, and where that exceeds `plan_error` a few are moved to the far
    half of theirs: `wanted.setpoint_w` is changed for them. So shares are fair to within the
    dead-band, the sum is right, and a correction costs few commands. Each order has its own sum.
    """
    size = fleet.size
    chosen = np.zeros(size, np.bool_)
    every = np.flatnonzero(candidates)
    for signal in in_force(fleet):
        rows = every[wanted.order_no[every] == signal.order_no]
        if len(rows):
            _choose(fleet, settings, wanted, rows, 1 if signal.level >= 0 else -1, chosen)
    return chosen


def _choose(
    fleet: Fleet,
    settings: DispatchSettings,
    wanted: _Wanted,
    rows: NDArray[np.intp],
    upwards: int,
    chosen: Flags,
) -> None:
    """Choose from the rows of one order, as `_moved` says."""
    want_w, desired_w = wanted.setpoint_w[rows], fleet.desired_w[rows]
    change_w = want_w - desired_w
    band_w = settings.dead_band * (_nameplate_w(fleet) * (0.5 + _spread(fleet)))[rows]
    large = np.abs(change_w) > band_w
    capped = np.zeros(len(rows), np.bool_)
    if not fleet.envelopes.is_idle(fleet.now_ns):
        told_w = np.where(large, want_w, desired_w)
        past, capped = past_caps(fleet, rows.astype(np.int32), upwards, want_w, told_w)
        large |= past
        # Slow devices are told no further than they get soon there: within the dead-band, for some.
        slow = (fleet.traits[rows] & np.uint8(Trait.SLOW)) != 0
        large |= slow & (np.abs(change_w) > 0.5 * SOON_S * fleet.ramp_w_per_s[rows])
    chosen[rows[large]] = True
    share_w = float(np.abs(want_w - fleet.own_w[rows]).sum())
    small = ~large
    left_w = float(change_w[small].sum())
    if abs(left_w) > settings.plan_error * share_w:
        sign = 1.0 if left_w > 0 else -1.0
        small &= ~steps.is_switched(fleet, rows.astype(np.int32))
        # Who must not go further than told makes up for nobody.
        small &= (fleet.traits[rows] & _BOUND) == 0
        rows, band_w = rows[small], band_w[small]
        lower_w, upper_w = limits.bounds(fleet, rows.astype(np.int32), _horizon_s(fleet))
        far_w = np.clip(want_w[small] + 0.5 * sign * band_w, lower_w, upper_w)
        # In a group with a cap nobody goes further than asked.
        far_w = np.where(capped[small], want_w[small], far_w)
        gain_w = (far_w - desired_w[small]) * sign
        order = np.argsort(-gain_w, kind="stable")
        order = order[: int((gain_w > 0.25 * band_w).sum())]
        reached_w = np.cumsum(gain_w[order])
        count = int(np.searchsorted(reached_w, abs(left_w))) + 1
        order = order[:count]
        wanted.setpoint_w[rows[order]] = far_w[order]
        if count <= len(reached_w):
            # The last one goes only as far as is still missing.
            over_w = reached_w[count - 1] - abs(left_w)
            wanted.setpoint_w[rows[order[-1]]] -= sign * over_w
        chosen[rows[order]] = True


def _retries(fleet: Fleet, settings: DispatchSettings, wanted: _Wanted, due: Flags) -> Flags:
    """Choose whose command is sent once more: open, due, tries left, and still wanted.

    A release is tried, whatever became of it before, until it is answered or the device has
    certainly gone back by itself: nobody is left on a setpoint that no order stands behind.
    """
    size, phase = fleet.size, fleet.phase[: fleet.size]
    released = fleet.order_no[:size] == 0
    open_ = _OPEN[phase] | (released & _HELD_BACK[phase])
    wanted_still = released | (fleet.order_no[:size] == wanted.order_no)
    left = fleet.attempt[:size] < settings.attempts_max
    left |= released & (fleet.reverts_at_ns[:size] > fleet.now_ns)
    # Whoever is not counted on any more is replaced as soon as he cannot act any more: a further
    # try would put that off. He is probed when his back-off is over.
    left &= released | (fleet.excluded[:size] == Exclusion.NONE)
    again: Flags = open_ & left & wanted_still & due
    return again


def _is_due(fleet: Fleet, settings: DispatchSettings, later_ns: Longs) -> Flags:
    """Tell for whom the pause after the last try is over."""
    tries = np.clip(fleet.attempt[: fleet.size], 1, _TRIES_MAX)
    pause_s = settings.retry_s * settings.retry_growth ** (tries - 1.0)
    pause_ns = np.minimum(pause_s, _PAUSE_S_MAX) * NS_PER_S + later_ns
    due: Flags = fleet.now_ns - fleet.tried_at_ns[: fleet.size] >= pause_ns
    return due


def _commands(
    fleet: Fleet,
    wanted: _Wanted,
    rows: Ints,
    new: Flags,
    released: Flags,
    epoch: int,
    ttl_ns: Longs,
) -> Commands:
    now_ns, count = fleet.now_ns, len(rows)
    order_no = np.where(new, wanted.order_no[rows], fleet.order_no[rows])
    order_no[released] = 0
    setpoint_w = np.where(new, wanted.setpoint_w[rows], fleet.desired_w[rows])
    setpoint_w[released] = np.nan
    not_after_ns = now_ns + ttl_ns
    binding = order_no != 0
    # A further try, or what overtakes it, runs out with the first: then its device is given up.
    waits = binding & (fleet.order_no[rows] != 0) & WAITING[fleet.phase[rows]]
    first_ns = np.maximum(fleet.planned_at_ns[rows] + ttl_ns, now_ns + int(_LIFE_S_MIN * NS_PER_S))
    not_after_ns[waits] = np.minimum(not_after_ns, first_ns)[waits]
    not_after_ns[binding] = np.minimum(not_after_ns, wanted.ends_at_ns[rows])[binding]
    return Commands(
        device_no=fleet.device_nos(rows),
        order_no=order_no.astype(np.int32),
        # A device remembers its last revision; a journal that was lost or restored does not.
        revision=np.where(
            new, np.maximum(fleet.revision[rows] + 1, now_ns // _NS_PER_MS), fleet.revision[rows]
        ),
        epoch=np.full(count, epoch, np.int64),
        attempt=np.where(new, 1, fleet.attempt[rows] + 1).astype(np.int32),
        setpoint_w=setpoint_w,
        issued_at_ns=np.full(count, now_ns, np.int64),
        not_after_ns=not_after_ns,
        ttl_s=(not_after_ns - now_ns) / NS_PER_S,
        revert_s=fleet.revert_s[rows].astype(np.float64),
    )


def _refresh_ns(fleet: Fleet, part: Floats) -> Floats:
    """Return when this part of each device's revert time is over."""
    size = fleet.size
    revert_ns = fleet.revert_s[:size].astype(np.float64) * NS_PER_S
    timed = fleet.reverts_at_ns[:size] - revert_ns * (1.0 - part)
    untimed = fleet.applied_at_ns[:size] + _REFRESH_S * NS_PER_S * part
    return np.where(np.isnan(revert_ns), untimed, timed)


def _horizon_s(fleet: Fleet) -> float:
    """Return the longest time any setpoint now given must be possible. [s]"""
    return max(
        (
            division.horizon_s(fleet, resource, division.rationing_of(fleet, resource))
            for resource in fleet.signals
        ),
        default=limits.HOLD_S_MIN,
    )


def _nameplate_w(fleet: Fleet) -> Floats:
    size = fleet.size
    nameplate_w: Floats = np.maximum(fleet.nameplate_up_w[:size], fleet.nameplate_down_w[:size])
    return nameplate_w


def _spread(fleet: Fleet, revision: Longs | None = None) -> Floats:
    """Return a fixed number in [0, 1) per device (and command): not all act in the same cycle."""
    number = np.arange(fleet.size, dtype=np.int64) * fleet.partitions + fleet.partition
    if revision is not None:
        number += revision[: fleet.size] * 31
    spread: Floats = np.mod(number * _GOLDEN, 1.0)
    return spread
