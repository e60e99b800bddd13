"""The cells of a resource over all partitions, the caps of their groups, and who is at his."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType

import numpy as np

from kapelle.dispatch.caps.families import Family, sums
from kapelle.dispatch.caps.joining import joined
from kapelle.dispatch.caps.prices import Priced, solve
from kapelle.dispatch.caps.reach import reach_w
from kapelle.dispatch.caps.rows import Places, at_levels, last_corners
from kapelle.fleet.envelopes import Limits
from kapelle.model.ids import Floats
from kapelle.model.summaries import Cells, ResourceSummary

MET_W = 1.0
"""Targets are met to the watt."""
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

    def __init__(
        self,
        told: Sequence[Cells],
        sign: int,
        committed_w: float = inf,
        besides: Mapping[str, Limits] = MappingProxyType({}),
    ) -> None:
        """Join the cells of all partitions.

        Args:
            told: What each partition said.
            sign: 1 towards export, -1 towards consumption.
            committed_w: What the order commits: vendors carry a part of it at most. [W]
            besides: Limits by group that are to be kept, too.
        """
        self.vendor_share = min((cells.vendor_share for cells in told), default=1.0)
        vendor_w = self.vendor_share * abs(committed_w) if self.vendor_share < 1.0 else inf
        names, used_w, cap_w = _use(told, sign)
        place = {name: number for number, name in enumerate(names)}
        for name in besides.keys() & place.keys():
            limit_w = besides[name].export_w if sign > 0 else besides[name].import_w
            cap_w[place[name]] = min(cap_w[place[name]], limit_w)
        self.names, self.sign, self.used_w = names, sign, used_w
        is_vendor = np.array([name.startswith("vendor/") for name in names], np.bool_)
        self.cap_w = np.where(is_vendor, vendor_w, cap_w)
        self.room_w = np.where(is_vendor, vendor_w, np.maximum(cap_w - used_w, 0.0))
        of, self.rows = joined(told, place, sign)
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
        for place in np.flatnonzero(over_w > MET_W).tolist()
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
