"""How far an order has moved its devices: how many it leaves alone, how many have no more."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kapelle.fleet.claims import owners
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, trust
from kapelle.fleet.curve.corners import TIER

_ALL_OF_IT = 0.98
"""Who gives this part of his headroom is at his limit: the rest is within the dead-band."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Devices that follow an order and are counted on, by how far they are moved."""

    level: float
    """λ the order is driven at."""
    at_limit: int
    between: int
    untouched: int

    @property
    def tier(self) -> int:
        """Which tier of the merit order the level lies in, from 0."""
        return int(max(abs(self.level) - 1e-9, 0.0) // TIER)


def extent(fleets: Iterable[Fleet], order_no: int) -> Extent | None:
    """Count the devices of an order; None where it is in force in none of the partitions.

    Costs about a curve of its resource. For who asks why, not for every second.
    """
    found: Extent | None = None
    for fleet in fleets:
        signal = next((s for s in fleet.signals.values() if s.order_no == order_no), None)
        owner = owners(fleet)
        if signal is None or owner is None:
            continue
        rows = np.flatnonzero(owner == np.int32(order_no)).astype(np.int32)
        rows = rows[trust.controllable(fleet, rows)]
        rationing = division.rationing_of(fleet, signal.resource)
        horizon_s = division.horizon_s(fleet, signal.resource, rationing)
        part = division.shares(fleet, rows, horizon_s, rationing)
        asked = fleet.order_no[rows] == np.int32(order_no)
        moved_w = np.where(asked, fleet.desired_w[rows] - part.own_w, np.nan)
        head_w = np.where(moved_w >= 0.0, part.up_w, part.down_w)
        full = np.abs(moved_w) >= _ALL_OF_IT * head_w
        at_limit = int(np.count_nonzero(full & (head_w > 0.0)))
        untouched = int(np.count_nonzero(np.isnan(moved_w)))
        before = (0, 0, 0) if found is None else (found.at_limit, found.between, found.untouched)
        found = Extent(
            signal.level,
            before[0] + at_limit,
            before[1] + len(rows) - at_limit - untouched,
            before[2] + untouched,
        )
    return found
