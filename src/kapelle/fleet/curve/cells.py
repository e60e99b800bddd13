"""What a resource gives by the capped groups its devices are in: one set of ramps per cell.

A cell is the set of devices in the same capped feeder, zone and vendor. Whoever solves for prices
must not be told less than a cell really gives, or a cap would be exceeded unseen. So a few devices
are told one by one, and many as one device per bin of levels: as if all limits in a bin lay at
their mean. That is exact at the edges of bins and a little more in between, and one edge lies at
the level where the cell is now: solved again and again, it becomes exact.

Those on or off count from the lower edge of their bin on. Slow devices (`fleet.curve.ramps`) count
as if they could follow at once up to where they get soon.
"""

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
    site_heads,
    stairs_of,
)
from kapelle.fleet.curve.groups import FAMILIES, Groups, asked_soon, furthest_w
from kapelle.fleet.curve.limits import HOLD_S
from kapelle.fleet.curve.steps import turn, with_many
from kapelle.fleet.curve.trust import controllable
from kapelle.fleet.traits import any_of, has
from kapelle.model.enums import Trait
from kapelle.model.ids import Floats
from kapelle.model.plant import CellCorners, Cells, Rationing, Signal

_EXACT_MAX = 512
"""Up to so many devices are told one by one."""
_STEP = 1e-6
"""A step that is told as a ramp is that wide."""
_PER_LEVEL = 32
_EDGES = np.array([8, 16, 24, 32, 34, 36, 38, 41, 46, 54, 70, 100, 192]) / _PER_LEVEL
"""Edges of bins within a tier: dense from 1 on, where who is reliable gives all he has."""
_BIN = np.searchsorted(_EDGES, np.arange(6 * _PER_LEVEL + 2) / _PER_LEVEL).astype(np.int32)
_BINS = len(_EDGES) + 2
"""One more above the last edge, and one because the bin of the present level is cut in two."""
_DENSE_MAX = 1 << 22
"""More combinations of groups than this are sorted, not looked up."""
_NOTHING = CellCorners(b"", b"", b"", b"")

Places = NDArray[np.intp]


def cells_of(
    fleet: Fleet,
    groups: Groups,
    rows: Rows,
    signal: Signal | None,
    horizon: float = HOLD_S,
    rationing: Rationing | None = None,
) -> Cells:
    """Return what the controllable rows of a resource give, by cell, and what else their groups do.

    Args:
        fleet: The partition.
        groups: Those with caps.
        rows: Those the resource's order may drive.
        signal: In force for the resource.
        horizon: As of `shares`.
        rationing: As of `shares`.
    """
    sums = _Sums(fleet, groups, rows, signal)
    # All devices use up what their groups may do, whatever resource they belong to.
    for start in range(0, fleet.size, CHUNK):
        piece = np.arange(start, min(start + CHUNK, fleet.size), dtype=np.int32)
        sums.add_others(piece[fleet.active[span(piece)]])
    heads = site_heads(fleet, horizon, rationing)
    for start in range(0, len(rows), CHUNK):
        piece = rows[start : start + CHUNK]
        sums.add(piece, shares(fleet, piece, horizon, rationing, heads))
    return sums.told()


class _Sums:
    def __init__(self, fleet: Fleet, groups: Groups, rows: Rows, signal: Signal | None) -> None:
        self._fleet = fleet
        self._groups = groups
        self._up_w = np.zeros(len(groups.names))
        self._down_w = np.zeros(len(groups.names))
        self._of, self._cell = _cells(fleet, groups, rows)
        prices = signal.prices if signal else {}
        self._prices = [prices.get(name, 0.0) for name in groups.names]
        pays: Floats = np.array([*self._prices, 0.0])[self._of].sum(axis=0)
        level, block_level = (signal.level, signal.block_level) if signal else (0.0, 0.0)
        exact = len(rows) <= _EXACT_MAX
        tiers = TIERS if has(any_of(fleet.traits[span(rows)]), Trait.TIER, Trait.SLOW) else 1
        self._ramps: dict[tuple[int, bool], _Single | _Binned] = {}
        for steps, reached in ((False, level), (True, block_level)):
            near = np.maximum(abs(reached) - pays, 0.0)
            for sign in (1, -1):
                self._ramps[sign, steps] = _Single(steps) if exact else _Binned(steps, near, tiers)

    def add_others(self, rows: Rows) -> None:
        """Count every device as one no order of this resource drives."""
        fleet = self._fleet
        up_w, down_w = furthest_w(fleet, rows, 1), furthest_w(fleet, rows, -1)
        doubtful = np.flatnonzero(asked_soon(fleet, rows) & ~controllable(fleet, rows))
        if len(doubtful):
            # They may be tried again at any time, and then do all they can.
            part = shares(fleet, rows[doubtful])
            up_w[doubtful] = np.maximum(up_w[doubtful], part.own_w + part.up_w)
            down_w[doubtful] = np.minimum(down_w[doubtful], part.own_w - part.down_w)
        self._add_to_groups(rows, up_w, down_w)

    def add(self, rows: Rows, part: Shares) -> None:
        """Count the controllable ones on their own schedule instead, and as ramps from there."""
        fleet = self._fleet
        counted = np.flatnonzero(controllable(fleet, rows))
        mine = rows[counted]
        if not len(mine):
            return
        part = _of(part, counted)
        high_w, low_w = at_rest_w(fleet, mine, part, 1), at_rest_w(fleet, mine, part, -1)
        self._add_to_groups(
            mine, high_w - furthest_w(fleet, mine, 1), low_w - furthest_w(fleet, mine, -1)
        )
        cell = self._cell[mine]
        tier = np.zeros(len(mine)) if part.begins is None else part.begins
        for sign, head_w in ((1, part.up_w), (-1, part.down_w)):
            follows = np.flatnonzero((head_w > 0.0) & ~part.switched)
            self._add_lines(sign, mine, part, follows, tier, head_w.copy())
            whole = (head_w > 0.0) & part.switched
            whole[with_many(fleet, mine)] = False
            one = np.flatnonzero(whole)
            at = turn(fleet, mine, one) / part.readiness[one]
            self._add(sign, True, cell[one], tier[one], at, head_w[one])
            steps = stairs_of(fleet, mine, part, sign)
            if steps is not None:
                which = steps.which
                self._add(sign, True, cell[which], tier[which], steps.at, steps.rise_w)

    def _add_lines(
        self, sign: int, rows: Rows, part: Shares, follows: Places, tier: Floats, head_w: Floats
    ) -> None:
        cell = self._cell[rows]
        at = 1.0 / part.readiness
        found = reach_of(self._fleet, rows, part)
        if found is not None:
            # From the least it gets to, which counts as at rest, as far as it gets; then the rest.
            which = found.which
            ends_w = found.highest_w if sign > 0 else found.lowest_w
            starts_w = found.lowest_w if sign > 0 else found.highest_w
            start_w = np.maximum(sign * (starts_w - part.own_w[which]), 0.0)
            end_w = np.clip(sign * (ends_w - part.own_w[which]), 0.0, head_w[which])
            self._add(
                sign,
                False,
                cell[which],
                np.full(len(which), LATER * TIER),
                np.ones(len(which)),
                head_w[which] - end_w,
            )
            at[which] *= np.divide(
                end_w, head_w[which], out=np.zeros(len(which)), where=head_w[which] > 0.0
            )
            head_w[which] = np.maximum(end_w - start_w, 0.0)
            follows = follows[head_w[follows] > 0.0]
        self._add(sign, False, cell[follows], tier[follows], at[follows], head_w[follows])

    def _add(
        self, sign: int, steps: bool, cell: Places, tier: Floats, at: Floats, head_w: Floats
    ) -> None:
        """Take up ramps; of those with steps, `at` is where the step is."""
        some = np.flatnonzero(head_w > 0.0)
        if not len(some):
            return
        cell, tier, at, head_w = cell[some], tier[some], at[some], head_w[some]
        self._ramps[sign, steps].add(cell, tier, at, head_w)

    def _add_to_groups(self, rows: Rows, up_w: Floats, down_w: Floats) -> None:
        at = span(rows)
        for family, place in zip(FAMILIES, self._groups.place, strict=True):
            group = place[getattr(self._fleet, family)[at]]
            mine = np.flatnonzero(group >= 0)
            if len(mine):
                which, count = group[mine], len(self._up_w)
                self._up_w += np.bincount(which, up_w[mine], count)
                self._down_w += np.bincount(which, down_w[mine], count)

    def told(self) -> Cells:
        """Return it all as told to the plant."""
        told = {key: ramps.told() for key, ramps in self._ramps.items()}
        groups = self._groups
        return Cells(
            groups=groups.names,
            up_w=self._up_w.tolist(),
            down_w=self._down_w.tolist(),
            export_w=groups.export_w,
            import_w=groups.import_w,
            of=np.ascontiguousarray(self._of, "<i4").tobytes(),
            up=told[1, False],
            down=told[-1, False],
            blocks_up=told[1, True],
            blocks_down=told[-1, True],
            prices=self._prices,
            vendor_share=self._fleet.envelopes.vendor_share_max,
        )


def _of(part: Shares, which: Places) -> Shares:
    return Shares(
        own_w=part.own_w[which],
        up_w=part.up_w[which],
        down_w=part.down_w[which],
        readiness=part.readiness[which],
        switched=part.switched[which],
        traits=part.traits,
        begins=None if part.begins is None else part.begins[which],
        kept_w=None if part.kept_w is None else part.kept_w[which],
    )


class _Single:
    """Ramps of few devices, one by one."""

    def __init__(self, steps: bool) -> None:
        self._steps = steps
        self._found: list[tuple[Places, Floats, Floats, Floats]] = []

    def add(self, cell: Places, tier: Floats, at: Floats, head_w: Floats) -> None:
        begins = tier + np.maximum(at - _STEP, 0.0) if self._steps else tier
        self._found.append((cell, begins, tier + at, head_w))

    def told(self) -> CellCorners:
        if not self._found:
            return _NOTHING
        return _told(*(np.concatenate(each) for each in zip(*self._found, strict=True)))


class _Binned:
    """Ramps of many devices, those of a cell in one bin of levels as one."""

    def __init__(self, steps: bool, near: Floats, tiers: int) -> None:
        """Make bins; those of each cell are cut at `near`, its present level."""
        self._steps = steps
        self._near = near
        self._tiers = tiers
        count = len(near) * tiers * _BINS
        self._head_w, self._weight = np.zeros(count), np.zeros(count)

    def add(self, cell: Places, tier: Floats, at: Floats, head_w: Floats) -> None:
        place = np.minimum(at * _PER_LEVEL, len(_BIN) - 1.0)
        which = _BIN[np.ceil(place, out=place).astype(np.int32)].astype(np.int64)
        which += tier + at > self._near[cell]
        if self._tiers > 1:
            cell = cell * self._tiers + (tier / TIER).astype(np.int64)
        which += cell * _BINS
        self._head_w += np.bincount(which, head_w, len(self._head_w))
        self._weight += np.bincount(which, head_w / at, len(self._head_w))

    def told(self) -> CellCorners:
        used = np.flatnonzero(self._head_w > 0.0)
        if not len(used):
            return _NOTHING
        head_w, place = self._head_w[used], used // _BINS
        cell, tier = place // self._tiers, (place % self._tiers).astype(np.float64) * TIER
        if self._steps:
            begins = tier + self._lower(used % _BINS, self._near[cell] - tier)
            return _told(cell, begins, begins + _STEP, head_w)
        return _told(cell, tier, tier + head_w / self._weight[used], head_w)

    @staticmethod
    def _lower(which: Places, near: Floats) -> Floats:
        """Return the lower edge of a bin, given where the bins of its cell are cut."""
        cut = np.searchsorted(_EDGES, near)
        edges = np.append(0.0, _EDGES)
        lower = edges[np.minimum(np.where(which <= cut, which, which - 1), len(_EDGES))]
        return np.where(which == cut + 1, np.maximum(near, 0.0), lower)


def _told(cell: Places, begins: Floats, at: Floats, head_w: Floats) -> CellCorners:
    order = np.lexsort((at, cell))
    return CellCorners(
        cell=cell[order].astype("<i4").tobytes(),
        begins=begins[order].astype("<f8").tobytes(),
        at=at[order].astype("<f8").tobytes(),
        head_w=head_w[order].astype("<f8").tobytes(),
    )


def _cells(fleet: Fleet, groups: Groups, rows: Rows) -> tuple[NDArray[np.int32], Places]:
    """Return the groups of each cell, shape (families, cells), and the cell of each row by its
    number."""
    at = span(rows)
    key = np.zeros(len(rows), np.int64)
    size = 1
    ranks: list[tuple[Places, int, int]] = []
    for family, place in zip(FAMILIES, groups.place, strict=True):
        # 0: in no capped group of the family.
        capped = place >= 0
        rank = np.where(capped, np.cumsum(capped), 0)
        ranks.append((np.append(-1, place[capped]), size, int(capped.sum()) + 1))
        if capped.any():
            key += (rank * size)[getattr(fleet, family)[at]]
        size *= ranks[-1][2]
    if size <= _DENSE_MAX:
        present = np.zeros(size, np.bool_)
        present[key] = True
        keys = np.flatnonzero(present)
        found = (np.cumsum(present) - 1)[key]
    else:
        keys, found = np.unique(key, return_inverse=True)
    of = np.stack([place[keys // unit % count] for place, unit, count in ranks])
    cell = np.zeros(fleet.size, np.intp)
    cell[at] = found
    return of.astype(np.int32), cell
