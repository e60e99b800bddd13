"""What setpoints must heed where groups have caps, beside λ and prices.

Devices whose setpoint falls by less than their dead-band are left as they are. In a group at its
cap that would add up: there the largest such falls are told until the sum is what was asked.
"""

from collections.abc import Iterator
from math import inf

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve.groups import FAMILIES, capped_groups
from kapelle.fleet.curve.trust import controllable
from kapelle.model.ids import Flags, Floats, Ints

_NOTHING_W = 1e-6

Places = NDArray[np.intp]


def in_doubt(fleet: Fleet, rows: Ints) -> Ints:
    """Return those of some rows that are in a capped feeder or zone, or share what vendors may
    carry, and are not counted on: no λ or price reckons with them. Tried again, they are asked for
    no more than their own schedule."""
    groups = capped_groups(fleet)
    if groups is None:
        return rows[:0]
    capped = np.zeros(len(rows), np.bool_)
    for family, place in zip(FAMILIES, groups.place, strict=True):
        capped |= (place >= 0)[getattr(fleet, family)[rows]]
    return rows[capped & ~controllable(fleet, rows)]


def past_caps(
    fleet: Fleet, rows: Ints, sign: int, want_w: Floats, left_w: Floats
) -> tuple[Flags, Flags]:
    """Return who has to be told, and who is in any group with a cap.

    Args:
        fleet: The partition.
        rows: Devices with a setpoint in force.
        sign: 1 where their order moves them towards export, -1 towards consumption.
        want_w: What is asked of them now. [W]
        left_w: What they have been told, and are left with unless told anew. [W]
    """
    told, capped = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    for group, limit_w in _limits(fleet, rows, sign):
        mine = group >= 0
        mine[mine] = limit_w[group[mine]] < inf
        if not mine.any():
            continue
        capped |= mine
        beyond_w = sign * (np.where(told, want_w, left_w) - want_w)
        past_w = np.bincount(group[mine], beyond_w[mine], len(limit_w)).astype(np.float64)
        some = np.flatnonzero(mine & (beyond_w > 0.0))
        some = some[past_w[group[some]] > _NOTHING_W]
        told[some[_largest(group[some], beyond_w[some], past_w)]] = True
    return told, capped


def _limits(fleet: Fleet, rows: Ints, sign: int) -> Iterator[tuple[Places, Floats]]:
    """Yield by kind of group the group of each row, and the limit of each group. [W]"""
    sites = fleet.envelopes.caps("site", fleet.names["site"], fleet.now_ns)
    if sites is not None:
        yield fleet.site[rows].astype(np.intp), sites.export_w if sign > 0 else sites.import_w
    groups = capped_groups(fleet)
    if groups is None:
        return
    limit_w = np.array(groups.export_w if sign > 0 else groups.import_w)
    # A share is a limit, too.
    limit_w[[name.startswith("vendor/") for name in groups.names]] = 0.0
    for family, place in zip(FAMILIES, groups.place, strict=True):
        yield place[getattr(fleet, family)[rows]].astype(np.intp), limit_w


def _largest(group: Places, amount_w: Floats, past_w: Floats) -> Places:
    """Return the largest of each group that together make up what it is past its cap by."""
    order = np.lexsort((-amount_w, group))
    sums_w = np.cumsum(amount_w[order])
    first = np.append(True, np.diff(group[order]) != 0)[: len(order)]
    begun_w = (sums_w - amount_w[order])[first]
    before_w = sums_w - amount_w[order] - begun_w[np.cumsum(first) - 1]
    largest: Places = order[before_w < past_w[group[order]]]
    return largest
