"""A curve of a million corners as at most a hundred-odd that matter."""

import numpy as np
from numpy.typing import NDArray

from kapelle.model.ids import Floats

SIDE_KNOTS_MAX = 126
"""Knots of one direction; with both directions, zero and the two ends at most 256."""
_NEAR = 48
"""Of these, at most so many lie around the present level."""
_LEAST = 3


def knots_each(tiers: int) -> int:
    """Return how many knots each of some tiers may have on one side of zero."""
    if tiers <= 1:
        return SIDE_KNOTS_MAX
    # Beside their beginnings, and those around the present level in one of them.
    return max((SIDE_KNOTS_MAX - tiers - _NEAR) // tiers, _LEAST)


def thinned(
    level: Floats, power_w: Floats, near_level: float, most: int = SIDE_KNOTS_MAX
) -> tuple[Floats, Floats]:
    """Keep the corners between which straight lines err least, more of them near a level.

    The lines between knots spaced by the square root of the curvature share their error evenly.

    Args:
        level: Strictly ascending, > 0; the curve starts at (0, 0).
        power_w: Never falling.
        near_level: Where the curve will be read next.
        most: How many to keep; of one tier of several, those around the level come on top.
    """
    if len(level) <= most:
        return level, power_w
    width = np.diff(level, prepend=0.0)
    slope = np.diff(power_w, prepend=0.0) / width
    bend = np.abs(np.diff(slope, append=0.0))
    return _kept(level, power_w, np.sqrt(bend * width), near_level, most)


def staircase(
    level: Floats, power_w: Floats, near_level: float, most: int = SIDE_KNOTS_MAX
) -> tuple[Floats, Floats]:
    """Keep corners of a staircase, evenly in power, more of them near a level."""
    if len(level) <= most:
        return level, power_w
    return _kept(level, power_w, np.diff(power_w, prepend=0.0), near_level, most)


def _kept(
    level: Floats, power_w: Floats, worth: Floats, near_level: float, most: int
) -> tuple[Floats, Floats]:
    last = len(level) - 1
    reached = np.cumsum(worth)
    evenly = SIDE_KNOTS_MAX - _NEAR - 1 if most == SIDE_KNOTS_MAX else most - 2
    spread = np.linspace(0.0, reached[-1], evenly)
    picked = [np.searchsorted(reached, spread), np.array([0, last])]
    if near_level > 0.0:
        picked.append(_around(int(np.searchsorted(level, near_level)), last))
    index = np.unique(np.minimum(np.concatenate(picked), last))
    return level[index], power_w[index]


def _around(middle: int, last: int) -> NDArray[np.int64]:
    """Return places next to the middle, then ever farther from it."""
    half = _NEAR // 2 - 1
    near = np.arange(half // 2)
    far = half // 2 * 1.6 ** np.arange(half - half // 2)
    away = np.concatenate([near, far.astype(np.int64)])
    around: NDArray[np.int64] = np.concatenate([middle - 1 - away, middle + away])
    return around.clip(0, last)
