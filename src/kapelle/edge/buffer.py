"""What an agent must not forget: readings the plant has not acknowledged, and the last command of
each device. SQLite; a reading that is acknowledged at once never touches the disk."""

import logging
import math
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kapelle.edge import wire
from kapelle.edge.settings import BufferSettings
from kapelle.errors import DataDirectoryHeld, Invalid, Problem
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S

_log = logging.getLogger(__name__)

_FORMAT = 1
_FRESH_MAX = 20_000
"""Readings that wait for a disk that takes none; beyond it the oldest are lost, and counted."""
_SLICE = 5_000
"""Readings looked at in one flush to make room: some hundredths of a second."""
_DONE = object()
_WAITING = "SELECT device, boot, seq, at_ns, body FROM readings WHERE device = ? "
_OLDEST = _WAITING + "ORDER BY boot, seq LIMIT ?"
_NEWEST = _WAITING + "ORDER BY boot DESC, seq DESC LIMIT ?"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (
    device TEXT NOT NULL, boot INTEGER NOT NULL, seq INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (device, boot, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (
    device TEXT PRIMARY KEY, epoch INTEGER NOT NULL, revision INTEGER NOT NULL,
    setpoint_w REAL, until_ns INTEGER NOT NULL, status INTEGER NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS agent (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class Row(NamedTuple):
    """A reading that waits."""

    device: str
    boot: int
    seq: int
    at_ns: int
    body: bytes


class Told(NamedTuple):
    """The newest command of a device, and what became of it."""

    epoch: int = -1
    revision: int = -1
    setpoint_w: float = math.nan
    """What the device was given last; NaN where it was released. [W]"""
    until_ns: int = 0
    """When that ends by itself."""
    status: int = 0
    """An `AckStatus`; 0 while it is being carried out."""
    reason: str = ""

    @property
    def rank(self) -> tuple[int, int]:
        """Return what tells a newer command from an older one."""
        return self.epoch, self.revision


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
        self._file = _opened(settings.file)
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

    def told(self, device: str) -> Told:
        """Return the newest command of a device."""
        found = self._file.execute(
            "SELECT epoch, revision, setpoint_w, until_ns, status, reason FROM told "
            "WHERE device = ?",
            (device,),
        ).fetchone()
        if found is None:
            return Told()
        epoch, revision, setpoint_w, *rest = found
        return Told(epoch, revision, math.nan if setpoint_w is None else setpoint_w, *rest)

    def tell(self, device: str, told: Told) -> None:
        """Remember the newest command of a device; it is durable when this returns.

        Raises:
            OSError: The disk does not take it, so it must not be carried out.
        """
        epoch, revision, setpoint_w, *rest = told
        kept = (device, epoch, revision, None if math.isnan(setpoint_w) else setpoint_w, *rest)
        try:
            with self._file:
                self._file.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?, ?)", kept)
        except sqlite3.Error as error:
            self._complain(error)
            raise OSError(str(error)) from error

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


def _opened(path: Path) -> sqlite3.Connection:
    file = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(path, timeout=1.0)
        # One agent: two would count each other's starts and send each other's readings.
        file.execute("PRAGMA locking_mode = EXCLUSIVE")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        version = file.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT):
            what = f"it has format {version}, this version knows {_FORMAT}"
            remedy = "use the version that wrote it"
            raise Invalid("the buffer cannot be used", [Problem(str(path), what, remedy)])
        file.executescript(_SCHEMA)
        file.execute(f"PRAGMA user_version = {_FORMAT}")
        file.commit()
    except (OSError, sqlite3.Error) as error:
        if file is not None:
            with suppress(sqlite3.Error):
                file.close()
        if "locked" in str(error):
            raise DataDirectoryHeld(f"{path} is used by another agent") from error
        remedy = "name a file this user can write with buffer.file, or move a damaged one away"
        problem = Problem(str(path), str(error), remedy)
        raise Invalid("the buffer cannot be used", [problem]) from error
    return file
