"""Sums over the last so many seconds, kept in a few buckets per place."""

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kapelle.model.ids import NS_PER_S, Floats

Places = NDArray[np.integer]
"""Numbers of what is counted for: devices, groups, issuers."""


class Window:
    """Sums per place over a time at least `span_s` long, at most by one part of it longer.

    So whoever keeps a sum below a limit keeps it below in any `span_s` whatever. The memory grows
    with the highest place that was ever counted for; places never used cost nothing.
    """

    def __init__(self, span_s: float, parts: int, dtype: DTypeLike = np.float64) -> None:
        self._part_ns = int(span_s * NS_PER_S / parts)
        self._dtype = np.dtype(dtype)
        self._size = 0
        self._part = 0
        """Number of the newest part, counted from the beginning of time."""
        self._sums: deque[NDArray[np.generic]] = deque(
            (np.zeros(0, dtype) for _ in range(parts + 1)), maxlen=parts + 1
        )

    def advance(self, now_ns: int) -> None:
        """Forget what is too old at this time, which is never before an earlier one."""
        part = now_ns // self._part_ns
        for _ in range(min(part - self._part, len(self._sums))):
            # A new array, not zeros written into an old one: pages never written take no memory.
            self._sums.append(np.zeros(self._size, self._dtype))
        self._part = part

    def total(self, places: Places) -> Floats:
        """Return the sum at each place."""
        self._reserve(places)
        total = np.zeros(len(places))
        for part in self._sums:
            total += part[places].astype(np.float64)
        return total

    def add(self, places: Places, amount: Floats) -> None:
        """Add amounts; a place may occur several times."""
        self._reserve(places)
        np.add.at(self._sums[-1], places, amount.astype(self._dtype))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return what there is to remember, for `restore`."""
        return {"part": np.array([self._part]), "sums": np.concatenate([*self._sums])}

    def restore(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on with what `columns` returned."""
        if columns["part"].shape != (1,):
            raise ValueError("a window has one newest part")
        sums = columns["sums"].astype(self._dtype).reshape(len(self._sums), -1)
        self._part, self._size = int(columns["part"].astype(np.int64)[0]), sums.shape[1]
        self._sums.extend(sums.copy())

    def _reserve(self, places: Places) -> None:
        needed = int(places.max()) + 1 if len(places) else 0
        if needed <= self._size:
            return
        size = max(needed, 2 * self._size)
        longer = [np.zeros(size, self._dtype) for _ in self._sums]
        for new, old in zip(longer, self._sums, strict=True):
            new[: self._size] = old
        self._sums.extend(longer)
        self._size = size


def below(
    prefix: str, columns: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Return the columns whose names begin so, without that beginning."""
    return {
        name.removeprefix(prefix): column
        for name, column in columns.items()
        if name.startswith(prefix)
    }


def check_lengths(*columns: NDArray[np.generic]) -> None:
    """Raise ValueError where columns are not as long as each other, by their last axis."""
    if len({column.shape[-1] for column in columns}) > 1:
        raise ValueError("columns differ in length")
