"""The summed answer of devices to λ: a line of those that follow, stairs of those on or off."""

from typing import Protocol

import numpy as np

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.curve.corners import LATER, TIER, Collected, Corners, Counted, Sorted
from kapelle.fleet.curve.division import (
    CHUNK,
    Rows,
    Shares,
    reach_of,
    shares,
    site_heads,
    stairs_of,
)
from kapelle.fleet.curve.limits import HOLD_S
from kapelle.fleet.curve.steps import turn
from kapelle.fleet.curve.thinning import knots_each, staircase, thinned
from kapelle.fleet.curve.trust import controllable
from kapelle.fleet.traits import any_of, has
from kapelle.model.enums import Trait
from kapelle.model.ids import Flags, Floats
from kapelle.model.signals import Rationing
from kapelle.model.summaries import Curve

_SORTED_MAX = 2048
"""Up to here breakpoints are sorted; beyond, they are counted into cells."""


class Beside(Protocol):
    """Sums up the same devices in another way (`fleet.curve.cells`)."""

    def add(self, rows: Rows, part: Shares, counted: Flags) -> None:
        """Take up the next rows; `counted`: who is counted on."""
        ...


def summed(
    fleet: Fleet,
    rows: Rows,
    near_level: float = 0.0,
    near_block_level: float | None = None,
    horizon: float = HOLD_S,
    rationing: Rationing | None = None,
    beside: Beside | None = None,
) -> tuple[Curve, Curve]:
    """Return the summed power of the controllable rows over λ: continuous, then blocks.

    Exact at the knots, which lie denser near the present levels, so that solving on them again and
    again converges to the exact sum. At most 256 knots each.
    """
    block_level = near_level if near_block_level is None else near_block_level
    corners = _corners_for(fleet, rows, near_level, block_level)
    own_w = block_own_w = 0.0
    heads = site_heads(fleet, horizon, rationing)
    for start in range(0, len(rows), CHUNK):
        piece = rows[start : start + CHUNK]
        counted = controllable(fleet, piece)
        part = shares(fleet, piece, horizon, rationing, heads)
        if beside is not None:
            beside.add(piece, part, counted)
        at = 1.0 / part.readiness
        switched = np.flatnonzero(part.switched)
        if len(switched):
            at[switched] *= turn(fleet, piece, switched)
        counted_w = np.where(counted, part.own_w, 0.0)
        up_w = np.where(counted, part.up_w, 0.0)
        down_w = np.where(counted, part.down_w, 0.0)
        _add_slow(fleet, piece, part, corners, counted, counted_w, up_w, down_w)
        _add_steps(fleet, piece, part, corners, counted, up_w, down_w)
        of_blocks_w = float(counted_w[switched].sum())
        own_w += float(counted_w.sum()) - of_blocks_w
        block_own_w += of_blocks_w
        tier = None if part.begins is None else fleet.tier[span(piece)]
        corners.add(at, up_w, down_w, part.readiness, part.switched, tier)
    lines = [corners.found(sign, False) for sign in (1, -1)]
    stairs = [corners.found(sign, True) for sign in (1, -1)]
    return _line(lines, own_w, near_level), _stairs(stairs, block_own_w, block_level)


def _corners_for(fleet: Fleet, rows: Rows, level: float, block_level: float) -> Collected:
    if len(rows) <= _SORTED_MAX:
        return Sorted()
    if not has(any_of(fleet.traits[span(rows)]), Trait.TIER, Trait.SLOW):
        return Counted(None)
    # Solved again and again, the curve must be fine only where the levels are.
    return Counted({int(abs(each) // TIER) for each in (level, block_level)})


def _add_slow(
    fleet: Fleet,
    rows: Rows,
    part: Shares,
    corners: Collected,
    counted: Flags,
    counted_w: Floats,
    up_w: Floats,
    down_w: Floats,
) -> None:
    """Count slow devices only as far as they get soon; the rest of their room comes last of all.

    They are taken out of `up_w` and `down_w`.
    """
    found = reach_of(fleet, rows, part)
    if found is None:
        return
    kept = counted[found.which]
    which, lowest_w, highest_w = found.which[kept], found.lowest_w[kept], found.highest_w[kept]
    own_w, readiness, tier = part.own_w[which], part.readiness[which], fleet.tier[rows[which]]
    last = np.full(len(which), LATER, np.uint8)
    # How far they get; how far they are already, or have yet to come back; what is left then.
    ways = (
        (1, part.up_w[which], highest_w - own_w, lowest_w - own_w),
        (-1, part.down_w[which], own_w - lowest_w, own_w - highest_w),
    )
    for sign, head_w, far_w, past_w in ways:
        weight = readiness * head_w
        for limit_w, side in ((far_w, 1.0), (past_w, -1.0)):
            some = (limit_w > 0.0) & (head_w > 0.0)
            at = limit_w[some] / weight[some]
            gain_w, slope = side * limit_w[some], side * weight[some]
            corners.add_few(sign, False, at, gain_w, slope, tier[some])
        rest_w = np.maximum(head_w - far_w, 0.0) * (head_w > 0.0)
        corners.add_few(sign, False, np.ones(len(which)), rest_w, rest_w, last)
    counted_w[which] = np.clip(own_w, lowest_w, highest_w)
    up_w[which] = down_w[which] = 0.0


def _add_steps(
    fleet: Fleet,
    rows: Rows,
    part: Shares,
    corners: Collected,
    counted: Flags,
    up_w: Floats,
    down_w: Floats,
) -> None:
    """Count every step of devices that have several; they are taken out of `up_w` and `down_w`."""
    for sign, head_w in ((1, up_w), (-1, down_w)):
        steps = stairs_of(fleet, rows, part, sign)
        if steps is None:
            continue
        some = counted[steps.which]
        which, rise_w = steps.which[some], steps.rise_w[some]
        corners.add_few(sign, True, steps.at[some], rise_w, rise_w, fleet.tier[rows[which]])
        head_w[which] = 0.0


def _line(sides: list[dict[int, Corners]], own_w: float, near_level: float) -> Curve:
    levels, powers_w = [np.zeros(1)], [np.full(1, own_w)]
    for side, sign in zip(sides, (1.0, -1.0), strict=True):
        reached_w = 0.0
        most = knots_each(len(side))
        for tier, (at, head_w, weight) in side.items():
            still_moving = np.maximum(weight.sum() - np.cumsum(weight), 0.0)
            gained_w = np.maximum.accumulate(np.cumsum(head_w) + still_moving * at)
            # Of several devices that reach their limit together the last one's sum is complete.
            last = np.append(np.diff(at) > 0, True)
            near = _within(tier, sign * near_level)
            at, gained_w = thinned(at[last], gained_w[last], near, most)
            _append(levels, powers_w, tier, sign, at, reached_w + gained_w, own_w, reached_w)
            reached_w += float(gained_w[-1])
    return _curve(levels, powers_w)


def _stairs(sides: list[dict[int, Corners]], own_w: float, near_level: float) -> Curve:
    levels, powers_w = [np.zeros(1)], [np.full(1, own_w)]
    for side, sign in zip(sides, (1.0, -1.0), strict=True):
        reached_w = 0.0
        most = knots_each(len(side))
        for tier, (at, head_w, _) in side.items():
            last = np.append(np.diff(at) > 0, True)
            near = _within(tier, sign * near_level)
            at, whole_w = staircase(at[last], np.cumsum(head_w)[last], near, most)
            _append(levels, powers_w, tier, sign, at, reached_w + whole_w, own_w, reached_w)
            reached_w += float(whole_w[-1])
    return _curve(levels, powers_w)


def _within(tier: int, level: float) -> float:
    """Return how far a level is into a tier; 0 where it is not in it."""
    inside = level - tier * TIER
    return inside if inside <= TIER else 0.0


def _append(
    levels: list[Floats],
    powers_w: list[Floats],
    tier: int,
    sign: float,
    at: Floats,
    gained_w: Floats,
    own_w: float,
    before_w: float,
) -> None:
    """Add the knots of a tier, its beginning among them: nothing moves between two tiers."""
    if tier:
        at, gained_w = np.append(0.0, at), np.append(before_w, gained_w)
    levels.append(sign * (tier * TIER + at))
    powers_w.append(own_w + sign * gained_w)


def _curve(levels: list[Floats], powers_w: list[Floats]) -> Curve:
    """Join both directions and zero, with at least the ends of the first tier."""
    level, power_w = np.concatenate(levels), np.concatenate(powers_w)
    order = np.argsort(level, kind="stable")
    level, power_w = level[order], power_w[order]
    # The end of a tier may be the beginning of the next.
    once = np.append(np.diff(level) > 0, True)
    knots, knots_w = level[once].tolist(), power_w[once].tolist()
    if knots[-1] < TIER:
        knots, knots_w = [*knots, TIER], [*knots_w, knots_w[-1]]
    if knots[0] > -TIER:
        knots, knots_w = [-TIER, *knots], [knots_w[0], *knots_w]
    return Curve(knots, knots_w)
