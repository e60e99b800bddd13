"""From the summed curves of all partitions and a target to the level that meets it.

The division itself is in the curves (`fleet.curve`): at any level every share is in proportion to
its weight until its limit binds, so the level that meets the sum is weighted water-filling.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kapelle.model.ids import Floats
from kapelle.model.summaries import Curve


@dataclass(frozen=True, slots=True)
class Solution:
    """The levels that bring all partitions to a target together."""

    level: float
    block_level: float
    reached_w: float
    lowest_w: float
    highest_w: float
    prices: dict[str, float] = field(default_factory=dict)
    """By group, how far below the levels its devices are driven (`dispatch.caps.cells`)."""


def solve(curves: Sequence[Curve], target_w: float) -> float:
    """Return the level nearest to zero at which the summed curves reach a target.

    Beyond their ends, the end.
    """
    level, power_w = joined(curves)
    return _inverse(level, power_w, target_w)


def power_at(curve: Curve, level: float) -> float:
    """Return the power of a piecewise linear curve at a level. [W]"""
    return float(np.interp(level, curve.level, curve.power_w))


def power_at_stairs(stairs: Curve, level: float) -> float:
    """Return the power of a staircase at a level: that of the last corner passed. [W]"""
    return stairs.power_w[_corner(np.asarray(stairs.level), level)]


def joined(curves: Sequence[Curve]) -> tuple[Floats, Floats]:
    """Return the sum of piecewise linear curves: levels, powers. [W]"""
    if not curves:
        return np.array([-1.0, 1.0]), np.zeros(2)
    level = np.unique(np.concatenate([np.asarray(each.level) for each in curves]))
    power_w = np.zeros(len(level))
    for each in curves:
        power_w += np.interp(level, each.level, each.power_w)
    return level, power_w


def joined_stairs(curves: Sequence[Curve]) -> tuple[Floats, Floats]:
    """Return the sum of staircases at every corner: levels, powers. [W]

    Away from zero each keeps the power of the last corner passed.
    """
    level = np.unique(np.concatenate([np.zeros(1), *(np.asarray(c.level) for c in curves)]))
    power_w = np.zeros(len(level))
    for each in curves:
        corners, powers_w = np.asarray(each.level), np.asarray(each.power_w)
        above = np.searchsorted(corners, level, side="right") - 1
        below = np.searchsorted(corners, level, side="left")
        last = len(corners) - 1
        power_w += powers_w[np.clip(np.where(level >= 0, above, below), 0, last)]
    return level, power_w


def solve_with_blocks(
    continuous: Sequence[Curve],
    blocks: Sequence[Curve],
    target_w: float,
    block_level: float = 0.0,
    still: float = 0.02,
) -> Solution:
    """Return levels for devices that follow any setpoint and for those that are on or off.

    Blocks are stacked to the corner nearest to the share that would fall to them, and the
    continuous devices take the remainder exactly. Blocks stay as they are while that is possible
    and not further off than two blocks, or `still` of all blocks.

    Args:
        continuous: One curve per partition.
        blocks: One staircase per partition.
        target_w: Sum wanted.
        block_level: Where the blocks are now.
        still: Part of all blocks' power that is not worth switching for.
    """
    level, line_w = joined(continuous)
    corner, stair_w = joined_stairs(blocks)
    lowest_w, highest_w = float(line_w[0] + stair_w[0]), float(line_w[-1] + stair_w[-1])
    share_w = _share_of_blocks(level, line_w, corner, stair_w, target_w)

    rest_w = target_w - stair_w
    beyond_w = np.maximum(line_w[0] - rest_w, 0.0) + np.maximum(rest_w - line_w[-1], 0.0)
    off_w = np.abs(stair_w - share_w)
    # First what the continuous devices can make good, then near the share, then near zero.
    best = int(np.lexsort((np.abs(corner), off_w, np.round(beyond_w, 3)))[0])
    now = _corner(corner, block_level)
    step_w = float(np.diff(stair_w).max(initial=0.0))
    span_w = float(stair_w[-1] - stair_w[0])
    near_w = min(max(2.0 * step_w, still * span_w), 0.2 * span_w)
    if beyond_w[now] <= beyond_w[best] + 1e-3 and off_w[now] <= near_w:
        best, chosen = now, block_level
    else:
        chosen = float(corner[best])
    found = _inverse(level, line_w, target_w - float(stair_w[best]))
    reached_w = float(np.interp(found, level, line_w) + stair_w[best])
    return Solution(found, chosen, reached_w, lowest_w, highest_w)


def _share_of_blocks(
    level: Floats, line_w: Floats, corner: Floats, stair_w: Floats, target_w: float
) -> float:
    """Return the power of all blocks if they too could follow any setpoint. [W]"""
    both = np.unique(np.concatenate([level, corner]))
    all_w = np.interp(both, level, line_w) + np.interp(both, corner, stair_w)
    return float(np.interp(_inverse(both, all_w, target_w), corner, stair_w))


def _corner(corner: Floats, level: float) -> int:
    """Return the last corner passed on the way from zero to a level."""
    if level >= 0:
        return max(int(np.searchsorted(corner, level, side="right")) - 1, 0)
    return min(int(np.searchsorted(corner, level, side="left")), len(corner) - 1)


def _inverse(level: Floats, power_w: Floats, target_w: float) -> float:
    if target_w >= power_w[-1]:
        # Where the end is flat its point nearest to zero reaches as much.
        edge = level[int(np.searchsorted(power_w, power_w[-1], side="left"))]
        return float(max(edge, min(level[-1], 0.0)))
    if target_w <= power_w[0]:
        edge = level[int(np.searchsorted(power_w, power_w[0], side="right")) - 1]
        return float(min(edge, max(level[0], 0.0)))
    first = int(np.searchsorted(power_w, target_w, side="left"))
    last = int(np.searchsorted(power_w, target_w, side="right"))
    if last > first:
        # A flat stretch at exactly the target: its point nearest to zero.
        return float(np.clip(0.0, level[first], level[last - 1]))
    low_w, high_w = power_w[first - 1], power_w[first]
    part = (target_w - low_w) / (high_w - low_w)
    return float(level[first - 1] + part * (level[first] - level[first - 1]))
