"""From what partitions tell of their cells to one row for all cells of the same groups."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kapelle.dispatch.caps.rows import Places, Rows
from kapelle.model.ids import Flags, Floats
from kapelle.model.summaries import CellCorners, Cells

FAMILIES = 3
"""Feeder, zone, vendor: the rows of `Cells.of`."""


def joined(
    told: Sequence[Cells], place: Mapping[str, int], sign: int
) -> tuple[NDArray[np.intp], Rows]:
    """Return cells of the same groups as one: their groups, shape (families, cells), and ramps."""
    keys: list[NDArray[np.intp]] = []
    for cells in told:
        at = np.array([*(place[name] for name in cells.groups), -1], np.intp)
        keys.append(at[np.frombuffer(cells.of, "<i4").reshape(FAMILIES, -1)])
    if not keys:
        return np.zeros((FAMILIES, 0), np.intp), _rows([], np.zeros(0, np.bool_))
    every = np.concatenate(keys, axis=1)
    radix = len(place) + 1
    code = np.zeros(every.shape[1], np.int64)
    for row in every:
        code = code * radix + row + 1
    _, first, cell_of = np.unique(code, return_index=True, return_inverse=True)
    of = every[:, first]
    count = of.shape[1]
    ramps = []
    start = 0
    for cells, key in zip(told, keys, strict=True):
        here = cell_of[start : start + key.shape[1]]
        start += key.shape[1]
        lines, blocks = (cells.up, cells.blocks_up) if sign > 0 else (cells.down, cells.blocks_down)
        ramps.append(_ramps(lines, here, 0))
        ramps.append(_ramps(blocks, here, count))
    is_block = np.arange(2 * count) >= count
    rows = _rows(ramps, is_block)
    some = rows.power_w[:, -1] > 0.0
    both = np.concatenate([of, of], axis=1)[:, some]
    return both, Rows(rows.level[some], rows.power_w[some], is_block[some])


_Ramps = tuple[Places, Floats, Floats, Floats]


def _ramps(told: CellCorners, cell_of: Places, first: int) -> _Ramps:
    return (
        cell_of[np.frombuffer(told.cell, "<i4")] + first,
        np.frombuffer(told.begins, "<f8"),
        np.frombuffer(told.at, "<f8"),
        np.frombuffer(told.head_w, "<f8"),
    )


def _rows(ramps: Sequence[_Ramps], is_block: Flags) -> Rows:
    """Return the sum of each cell's ramps as knots."""
    count = len(is_block)
    if not ramps:
        return Rows(np.zeros((0, 2)), np.zeros((0, 2)), is_block)
    row, begins, ends, head_w = (np.concatenate(each) for each in zip(*ramps, strict=True))
    slope = head_w / (ends - begins)
    # Most ramps begin at 0; beyond it the slope of a row rises where one begins, and falls where
    # one ends.
    later = begins > 0.0
    at_first = np.bincount(row[~later], slope[~later], count)
    row, level = np.concatenate([row[later], row]), np.concatenate([begins[later], ends])
    bend = np.concatenate([slope[later], -slope])
    order = np.lexsort((level, row))
    row, level, bend = row[order], level[order], bend[order]
    # What bends together is one bend.
    fresh = np.append(True, (np.diff(row) != 0) | (np.diff(level) > 0.0))[: len(row)]
    kept = np.flatnonzero(fresh)
    bend = np.add.reduceat(bend, kept) if len(kept) else bend
    row, level = row[kept], level[kept]
    number = np.bincount(row, minlength=count)
    rank = np.arange(len(row)) - (np.cumsum(number) - number)[row]
    knots = int(number.max(initial=0)) + 1
    levels, bends = np.full((count, knots), np.nan), np.zeros((count, knots))
    levels[:, 0], bends[:, 0] = 0.0, at_first
    levels[row, rank + 1] = level
    bends[row, rank + 1] = bend
    # Beyond its last knot a row goes on level, on knots that rise on.
    last = np.fmax.accumulate(levels, axis=1)
    levels = np.where(np.isnan(levels), last + np.arange(knots), levels)
    rising = np.cumsum(bends, axis=1)[:, :-1] * np.diff(levels, axis=1)
    powers_w = np.append(np.zeros((count, 1)), np.cumsum(np.maximum(rising, 0.0), axis=1), axis=1)
    full_w = np.bincount(np.concatenate([r[0] for r in ramps]), head_w, count)[:, np.newaxis]
    powers_w = np.minimum(powers_w, full_w)
    beyond = np.arange(knots) >= number[:, np.newaxis]
    powers_w = np.where(beyond, full_w, powers_w)
    return Rows(levels, powers_w, is_block)
