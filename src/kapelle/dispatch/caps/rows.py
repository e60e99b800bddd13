"""What cells give over their level: rows of knots, and straight lines between them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.model.ids import Flags, Floats

Places = NDArray[np.intp]


class Rows(NamedTuple):
    """What cells give at a level above their groups' prices, in one direction.

    Shape (cells, knots); `level` rises strictly from 0, `power_w` from 0 without ever falling.
    Rows are padded with their last knot's power.
    """

    level: Floats
    power_w: Floats
    is_block: Flags
    """Cells of devices that are on or off have a λ of their own."""


def at_levels(rows: Rows, level: float, block_level: float) -> Floats:
    """Return what each row gives without any price. [W]"""
    return power_w_at(rows, np.where(rows.is_block, block_level, level))


def last_corners(rows: Rows) -> Floats:
    """Return the level from which on each row gives all it has."""
    if not len(rows.level):
        return np.zeros(0)
    full = np.argmax(rows.power_w >= rows.power_w[:, -1:], axis=1)
    last: Floats = rows.level[np.arange(len(full)), full]
    return last


def power_w_at(rows: Rows, level: Floats) -> Floats:
    """Return what each row gives at its level. [W]"""
    knots = rows.level.shape[1]
    row = np.arange(len(level))
    low = np.zeros(len(level), np.intp)
    step = 1 << max(knots - 1, 1).bit_length() - 1
    while step:
        # The last knot not above the level, by halves: rows have knots of their own.
        next_ = np.minimum(low + step, knots - 1)
        low = np.where(rows.level[row, next_] <= level, next_, low)
        step >>= 1
    high = np.minimum(low + 1, knots - 1)
    low_level, low_w = rows.level[row, low], rows.power_w[row, low]
    width = rows.level[row, high] - low_level
    part = np.divide(level - low_level, width, out=np.zeros(len(level)), where=width > 0.0)
    power_w: Floats = low_w + np.maximum(part, 0.0) * (rows.power_w[row, high] - low_w)
    return power_w


def area(rows: Rows, level: Floats) -> Floats:
    """Return what each row gives, summed up over its levels from 0 to this one. [W]"""
    width = np.diff(
        np.minimum(rows.level, level[:, np.newaxis]), axis=1, append=level[:, np.newaxis]
    )
    width[:, -1] = np.maximum(level - rows.level[:, -1], 0.0)
    rise_w = np.diff(rows.power_w, axis=1, append=rows.power_w[:, -1:])
    run = np.diff(rows.level, axis=1, append=np.inf)
    slope = np.divide(rise_w, run, out=np.zeros(rise_w.shape), where=run > 0.0)
    found: Floats = (width * (rows.power_w + 0.5 * slope * width)).sum(axis=1)
    return found
