"""How many commands were followed and how many were not, by kind and vendor: a partition's count.

A device's own record (`responses`, `refusals`) forgets, and so cannot tell what came when. These
counts only grow; the plant takes their differences and knows the hour (`capacity.responses`).
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kapelle.model.enums import DeviceKind
from kapelle.model.ids import Bytes, Flags

_KINDS = len(DeviceKind)
_FOLLOWED, _FAILED = 0, 1

Codes = NDArray[np.int16]


@dataclass(slots=True, eq=False)
class Trials:
    """Commands under orders whose outcome is known."""

    counts: dict[int, list[int]] = field(default_factory=dict)
    """By vendor code · kinds + kind: followed, not followed."""

    def add_followed(self, kind: Bytes, vendor: Codes, late: Flags) -> None:
        """Count answers; a `late` one had been counted as none, which is taken back."""
        self._add(_FOLLOWED, kind, vendor, 1)
        self._add(_FAILED, kind[late], vendor[late], -1)

    def add_failed(self, kind: Bytes, vendor: Codes) -> None:
        """Count refusals, silence after a command, and devices that left their setpoint."""
        self._add(_FAILED, kind, vendor, 1)

    def _add(self, place: int, kind: Bytes, vendor: Codes, sign: int) -> None:
        cells, counts = np.unique(vendor.astype(np.int64) * _KINDS + kind, return_counts=True)
        for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
            self.counts.setdefault(cell, [0, 0])[place] += sign * count

    def told(self, vendors: list[str]) -> dict[str, list[int]]:
        """Return the counts by name, `kind/vendor`."""
        return {
            cell_name(cell % _KINDS, vendors[cell // _KINDS]): list(counts)
            for cell, counts in sorted(self.counts.items())
        }

    @classmethod
    def from_told(cls, told: dict[str, list[int]], vendors: list[str]) -> Self:
        """Return what `told` was told of."""
        code = {name: at for at, name in enumerate(vendors)}
        counts: dict[int, list[int]] = {}
        for name, each in told.items():
            kind, vendor = name.split("/", 1)
            counts[code[vendor] * _KINDS + int(kind)] = list(each)
        return cls(counts)


def cell_name(kind: int, vendor: str) -> str:
    """Return the name of what devices of one kind and vendor share."""
    return f"{kind}/{vendor}"


def vendor_of(cell: str) -> str:
    """Return the vendor in a cell's name."""
    return cell.split("/", 1)[1]
