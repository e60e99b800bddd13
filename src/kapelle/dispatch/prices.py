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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.model.ids import Flags, Floats

Places = NDArray[np.intp]

_SWEEPS_MAX = 60
_ROWS_MANY = 1000
"""With more rows a sweep takes long: fewer of them, and the next cycle goes on where they ended."""
_SWEEPS_MANY = 8
_STEPS_MAX = 80
_JUMPS_MAX = 12
_STRIDES_MAX = 16
_TOGETHER_MAX = 400
"""More prices than this are not solved for together: that takes the cube of their number."""
_CLOSE = 1e-10
"""Sums this close to a cap, as a part of it, are at it."""
_CLOSE_W = 1e-7
_BEYOND = 8.0
"""λ ends at so many times the level at which every cell gives all it has: where the target is out
of reach, this makes the sum outweigh how fairly it is divided."""


class Rows(NamedTuple):
    """What cells give at a level above their groups' prices, in one direction.

    Shape (cells, knots); `level` rises strictly from 0, `power_w` from 0 without ever falling.
    Rows are padded with their last knot's power.
    """

    level: Floats
    power_w: Floats
    is_block: Flags
    """Cells of devices that are on or off have a λ of their own."""


class Family(NamedTuple):
    """Disjoint groups of one kind."""

    of: Places
    """Group of each row; -1 for none."""
    room_w: Floats
    """What the rows of each group may give together; >= 0. [W]"""


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
            row_w = _power_w(self._rows, self._driven(float(level[0])) - others)
            return np.array([cut_w(row_w, chain)])

        ends = np.zeros(1), np.full(1, self._end)
        self._level = float(
            _rising(given_w, np.array([target_w]), *ends, np.array([self._level]))[0]
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
            row_w = _power_w(self._rows, level - price[which]) * member
            return sums(family, row_w) if inner is None else _outer_w(row_w, inner, family)

        most = np.zeros(len(family.room_w))
        np.maximum.at(most, which[member], level[member])
        self._prices[place] = _falling(given_w, family.room_w, most, self._prices[place])

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
        worth = self._level * target_w - float(_area(self._rows, row_level).sum())
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
        row_w, slope = _power_w(self._rows, self._row_level()), self._slopes()
        active = [
            np.flatnonzero((price > 0.0) | (sums(family, row_w) > family.room_w))
            for family, price in zip(self._families, self._prices, strict=True)
        ]
        moves = ~self._rows.is_block
        # Unknowns: the prices of the active groups, family by family, then λ.
        of = [
            _renumbered(f.of, a, len(f.room_w)) for f, a in zip(self._families, active, strict=True)
        ]
        missing_w = [
            (f.room_w - sums(f, row_w))[a] for f, a in zip(self._families, active, strict=True)
        ]
        short_w = target_w - float(row_w.sum())
        if self._level >= self._end and short_w > 0.0:
            moves, short_w = np.zeros_like(moves), 0.0
        step = _newton(of, missing_w, slope, moves, short_w)
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
            over = sums(family, self._row_w()) > family.room_w * (1.0 + _CLOSE) + _CLOSE_W
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
        return _power_w(self._rows, self._row_level())

    def _slopes(self) -> Floats:
        """Return how much each row gives per unit of level, where it is now. [W]"""
        level = self._row_level()
        width = 1e-9 * np.maximum(np.abs(level), 1.0)
        return (_power_w(self._rows, level + width) - _power_w(self._rows, level - width)) / (
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


def _newton(
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
    if rest > _TOGETHER_MAX:
        return None
    first, others = (of[0], of[1:]) if of else (np.full(len(slope), -1), [])
    ahead = counts[0] if of else 0
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
            both = (down >= 0) & (across >= 0)
            at = down[both] * rest + across[both]
            together += sign * np.bincount(at, slope[both], rest * rest).reshape(rest, rest)
    if ahead:
        for down in sums_in:
            both = (down >= 0) & (first >= 0)
            at = down[both] * ahead + first[both]
            aside -= np.bincount(at, slope[both], rest * ahead).reshape(rest, ahead)
        for across, sign in zip(places, signs, strict=True):
            both = (first >= 0) & (across >= 0)
            at = first[both] * rest + across[both]
            after += sign * np.bincount(at, slope[both], ahead * rest).reshape(ahead, rest)
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


def _renumbered(of: Places, groups: Places, count: int) -> Places:
    """Return each row's place among some of the groups; -1 for those in none of them."""
    places = np.full(count + 1, -1, np.intp)
    places[groups] = np.arange(len(groups))
    return places[of]


def _outer_w(row_w: Floats, inner: Family, outer: Family) -> Floats:
    """Return what each outer group gives, the inner ones in it cut off at their caps. [W]"""
    groups = len(outer.room_w)
    parent = _parents(inner, outer)
    within = parent >= 0
    inner_w = np.minimum(sums(inner, row_w), inner.room_w)
    alone = (inner.of < 0) & (outer.of >= 0)
    nested_w = np.bincount(parent[within], inner_w[within], groups)
    alone_w = np.bincount(outer.of[alone], row_w[alone], groups)
    return (nested_w + alone_w).astype(np.float64)


def cut_w(row_w: Floats, chain: Sequence[Family]) -> float:
    """Return what all give together, every group cut off at its cap. [W]"""
    if not chain:
        return float(row_w.sum())
    inner = chain[0]
    inner_w = np.minimum(sums(inner, row_w), inner.room_w)
    free = inner.of < 0
    if len(chain) == 1:
        return float(inner_w.sum()) + float(row_w[free].sum())
    outer = chain[1]
    # What is in no outer group counts where the inner one ends.
    total_w = float(inner_w[_parents(inner, outer) < 0].sum())
    total_w += float(np.minimum(_outer_w(row_w, inner, outer), outer.room_w).sum())
    return total_w + float(row_w[free & (outer.of < 0)].sum())


def at_levels(rows: Rows, level: float, block_level: float) -> Floats:
    """Return what each row gives without any price. [W]"""
    return _power_w(rows, np.where(rows.is_block, block_level, level))


def sums(family: Family, row_w: Floats) -> Floats:
    """Return what each group gives. [W]"""
    mine = family.of >= 0
    return np.bincount(family.of[mine], row_w[mine], len(family.room_w)).astype(np.float64)


def is_nested(inner: Family, outer: Family) -> bool:
    """Tell whether each group lies in one of the other family, or all of it in none."""
    mine = inner.of >= 0
    parents = _parents(inner, outer)
    return bool((parents[inner.of[mine]] == outer.of[mine]).all())


def _parents(inner: Family, outer: Family) -> Places:
    """Return the group of `outer` in which each of `inner` lies; -1 for none."""
    parents = np.full(len(inner.room_w), -1, np.intp)
    mine = inner.of >= 0
    parents[inner.of[mine]] = outer.of[mine]
    return parents


def last_corners(rows: Rows) -> Floats:
    """Return the level from which on each row gives all it has."""
    if not len(rows.level):
        return np.zeros(0)
    full = np.argmax(rows.power_w >= rows.power_w[:, -1:], axis=1)
    last: Floats = rows.level[np.arange(len(full)), full]
    return last


def _power_w(rows: Rows, level: Floats) -> Floats:
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


def _area(rows: Rows, level: Floats) -> Floats:
    """Return what each row gives, summed up over its levels from 0 to this one. [W]"""
    width = np.diff(
        np.minimum(rows.level, level[:, np.newaxis]), axis=1, append=level[:, np.newaxis]
    )
    width[:, -1] = np.maximum(level - rows.level[:, -1], 0.0)
    rise_w = np.diff(rows.power_w, axis=1, append=rows.power_w[:, -1:])
    run = np.diff(rows.level, axis=1, append=np.inf)
    slope = np.divide(rise_w, run, out=np.zeros(rise_w.shape), where=run > 0.0)
    area: Floats = (width * (rows.power_w + 0.5 * slope * width)).sum(axis=1)
    return area


def _falling(
    function: Callable[[Floats], Floats], want: Floats, most: Floats, near: Floats
) -> Floats:
    """Return where each falling function reaches what is wanted, from the side that is below it;
    0 where it is below from the start."""
    return _rising(lambda x: -function(x), -want, np.zeros(len(most)), most, near, above=True)


def _rising(
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
    close = _CLOSE * np.abs(want) + _CLOSE_W
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
