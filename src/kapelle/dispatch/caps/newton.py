"""One step of Newton's for all prices and λ together."""

from collections.abc import Sequence

import numpy as np

from kapelle.dispatch.caps.rows import Places
from kapelle.model.ids import Flags, Floats

_TOGETHER_MAX = 400
"""More prices than this are not solved for together: that takes the cube of their number."""
_TABLE_MAX = 1 << 22
"""Nor with so many of the first family that a table of both has more entries."""


def newton(
    of: Sequence[Places],
    missing_w: Sequence[Floats],
    slope: Floats,
    moves: Flags,
    short_w: float,
) -> list[Floats] | None:
    """Return by how much to move every price, and λ, for the sums to come out right on straight
    lines; None where that is not told.

    Groups of the first family are disjoint, so their prices are eliminated one by one, and what is
    left to solve together is as small as the other families.

    Args:
        of: By family, each row's place among the groups to be moved; -1 for none.
        missing_w: By family, what each of them may yet give. [W]
        slope: Of each row. [W]
        moves: Rows that follow λ.
        short_w: What the sum is short of its target. [W]
    """
    counts = [len(each) for each in missing_w]
    rest = sum(counts[1:]) + 1
    ahead = counts[0] if of else 0
    if rest > _TOGETHER_MAX or rest * ahead > _TABLE_MAX:
        return None
    first, others = (of[0], of[1:]) if of else (np.full(len(slope), -1), [])
    starts = np.cumsum([0, *counts[1:]])
    # Columns of what is solved together: each row's places in it, and with which sign it moves.
    places = [
        np.where(each >= 0, each + start, -1) for each, start in zip(others, starts, strict=False)
    ]
    places.append(np.where(moves, rest - 1, -1))
    signs = [-1.0] * len(others) + [1.0]
    sums_in = [*places[:-1], np.full(len(slope), rest - 1)]

    together, aside = np.zeros((rest, rest)), np.zeros((rest, ahead))
    after = np.zeros((ahead, rest))
    for down in sums_in:
        for across, sign in zip(places, signs, strict=True):
            together += sign * _summed(slope, down, across, together.shape)
    if ahead:
        for down in sums_in:
            aside -= _summed(slope, down, first, aside.shape)
        for across, sign in zip(places, signs, strict=True):
            after += sign * _summed(slope, first, across, after.shape)
    wanted = np.append(np.concatenate([*missing_w[1:], np.zeros(0)]), short_w)
    own = -np.bincount(first[first >= 0], slope[first >= 0], ahead)
    safe = np.where(own < 0.0, own, -np.inf)
    if ahead:
        wanted = wanted - aside @ (missing_w[0] / safe)
        together -= aside @ (after / safe[:, np.newaxis])
    found = np.linalg.lstsq(together, wanted, rcond=1e-12)[0]
    step = np.split(found, starts[1:]) if len(starts) > 1 else [found]
    if of:
        step = [(missing_w[0] - after @ found) / safe, *step]
    return step


def _summed(slope: Floats, down: Places, across: Places, shape: tuple[int, int]) -> Floats:
    """Return slopes summed up by pairs of places; a row without one of them is in no pair."""
    both = (down >= 0) & (across >= 0)
    at = down[both] * shape[1] + across[both]
    # Of no pairs at all it counts whole zeros.
    sums = np.bincount(at, slope[both], shape[0] * shape[1]).astype(np.float64, copy=False)
    return sums.reshape(shape)


def renumbered(of: Places, groups: Places, count: int) -> Places:
    """Return each row's place among some of the groups; -1 for those in none of them."""
    places = np.full(count + 1, -1, np.intp)
    places[groups] = np.arange(len(groups))
    return places[of]
