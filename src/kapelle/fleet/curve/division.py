"""How far each device can move, how readily, and the setpoint it has at a level."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.curve import dwell
from kapelle.fleet.curve.corners import LATER, TIER
from kapelle.fleet.curve.groups import asked_soon, furthest_w, paid, price_tables
from kapelle.fleet.curve.limits import HOLD_S, HOLD_S_MIN, MOMENT_S, bounds
from kapelle.fleet.curve.ramps import Reach, reach
from kapelle.fleet.curve.sites import Heads, capped_rows, cut_heads
from kapelle.fleet.curve.steps import (
    Climb,
    Ladder,
    Places,
    climb,
    is_switched,
    steps_of,
    turn,
    with_many,
)
from kapelle.fleet.traits import any_of, has, opted_out
from kapelle.model.enums import Trait
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints
from kapelle.model.signals import Rationing

CHUNK = 1 << 15
"""Rows at once: their temporaries stay in the processor's cache."""
_NO_FAILSAFE_PRIORITY = 0.5
"""A device without a revert timer counts less: cut off from the plant, it would go on for ever."""
_ROOM_MIN = 0.02
"""Headroom below this part of nameplate does not count."""

Rows = Ints


class Shares(NamedTuple):
    """How far each device can move from its own schedule, and how readily."""

    own_w: Floats
    """Own schedule, within the bounds. [W]"""
    up_w: Floats
    """Headroom towards export, >= 0. [W]"""
    down_w: Floats
    readiness: Floats
    """Part of its headroom a device gives per unit of λ. It is at its limit at 1 / readiness."""
    switched: Flags
    traits: int = 0
    """Bits of `Trait` that any of them has; the fields below are None where none has theirs."""
    begins: Floats | None = None
    """|λ| at which each device's tier begins."""
    kept_w: Floats | None = None
    """Setpoint that must stay as it is for a while; NaN where none must. [W]"""


def horizon_s(fleet: Fleet, resource: str, rationing: Rationing | None = None) -> float:
    """Return how long setpoints of a resource must be possible: the rest of its order, or of the
    present interval where a plan rations what comes after it. [s]"""
    signal = fleet.signals.get(resource)
    if signal is None or signal.order_no == 0 or signal.ends_at_ns <= fleet.now_ns:
        return HOLD_S
    if rationing is not None:
        return max((rationing.until_ns - fleet.now_ns) / NS_PER_S, MOMENT_S)
    return max((signal.ends_at_ns - fleet.now_ns) / NS_PER_S, HOLD_S_MIN)


def rationing_of(fleet: Fleet, resource: str, *, announced: bool = False) -> Rationing | None:
    """Return what a plan leaves the stores of a resource now, or next where that is announced."""
    signal = fleet.signals.get(resource)
    if signal is None or signal.order_no == 0 or signal.ends_at_ns <= fleet.now_ns:
        return None
    return (announced and signal.announced) or signal.rations


def readiness(fleet: Fleet, rows: Rows, switched: Flags) -> Floats:
    """Return p̂ · priority: what part of its headroom each device gives per unit of λ.

    p̂ is the learned probability that a command is followed. Devices that are on or off (`switched`)
    are ordered by their number alone: a probability that moves would switch them back and forth.
    """
    at = span(rows)
    responses = fleet.responses[at]
    ready = (responses / (responses + fleet.refusals[at])).astype(np.float64)
    revert_s = fleet.revert_s[at]
    ready *= np.where(revert_s == revert_s, 1.0, _NO_FAILSAFE_PRIORITY)
    np.putmask(ready, switched, 1.0)
    if has(any_of(fleet.traits[at]), Trait.PRIORITY):
        priority = fleet.priority[at]
        ready *= np.where(priority > 0.0, priority, np.float32(1.0))
    return np.maximum(ready, 1.0 / TIER, out=ready)


def shares(
    fleet: Fleet,
    rows: Rows,
    horizon: float = HOLD_S,
    rationing: Rationing | None = None,
    heads: Heads | None = None,
) -> Shares:
    """Return how far and how readily each device moves.

    Within what envelopes leave its site: `heads`, where the caller asks for many pieces of a fleet.
    """
    part = free_shares(fleet, rows, horizon, rationing)
    heads = heads or site_heads(fleet, horizon, rationing)
    if heads is None:
        return part
    at = span(rows)
    up_w, down_w = np.minimum(part.up_w, heads.up_w[at]), np.minimum(part.down_w, heads.down_w[at])
    return part._replace(up_w=up_w, down_w=down_w)


def site_heads(
    fleet: Fleet, horizon: float = HOLD_S, rationing: Rationing | None = None
) -> Heads | None:
    """Return how far each row may move by the envelope of its site; None where no site has one."""
    caps = fleet.envelopes.caps("site", fleet.names["site"], fleet.now_ns)
    if caps is None:
        return None
    rows = capped_rows(fleet, caps)
    part = free_shares(fleet, rows, horizon, rationing)
    asked = asked_soon(fleet, rows)
    heads = []
    for sign, head_w, cap_w in ((1, part.up_w, caps.export_w), (-1, part.down_w, caps.import_w)):
        # Who can be asked is counted at rest, everybody else as far as he may be.
        rest_w = at_rest_w(fleet, rows, part, sign)
        rest_w = np.where(asked, rest_w, furthest_w(fleet, rows, sign))
        room_w = cap_w - np.bincount(fleet.site[rows], sign * rest_w, len(cap_w))
        heads.append(np.full(fleet.size, np.inf))
        heads[-1][rows] = cut_heads(
            fleet.site[rows],
            fleet.tier[rows],
            part.switched,
            np.where(asked, head_w, 0.0),
            np.maximum(room_w, 0.0),
        )
    return Heads(*heads)


def at_rest_w(fleet: Fleet, rows: Rows, part: Shares, sign: int) -> Floats:
    """Return the furthest each device gives in a direction at level 0. [W]

    It is on its own schedule there, or on what bounds and least times make of that, or where a slow
    one cannot get away from soon.
    """
    worse = np.maximum if sign > 0 else np.minimum
    own_w = worse(fleet.own_w[span(rows)], part.own_w)
    found = reach_of(fleet, rows, part)
    if found is not None:
        nearest_w = found.lowest_w if sign > 0 else found.highest_w
        own_w[found.which] = worse(own_w[found.which], nearest_w)
    return own_w


def free_shares(
    fleet: Fleet, rows: Rows, horizon: float = HOLD_S, rationing: Rationing | None = None
) -> Shares:
    """Return the same without any envelope."""
    at = span(rows)
    lower_w, upper_w = bounds(fleet, rows, horizon, rationing)
    own_w = np.minimum(np.maximum(fleet.own_w[at], lower_w), upper_w)
    up_w = upper_w - own_w
    down_w = own_w - lower_w
    # Less is noise: a plant that gives all the sun offers would be ordered up and released
    # again with every cloud.
    least_w = np.maximum(fleet.nameplate_up_w[at], fleet.nameplate_down_w[at])
    least_w *= _ROOM_MIN
    up_w *= up_w > least_w
    down_w *= down_w > least_w
    switched = is_switched(fleet, rows)
    traits = any_of(fleet.traits[at])
    part = Shares(own_w, up_w, down_w, readiness(fleet, rows, switched), switched, traits)
    return _with_particulars(fleet, rows, part, least_w) if traits else part


def _with_particulars(fleet: Fleet, rows: Rows, part: Shares, least_w: Floats) -> Shares:
    """Take away what must-run, steps and least times leave no room for; say where tiers begin."""
    at = span(rows)
    own_w, up_w, down_w = part.own_w, part.up_w, part.down_w
    lower_w, upper_w = own_w - down_w, own_w + up_w
    if has(part.traits, Trait.MUST_RUN):
        only_consumes = fleet.nameplate_up_w[at] <= 0.0
        up_w[fleet.must_run[at] & only_consumes] = 0.0
        down_w[fleet.must_run[at] & ~only_consumes] = 0.0
    if has(part.traits, Trait.STEPS):
        many = with_many(fleet, rows)
        ladder = Ladder(fleet, rows[many])
        for sign, head_w in ((1, up_w), (-1, down_w)):
            head_w[many] = _climb(ladder, part, many, least_w, sign).head_w
    kept_w = None
    if has(part.traits, Trait.DWELLS):
        stays = dwell.stays(fleet, rows)
        up_w[stays] = down_w[stays] = 0.0
        kept_w = np.where(stays, np.clip(fleet.desired_w[at], lower_w, upper_w), np.nan)
        np.copyto(own_w, kept_w, where=kept_w == kept_w)
    begins = None
    if has(part.traits, Trait.TIER):
        begins = fleet.tier[at].astype(np.float64) * TIER
    return part._replace(begins=begins, kept_w=kept_w)


def _climb(ladder: Ladder, part: Shares, many: Places, least_w: Floats, sign: int) -> Climb:
    head_w = (part.up_w if sign > 0 else part.down_w)[many]
    own_w = part.own_w[many]
    return climb(ladder, own_w, own_w + sign * head_w, least_w[many], sign)


def reach_of(fleet: Fleet, rows: Rows, part: Shares) -> Reach | None:
    """Return how far slow devices get soon; None where there are none."""
    if not has(part.traits, Trait.SLOW):
        return None
    slow = (fleet.traits[span(rows)] & np.uint8(Trait.SLOW)) != 0
    slow &= ~part.switched & (part.up_w + part.down_w > 0.0)
    lower_w, upper_w = part.own_w - part.down_w, part.own_w + part.up_w
    return reach(fleet, rows, np.flatnonzero(slow), lower_w, upper_w)


class Stairs(NamedTuple):
    """The steps of devices that have several, in one direction."""

    which: Places
    """Whose they are: places among the rows asked about, repeated for every step."""
    at: Floats
    """|λ| within the tier at which each is taken."""
    rise_w: Floats


def stairs_of(fleet: Fleet, rows: Rows, part: Shares, sign: int) -> Stairs | None:
    """Return every step of the devices with several; None where there are none."""
    if not has(part.traits, Trait.STEPS):
        return None
    many = with_many(fleet, rows)
    if part.kept_w is not None:
        # Whoever has to stay where he is may stand off his steps.
        many = many[np.isnan(part.kept_w[many])]
    ladder, own_w = Ladder(fleet, rows[many]), part.own_w[many]
    # The headrooms end on a step already: nothing is too near any more.
    way = _climb(ladder, part, many, np.zeros(len(rows)), sign)
    found = steps_of(ladder, own_w, way, turn(fleet, rows, many), sign)
    which = many[found.owner]
    return Stairs(which, found.turn / part.readiness[which], found.rise_w)


def setpoints(
    fleet: Fleet,
    rows: Rows,
    level: float,
    block_level: float,
    horizon: float = HOLD_S,
    rationing: Rationing | None = None,
    prices: Mapping[str, float] = MappingProxyType({}),
) -> Floats:
    """Return the setpoint of each row at this λ, for rows that are controllable. [W]

    NaN where a device is left on its own schedule: switched devices before their turn, and
    those that have no room to move. `prices` of its groups take a device that much nearer to 0.
    """
    heads = site_heads(fleet, horizon, rationing)
    tables = price_tables(fleet, prices)
    setpoint_w = np.empty(len(rows))
    for start in range(0, len(rows), CHUNK):
        piece = rows[start : start + CHUNK]
        part = shares(fleet, piece, horizon, rationing, heads)
        pays = paid(fleet, piece, tables) if tables else 0.0
        moved_w = _moved_w(fleet, piece, part, level, block_level, pays)
        setpoint_w[start : start + CHUNK] = moved_w
    return setpoint_w


def _moved_w(
    fleet: Fleet,
    rows: Rows,
    part: Shares,
    level: float,
    block_level: float,
    pays: Floats | float,
) -> Floats:
    upwards, reached = level >= 0, abs(level) - pays
    head_w = part.up_w if upwards else part.down_w
    share_w = np.minimum(part.readiness * depth(part, reached), 1.0)
    share_w *= head_w
    moved_w = part.own_w + share_w if upwards else part.own_w - share_w
    moved_w[head_w <= 0.0] = np.nan
    if part.begins is not None:
        _leave_later_tiers(fleet, rows, part, reached, moved_w)
    _slow_down(fleet, rows, part, upwards, reached, moved_w)
    _switch(fleet, rows, part, block_level >= 0, abs(block_level) - pays, moved_w)
    if part.kept_w is not None:
        np.copyto(moved_w, part.kept_w, where=part.kept_w == part.kept_w)
    if has(part.traits, Trait.OPTED_OUT):
        moved_w[opted_out(fleet, rows)] = np.nan
    return moved_w


def depth(part: Shares, reached: Floats | float) -> Floats | float:
    """Return how far into each device's tier its level |λ| is: 0 before it, at most `TIER`."""
    if part.begins is None:
        return np.clip(reached, 0.0, TIER)
    return np.clip(reached - part.begins, 0.0, TIER)


def _leave_later_tiers(
    fleet: Fleet, rows: Rows, part: Shares, reached: Floats | float, moved_w: Floats
) -> None:
    """Leave devices alone before their tier's turn.

    Who has been asked already stays so at his own schedule while the tier before his is in use: a
    target just at the border would otherwise ask and release all of them in turns.
    """
    assert part.begins is not None
    desired_w = fleet.desired_w[span(rows)]
    reached = np.maximum(reached, 0.0)
    near = (desired_w == desired_w) & (part.begins <= reached + TIER)
    moved_w[(part.begins > reached) & ~near] = np.nan


def _slow_down(
    fleet: Fleet,
    rows: Rows,
    part: Shares,
    upwards: bool,
    reached: Floats | float,
    moved_w: Floats,
) -> None:
    """Ask of slow devices what they can reach, and of the rest where nothing else is left."""
    found = reach_of(fleet, rows, part)
    if found is None:
        return
    which = found.which
    soon_w = np.clip(moved_w[which], found.lowest_w, found.highest_w)
    # Where groups have caps, nobody is told more than is counted: it could be held for long.
    stride_w = found.stride_w if fleet.envelopes.is_idle(fleet.now_ns) else 0.0
    lowest_w, highest_w = found.lowest_w - stride_w, found.highest_w + stride_w
    moved_w[which] = np.clip(moved_w[which], lowest_w, highest_w)
    last = np.broadcast_to(np.clip(reached - LATER * TIER, 0.0, 1.0), len(rows))[which]
    if last.any():
        sign = 1.0 if upwards else -1.0
        head_w = (part.up_w if upwards else part.down_w)[which]
        end_w = part.own_w[which] + sign * head_w
        asked_w = soon_w + last * (end_w - soon_w)
        moved_w[which] = sign * np.maximum(sign * moved_w[which], sign * asked_w)


def _switch(
    fleet: Fleet,
    rows: Rows,
    part: Shares,
    upwards: bool,
    reached: Floats | float,
    moved_w: Floats,
) -> None:
    """Set switched devices whose turn it is to where they change over to, others free."""
    switched = np.flatnonzero(part.switched)
    if not len(switched):
        return
    sign = 1 if upwards else -1
    reached = np.broadcast_to(reached, len(rows))
    # Added up as the corners of the curve are, so that a level on a corner is past it.
    begins = np.zeros(len(rows)) if part.begins is None else part.begins
    head_w, own_w = (part.up_w if sign > 0 else part.down_w)[switched], part.own_w[switched]
    at = turn(fleet, rows, switched) / part.readiness[switched]
    flips = (head_w > 0.0) & (begins[switched] + at <= reached[switched])
    moved_w[switched] = np.where(flips, own_w + sign * head_w, np.nan)
    steps = stairs_of(fleet, rows, part, sign)
    if steps is not None:
        many = np.zeros(len(rows), np.bool_)
        many[with_many(fleet, rows)] = True
        taken = begins[steps.which] + steps.at <= reached[steps.which]
        taken_w = np.where(taken, steps.rise_w, 0.0)
        risen_w = np.bincount(steps.which, taken_w, len(rows))
        moved_w[many] = np.where(risen_w > 0.0, part.own_w + sign * risen_w, np.nan)[many]
