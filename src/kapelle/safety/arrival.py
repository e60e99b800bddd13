"""What fits of what is asked, in order of arrival: who asks for too much is in nobody's way."""

import numpy as np

from kapelle.model.ids import Flags, Floats
from kapelle.safety.windows import Places

_ROUNDING = 1e-6


def fits(group: Places, asked: Floats, left: Floats) -> Flags:
    """Tell which rows still find what they ask for of what is left to their group.

    Each row takes its share if all of it is there, or nothing. Who asks for nothing always does,
    and so does who belongs to no group (a negative number).

    Args:
        group: Of each row.
        asked: Shape (ways, rows): a row needs room in every way.
        left: The same shape: what its group has left before the first row.
    """
    fits = np.ones(len(group), np.bool_)
    waiting = np.flatnonzero((group >= 0) & (asked > 0.0).any(axis=0))
    left = left.copy()
    while len(waiting):
        wanted: Floats = asked[:, waiting]
        free: Floats = left[:, waiting] + _ROUNDING
        alone = (wanted <= free).all(axis=0)
        fits[waiting[~alone]] = False
        waiting, wanted, free = waiting[alone], wanted[:, alone], free[:, alone]
        if not len(waiting):
            break
        sums = np.stack([running(group[waiting], each) for each in wanted])
        over: Floats = np.asarray((sums > free).any(axis=0), np.float64)
        # In each group all before the first that is too much pass; the rest is looked at anew.
        stuck = running(group[waiting], over) > 0.0
        if not stuck.any():
            break
        passed, waiting = waiting[~stuck], waiting[stuck]
        distinct, place = np.unique(group[np.append(passed, waiting)], return_inverse=True)
        for each_left, each_asked in zip(left, asked, strict=True):
            spent = np.bincount(place[: len(passed)], each_asked[passed], len(distinct))
            each_left[waiting] -= spent[place[len(passed) :]]
    return fits


def running(group: Places, amount: Floats) -> Floats:
    """Return for each row what its group has asked for up to and with it, in order of arrival."""
    if not len(group):
        return np.zeros(0)
    by_group = np.argsort(group, kind="stable")
    sums = np.cumsum(amount[by_group])
    starts = np.flatnonzero(np.diff(group[by_group], prepend=group[by_group[0]] - 1))
    before = np.concatenate(([0.0], sums))[starts]
    total = np.empty(len(group))
    total[by_group] = sums - np.repeat(before, np.diff(starts, append=len(group)))
    return total
