"""One level and a price per group, so that every group keeps its cap and the sum meets a target.

A cell is a set of devices in the same groups; what it gives is a rising, piecewise linear function
of its level, which is λ less the prices of its groups, and not below 0. Among all ways to meet the
target within the caps that is the one with the least Σ ∫ f⁻¹ (what water-filling minimises): λ and
the prices are the multipliers of that convex problem, so each can be found by itself, again and
again (block coordinate ascent on the dual). Two things make that quick:

- groups of one family are disjoint, so all prices of a family are found at once;
- families that are nested in each other (feeders in zones) are found in one go, λ included, for a
  cap on a whole just cuts the sum of its parts off. Only what crosses them, vendors, takes turns.

Prices are last raised until no cap is exceeded: raising one lowers every sum or leaves it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kapelle.dispatch.caps.crossings import CLOSE, CLOSE_W, falling, rising
from kapelle.dispatch.caps.families import Family, cut_w, is_nested, outer_w, sums
from kapelle.dispatch.caps.newton import newton, renumbered
from kapelle.dispatch.caps.rows import Rows, area, last_corners, power_w_at
from kapelle.model.ids import Floats

_SWEEPS_MAX = 60
_ROWS_MANY = 1000
"""With more rows a sweep takes long: fewer of them, and the next cycle goes on where they ended."""
_SWEEPS_MANY = 8
_JUMPS_MAX = 12
_STRIDES_MAX = 16
_BEYOND = 8.0
"""λ ends at so many times the level at which every cell gives all it has: where the target is out
of reach, this makes the sum outweigh how fairly it is divided."""


@dataclass(frozen=True, slots=True)
class Priced:
    """λ of continuous cells, and the prices beside it."""

    level: float
    prices: tuple[Floats, ...]
    """By family, of each group; >= 0."""
    row_w: Floats
    """What each row gives. [W]"""

    @property
    def total_w(self) -> float:
        """What all give together. [W]"""
        return float(self.row_w.sum())


def solve(
    rows: Rows,
    families: Sequence[Family],
    target_w: float,
    block_level: float,
    near: Priced | None = None,
) -> Priced:
    """Return λ and prices that bring the rows to a target, or as near as the caps let them.

    Args:
        rows: All cells.
        families: Nested ones first, the finest first of all.
        target_w: Wanted of all rows together, >= 0. [W]
        block_level: λ of the blocks, >= 0.
        near: An earlier solution of the same rows and families to begin at.
    """
    return _Search(rows, families, block_level, near).found(target_w)


class _Search:
    def __init__(
        self, rows: Rows, families: Sequence[Family], block_level: float, near: Priced | None
    ) -> None:
        self._rows = rows
        self._families = families
        self._block_level = block_level
        self._end = _BEYOND * max(float(last_corners(rows).max(initial=0.0)), 1.0, block_level)
        self._level = min(near.level, self._end) if near is not None else 0.0
        self._prices = [
            near.prices[k].copy() if near is not None else np.zeros(len(family.room_w))
            for k, family in enumerate(families)
        ]
        self._nested = len(families) > 1 and is_nested(families[0], families[1])

    def found(self, target_w: float) -> Priced:
        nested = self._nested
        settled = self._jump(target_w)
        few = len(self._rows.level) <= _ROWS_MANY
        for _ in range(_SWEEPS_MAX if few else _SWEEPS_MANY):
            if settled:
                break
            was = self._level, list(self._prices)
            for place in range(2 if nested else 1, len(self._families)):
                self._move(place, place, target_w)
            self._move(0, 1 if nested else 0, target_w)
            settled = self._is_settled(target_w) or self._jump(target_w)
            if not settled:
                self._stride(was, target_w)
        self._keep_caps()
        return Priced(self._level, tuple(self._prices), self._row_w())

    def _move(self, inner: int, outer: int, target_w: float) -> None:
        """Find λ and the prices of a family, and of one it is nested in, given all others."""
        here = range(inner, min(outer + 1, len(self._families)))
        others = self._paid([k for k in range(len(self._families)) if k not in here])
        chain = [self._families[k] for k in here]

        def given_w(level: Floats) -> Floats:
            row_w = power_w_at(self._rows, self._driven(float(level[0])) - others)
            return np.array([cut_w(row_w, chain)])

        ends = np.zeros(1), np.full(1, self._end)
        self._level = float(
            rising(given_w, np.array([target_w]), *ends, np.array([self._level]))[0]
        )
        # The wider family first, with what its parts would be cut off at.
        for place in reversed(here):
            self._price(place, self._families[inner] if place > inner else None, others)
            others = others + self._paid([place])

    def _price(self, place: int, inner: Family | None, others: Floats) -> None:
        family = self._families[place]
        level = self._driven(self._level) - others
        member = family.of >= 0
        which = np.where(member, family.of, 0)

        def given_w(price: Floats) -> Floats:
            row_w = power_w_at(self._rows, level - price[which]) * member
            return sums(family, row_w) if inner is None else outer_w(row_w, inner, family)

        most = np.zeros(len(family.room_w))
        np.maximum.at(most, which[member], level[member])
        self._prices[place] = falling(given_w, family.room_w, most, self._prices[place])

    def _stride(self, was: tuple[float, list[Floats]], target_w: float) -> None:
        """Go on the way of the last sweep, twice as far each time, while that is worth it: where
        families hand on little steps to each other, sweeps alone would take hundreds."""
        best = self._worth(target_w)
        level, prices = self._level, list(self._prices)
        way = level - was[0], [new - old for new, old in zip(prices, was[1], strict=True)]
        far = 1.0
        for _ in range(_STRIDES_MAX):
            before = self._level, self._prices
            self._level = min(max(level + far * way[0], 0.0), self._end)
            self._prices = [
                np.maximum(price + far * each, 0.0)
                for price, each in zip(prices, way[1], strict=True)
            ]
            worth = self._worth(target_w)
            if worth <= best:
                self._level, self._prices = before
                return
            best, far = worth, 2.0 * far

    def _worth(self, target_w: float) -> float:
        """Return the dual's value: what λ and prices are to make as large as can be."""
        row_level = np.maximum(self._row_level(), 0.0)
        worth = self._level * target_w - float(area(self._rows, row_level).sum())
        for family, price in zip(self._families, self._prices, strict=True):
            worth -= float(price @ family.room_w)
        return worth

    def _jump(self, target_w: float) -> bool:
        """Take Newton's steps while they bring the sums nearer; tell whether that was enough.

        Where no cell passes a corner on the way, one step hits exactly.
        """
        off = self._off_w(target_w)
        for _ in range(_JUMPS_MAX):
            if self._is_settled(target_w):
                return True
            was = self._level, list(self._prices)
            self._jump_once(target_w)
            now = self._off_w(target_w)
            if now >= off:
                self._level, self._prices = was
                return False
            off = now
        return self._is_settled(target_w)

    def _jump_once(self, target_w: float) -> None:
        row_w, slope = power_w_at(self._rows, self._row_level()), self._slopes()
        active = [
            np.flatnonzero((price > 0.0) | (sums(family, row_w) > family.room_w))
            for family, price in zip(self._families, self._prices, strict=True)
        ]
        moves = ~self._rows.is_block
        # Unknowns: the prices of the active groups, family by family, then λ.
        of = [
            renumbered(f.of, a, len(f.room_w)) for f, a in zip(self._families, active, strict=True)
        ]
        missing_w = [
            (f.room_w - sums(f, row_w))[a] for f, a in zip(self._families, active, strict=True)
        ]
        short_w = target_w - float(row_w.sum())
        if self._level >= self._end and short_w > 0.0:
            moves, short_w = np.zeros_like(moves), 0.0
        step = newton(of, missing_w, slope, moves, short_w)
        if step is None:
            return
        for place, (groups, change) in enumerate(zip(active, step[:-1], strict=True)):
            price = self._prices[place].copy()
            price[groups] = np.maximum(price[groups] + change, 0.0)
            self._prices[place] = price
        self._level = min(max(self._level + float(step[-1][0]), 0.0), self._end)

    def _off_w(self, target_w: float) -> float:
        """Return how far sums are from where they should be, all together. [W]"""
        row_w = self._row_w()
        off_w = 0.0
        for family, price in zip(self._families, self._prices, strict=True):
            over_w = sums(family, row_w) - family.room_w
            off_w += float(np.where(price > 0.0, np.abs(over_w), np.maximum(over_w, 0.0)).sum())
        missed_w = target_w - float(row_w.sum())
        return off_w + (0.0 if self._level >= self._end and missed_w > 0.0 else abs(missed_w))

    def _is_settled(self, target_w: float) -> bool:
        row_w = self._row_w()
        for family, price in zip(self._families, self._prices, strict=True):
            over_w = sums(family, row_w) - family.room_w
            off_w = np.where(price > 0.0, np.abs(over_w), over_w)
            if (off_w > 1e-9 * family.room_w + 1e-6).any():
                return False
        missed_w = target_w - float(row_w.sum())
        out_of_reach = self._level >= self._end and missed_w > 0.0
        return out_of_reach or abs(missed_w) <= max(1e-3, 1e-9 * target_w)

    def _keep_caps(self) -> None:
        """Raise prices until no cap is exceeded."""
        for place, family in enumerate(self._families):
            over = sums(family, self._row_w()) > family.room_w * (1.0 + CLOSE) + CLOSE_W
            if not over.any():
                continue
            was = self._prices[place]
            self._price(
                place, None, self._paid([k for k in range(len(self._families)) if k != place])
            )
            self._prices[place] = np.where(over, np.maximum(self._prices[place], was), was)

    def _row_level(self) -> Floats:
        return self._driven(self._level) - self._paid(range(len(self._families)))

    def _row_w(self) -> Floats:
        return power_w_at(self._rows, self._row_level())

    def _slopes(self) -> Floats:
        """Return how much each row gives per unit of level, where it is now. [W]"""
        level = self._row_level()
        width = 1e-9 * np.maximum(np.abs(level), 1.0)
        return (power_w_at(self._rows, level + width) - power_w_at(self._rows, level - width)) / (
            2.0 * width
        )

    def _driven(self, level: float) -> Floats:
        return np.where(self._rows.is_block, self._block_level, level)

    def _paid(self, families: Iterable[int]) -> Floats:
        """Return the sum of the prices of some families, for each row."""
        paid = np.zeros(len(self._rows.level))
        for place in families:
            paid += np.append(self._prices[place], 0.0)[self._families[place].of]
        return paid
