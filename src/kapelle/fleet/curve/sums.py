"""The summed answer of devices to λ: a line of those that follow, stairs of those on or off."""

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve.division import CHUNK, TIER, Rows, shares, turn
from kapelle.fleet.curve.limits import HOLD_S
from kapelle.fleet.curve.thinning import staircase, thinned
from kapelle.fleet.curve.trust import controllable
from kapelle.model.ids import Flags, Floats
from kapelle.model.plant import Curve

_SORTED_MAX = 2048
"""Up to here breakpoints are sorted; beyond, they are counted into cells."""
_CELLS = 1 << 14

_CELL_EDGES = np.append(
    (lambda part: part / (1.0 - part))(np.arange(_CELLS) / _CELLS * (TIER / (TIER + 1.0))), TIER
)
_CELLS_PER_PART = _CELLS * (TIER + 1.0) / TIER


def summed(
    fleet: Fleet,
    rows: Rows,
    near_level: float = 0.0,
    near_block_level: float | None = None,
    horizon: float = HOLD_S,
) -> tuple[Curve, Curve]:
    """Return the summed power of the controllable rows over λ: continuous, then blocks.

    Exact at the knots, which lie denser near the present levels, so that solving on them again and
    again converges to the exact sum. At most 256 knots each.
    """
    block_level = near_level if near_block_level is None else near_block_level
    corners = _Sorted() if len(rows) <= _SORTED_MAX else _Counted()
    own_w = block_own_w = 0.0
    for start in range(0, len(rows), CHUNK):
        piece = rows[start : start + CHUNK]
        counted = controllable(fleet, piece)
        part = shares(fleet, piece, horizon)
        at = 1.0 / part.readiness
        switched = np.flatnonzero(part.switched)
        if len(switched):
            at[switched] = turn(fleet, piece, switched)
        counted_w = np.where(counted, part.own_w, 0.0)
        of_blocks_w = float(counted_w[switched].sum())
        own_w += float(counted_w.sum()) - of_blocks_w
        block_own_w += of_blocks_w
        up_w = np.where(counted, part.up_w, 0.0)
        down_w = np.where(counted, part.down_w, 0.0)
        corners.add(at, up_w, down_w, part.readiness, part.switched)
    lines = [corners.found(sign, False) for sign in (1, -1)]
    stairs = [corners.found(sign, True) for sign in (1, -1)]
    return _line(lines, own_w, near_level), _stairs(stairs, block_own_w, block_level)


Corners = tuple[Floats, Floats, Floats]
"""Ascending |λ|; headroom of the devices whose corner this is; their weight up to it. [W]"""


class _Sorted:
    """The corners of few devices, one by one."""

    def __init__(self) -> None:
        empty = np.empty(0)
        self._at, self._up_w, self._down_w, self._readiness = empty, empty, empty, empty
        self._switched = np.empty(0, np.bool_)

    def add(
        self, at: Floats, up_w: Floats, down_w: Floats, readiness: Floats, switched: Flags
    ) -> None:
        # Few devices are one piece.
        order = np.argsort(at, kind="stable")
        self._at, self._up_w, self._down_w = at[order], up_w[order], down_w[order]
        self._readiness, self._switched = readiness[order], switched[order]

    def found(self, sign: int, switched: bool) -> Corners:
        head_w = self._up_w if sign > 0 else self._down_w
        which = np.flatnonzero((head_w > 0.0) & (self._switched == switched))
        head_w = head_w[which]
        return self._at[which], head_w, head_w * self._readiness[which]


class _Counted:
    """The corners of many devices, summed in cells of |λ|; exact at the edges of the cells."""

    def __init__(self) -> None:
        self._head_w = {1: np.zeros(2 * _CELLS), -1: np.zeros(2 * _CELLS)}
        self._weight = {1: np.zeros(2 * _CELLS), -1: np.zeros(2 * _CELLS)}

    def add(
        self, at: Floats, up_w: Floats, down_w: Floats, readiness: Floats, switched: Flags
    ) -> None:
        cell = (at / (1.0 + at) * _CELLS_PER_PART).astype(np.intp)
        np.minimum(cell, _CELLS - 1, out=cell)
        cell += switched * _CELLS
        for sign, head_w in ((1, up_w), (-1, down_w)):
            self._head_w[sign] += np.bincount(cell, head_w, 2 * _CELLS)
            self._weight[sign] += np.bincount(cell, head_w * readiness, 2 * _CELLS)

    def found(self, sign: int, switched: bool) -> Corners:
        half = slice(_CELLS, None) if switched else slice(0, _CELLS)
        at, head_w, weight = _CELL_EDGES[1:], self._head_w[sign][half], self._weight[sign][half]
        # Of empty cells only the edge before a used one matters: the curve is straight there.
        used = head_w > 0.0
        if not used.any():
            return np.empty(0), np.empty(0), np.empty(0)
        used[:-1] |= used[1:]
        return at[used], head_w[used], weight[used]


def _line(sides: list[Corners], own_w: float, near_level: float) -> Curve:
    levels, powers_w = [np.zeros(1)], [np.full(1, own_w)]
    for (at, head_w, weight), sign in zip(sides, (1.0, -1.0), strict=True):
        if not len(at):
            continue
        still_moving = np.maximum(weight.sum() - np.cumsum(weight), 0.0)
        gained_w = np.maximum.accumulate(np.cumsum(head_w) + still_moving * at)
        # Of several devices that reach their limit together the last one's sum is complete.
        last = np.append(np.diff(at) > 0, True)
        at, gained_w = thinned(at[last], gained_w[last], sign * near_level)
        levels.append(sign * at)
        powers_w.append(own_w + sign * gained_w)
    return _curve(levels, powers_w)


def _stairs(sides: list[Corners], own_w: float, near_level: float) -> Curve:
    levels, powers_w = [np.zeros(1)], [np.full(1, own_w)]
    for (at, head_w, _), sign in zip(sides, (1.0, -1.0), strict=True):
        if not len(at):
            continue
        last = np.append(np.diff(at) > 0, True)
        at, whole_w = staircase(at[last], np.cumsum(head_w)[last], sign * near_level)
        levels.append(sign * at)
        powers_w.append(own_w + sign * whole_w)
    return _curve(levels, powers_w)


def _curve(levels: list[Floats], powers_w: list[Floats]) -> Curve:
    """Join both directions and zero, with the ends of the tier."""
    level, power_w = np.concatenate(levels), np.concatenate(powers_w)
    order = np.argsort(level, kind="stable")
    knots, knots_w = level[order].tolist(), power_w[order].tolist()
    if knots[-1] < TIER:
        knots, knots_w = [*knots, TIER], [*knots_w, knots_w[-1]]
    if knots[0] > -TIER:
        knots, knots_w = [-TIER, *knots], [knots_w[0], *knots_w]
    return Curve(knots, knots_w)
