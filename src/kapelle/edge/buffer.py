"""Readings the plant has not acknowledged; what it acknowledges at once never touches the disk."""

import logging
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kapelle.edge import wire
from kapelle.edge.file import opened
from kapelle.edge.ledger import Ledger
from kapelle.edge.settings import BufferSettings
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S

_log = logging.getLogger(__name__)

_FRESH_MAX = 20_000
"""Readings that wait for a disk that takes none; beyond it the oldest are lost, and counted."""
_SLICE = 5_000
"""Readings looked at in one flush to make room: some hundredths of a second."""
_DONE = object()
_WAITING = "SELECT device, boot, seq, at_ns, body FROM readings WHERE device = ? "
_OLDEST = _WAITING + "ORDER BY boot, seq LIMIT ?"
_NEWEST = _WAITING + "ORDER BY boot DESC, seq DESC LIMIT ?"


class Row(NamedTuple):
    """A reading that waits."""

    device: str
    boot: int
    seq: int
    at_ns: int
    body: bytes


class Buffer:
    """Readings by device, oldest first, over restarts of the agent."""

    def __init__(self, settings: BufferSettings, now_ns: int) -> None:
        """Open the file, and count this start of the agent.

        Raises:
            Invalid: The file is not one of ours, or cannot be written.
            DataDirectoryHeld: Another agent uses it.
        """
        self.thinned = 0
        """Readings given up for want of room, since the start."""
        self._settings = settings
        self._fresh: dict[str, deque[Row]] = {}
        self._seq: dict[str, int] = {}
        self._is_full = False
        self._file = opened(settings.file)
        self.ledger = Ledger(self._file)
        """In the same file, what each device was told last."""
        kept = self._file.execute("SELECT device, count(*) FROM readings GROUP BY device")
        self._kept: Counter[str] = Counter(dict(kept.fetchall()))
        """Readings on disk, by device."""
        self._thinning: Iterator[None] = iter(())
        self._said: set[str] = set()
        before = self._one("SELECT value FROM agent WHERE name = 'boot'")
        # By the minute: an agent whose file was lost does not fall back behind what it has sent.
        self.boot = max(before + 1, now_ns // (60 * NS_PER_S))
        self._file.execute("INSERT OR REPLACE INTO agent VALUES ('boot', ?)", (self.boot,))
        self._file.commit()
        self.latest_ns = self._one("SELECT max(at_ns) FROM readings")
        """When the newest reading that was kept was taken: time has passed that. [UTC ns]"""

    def add(self, device: str, values: dict[Metric, float], at_ns: int) -> None:
        """Take a reading."""
        seq = self._seq[device] = self._seq.get(device, 0) + 1
        body = wire.telemetry(values, at_ns, self.boot, seq)
        self._fresh.setdefault(device, deque()).append(Row(device, self.boot, seq, at_ns, body))

    def fresh(self, device: str) -> list[Row]:
        """Return the readings that were not yet written to disk."""
        return list(self._fresh.get(device, ()))

    def newest(self, device: str) -> list[Row]:
        """Return the newest reading that waits, if any does."""
        return self.fresh(device)[-1:] or self._read(_NEWEST, device, 1)

    def stored(self, device: str, limit: int) -> list[Row]:
        """Return the oldest readings on disk; none where it cannot be read now."""
        return self._read(_OLDEST, device, limit)

    def _read(self, query: str, device: str, limit: int) -> list[Row]:
        try:
            found = self._file.execute(query, (device, limit)).fetchall()
        except sqlite3.Error as error:
            self._complain(error)
            return []
        return [Row(*row) for row in found]

    def waiting(self, device: str) -> int:
        """Return how many readings of a device the plant has not acknowledged."""
        return len(self._fresh.get(device, ())) + self._kept[device]

    def has_stored(self, device: str) -> bool:
        """Tell whether readings of a device wait on disk."""
        return self._kept[device] > 0

    def confirm(self, device: str, rows: Sequence[Row]) -> None:
        """Forget readings: the plant has them. What a crash brings back is sent again."""
        taken = {row[:3] for row in rows}
        waiting = self._fresh.get(device, ())
        self._fresh[device] = deque(row for row in waiting if row[:3] not in taken)
        if self._kept[device]:
            try:
                self._delete(device, rows)
            except sqlite3.Error as error:
                self._complain(error)

    def flush(self, now_ns: int) -> None:
        """Write what the plant has not acknowledged to disk; make room where there is none.

        A disk that takes nothing is said once, and what came last stays in memory.
        """
        fresh = [row for waiting in self._fresh.values() for row in waiting]
        try:
            if fresh:
                with self._file:
                    self._file.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", fresh)
                self._kept.update(row.device for row in fresh)
                self._fresh.clear()
            self._make_room(now_ns)
        except sqlite3.Error as error:
            self._complain(error)
            for waiting in self._fresh.values():
                while len(waiting) > _FRESH_MAX:
                    waiting.popleft()
                    self.thinned += 1
            return
        if self._is_full:
            self._is_full = False
            _log.info("the buffer can be written again")

    def close(self, now_ns: int) -> None:
        """Write what waits, and close the file."""
        self.flush(now_ns)
        self._file.close()

    def _make_room(self, now_ns: int) -> None:
        oldest_ns = now_ns - int(self._settings.keep_days * 86_400 * NS_PER_S)
        for device, count in self._kept.items():
            if count and any(row.at_ns < oldest_ns for row in self.stored(device, 1)):
                aged = self.stored(device, _SLICE)
                self._give_up(device, [row for row in aged if row.at_ns < oldest_ns])
                self._say("their age: the plant would refuse them")
        if next(self._thinning, _DONE) is _DONE and self._kept.total() > self._settings.rows_max:
            self._say("want of room: every second of the older half")
            self._thinning = self._thin()
            next(self._thinning, None)

    def _thin(self) -> Iterator[None]:
        """Give up every second reading of the older half, device by device, a slice at a time."""
        for device, count in list(self._kept.items()):
            left, after = count // 2, (-1, -1)
            while left > 0:
                slice_ = self._file.execute(
                    "SELECT device, boot, seq, at_ns, body FROM readings "
                    "WHERE device = ? AND (boot, seq) > (?, ?) ORDER BY boot, seq LIMIT ?",
                    (device, *after, min(left, _SLICE)),
                ).fetchall()
                if not slice_:
                    # The plant is back, and took them meanwhile.
                    break
                rows = [Row(*row) for row in slice_]
                left -= len(rows)
                after = rows[-1].boot, rows[-1].seq
                self._give_up(device, rows[1::2])
                yield

    def _give_up(self, device: str, rows: Sequence[Row]) -> None:
        self.thinned += self._delete(device, rows)

    def _delete(self, device: str, rows: Sequence[Row]) -> int:
        with self._file:
            gone = self._file.executemany(
                "DELETE FROM readings WHERE device = ? AND boot = ? AND seq = ?",
                [row[:3] for row in rows],
            ).rowcount
        self._kept[device] -= gone
        return gone

    def _one(self, query: str, *values: object) -> int:
        found = self._file.execute(query, values).fetchone()
        return 0 if found is None or found[0] is None else int(found[0])

    def _say(self, reason: str) -> None:
        """Say once why readings are lost; `thinned` counts them."""
        if reason not in self._said:
            self._said.add(reason)
            _log.warning("readings are given up", extra={"reason": reason})

    def _complain(self, error: sqlite3.Error) -> None:
        if not self._is_full:
            self._is_full = True
            _log.error("the buffer cannot be written", extra={"reason": str(error)})
