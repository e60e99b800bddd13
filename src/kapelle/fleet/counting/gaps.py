"""Which of a device's last 4,096 numbered reports came: windows, held only where some are missing.

A window is a ring of bits: report number n has bit `n % 4096`. Bits of numbers that no report of
the device's present boot was counted under are 0.
"""

import numpy as np
from numpy.typing import NDArray

from kapelle.model.ids import Flags, Ints, Longs

WINDOW = 4096
"""Numbers a window reaches back, the newest included."""
_WORDS = WINDOW // 64
_FEW = 64
"""Windows the pool begins with; it doubles."""

Words = NDArray[np.uint64]
Places = NDArray[np.intp]
_ONE = np.uint64(1)
_LOWEST: Words = np.array([(1 << count) - 1 for count in range(65)], np.uint64)
"""Words whose lowest bits are set: none, one, …, all."""
_BEFORE: Longs = np.arange(_WORDS, dtype=np.int64) * 64
"""Bits of a window before each of its words."""


class Gaps:
    """The windows of one partition. Where a window lies in memory is no part of the state."""

    def __init__(self) -> None:
        self.evicted = 0
        """Windows given up because others needed the space."""
        self._row: Ints = np.empty(0, np.int32)
        self._missing: Ints = np.empty(0, np.int32)
        self._bits: Words = np.empty((0, _WORDS), np.uint64)
        self._slot: Ints = np.empty(0, np.int32)
        """Where each row's window lies; -1: it has none."""

    def __len__(self) -> int:
        return int(np.count_nonzero(self._row >= 0))

    def slots(self, rows: Places) -> Places:
        """Return where the windows of some rows lie; -1 for those without."""
        slots = np.full(len(rows), -1, np.intp)
        known = rows < len(self._slot)
        slots[known] = self._slot[rows[known]]
        return slots

    def bits(self, slots: Places) -> Words:
        """Return a copy of some windows, shape (slots, 64)."""
        return self._bits[slots]

    def has(self, slots: Places, numbers: Longs) -> Flags:
        """Tell which numbers came, one for each slot."""
        word, bit = _place(numbers)
        came: Flags = (self._bits[slots, word] & bit) != 0
        return came

    def add_next(self, slots: Places, numbers: Longs, began: Longs) -> Flags:
        """Count the next number of each window, each window once; return which are whole now."""
        word, bit = _place(numbers)
        # The bit is that of the number a whole window back, which leaves.
        leaves = ((self._bits[slots, word] & bit) == 0) & (numbers - WINDOW >= began)
        self._bits[slots, word] |= bit
        self._missing[slots] -= leaves
        whole: Flags = self._missing[slots] == 0
        return whole

    def put(self, rows: Places, bits: Words, missing: Ints) -> None:
        """Give rows new windows.

        Args:
            rows: Each once.
            bits: Shape (rows, 64).
            missing: How many numbers each window lacks, > 0.
        """
        slots = self.slots(rows)
        new = np.flatnonzero(slots < 0)
        if len(new):
            slots[new] = self._free(len(new), int(rows.max()) + 1)
            self._row[slots[new]] = rows[new]
            self._slot[rows[new]] = slots[new]
        self._bits[slots], self._missing[slots] = bits, missing

    def trim(self, most: int, heard_ns: Longs) -> Places:
        """Keep at most so many windows; return the rows whose windows had to go.

        Args:
            most: How many.
            heard_ns: When each row was heard from; those heard longest ago go first.
        """
        over = len(self) - most
        if over <= 0:
            return np.empty(0, np.intp)
        held = np.sort(self._row[self._row >= 0]).astype(np.intp)
        gone = held[np.argsort(heard_ns[held], kind="stable")[:over]]
        self.drop(gone)
        self.evicted += over
        return gone

    def drop(self, rows: Places) -> None:
        """Give up the windows of rows that have one."""
        slots = self._slot[rows]
        self._row[slots] = -1
        self._slot[rows] = -1

    def _free(self, windows: int, rows: int) -> Places:
        """Return slots nobody has, after making room for them and for so many rows."""
        have = len(self._row)
        free = np.flatnonzero(self._row < 0)
        if windows > len(free):
            more = max(windows - len(free), have, _FEW)
            self._row = np.append(self._row, np.full(more, -1, np.int32))
            self._missing = np.append(self._missing, np.zeros(more, np.int32))
            # Zeros nobody has touched take neither time nor memory.
            bits = np.zeros((have + more, _WORDS), np.uint64)
            bits[:have] = self._bits
            self._bits = bits
            free = np.append(free, np.arange(have, have + more))
        if rows > len(self._slot):
            more = max(rows, len(self._slot) * 5 // 4) - len(self._slot)
            self._slot = np.append(self._slot, np.full(more, -1, np.int32))
        return free[:windows]

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return all there is to know, in the order of rows."""
        held = np.flatnonzero(self._row >= 0)
        held = held[np.argsort(self._row[held])]
        return {
            "row": self._row[held],
            "missing": self._missing[held],
            "bits": self._bits[held].reshape(-1),
            "evicted": np.array([self.evicted], np.int64),
        }

    @classmethod
    def from_columns(cls, columns: dict[str, NDArray[np.generic]]) -> "Gaps":
        """Return the windows that `columns` told of; none where it tells nothing."""
        gaps = cls()
        if columns:
            gaps._row = np.array(columns["row"], np.int32)
            gaps._missing = np.array(columns["missing"], np.int32)
            gaps._bits = np.array(columns["bits"], np.uint64).reshape(-1, _WORDS)
            gaps.evicted = int(columns["evicted"][0])
            gaps._slot = np.full(int(gaps._row.max(initial=-1)) + 1, -1, np.int32)
            gaps._slot[gaps._row] = np.arange(len(gaps._row), dtype=np.int32)
        return gaps


def _place(numbers: Longs) -> tuple[Places, Words]:
    at = numbers & (WINDOW - 1)
    return (at >> 6).astype(np.intp), _ONE << (at & 63).astype(np.uint64)


def ring(first: Longs, count: Longs) -> Words:
    """Return windows in which `count` numbers from `first` on are set, shape (windows, 64)."""
    start = first & (WINDOW - 1)
    end = start + np.minimum(count, WINDOW)
    return _line(start, np.minimum(end, WINDOW)) | _line(np.zeros_like(start), end - WINDOW)


def _line(start: Longs, end: Longs) -> Words:
    until = _LOWEST.take(end[:, None] - _BEFORE, mode="clip")
    return until & ~_LOWEST.take(start[:, None] - _BEFORE, mode="clip")


def add(bits: Words, window: Places, numbers: Longs) -> None:
    """Set the bits of some numbers, each in the window at a place of `bits`."""
    word, bit = _place(numbers)
    np.bitwise_or.at(bits, (window, word), bit)


def count(bits: Words) -> Ints:
    """Return how many numbers each window has."""
    counted: Ints = np.bitwise_count(bits).sum(axis=1, dtype=np.int32)
    return counted
