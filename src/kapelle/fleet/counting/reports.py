"""Numbered reports as the counting sees them: rows, flags and windows, grouped by device."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.model.enums import Metric
from kapelle.model.ids import Flags, Floats, Longs

Places = NDArray[np.intp]
LOWEST = -(2**63)
SEQ = 0xFFFF_FFFF
"""Bits of an order by counters that are the report's number; those above are its boot."""


class Counting:
    """Bits of the `counting` column: what must be looked at beside the mark."""

    COUNTS = np.uint8(1)
    """It numbers its reports."""
    BLIND = np.uint8(2)
    """Its window was given up: what lies below `began` may have come or not."""
    GAPPED = np.uint8(4)
    """It has a window."""
    FLOORED = np.uint8(8)
    """Its counters restarted, or its clock ran ahead: old reports are told by their time."""
    SUSPECT = np.uint8(16)
    """Its counters may have restarted; see `restart_count`."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Reports of known devices, in the order of arrival."""

    row: Places
    order: Longs
    measured_at_ns: Longs
    received_at_ns: Longs
    values: dict[Metric, Floats]

    def __len__(self) -> int:
        return len(self.row)

    def at(self, which: Flags | Places | slice) -> "Rows":
        """Return some of them."""
        if isinstance(which, slice):
            return Rows(
                self.row[which],
                self.order[which],
                self.measured_at_ns[which],
                self.received_at_ns[which],
                {metric: value[which] for metric, value in self.values.items()},
            )
        # Measured: five times as fast as an index of flags.
        place = np.flatnonzero(which) if which.dtype == np.bool_ else which
        return Rows(
            self.row.take(place),
            self.order.take(place),
            self.measured_at_ns.take(place),
            self.received_at_ns.take(place),
            {metric: value.take(place) for metric, value in self.values.items()},
        )


def close_windows(fleet: Fleet, row: Places) -> None:
    """Give up the windows of devices that miss nothing any more."""
    fleet.gaps.drop(row)
    fleet.counting[row] &= ~Counting.GAPPED


def lose_sight(fleet: Fleet, row: Places) -> None:
    """Forget which reports of some devices are missing: from here on they are counted anew."""
    fleet.counting[row] = (fleet.counting[row] & ~Counting.GAPPED) | Counting.BLIND
    fleet.began[row] = ((fleet.mark[row] - LOWEST) & SEQ).astype(np.uint32)


def by_device(row: Places) -> tuple[Places, Places, Places]:
    """Group reports by device: their places in order, the group of each, and each group's row."""
    shift = len(row).bit_length()
    # One sort of numbers, vectorised: a stable argsort takes four times as long.
    both = np.sort(row << shift | np.arange(len(row)))
    came, row = both & ((1 << shift) - 1), both >> shift
    edge = np.ones(len(row), np.bool_)
    edge[1:] = row[1:] != row[:-1]
    return came, np.cumsum(edge) - 1, row[edge]


def running(first: Longs, of: Places, value: Longs) -> Longs:
    """Return for each value the highest before it in its group, `first` of the group included.

    Args:
        first: One for each group.
        of: Group of each value, ascending.
        value: In order of arrival within its group.
    """
    highest = first[of]
    same = of[1:] == of[:-1]
    if not same.any():
        return highest
    highest[1:] = np.where(same, np.maximum(highest[1:], value[:-1]), highest[1:])
    step = 1
    while True:
        # Each has seen `step` before it; its neighbour that far away saw as many more.
        same = of[step:] == of[:-step]
        if not same.any():
            return highest
        seen = np.where(same, highest[:-step], highest[step:])
        highest[step:] = np.maximum(highest[step:], seen)
        step *= 2
