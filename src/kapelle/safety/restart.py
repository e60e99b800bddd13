"""Which commands left before a restart, told from the journal: sent, refused, or nobody knows.

The last hop takes the blocks of a partition one after the other and says of each, behind it, what
became of its rows. What it did not say may be: no transport took it, the journal had no space for
the finding, or the process ended in between. All that counts as sent: the gate that restarts must
not let more through than one that did not.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.model.blocks import Commands, Phases
from kapelle.model.enums import Phase
from kapelle.model.ids import Flags

_ROWS_MAX = 500_000
"""So many rows wait for what is said of them; beyond, the oldest count as sent."""


class Left(NamedTuple):
    """Commands that left the gate, or may have."""

    at_ns: int
    """When; at the latest, where that is not known."""
    commands: Commands
    sure: bool


class _Block:
    """A block of commands, and what has been said of its rows."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        self.is_open = np.ones(len(commands), np.bool_)
        """Nothing was said yet."""
        device_no = commands.device_no
        self._order = np.argsort(device_no, kind="stable")
        self._sorted = device_no[self._order]
        self.is_single: Flags = np.searchsorted(self._sorted, device_no, "right") == (
            np.searchsorted(self._sorted, device_no, "left") + 1
        )
        """Which rows are the only ones of their device."""

    def rows_of(self, phases: Phases) -> NDArray[np.intp]:
        """Return the row each finding is about, -1 where it is about none of these or said."""
        place = np.searchsorted(self._sorted, phases.device_no)
        row = self._order[np.minimum(place, len(self._order) - 1)]
        meant = self.commands.device_no[row] == phases.device_no
        meant &= self.commands.revision[row] == phases.revision
        meant &= self.is_open[row]
        rows: NDArray[np.intp] = np.where(meant, row, -1)
        return rows


class Line:
    """One partition's topic, gone through once more in order."""

    def __init__(self, now_ns: int) -> None:
        """`now_ns`: the time of the restart."""
        self._now_ns = now_ns
        self._waiting: deque[_Block] = deque()
        self._rows = 0

    def take(self, commands: Commands) -> list[Left]:
        """Take up what somebody asked for; return what must be taken for sent for want of room."""
        left: list[Left] = []
        if len(commands):
            self._waiting.append(_Block(commands))
            self._rows += len(commands)
        while self._rows > _ROWS_MAX and len(self._waiting) > 1:
            left += self._give_up(self._now_ns)
        return left

    def end(self) -> list[Left]:
        """Return what nothing was said of until the end."""
        left: list[Left] = []
        while self._waiting:
            left += self._give_up(self._now_ns)
        return left

    def hear(self, phases: Phases) -> list[Left]:
        """Take up what the last hop said; return what is thereby known to have left."""
        place, rows = self._place(phases)
        if place < 0:
            return []
        at_ns = int(phases.at_ns.max())
        left: list[Left] = []
        for _ in range(place):
            left += self._give_up(at_ns)
        block = self._waiting[0]
        sent = phases.phase == Phase.SENT
        # Where a later block asks the same, its finding may be meant, and this one's got lost.
        clear = block.is_single[rows] & ~self._is_asked_again(block, rows)
        block.is_open[rows[clear]] = False
        if (sent & clear).any():
            left.append(Left(at_ns, _part(block.commands, rows[sent & clear]), True))
        return left

    def _place(self, phases: Phases) -> tuple[int, NDArray[np.intp]]:
        """Return which block findings are about, and which rows; -1 for none."""
        for place, block in enumerate(self._waiting):
            rows = block.rows_of(phases)
            if (rows >= 0).all():
                return place, rows
        return -1, np.empty(0, np.intp)

    def _is_asked_again(self, block: _Block, rows: NDArray[np.intp]) -> Flags:
        again = np.zeros(len(rows), np.bool_)
        for other in list(self._waiting)[1:]:
            again |= np.isin(block.commands.device_no[rows], other.commands.device_no)
        return again

    def _give_up(self, at_ns: int) -> list[Left]:
        """Let the oldest block go: what is open in it may have left."""
        block = self._waiting.popleft()
        self._rows -= len(block.commands)
        rows = np.flatnonzero(block.is_open)
        if not len(rows):
            return []
        latest_ns = int(block.commands.not_after_ns[rows].max())
        return [Left(min(at_ns, max(latest_ns, 0)), _part(block.commands, rows), False)]


def _part(commands: Commands, rows: NDArray[np.intp]) -> Commands:
    return Commands(*(getattr(commands, name)[rows] for name in Commands.COLUMNS))
