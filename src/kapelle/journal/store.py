"""The journal's SQLite file: its tables, what is written in one transaction, what is read.

Nothing here knows of tasks or threads; a connection belongs to whoever uses it.
"""

import sqlite3
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kapelle.errors import JournalDamaged, JournalFailed
from kapelle.journal.codec import JournalNewer, checksum, decode
from kapelle.journal.leases import Held
from kapelle.journal.lines import Line, TopicState
from kapelle.model.entries import Entry, Kind

FORMAT = 1
"""Version of the tables below, kept in `user_version`."""
APPLICATION = 0x4B504C4A
"""`KPLJ`, in `application_id`: so that no other database is taken for a journal."""
NAME = "journal.sqlite"

_POSITION_BITS = 40
_TABLES = """
CREATE TABLE IF NOT EXISTS topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, trimmed INTEGER NOT NULL, crc INTEGER);
CREATE TABLE IF NOT EXISTS lines (
    topic INTEGER, writer TEXT, last INTEGER NOT NULL, epoch INTEGER NOT NULL, crc INTEGER,
    PRIMARY KEY (topic, writer)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch INTEGER NOT NULL,
    until_ns INTEGER NOT NULL, crc INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    place INTEGER PRIMARY KEY, kind INTEGER NOT NULL, writer TEXT NOT NULL, epoch INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
"""
_INSERT = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)"
_SELECT = "SELECT place, kind, writer, epoch, at_ns, crc, body FROM entries"

Row = tuple[int, int, str, int, int, int, bytes]
"""place · kind · writer · epoch · at_ns · crc · body"""


@dataclass(slots=True)
class Change:
    """What one transaction writes."""

    rows: list[Row] = field(default_factory=list)
    trimmed: dict[str, int] = field(default_factory=dict)
    """Topics that are new or were trimmed, and up to where."""
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    """By topic and writer."""
    leases: dict[str, Held] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What the file held when it was opened."""

    topics: dict[str, TopicState] = field(default_factory=dict)
    leases: dict[str, Held] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)


def place(topic_id: int, position: int) -> int:
    """Return the key of an entry: entries of one topic lie side by side."""
    return topic_id << _POSITION_BITS | position


def check_format(path: Path) -> None:
    """Refuse a file this version must not touch, from its first bytes alone.

    Raises:
        JournalNewer: A newer Kapelle made it.
        JournalDamaged: It is no journal.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        head = file.read(100)
    # SQLite file format, 1.3: user_version at 60, application_id at 68, big-endian.
    version, application = int.from_bytes(head[60:64]), int.from_bytes(head[68:72])
    if not head.startswith(b"SQLite format 3\0") or application not in (0, APPLICATION):
        raise JournalDamaged(
            f"{path} is not a Kapelle journal, or its first page is damaged; move it away to "
            "start empty, or restore it from a backup"
        )
    if version > FORMAT:
        raise JournalNewer(
            f"{path} has format {version}, this Kapelle knows up to {FORMAT}; nothing was "
            "changed: start the version that wrote it or a newer one"
        )


class Store:
    """The writing connection."""

    def __init__(self, path: Path, synchronous: str) -> None:
        check_format(path)
        fresh = not path.exists() or path.stat().st_size == 0
        self._log = path.with_name(path.name + "-wal")
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in (
            "page_size = 8192",
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            # The writer moves the log itself: SQLite would swallow an error while it does.
            "wal_autocheckpoint = 0",
            "busy_timeout = 5000",
            "cache_size = -16384",
            # Debian builds with SECURE_DELETE, which writes zeros over everything trimmed.
            "secure_delete = OFF",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(f"BEGIN;{_TABLES}COMMIT")
        if fresh:
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
        self.checkpoint(whole=True)
        self._ids: dict[str, int] = dict(self._db.execute("SELECT name, id FROM topics"))

    def close(self) -> None:
        """Close the connection; SQLite moves the rest of the log if no other is open."""
        self._db.close()

    def id_of(self, topic: str) -> int:
        """Return the number of a topic; a new one becomes durable with its first change."""
        return self._ids.setdefault(topic, len(self._ids) + 1)

    def write(self, change: Change) -> None:
        """Make a change durable, whole or not at all. Raises sqlite3.Error."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany(_INSERT, change.rows)
            db.executemany(
                "INSERT OR REPLACE INTO topics VALUES (?, ?, ?, ?)",
                [_sealed(self.id_of(name), name, t) for name, t in change.trimmed.items()],
            )
            db.executemany(
                "INSERT OR REPLACE INTO lines VALUES (?, ?, ?, ?, ?)",
                [
                    _sealed(self.id_of(name), writer, line.last, line.epoch)
                    for (name, writer), line in change.lines.items()
                ],
            )
            db.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                [_sealed(name, h.holder, h.epoch, h.until_ns) for name, h in change.leases.items()],
            )
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def delete(self, topic: str, through: int, limit: int) -> int:
        """Delete at most `limit` entries up to a position; return how many there were."""
        first, last = place(self.id_of(topic), 0), place(self.id_of(topic), through)
        deleted = self._db.execute(
            "DELETE FROM entries WHERE place IN "
            "(SELECT place FROM entries WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?)",
            (first, last, limit),
        )
        return deleted.rowcount

    def checkpoint(self, *, whole: bool = False) -> None:
        """Move the log into the database. `whole`: wait for readers and cut it to nothing."""
        self._db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if whole else 'PASSIVE'})").fetchall()

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log's file."""
        return self._log.stat().st_size if self._log.exists() else 0

    def load(self) -> Found:
        """Read where every topic and lease stands; what is damaged is worked out anew."""
        found = Found()
        for row in self._db.execute("SELECT id, name, trimmed, crc FROM topics").fetchall():
            if _sealed(*row[:-1]) != row:
                raise JournalDamaged(
                    f"table topics, row {row[0]}: checksum wrong; restore a backup"
                )
            found.topics[row[1]] = self._load_topic(row[0], row[1], row[2], found)
        epochs = [line.epoch for state in found.topics.values() for line in state.lines.values()]
        for row in self._db.execute("SELECT name, holder, epoch, until_ns, crc FROM leases"):
            if _sealed(*row[:-1]) == row:
                # Whoever held it lived in a process that is gone: we hold its directory.
                found.leases[row[0]] = Held(epoch=row[2])
            else:
                found.damage.append(f"lease {row[0]}: checksum wrong; taken as free")
                found.leases[row[0]] = Held(epoch=max(epochs, default=0) + 1)
        return found

    def _load_topic(self, topic_id: int, name: str, trimmed: int, found: Found) -> TopicState:
        lines = self._db.execute(
            "SELECT topic, writer, last, epoch, crc FROM lines WHERE topic = ?", (topic_id,)
        ).fetchall()
        ends = (place(topic_id, 0), place(topic_id + 1, 0))
        (newest,) = self._db.execute(
            "SELECT max(place) FROM entries WHERE place BETWEEN ? AND ?", ends
        ).fetchone()
        reached = max((row[2] for row in lines), default=0)
        stored = newest - ends[0] if newest is not None else trimmed
        if any(_sealed(*row[:-1]) != row for row in lines) or stored > reached:
            found.damage.append(f"{name}: table lines is damaged; worked out from the entries")
            lines = self._db.execute(
                "SELECT ?, writer, max(place) - ?, max(epoch), 0 FROM entries "
                "WHERE place BETWEEN ? AND ? GROUP BY writer",
                (topic_id, ends[0], *ends),
            ).fetchall()
            reached = max(stored, trimmed)
        elif stored < reached and reached > trimmed:
            found.damage.append(f"{name}: entries {stored + 1} to {reached} are missing")
        return TopicState(reached, trimmed, {row[1]: Line(row[2], row[3]) for row in lines})


def _sealed(*values: int | str) -> tuple[int | str, ...]:
    return (*values, zlib.crc32(msgspec.msgpack.encode(values)))


class Reader:
    """A reading connection: it sees what was committed when it asks, and changes nothing."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def rows(
        self, topic_id: int, after: int, through: int, kinds: Collection[Kind] | None, most: int
    ) -> Iterator[Row]:
        """Yield stored rows of a topic in (after, through], in order. Raises sqlite3.Error."""
        wanted = "" if kinds is None else f" AND kind IN ({', '.join(str(int(k)) for k in kinds)})"
        cursor = self._db.execute(
            f"{_SELECT} WHERE place > ? AND place <= ?{wanted} ORDER BY place LIMIT ?",
            (place(topic_id, after), place(topic_id, through), most),
        )
        try:
            yield from cursor
        finally:
            # A statement left open would hold a mark in the log, and the log would grow.
            cursor.close()


def entry_of(topic: str, topic_id: int, row: Row) -> Entry:
    """Check a row and decode it.

    Raises:
        JournalNewer: Its kind or schema is unknown here.
        JournalDamaged: Its checksum is wrong, or it is no entry.
    """
    at, kind, writer, epoch, at_ns, crc, body = row
    position = at - place(topic_id, 0)
    try:
        if checksum(topic, position, kind, writer, epoch, at_ns, zlib.crc32(body)) != crc:
            raise JournalDamaged("checksum wrong")
    except (TypeError, AttributeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        # A flipped bit in SQLite's record header turns a column into another type.
        raise JournalDamaged(f"unreadable ({error})") from error
    try:
        known = Kind(kind)
    except ValueError as error:
        raise JournalNewer(
            f"{topic} {position}: kind {kind} is not known to this Kapelle; start a newer one"
        ) from error
    return Entry(topic, position, known, writer, epoch, at_ns, decode(known, body))


def failed(error: sqlite3.Error, path: Path) -> JournalFailed:
    """Say that the disk under the journal failed."""
    code = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    return JournalFailed(
        f"{path}: {error} ({code}); nothing is acknowledged any more. Check the disk and the "
        "system log, then start again"
    )


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk is full, rather than broken."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
