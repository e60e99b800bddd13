"""What one tick teaches about estimating, summed over the devices of a resource.

Learning across devices is the plant's (`estimation.learned`): a partition only adds up, so that
the outcome does not depend on how devices are spread over partitions. All powers but the surprises
of `steady` are shares of nameplate.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import CLUSTERS, Fleet, span
from kapelle.fleet.estimation.news import (
    Places,
    anchor_age_s,
    is_free,
    is_sampled,
    nameplate_w,
    news,
)
from kapelle.fleet.reconciliation.conditions import untrusted
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S, Floats, Longs
from kapelle.model.summaries import Evidence

OCTAVES = 16
"""Octaves of age, from 1 s on."""
PV_CLUSTER = "~"
"""Begins the name of a group of PV under one sky; others are `kind/vendor`."""
_CELLS = len(DeviceKind) * OCTAVES
_CADENCES = 24
_VOID_S = 4096.0
"""A reading that is no measured truth counts as being so old. [s]"""


class Witness:
    """Running sums over the rows of one resource."""

    def __init__(self, fleet: Fleet, *, whole: bool) -> None:
        """Begin; `whole` where the resource is all devices, from which the plant learns."""
        self._fleet = fleet
        self._whole = whole
        self._vendors = len(fleet.names["vendor"])
        self._steady = np.zeros((6, _CADENCES))
        self._silent = np.zeros((5, _CELLS))
        self._silent_groups_w = np.zeros(self._groups)
        self._levels = np.zeros((5, len(DeviceKind)))
        self._anchors = np.zeros((7, _CELLS))
        self._fourths = np.zeros(_CELLS)
        self._moves = np.zeros((3, len(DeviceKind)))
        self._readings = np.zeros((3, self._groups))
        self._heard = np.zeros(self._groups)

    @property
    def _groups(self) -> int:
        return CLUSTERS + len(DeviceKind) * self._vendors

    def add_news(self, rows: NDArray[np.int32]) -> None:
        """Add those of the rows whose reading came since the tick before."""
        fleet = self._fleet
        rows_: Places = rows[news(fleet, span(rows))].astype(np.intp)
        if not len(rows_):
            return
        gap_s = fleet.gap_s[rows_].astype(np.float64)
        steady = (gap_s > 0) & np.isfinite(gap_s) & ~untrusted(fleet, rows_.astype(np.int32))
        rows_, gap_s = rows_[steady], gap_s[steady]
        plate_w = nameplate_w(fleet, rows_)
        surprise_w = fleet.surprise[rows_] * plate_w
        self._add_steady(rows_, gap_s, plate_w, surprise_w)
        if self._whole:
            free = is_free(fleet, rows_)
            self._add_levels(rows_, gap_s, plate_w, surprise_w * free)
            free_ = np.flatnonzero(free)
            self._add_free(rows_[free_], gap_s[free_], plate_w[free_])

    def _add_steady(self, rows: Places, gap_s: Floats, plate_w: Floats, off_w: Floats) -> None:
        fleet = self._fleet
        cadence_s = np.maximum(np.nan_to_num(fleet.cadence_s[rows], nan=60.0), 1.0)
        place = np.rint(np.log2(cadence_s)).astype(np.intp)
        heard_at_ns = fleet.heard_at_ns[rows]
        delay_s = np.maximum(fleet.now_ns - heard_at_ns, 0) / NS_PER_S
        behind_s = (heard_at_ns - fleet.marked_at_ns[rows]) / NS_PER_S
        # A clock that is off by more than a report says nothing about the link.
        behind_s = np.minimum(np.maximum(behind_s, -gap_s), gap_s)
        gaps = plate_w * gap_s
        parts = (plate_w, gaps, gaps * gap_s, plate_w * delay_s, off_w, plate_w * behind_s)
        alike = bool((place == place[:1]).all())
        for total, part in zip(self._steady, parts, strict=True):
            if alike:
                # Mostly so, and `bincount` takes ten times as long.
                total[place[:1]] += part.sum()
            else:
                total += np.bincount(place, part, _CADENCES)

    def _add_levels(self, rows: Places, gap_s: Floats, plate_w: Floats, off_w: Floats) -> None:
        """Each report stands for the time since the one before it.

        Who is under command counts with what he last did by himself: an order takes those that
        can give something, and the mean of all others is no move of anybody.
        """
        fleet = self._fleet
        kind = fleet.kind[rows]
        own_w = fleet.own_w[rows]
        each = np.ones(len(rows))
        for total, part in zip(
            self._levels, (gap_s, plate_w * gap_s, own_w * gap_s, off_w, each), strict=True
        ):
            total += np.bincount(kind, part, len(DeviceKind))

    def _add_free(self, rows: Places, gap_s: Floats, plate_w: Floats) -> None:
        fleet = self._fleet
        share = fleet.own_w[rows] / np.maximum(plate_w, 1.0)
        self._add_groups(rows, share, plate_w * gap_s)
        sampled = np.flatnonzero(is_sampled(fleet, rows))
        rows = rows[sampled]
        self._add_moves(rows, gap_s[sampled])
        self._add_anchors(rows, share[sampled])

    def _add_moves(self, rows: Places, gap_s: Floats) -> None:
        fleet = self._fleet
        kind = fleet.kind[rows]
        square = fleet.surprise[rows].astype(np.float64) ** 2
        for total, part in zip(self._moves, (gap_s, square, square * square), strict=True):
            total += np.bincount(kind, part, len(DeviceKind))

    def _add_anchors(self, rows: Places, share: Floats) -> None:
        fleet = self._fleet
        age_s = anchor_age_s(fleet, rows)
        told = (fleet.anchored_at[rows] > 0) & (age_s > 0)
        rows, share, age_s = rows[told], share[told], age_s[told]
        then = fleet.anchor[rows].astype(np.float64)
        place = cells(fleet.kind[rows], age_s)
        parts = (np.ones(len(rows)), then, share, then * then, then * share, share * share, age_s)
        for total, part in zip(self._anchors, parts, strict=True):
            total += np.bincount(place, part, _CELLS)
        self._fourths += np.bincount(place, (share - then) ** 4, _CELLS)

    def _add_groups(self, rows: Places, share: Floats, plate_s: Floats) -> None:
        for which, group in self._grouped(rows):
            self._heard += np.bincount(group, plate_s[which], self._groups)
            parts = (np.ones(len(which)), share[which], share[which] ** 2)
            for total, part in zip(self._readings, parts, strict=True):
                total += np.bincount(group, part, self._groups)

    def _grouped(self, rows: Places) -> Iterable[tuple[Places, Longs]]:
        fleet = self._fleet
        every = np.arange(len(rows))
        kind = fleet.kind[rows].astype(np.int64)
        yield every, CLUSTERS + kind * self._vendors + fleet.vendor[rows]
        pv = np.flatnonzero(kind == DeviceKind.PV)
        yield pv, fleet.cluster[rows[pv]].astype(np.int64)

    def add_silent(self, rows: Places) -> None:
        """Add devices that are silent, on their own schedule as far as anyone can know."""
        fleet = self._fleet
        plate_w = nameplate_w(fleet, rows)
        power_w = fleet.estimate_w[rows]
        age_s = (fleet.now_ns - fleet.heard_at_ns[rows]) / NS_PER_S
        # Since when a void reading is void nobody knows exactly.
        age_s[untrusted(fleet, rows.astype(np.int32))] = _VOID_S
        place = cells(fleet.kind[rows], age_s)
        parts = (np.ones(len(rows)), plate_w, power_w, plate_w * age_s, plate_w * plate_w)
        for total, part in zip(self._silent, parts, strict=True):
            total += np.bincount(place, part, _CELLS)
        for which, group in self._grouped(rows):
            self._silent_groups_w += np.bincount(group, plate_w[which], self._groups)

    def told(self) -> Evidence:
        """Return the sums, without what is empty."""
        names = [f"{PV_CLUSTER}{number}" for number in range(CLUSTERS)]
        names += [
            f"{kind.value}/{vendor}"
            for kind in DeviceKind
            for vendor in self._fleet.names["vendor"]
        ]
        return Evidence(
            steady=_table(self._steady),
            silent=_table(self._silent),
            silent_groups={names[n]: w for n, w in _numbers(self._silent_groups_w).items()},
            levels=_table(self._levels),
            anchors=_table(self._anchors),
            groups={names[n]: sums for n, sums in _table(self._readings).items()},
            moves=_table(self._moves),
            fourths=_numbers(self._fourths),
            heard={names[n]: w for n, w in _numbers(self._heard).items()},
        )


def cells(kind: NDArray[np.uint8], age_s: Floats | Longs) -> NDArray[np.intp]:
    """Return the cell of each device: its kind and the octave of the age."""
    octave = np.log2(np.maximum(age_s, 1.0)).astype(np.intp)
    place: NDArray[np.intp] = kind.astype(np.intp) * OCTAVES + np.minimum(octave, OCTAVES - 1)
    return place


def _table(sums: Floats) -> dict[int, list[float]]:
    used = np.flatnonzero(sums[0])
    return dict(zip(used.tolist(), sums[:, used].T.tolist(), strict=True))


def _numbers(sums: Floats) -> dict[int, float]:
    used = np.flatnonzero(sums)
    return dict(zip(used.tolist(), sums[used].tolist(), strict=True))
