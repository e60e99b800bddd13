"""The journal's SQLite file: its tables, what one transaction writes, what it holds when opened.

Nothing here knows of tasks or threads; a connection belongs to whoever uses it.
"""

import fcntl
import os
import shutil
import sqlite3
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kapelle.errors import Invalid, JournalDamaged, JournalFailed, Problem
from kapelle.journal import wal
from kapelle.journal.codec import JournalNewer
from kapelle.journal.leases import Held
from kapelle.journal.lines import Line, TopicState
from kapelle.journal.metrics import Timings
from kapelle.journal.rows import SELECT, Row, entry_of, place
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.clock import SystemClock

FORMAT = 2
"""Version of the tables below, kept in `user_version`. 2: readers' marks, which an older Kapelle
would not know and trim beyond."""
MARKS_SINCE = 2
APPLICATION = 0x4B504C4A
"""`KPLJ`, in `application_id`: so that no other database is taken for a journal."""
NAME = "journal.sqlite"

_PAGE_BYTES = 8192
_SHARED_LOCK = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0x40000002, 510, 0)
"""A read lock on the bytes SQLite locks to write (os.h: SHARED_FIRST, SHARED_SIZE)."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_TABLES = """
CREATE TABLE IF NOT EXISTS topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, trimmed INTEGER NOT NULL, crc INTEGER);
CREATE TABLE IF NOT EXISTS lines (
    topic INTEGER, writer TEXT, last INTEGER NOT NULL, epoch INTEGER NOT NULL, crc INTEGER,
    PRIMARY KEY (topic, writer)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    topic INTEGER, reader TEXT, position INTEGER NOT NULL, crc INTEGER,
    PRIMARY KEY (topic, reader)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch INTEGER NOT NULL,
    until_ns INTEGER NOT NULL, crc INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    place INTEGER PRIMARY KEY, kind INTEGER NOT NULL, writer TEXT NOT NULL, epoch INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
"""
INSERT = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(slots=True)
class Change:
    """What one transaction writes."""

    rows: list[Row] = field(default_factory=list)
    trimmed: dict[str, int] = field(default_factory=dict)
    """Topics that are new or were trimmed, and up to where."""
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    """By topic and writer."""
    marks: dict[tuple[str, str], int | None] = field(default_factory=dict)
    """By topic and reader; None where it goes."""
    leases: dict[str, Held] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What the file held when it was opened."""

    topics: dict[str, TopicState] = field(default_factory=dict)
    leases: dict[str, Held] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    newest_ns: int = 0
    """When the latest entry was written, of those that end a topic."""


def check_moved(usual: Path, chosen: Path) -> None:
    """Refuse to begin a new journal beside one the plant has had. Raises Invalid."""
    if (usual / NAME).exists() and not (chosen / NAME).exists():
        remedy = f"move {usual} to {chosen} while the plant is stopped, or leave the setting out"
        what = f"is {chosen}, which holds no journal, and there is one in {usual}"
        raise Invalid("the journal lies elsewhere", [Problem("[journal] directory", what, remedy)])


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


def create_tables(db: sqlite3.Connection) -> None:
    """Make what is missing in an empty file, or in one of an older format; all or nothing."""
    db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    numbers = f"PRAGMA application_id = {APPLICATION};PRAGMA user_version = {FORMAT};"
    db.executescript(f"BEGIN;{_TABLES}{numbers}COMMIT")


def open_store(path: Path, synchronous: str) -> tuple["Store", Found]:
    """Open the file, made anew where there is none, and read where everything stands.

    Raises:
        JournalNewer: A newer Kapelle made it; nothing was changed.
        JournalDamaged: It cannot be read at all.
        JournalFailed: The disk does not let it be opened.
    """
    check_format(path)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        found = Found()
        store = Store(db, path, synchronous, found)
        store.load(found)
    except (sqlite3.Error, JournalDamaged) as error:
        db.close()
        if isinstance(error, JournalDamaged):
            raise
        if _code(error) in _DAMAGED:
            raise JournalDamaged(f"{path}: {error}; restore it from a backup") from error
        raise failed(error, path) from error
    return store, found


class Store:
    """The writing connection."""

    def __init__(self, db: sqlite3.Connection, path: Path, synchronous: str, found: Found) -> None:
        self._db = db
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self.timings = Timings()
        self._watch = SystemClock()
        fresh = path.stat().st_size == 0
        left = wal.scan(self._log, _page_size(path))
        for pragma in (
            f"page_size = {_PAGE_BYTES}",
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            # The writer moves the log itself: SQLite would swallow an error while it does.
            "wal_autocheckpoint = 0",
            "busy_timeout = 5000",
            "cache_size = -16384",
            # Debian builds with SECURE_DELETE, which writes zeros over everything trimmed.
            "secure_delete = OFF",
        ):
            db.execute(f"PRAGMA {pragma}")
        if synchronous == "full":
            self._look_for_loss(left, found)
        # The log starts anew: frames of before and after this point are told apart by their salts.
        self.checkpoint(whole=True)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if fresh or version < FORMAT:
            # What format 1 lacks is a table.
            create_tables(db)
            self.checkpoint(whole=True)
        self._ids: dict[str, int] = dict(db.execute("SELECT name, id FROM topics"))

    def _look_for_loss(self, left: wal.LeftLog, found: Found) -> None:
        _, accepted, _ = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        lost = wal.lost(left, accepted)
        if lost:
            kept = self._log.with_suffix(".damaged")
            shutil.copyfile(self._log, kept)
            found.damage.append(
                f"{self._log.name}: damaged after frame {accepted}; at least {lost} acknowledged "
                f"transactions at the journal's end are lost (copy: {kept.name})"
            )

    def close(self) -> None:
        """Close the connection; SQLite moves the rest of the log if no other is open."""
        self._db.close()

    def abandon(self) -> None:
        """See to it that this process never syncs the file again, not even when it ends.

        SQLite moves its log when the last connection goes, and Python drops connections at exit.
        For that it needs an exclusive lock; this one, of another open file, is in its way.
        """
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _SHARED_LOCK)

    def id_of(self, topic: str) -> int:
        """Return the number of a topic; a new one becomes durable with its first change."""
        return self._ids.setdefault(topic, len(self._ids) + 1)

    def write(self, change: Change) -> None:
        """Make a change durable, whole or not at all. Raises sqlite3.Error."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany(INSERT, change.rows)
            db.executemany(
                "INSERT OR REPLACE INTO topics VALUES (?, ?, ?, ?)",
                [sealed(self.id_of(name), name, t) for name, t in change.trimmed.items()],
            )
            db.executemany(
                "INSERT OR REPLACE INTO lines VALUES (?, ?, ?, ?, ?)",
                [
                    sealed(self.id_of(name), writer, line.last, line.epoch)
                    for (name, writer), line in change.lines.items()
                ],
            )
            db.executemany(
                "DELETE FROM marks WHERE topic = ? AND reader = ?",
                [(self.id_of(name), r) for (name, r), at in change.marks.items() if at is None],
            )
            db.executemany(
                "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)",
                [
                    sealed(self.id_of(name), reader, at)
                    for (name, reader), at in change.marks.items()
                    if at is not None
                ],
            )
            db.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                [sealed(name, h.holder, h.epoch, h.until_ns) for name, h in change.leases.items()],
            )
            began_ns = self._watch.now_ns()
            db.execute("COMMIT")
            self.timings.fsync_s.observe((self._watch.now_ns() - began_ns) / NS_PER_S)
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
        began_ns = self._watch.now_ns()
        self._db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if whole else 'PASSIVE'})").fetchall()
        self.timings.checkpoint_s.observe((self._watch.now_ns() - began_ns) / NS_PER_S)

    def file_bytes(self) -> int:
        """Return the size of the database and its log. [bytes]"""
        return self._path.stat().st_size + self.log_bytes()

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log's file."""
        return self._log.stat().st_size if self._log.exists() else 0

    def load(self, found: Found) -> None:
        """Read where every topic and lease stands; what is damaged is worked out anew."""
        for row in self._db.execute("SELECT id, name, trimmed, crc FROM topics").fetchall():
            if sealed(*row[:-1]) != row:
                raise JournalDamaged(
                    f"{self._path}: table topics, row {row[0]}: checksum wrong; restore a backup"
                )
            found.topics[row[1]] = self._load_topic(row[0], row[1], row[2], found)
        epochs = [line.epoch for state in found.topics.values() for line in state.lines.values()]
        for row in self._db.execute("SELECT name, holder, epoch, until_ns, crc FROM leases"):
            if sealed(*row[:-1]) == row:
                # Whoever held it lived in a process that is gone: we hold its directory.
                found.leases[row[0]] = Held(epoch=row[2])
            else:
                found.damage.append(f"lease {row[0]}: checksum wrong; taken as free")
                found.leases[row[0]] = Held(epoch=max(epochs, default=0) + 1)

    def _load_topic(self, topic_id: int, name: str, trimmed: int, found: Found) -> TopicState:
        lines = self._db.execute(
            "SELECT topic, writer, last, epoch, crc FROM lines WHERE topic = ?", (topic_id,)
        ).fetchall()
        ends = (place(topic_id, 0), place(topic_id + 1, 0))
        (newest,) = self._db.execute(
            "SELECT max(place) FROM entries WHERE place BETWEEN ? AND ?", ends
        ).fetchone()
        if newest is not None:
            found.newest_ns = max(found.newest_ns, self._written_at_ns(name, topic_id, newest))
        reached = max((row[2] for row in lines), default=0)
        stored = newest - ends[0] if newest is not None else trimmed
        if any(sealed(*row[:-1]) != row for row in lines) or stored > reached:
            found.damage.append(f"{name}: table lines is damaged; worked out from the entries")
            lines = self._db.execute(
                "SELECT ?, writer, max(place) - ?, max(epoch), 0 FROM entries "
                "WHERE place BETWEEN ? AND ? GROUP BY writer",
                (topic_id, ends[0], *ends),
            ).fetchall()
            reached = max(stored, trimmed)
        elif stored < reached and reached > trimmed:
            found.damage.append(f"{name}: entries {stored + 1} to {reached} are missing")
        marks = self._load_marks(name, topic_id, trimmed, found)
        if max(marks.values(), default=0) > reached:
            # No position is given out twice: to this reader the entries to come would be old.
            taken = max(marks.values())
            found.damage.append(
                f"{name}: entries {reached + 1} to {taken} are missing; a reader has had them"
            )
            reached = taken
        known = {row[1]: Line(row[2], row[3]) for row in lines}
        return TopicState(reached, trimmed, known, marks)

    def _load_marks(self, name: str, topic_id: int, trimmed: int, found: Found) -> dict[str, int]:
        """Return the readers' marks. One that is damaged holds all there is until it is renewed."""
        marks: dict[str, int] = {}
        query = "SELECT topic, reader, position, crc FROM marks WHERE topic = ?"
        for row in self._db.execute(query, (topic_id,)).fetchall():
            if sealed(*row[:-1]) == row:
                marks[row[1]] = row[2]
            else:
                found.damage.append(f"{name}: mark of {row[1]}: checksum wrong; nothing is trimmed")
                marks[str(row[1])] = trimmed
        return marks

    def _written_at_ns(self, topic: str, topic_id: int, newest: int) -> int:
        """Return when an entry was written; 0 where it is damaged and cannot be believed."""
        (row,) = self._db.execute(f"{SELECT} WHERE place = ?", (newest,)).fetchall()
        try:
            return entry_of(topic, topic_id, row).written_at_ns
        except (JournalDamaged, JournalNewer):
            return 0


def sealed(*values: int | str) -> tuple[int | str, ...]:
    """Return a row of a table with its checksum behind it."""
    return (*values, zlib.crc32(msgspec.msgpack.encode(values)))


def failed(error: sqlite3.Error, path: Path) -> JournalFailed:
    """Say that the disk under the journal failed."""
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    return JournalFailed(
        f"{path}: {error} ({name}); nothing is acknowledged any more. Check the disk and the "
        "system log, then start again"
    )


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk is full, rather than broken."""
    return _code(error) == sqlite3.SQLITE_FULL


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF


def _page_size(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(18)
    return int.from_bytes(head[16:18]) or _PAGE_BYTES
