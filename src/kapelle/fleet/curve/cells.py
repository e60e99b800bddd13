"""What a resource gives by the capped groups its devices are in: one set of ramps per cell.

A cell is the set of devices in the same capped feeder, zone and vendor. Whoever solves for prices
must not be told less than a cell really gives, or a cap would be exceeded unseen. So a few devices
are told one by one, and many as one device per bin of levels: as if all limits in a bin lay at
their mean. That is exact at the edges of bins and a little more in between, and one edge lies at
the level where the cell is now: solved again and again, it becomes exact.

Those on or off count from the lower edge of their bin on. Slow devices (`fleet.curve.ramps`) count
as if they could follow at once up to where they get soon.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.curve.corners import LATER, TIER, TIERS
from kapelle.fleet.curve.division import (
    CHUNK,
    Rows,
    Shares,
    at_rest_w,
    reach_of,
    shares,
    stairs_of,
)
from kapelle.fleet.curve.groups import FAMILIES, Groups, asked_soon, furthest_w
from kapelle.fleet.curve.steps import turn, with_many
from kapelle.fleet.curve.trust import controllable
from kapelle.fleet.traits import any_of, has
from kapelle.model.enums import Trait
from kapelle.model.ids import Flags, Floats
from kapelle.model.signals import Signal
from kapelle.model.summaries import CellCorners, Cells

_EXACT_MAX = 512
"""Up to so many devices are told one by one."""
_STEP = 1e-6
"""A step that is told as a ramp is that wide."""
_PER_LEVEL = 32
_EDGES = np.array([8, 16, 24, 32, 34, 36, 38, 41, 46, 54, 70, 100, 192]) / _PER_LEVEL
"""Edges of bins within a tier: dense from 1 on, where who is reliable gives all he has."""
_BIN = np.searchsorted(_EDGES, np.arange(6 * _PER_LEVEL + 2) / _PER_LEVEL)
_BINS = len(_EDGES) + 2
"""One more above the last edge, and one because the bin of the present level is cut in two."""
_DENSE_MAX = 1 << 22
"""More combinations of groups than this are sorted, not looked up."""
_NOTHING = CellCorners(b"", b"", b"", b"")

Places = NDArray[np.intp]


class CellSums:
    """Takes up the devices of a resource, piece by piece, as `sums.summed` looks at them."""

    def __init__(self, fleet: Fleet, groups: Groups, rows: Rows, signal: Signal | None) -> None:
        """Make a sum for each cell, and count the devices that are not among the rows.

        Args:
            fleet: The partition.
            groups: Those with caps.
            rows: Those the resource's order may drive.
            signal: In force for the resource.
        """
        self._fleet = fleet
        self._groups = groups
        self._of, self._cell = _cells(fleet, groups)
        self._up_w = np.zeros(self._of.shape[1])
        self._down_w = np.zeros(self._of.shape[1])
        prices = signal.prices if signal else {}
        self._prices = [prices.get(name, 0.0) for name in groups.names]
        pays: Floats = np.array([*self._prices, 0.0])[self._of].sum(axis=0)
        level, block_level = (signal.level, signal.block_level) if signal else (0.0, 0.0)
        exact = len(rows) <= _EXACT_MAX
        tiers = TIERS if has(any_of(fleet.traits[span(rows)]), Trait.TIER, Trait.SLOW) else 1
        self._ramps: dict[bool, _Single | _Binned] = {}
        for steps, reached in ((False, level), (True, block_level)):
            near = np.maximum(abs(reached) - pays, 0.0)
            self._ramps[steps] = _Single(steps) if exact else _Binned(steps, near, tiers)
        self._add_others(rows)

    def _add_others(self, rows: Rows) -> None:
        """Count devices of other resources, or that other orders drive: they too use up what their
        groups may do."""
        fleet = self._fleet
        other = fleet.active[: fleet.size].copy()
        other[span(rows)] = False
        left = np.flatnonzero(other).astype(np.int32)
        for start in range(0, len(left), CHUNK):
            piece = left[start : start + CHUNK]
            self._add_to_groups(piece, *_at_worst_w(fleet, piece))

    def add(self, rows: Rows, part: Shares, counted: Flags) -> None:
        """Take up rows: those counted on at rest and as ramps from there, others at their worst."""
        fleet = self._fleet
        high_w, low_w = at_rest_w(fleet, rows, part, 1), at_rest_w(fleet, rows, part, -1)
        left = np.flatnonzero(~counted)
        if len(left):
            high_w[left], low_w[left] = _at_worst_w(fleet, rows[left])
        self._add_to_groups(rows, high_w, low_w)
        cell = self._cell[span(rows)]
        tier = np.zeros(len(rows)) if part.begins is None else part.begins
        follows, whole = counted & ~part.switched, counted & part.switched
        whole[with_many(fleet, rows)] = False
        self._add_lines(rows, part, follows, cell, tier)
        one = np.flatnonzero(whole)
        if len(one):
            at = turn(fleet, rows, one) / part.readiness[one]
            heads = {1: part.up_w[one], -1: part.down_w[one]}
            self._ramps[True].add(cell[one], tier[one], at, heads)
        for sign in (1, -1):
            steps = stairs_of(fleet, rows, part, sign)
            if steps is not None:
                some = counted[steps.which]
                which = steps.which[some]
                rise = {sign: steps.rise_w[some]}
                self._ramps[True].add(cell[which], tier[which], steps.at[some], rise)

    def _add_lines(
        self, rows: Rows, part: Shares, follows: Flags, cell: Places, tier: Floats
    ) -> None:
        at = 1.0 / part.readiness
        heads = {1: part.up_w * follows, -1: part.down_w * follows}
        found = reach_of(self._fleet, rows, part)
        if found is None:
            self._ramps[False].add(cell, tier, at, heads)
            return
        which = found.which
        for sign, ends_w, starts_w in (
            (1, found.highest_w, found.lowest_w),
            (-1, found.lowest_w, found.highest_w),
        ):
            # From where it gets at least, which is at rest, as far as it gets; then what is left.
            head_w = heads[sign][which]
            start_w = np.clip(sign * (starts_w - part.own_w[which]), 0.0, head_w)
            end_w = np.clip(sign * (ends_w - part.own_w[which]), start_w, head_w)
            soon_w, soon_at = heads[sign].copy(), at.copy()
            soon_w[which] = end_w - start_w
            full = np.divide(end_w, head_w, out=np.ones(len(which)), where=head_w > 0.0)
            soon_at[which] *= np.maximum(full, _STEP)
            self._ramps[False].add(cell, tier, soon_at, {sign: soon_w})
            last = np.full(len(which), LATER * TIER)
            self._ramps[False].add(cell[which], last, np.ones(len(which)), {sign: head_w - end_w})

    def _add_to_groups(self, rows: Rows, up_w: Floats, down_w: Floats) -> None:
        cell, count = self._cell[span(rows)], len(self._up_w)
        self._up_w += np.bincount(cell, up_w, count)
        self._down_w += np.bincount(cell, down_w, count)

    def told(self) -> Cells:
        """Return it all as told to the plant."""
        groups, count = self._groups, len(self._groups.names)
        up_w, down_w = np.zeros(count), np.zeros(count)
        for of in self._of:
            mine = of >= 0
            up_w += np.bincount(of[mine], self._up_w[mine], count)
            down_w += np.bincount(of[mine], self._down_w[mine], count)
        return Cells(
            groups=groups.names,
            up_w=up_w.tolist(),
            down_w=down_w.tolist(),
            export_w=groups.export_w,
            import_w=groups.import_w,
            of=np.ascontiguousarray(self._of, "<i4").tobytes(),
            up=self._ramps[False].told(1),
            down=self._ramps[False].told(-1),
            blocks_up=self._ramps[True].told(1),
            blocks_down=self._ramps[True].told(-1),
            prices=self._prices,
            vendor_share=self._fleet.envelopes.vendor_share_max,
        )


def _at_worst_w(fleet: Fleet, rows: Rows) -> tuple[Floats, Floats]:
    """Return how far towards export and towards consumption each device may be. [W]"""
    up_w, down_w = furthest_w(fleet, rows, 1), furthest_w(fleet, rows, -1)
    doubtful = np.flatnonzero(asked_soon(fleet, rows) & ~controllable(fleet, rows))
    if len(doubtful):
        # They may be tried again at any time, with their own schedule (`dispatch.caps.keeping`).
        again = rows[doubtful]
        part = shares(fleet, again)
        up_w[doubtful] = np.maximum(up_w[doubtful], at_rest_w(fleet, again, part, 1))
        down_w[doubtful] = np.minimum(down_w[doubtful], at_rest_w(fleet, again, part, -1))
    return up_w, down_w


class _Single:
    """Ramps of few devices, one by one."""

    def __init__(self, steps: bool) -> None:
        self._steps = steps
        self._found: dict[int, list[tuple[Places, Floats, Floats, Floats]]] = {1: [], -1: []}

    def add(self, cell: Places, tier: Floats, at: Floats, heads: Mapping[int, Floats]) -> None:
        """Take up ramps by direction; of those with steps, `at` is where the step is."""
        begins = tier + np.maximum(at - _STEP, 0.0) if self._steps else tier
        for sign, head_w in heads.items():
            some = np.flatnonzero(head_w > 0.0)
            ramps = cell[some], begins[some], (tier + at)[some], head_w[some]
            self._found[sign].append(ramps)

    def told(self, sign: int) -> CellCorners:
        """Return the ramps of one direction."""
        if not self._found[sign]:
            return _NOTHING
        return _told(*(np.concatenate(each) for each in zip(*self._found[sign], strict=True)))


class _Binned:
    """Ramps of many devices, those of a cell in one bin of levels as one."""

    def __init__(self, steps: bool, near: Floats, tiers: int) -> None:
        """Make bins; those of each cell are cut at `near`, its present level."""
        self._steps = steps
        self._near = near
        self._tiers = tiers
        self._count = len(near) * tiers
        self._head_w = {sign: np.zeros(self._count * _BINS) for sign in (1, -1)}
        self._weight = {sign: np.zeros(self._count * _BINS) for sign in (1, -1)}

    def add(self, cell: Places, tier: Floats, at: Floats, heads: Mapping[int, Floats]) -> None:
        """Take up ramps by direction; of those with steps, `at` is where the step is."""
        place = np.minimum(at * _PER_LEVEL, len(_BIN) - 1.0)
        which = _BIN.take(np.ceil(place, out=place).astype(np.intp))
        which += tier + at > self._near.take(cell)
        # Bin by bin, so that what is in use lies together.
        which *= self._count
        which += cell
        if self._tiers > 1:
            which += (tier / TIER).astype(np.intp) * len(self._near)
        for sign, head_w in heads.items():
            np.add.at(self._head_w[sign], which, head_w)
            if not self._steps:
                np.add.at(self._weight[sign], which, head_w / at)

    def told(self, sign: int) -> CellCorners:
        """Return the ramps of one direction."""
        used = np.flatnonzero(self._head_w[sign] > 0.0)
        if not len(used):
            return _NOTHING
        head_w, (which, place) = self._head_w[sign][used], np.divmod(used, self._count)
        cell, tier = place % len(self._near), (place // len(self._near)) * TIER
        if self._steps:
            begins = tier + self._lower(which, self._near[cell] - tier)
            return _told(cell, begins, begins + _STEP, head_w)
        return _told(cell, tier, tier + head_w / self._weight[sign][used], head_w)

    @staticmethod
    def _lower(which: Places, near: Floats) -> Floats:
        """Return the lower edge of a bin, given where the bins of its cell are cut."""
        cut = np.searchsorted(_EDGES, near)
        edges = np.append(0.0, _EDGES)
        lower = edges[np.minimum(np.where(which <= cut, which, which - 1), len(_EDGES))]
        return np.where(which == cut + 1, np.maximum(near, 0.0), lower)


def _told(cell: Places, begins: Floats, at: Floats, head_w: Floats) -> CellCorners:
    return CellCorners(
        cell=cell.astype("<i4").tobytes(),
        begins=begins.astype("<f8").tobytes(),
        at=at.astype("<f8").tobytes(),
        head_w=head_w.astype("<f8").tobytes(),
    )


def _cells(fleet: Fleet, groups: Groups) -> tuple[NDArray[np.int32], Places]:
    """Return the groups of each cell, shape (families, cells), and the cell of every row."""
    tables: list[NDArray[np.int64]] = []
    ranks: list[tuple[Places, int, int]] = []
    size = 1
    for place in groups.place:
        # 0: in no capped group of the family.
        capped = place >= 0
        rank = np.where(capped, np.cumsum(capped), 0)
        ranks.append((np.append(-1, place[capped]), size, int(capped.sum()) + 1))
        tables.append(rank * size)
        size *= ranks[-1][2]
    key = np.zeros(fleet.size, np.int64)
    used = [(f, t) for f, t in zip(FAMILIES, tables, strict=True) if t.any()]
    for start in range(0, fleet.size, CHUNK):
        here = slice(start, min(start + CHUNK, fleet.size))
        for family, table in used:
            key[here] += table.take(getattr(fleet, family)[here])
    if size <= _DENSE_MAX:
        present = np.zeros(size, np.bool_)
        present[key] = True
        keys = np.flatnonzero(present)
        cell = (np.cumsum(present) - 1).take(key)
    else:
        few, cell = np.unique(key, return_inverse=True)
        keys = few.astype(np.intp)
    of = np.stack([place[keys // unit % count] for place, unit, count in ranks])
    return of.astype(np.int32), cell
