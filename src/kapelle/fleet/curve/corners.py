"""Where devices reach their limits along λ: one by one for few, counted into cells for many.

A corner is a place within a tier, how far its device has come there, and its slope up to it. What a
device may not do before some level is a second, negative corner.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kapelle.model.ids import Bytes, Flags, Floats

TIER = 1024.0
"""Width of a tier along λ. Weights are at least head / TIER: a tier's end is all of everyone."""
TIERS = 17
"""Sixteen of merit order, and what slow devices cannot reach yet (`fleet.curve.ramps`)."""
LATER = TIERS - 1
_CELLS = 1 << 14
_CELLS_FAR = 1 << 9
"""For a tier in which nothing moves now."""

Places = NDArray[np.intp]
Corners = tuple[Floats, Floats, Floats]
"""Ascending |λ| within the tier; what is gained at it; the slope up to it. [W]"""


class Collected(Protocol):
    """Corners by tier, direction, and whether their devices follow a line or have steps."""

    def add(
        self,
        at: Floats,
        up_w: Floats,
        down_w: Floats,
        readiness: Floats,
        switched: Flags,
        tier: Bytes | None,
    ) -> None:
        """Take up a corner for each device, the same in both directions. None: all in tier 0."""
        ...

    def add_few(
        self,
        sign: int,
        switched: bool,
        at: Floats,
        head_w: Floats,
        weight: Floats,
        tier: Bytes,
    ) -> None:
        """Take up corners in one direction."""
        ...

    def found(self, sign: int, switched: bool) -> dict[int, Corners]:
        """Return the corners of each tier that has some, ascending."""
        ...


def cell_levels(cells: int) -> Floats:
    """Return the upper edges of cells within a tier: dense where devices have their limits."""
    part = np.arange(1, cells) / cells * (TIER / (TIER + 1.0))
    return np.append(part / (1.0 - part), TIER)


class Sorted:
    """The corners of few devices, one by one."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, bool, int], list[Corners]] = {}

    def add(
        self,
        at: Floats,
        up_w: Floats,
        down_w: Floats,
        readiness: Floats,
        switched: Flags,
        tier: Bytes | None,
    ) -> None:
        """Take up a corner for each device, the same in both directions. None: all in tier 0."""
        for sign, head_w in ((1, up_w), (-1, down_w)):
            for steps in (False, True):
                which = np.flatnonzero((head_w > 0.0) & (switched == steps))
                of = np.zeros(len(which), np.uint8) if tier is None else tier[which]
                weight = head_w[which] * readiness[which]
                self.add_few(sign, steps, at[which], head_w[which], weight, of)

    def add_few(
        self,
        sign: int,
        switched: bool,
        at: Floats,
        head_w: Floats,
        weight: Floats,
        tier: Bytes,
    ) -> None:
        """Take up corners in one direction."""
        for one in np.unique(tier).tolist():
            which = tier == one
            self._found.setdefault((sign, switched, one), []).append(
                (at[which], head_w[which], weight[which])
            )

    def found(self, sign: int, switched: bool) -> dict[int, Corners]:
        """Return the corners of each tier that has some, ascending."""
        sides: dict[int, Corners] = {}
        for of, parts in sorted(self._found.items()):
            if of[:2] == (sign, switched):
                at, head_w, weight = (np.concatenate(each) for each in zip(*parts, strict=True))
                order = np.argsort(at, kind="stable")
                sides[of[2]] = at[order], head_w[order], weight[order]
        return sides


class Counted:
    """The corners of many devices, summed in cells of |λ|; exact at the edges of the cells."""

    def __init__(self, near: set[int] | None) -> None:
        """Make cells, fine ones in some tiers. None: there is only one tier."""
        cells = [_CELLS if near is None or tier in near else _CELLS_FAR for tier in range(TIERS)]
        self._cells = np.array(cells[: 1 if near is None else TIERS])
        self._first = np.cumsum(self._cells) - self._cells
        self._total = int(self._cells.sum())
        self._head_w = {1: np.zeros(2 * self._total), -1: np.zeros(2 * self._total)}
        self._weight = {1: np.zeros(2 * self._total), -1: np.zeros(2 * self._total)}

    def add(
        self,
        at: Floats,
        up_w: Floats,
        down_w: Floats,
        readiness: Floats,
        switched: Flags,
        tier: Bytes | None,
    ) -> None:
        """Take up a corner for each device, the same in both directions. None: all in tier 0."""
        cell = self._cell(at, tier)
        cell += switched * self._total
        for sign, head_w in ((1, up_w), (-1, down_w)):
            self._head_w[sign] += np.bincount(cell, head_w, 2 * self._total)
            self._weight[sign] += np.bincount(cell, head_w * readiness, 2 * self._total)

    def add_few(
        self,
        sign: int,
        switched: bool,
        at: Floats,
        head_w: Floats,
        weight: Floats,
        tier: Bytes,
    ) -> None:
        """Take up corners in one direction."""
        cell = self._cell(at, tier)
        cell += switched * self._total
        self._head_w[sign] += np.bincount(cell, head_w, 2 * self._total)
        self._weight[sign] += np.bincount(cell, weight, 2 * self._total)

    def found(self, sign: int, switched: bool) -> dict[int, Corners]:
        """Return the corners of each tier that has some, ascending."""
        sides: dict[int, Corners] = {}
        for tier, (first, cells) in enumerate(zip(self._first, self._cells, strict=True)):
            begins = int(first) + switched * self._total
            here = slice(begins, begins + int(cells))
            head_w, weight = self._head_w[sign][here], self._weight[sign][here]
            # Of empty cells only the edge before a used one matters: the curve is straight there.
            used = (head_w != 0.0) | (weight != 0.0)
            if used.any():
                used[:-1] |= used[1:]
                sides[tier] = cell_levels(int(cells))[used], head_w[used], weight[used]
        return sides

    def _cell(self, at: Floats, tier: Bytes | None) -> Places:
        if tier is None:
            cells = int(self._cells[0])
            cell = (at / (1.0 + at) * (cells * (TIER + 1.0) / TIER)).astype(np.intp)
            return np.minimum(cell, cells - 1, out=cell)
        cells_of = self._cells[tier]
        cell = (at / (1.0 + at) * (cells_of * ((TIER + 1.0) / TIER))).astype(np.intp)
        found: Places = np.minimum(cell, cells_of - 1) + self._first[tier]
        return found
