"""From what partitions say of their cells to levels and prices that keep every cap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray

from kapelle.dispatch.allocation import Solution
from kapelle.dispatch.prices import (
    Family,
    Places,
    Priced,
    Rows,
    at_levels,
    last_corners,
    solve,
    sums,
)
from kapelle.dispatch.reach import reach_w
from kapelle.model.ids import Flags, Floats
from kapelle.model.summaries import CellCorners, Cells, ResourceSummary

_MET_W = 1.0
"""Targets are met to the watt."""
_TRIES_MAX = 8
FAMILIES = 3
"""Feeder, zone, vendor: the rows of `Cells.of`."""
_TINY_PRICE = 1e-12


@dataclass(frozen=True, slots=True)
class Cap:
    """A group that keeps an order from more."""

    group: str
    """`feeder/f-12`."""
    direction: str
    """export or import."""
    cap_w: float
    """Of an envelope: what the group may export or import; of a vendor: what it may carry. [W]"""
    price: float
    """How far below λ it is driven."""


@dataclass(slots=True)
class Near:
    """Where the last solution lay: the next one begins there."""

    level: float = 0.0
    prices: dict[str, float] = field(default_factory=dict)


class Capped:
    """The cells of one resource over all partitions, in one direction."""

    def __init__(self, told: Sequence[Cells], sign: int, committed_w: float = inf) -> None:
        """Join the cells of all partitions.

        Args:
            told: What each partition said.
            sign: 1 towards export, -1 towards consumption.
            committed_w: What the order commits: vendors carry a part of it at most. [W]
        """
        self.vendor_share = min((cells.vendor_share for cells in told), default=1.0)
        vendor_w = self.vendor_share * abs(committed_w) if self.vendor_share < 1.0 else inf
        names, used_w, cap_w = _use(told, sign)
        place = {name: number for number, name in enumerate(names)}
        self.names, self.sign, self.used_w = names, sign, used_w
        is_vendor = np.array([name.startswith("vendor/") for name in names], np.bool_)
        self.cap_w = np.where(is_vendor, vendor_w, cap_w)
        self.room_w = np.where(is_vendor, vendor_w, np.maximum(cap_w - used_w, 0.0))
        of, self.rows = _joined(told, place, sign)
        self._of = of
        self._take_families()

    def _take_families(self) -> None:
        """Make a family of each kind of groups of which any could be exceeded."""
        full_w = self.rows.power_w[:, -1]
        self._families: list[Family] = []
        self._groups: list[Places] = []
        for of in self._of:
            member = of >= 0
            sums_w = np.bincount(of[member], full_w[member], len(self.names))
            # Whoever could not exceed his cap if he gave all he has never pays a price.
            groups = np.flatnonzero(sums_w > self.room_w)
            # Sums of floats: who could exceed his cap by rounding alone does not.
            groups = groups[sums_w[groups] > self.room_w[groups] * (1.0 + 1e-12)]
            if len(groups):
                rank = np.full(len(self.names) + 1, -1, np.intp)
                rank[groups] = np.arange(len(groups))
                self._families.append(Family(rank[of], self.room_w[groups]))
                self._groups.append(groups)

    def solve(self, target_w: float, block_level: float, near: Near) -> Priced:
        """Return levels and prices for a change of power in this direction, >= 0. [W]"""
        prices = tuple(
            np.array([near.prices.get(self.names[place], 0.0) for place in groups])
            for groups in self._groups
        )
        at = Priced(abs(near.level), prices, np.zeros(0))
        return solve(self.rows, self._families, target_w, abs(block_level), at)

    def reach_w(self) -> float:
        """Return the most all can give together. [W]"""
        full_w = self.rows.power_w[:, -1]
        return reach_w(full_w, self._families, self._of[-1], self.vendor_share)

    @property
    def has_blocks(self) -> bool:
        """Whether any devices are on or off."""
        return bool(self.rows.is_block.any())

    @property
    def blocks_end(self) -> float:
        """The level at which all of them have changed over, prices included."""
        last = last_corners(self.rows)
        return 2.0 * float(last[self.rows.is_block].max(initial=0.0)) + float(last.max(initial=0.0))

    def cost_w(self, group: str) -> float:
        """Return how much more all could give if one cap were not there. [W]"""
        place = self.names.index(group)
        without = [
            Family(f.of, np.where(groups == place, inf, f.room_w))
            for f, groups in zip(self._families, self._groups, strict=True)
        ]
        full_w = self.rows.power_w[:, -1]
        share = 1.0 if group.startswith("vendor/") else self.vendor_share
        return reach_w(full_w, without, self._of[-1], share) - self.reach_w()

    def is_kept_at(self, level: float, block_level: float) -> bool:
        """Tell whether every cap is kept without a price."""
        if not self._families:
            return True
        row_w = at_levels(self.rows, abs(level), abs(block_level))
        return all(bool((sums(family, row_w) <= family.room_w).all()) for family in self._families)

    def prices(self, found: Priced) -> dict[str, float]:
        """Return the prices of a solution by group, those above 0."""
        return {
            self.names[place]: price
            for groups, prices in zip(self._groups, found.prices, strict=True)
            for place, price in zip(groups.tolist(), prices.tolist(), strict=True)
            if price > _TINY_PRICE
        }

    def binding(self, prices: Mapping[str, float]) -> list[Cap]:
        """Return the caps that have a price, the dearest first."""
        direction = "export" if self.sign > 0 else "import"
        place = {name: number for number, name in enumerate(self.names)}
        found = [
            Cap(name, direction, float(self.cap_w[place[name]]), price)
            for name, price in prices.items()
        ]
        return sorted(found, key=lambda cap: (-cap.price, cap.group))


def told_by(parts: Sequence[ResourceSummary]) -> list[Cells]:
    """Return the cells of each partition that has some."""
    return [part.cells for part in parts if part.cells is not None]


def beyond(told: Sequence[Cells], sign: int) -> list[tuple[Cap, float]]:
    """Return the groups that are beyond their caps on their own schedules, and how far. [W]"""
    direction = "export" if sign > 0 else "import"
    names, used_w, cap_w = _use(told, sign)
    over_w = used_w - cap_w
    return [
        (Cap(names[place], direction, float(cap_w[place]), 0.0), float(over_w[place]))
        for place in np.flatnonzero(over_w > _MET_W).tolist()
    ]


def _use(told: Sequence[Cells], sign: int) -> tuple[list[str], Floats, Floats]:
    """Return the groups of all partitions, what they give without the order, and their caps, in one
    direction. [W]"""
    names = sorted({name for cells in told for name in cells.groups})
    place = {name: number for number, name in enumerate(names)}
    used_w, cap_w = np.zeros(len(names)), np.full(len(names), inf)
    for cells in told:
        at = np.array([place[name] for name in cells.groups], np.intp)
        if sign > 0:
            power_w, limit_w = cells.up_w, cells.export_w
        else:
            power_w, limit_w = cells.down_w, cells.import_w
        np.add.at(used_w, at, sign * np.array(power_w))
        np.minimum.at(cap_w, at, np.array(limit_w))
    return names, used_w, cap_w


def capped(
    parts: Sequence[ResourceSummary],
    free: Solution,
    own_w: float,
    power_w: float,
    block_level: float,
    near: Near,
    committed_w: float,
) -> Solution:
    """Return a solution that keeps every cap: `free` itself, if it does.

    Blocks stay where the solution without caps would have them, as long as the target is reached
    so; where it is not, the fewest more of them change over that reach it.

    Args:
        parts: What each partition said.
        free: The solution without caps.
        own_w: What the controllable devices do at λ = 0. [W]
        power_w: Wanted of them. [W]
        block_level: Where blocks are now.
        near: Where the last solution lay; the one found is kept there.
        committed_w: As of `Capped`.
    """
    sign = 1 if power_w >= own_w else -1
    cells = Capped(told_by(parts), sign, committed_w)
    change_w = abs(power_w - own_w)
    with_way = sign * free.block_level >= 0.0
    if with_way and sign * free.level >= 0.0 and cells.is_kept_at(free.level, free.block_level):
        near.level, near.prices = free.level, {}
        return free
    level = abs(free.block_level) if with_way else 0.0
    found = cells.solve(change_w, level, near)
    if found.total_w < change_w - _MET_W and cells.has_blocks:
        now = max(sign * block_level, 0.0)
        level, found = _with_more_blocks(cells, change_w, level, now, near, found)
    prices = cells.prices(found)
    near.level, near.prices = sign * found.level, prices
    reached_w = own_w + sign * found.total_w
    lowest_w, highest_w = free.lowest_w, free.highest_w
    if found.total_w < change_w - _MET_W:
        end_w = max(found.total_w, cells.reach_w())
        if sign > 0:
            highest_w = min(highest_w, own_w + end_w)
        else:
            lowest_w = max(lowest_w, own_w - end_w)
    return Solution(sign * found.level, sign * level, reached_w, lowest_w, highest_w, prices)


def _with_more_blocks(
    cells: Capped, change_w: float, level: float, now: float, near: Near, found: Priced
) -> tuple[float, Priced]:
    """Return the level of blocks from which on the change is reached, or their end."""
    low, high = level, cells.blocks_end
    best_level, best = level, found
    for step in range(_TRIES_MAX):
        # Where they are now, if that is enough; then all of them; then ever fewer.
        trial = now if step == 0 and now > low else high if step < 2 else 0.5 * (low + high)
        tried = cells.solve(change_w, trial, near)
        if tried.total_w < change_w - _MET_W:
            low = max(low, trial)
            if tried.total_w > best.total_w:
                best_level, best = trial, tried
            if trial >= high:
                return best_level, best
            continue
        best_level, best = trial, tried
        if step == 0:
            break
        high = trial
    return best_level, best


def _joined(
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
    # The slope of a row rises where a ramp begins and falls where it ends.
    row, level = np.concatenate([row, row]), np.concatenate([begins, ends])
    bend = np.concatenate([slope, -slope])
    order = np.lexsort((level, row))
    row, level, bend = row[order], level[order], bend[order]
    # Ramps that begin together are one bend: within a tier all do.
    fresh = np.append(True, (np.diff(row) != 0) | (np.diff(level) > 0.0))[: len(row)]
    kept = np.flatnonzero(fresh)
    bend = np.add.reduceat(bend, kept) if len(kept) else bend
    row, level = row[kept], level[kept]
    number = np.bincount(row, minlength=count)
    rank = np.arange(len(row)) - (np.cumsum(number) - number)[row]
    knots = int(number.max(initial=0)) + 1
    levels, bends = np.full((count, knots), np.nan), np.zeros((count, knots))
    levels[:, 0] = 0.0
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
