"""Where many rising, piecewise linear functions reach what is wanted of them, all at once."""

from collections.abc import Callable

import numpy as np

from kapelle.model.ids import Floats

_STEPS_MAX = 80
CLOSE = 1e-10
"""Sums this close to a cap, as a part of it, are at it."""
CLOSE_W = 1e-7


def rising(
    function: Callable[[Floats], Floats],
    want: Floats,
    low: Floats,
    high: Floats,
    near: Floats,
    *,
    above: bool = False,
) -> Floats:
    """Return where each rising function reaches what is wanted, within [low, high].

    Straight lines between the ends of an interval that shrinks, by half where a line was of little
    help: functions are piecewise linear, so a line soon hits exactly.
    """
    low, high = low.copy(), high.copy()
    low_y, high_y = function(low) - want, function(high) - want
    close = CLOSE * np.abs(want) + CLOSE_W
    # At an end already: it stays there.
    done = (low_y >= (0.0 if above else -close)) | (high_y <= 0.0)
    found = np.where(low_y >= (0.0 if above else -close), low, high)
    trial = np.clip(near, low, high)
    for step in range(_STEPS_MAX):
        if done.all():
            break
        inside = (trial > low) & (trial < high)
        trial = np.where(inside, trial, 0.5 * (low + high))
        y = function(np.where(done, found, trial)) - want
        up = y >= 0.0
        hit = (y >= 0.0) & (y <= close) if above else np.abs(y) <= close
        stuck = (trial <= low) | (trial >= high)
        found = np.where(done, found, np.where(hit, trial, np.where(stuck, high, found)))
        done |= hit | stuck
        shrunk = np.where(up, trial - low, high - trial) < 0.5 * (high - low)
        high, high_y = np.where(up & ~done, trial, high), np.where(up & ~done, y, high_y)
        low, low_y = np.where(~up & ~done, trial, low), np.where(~up & ~done, y, low_y)
        gap = high_y - low_y
        line = low - low_y * np.divide(high - low, gap, out=np.zeros(len(low)), where=gap > 0.0)
        if above:
            # A hair beyond, so that rounding does not leave it just short of what is wanted.
            line += 1e-13 * np.abs(line)
        halves = (step % 3 == 2) | (~shrunk & (step % 2 == 1))
        trial = np.where(halves, 0.5 * (low + high), line)
    return np.where(done, found, high)


def falling(
    function: Callable[[Floats], Floats], want: Floats, most: Floats, near: Floats
) -> Floats:
    """Return where each falling function reaches what is wanted, from the side that is below it;
    0 where it is below from the start."""
    return rising(lambda x: -function(x), -want, np.zeros(len(most)), most, near, above=True)
