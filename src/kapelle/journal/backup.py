"""Copies a journal out of its directory, also while a plant writes there, without holding it up.

Entries never change and come only at the end, so a copy up to where the topics ended at one moment
is the journal of that moment, whenever each entry is read. Nothing is read for long: SQLite could
not move its log meanwhile.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from kapelle.journal.damage import Damage
from kapelle.journal.rows import Reader, Row, place
from kapelle.journal.snapshots import SnapshotFiles
from kapelle.journal.store import INSERT, MARKS_SINCE, NAME, create_tables, sealed
from kapelle.journal.verify import connect
from kapelle.runtime.archive import clone_or_copy

_BATCH_ENTRIES = 512
_BATCH_BYTES = 8 << 20
Positions = Mapping[str, int]


@dataclass(slots=True)
class Copied:
    """What a copy of a journal holds."""

    trimmed: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    """The least mark of each topic that has any."""
    remarks: list[str] = field(default_factory=list)
    """Entries that could not be read and are left out."""


@dataclass(slots=True)
class _Tables:
    topics: list[tuple[int, str, int]]
    lines: list[tuple[object, ...]]
    leases: list[tuple[object, ...]]
    marks: list[tuple[int, str, int]]
    ends: dict[int, int]
    """Position of the newest entry of each topic."""


def copy_snapshots(source: Path, target: Path, topics: Iterator[str]) -> dict[str, int]:
    """Copy both snapshots of each topic; return the position of each topic's newest.

    Files of snapshots never change; one that is replaced meanwhile makes room for a newer.

    Args:
        source: The journal's directory.
        target: Of the copy.
        topics: Which.
    """
    files = SnapshotFiles(source / "snapshots", Damage(logged=False))
    newest: dict[str, int] = {}
    for topic in topics:
        for path in files.generations(topic):
            into = target / path.relative_to(source)
            try:
                if not into.exists():
                    clone_or_copy(path, into)
            except FileNotFoundError:
                continue
            newest[topic] = int(path.stem)
    return newest


def topics_of(source: Path) -> list[str]:
    """Return the names of a journal's topics."""
    with closing(connect(source / NAME)) as db:
        return [str(name) for (name,) in db.execute("SELECT name FROM topics ORDER BY name")]


def copy_journal(source: Path, target: Path, readers: Mapping[str, Positions]) -> Copied:
    """Copy the journal as it is at this moment.

    Args:
        source: Its directory.
        target: Of the copy; a journal there is replaced.
        readers: How far those readers have come whose own state is copied with it: their marks
            must not be beyond.

    Raises:
        JournalDamaged, JournalNewer: It cannot be read at all, or not by this version.
    """
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    (target / NAME).unlink(missing_ok=True)
    copied = Copied()
    reader = Reader(source / NAME)
    with closing(connect(source / NAME)) as ours, closing(sqlite3.connect(target / NAME)) as theirs:
        theirs.isolation_level = None
        create_tables(theirs)
        # Nothing is lost by a crash but a draft.
        theirs.execute("PRAGMA synchronous = OFF")
        tables = _read_tables(ours)
        lines = {row[0]: 0 for row in tables.topics}
        for topic_id, _, last, *_ in tables.lines:
            assert isinstance(topic_id, int)
            assert isinstance(last, int)
            lines[topic_id] = max(lines.get(topic_id, 0), last)
        theirs.execute("BEGIN")
        for topic_id, name, trimmed in tables.topics:
            last = max(trimmed, lines[topic_id], tables.ends.get(topic_id, 0))
            for rows in _batches(reader, topic_id, name, trimmed, last, copied):
                theirs.executemany(INSERT, rows)
            (now,) = ours.execute("SELECT trimmed FROM topics WHERE id = ?", (topic_id,)).fetchone()
            # What was forgotten while we read is there in part.
            ends = (place(topic_id, 0), place(topic_id, now))
            theirs.execute("DELETE FROM entries WHERE place BETWEEN ? AND ?", ends)
            theirs.execute(
                "INSERT INTO topics VALUES (?, ?, ?, ?)", sealed(topic_id, name, int(now))
            )
            copied.trimmed[name], copied.last[name] = int(now), last
        copied.marks = _write_tables(theirs, tables, readers)
        theirs.execute("COMMIT")
    reader.close()
    (target / NAME).chmod(0o600)
    return copied


def _read_tables(db: sqlite3.Connection) -> _Tables:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    # One transaction: where every topic ended at one and the same moment.
    db.execute("BEGIN")
    try:
        topics = db.execute("SELECT id, name, trimmed FROM topics ORDER BY name").fetchall()
        ends = {}
        for topic_id, _, _ in topics:
            (newest,) = db.execute(
                "SELECT max(place) FROM entries WHERE place BETWEEN ? AND ?",
                (place(topic_id, 0), place(topic_id + 1, 0)),
            ).fetchone()
            ends[topic_id] = newest - place(topic_id, 0) if newest is not None else 0
        lines = db.execute("SELECT topic, writer, last, epoch, crc FROM lines").fetchall()
        leases = db.execute("SELECT name, holder, epoch, until_ns, crc FROM leases").fetchall()
        marks = []
        if version >= MARKS_SINCE:
            marks = db.execute("SELECT topic, reader, position FROM marks").fetchall()
    finally:
        db.execute("COMMIT")
    return _Tables(topics, lines, leases, marks, ends)


def _write_tables(
    db: sqlite3.Connection, tables: _Tables, readers: Mapping[str, Positions]
) -> dict[str, int]:
    # As they are, checksums too: what is damaged there is found damaged here.
    db.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", tables.lines)
    db.executemany("INSERT INTO leases VALUES (?, ?, ?, ?, ?)", tables.leases)
    least: dict[str, int] = {}
    names = {topic_id: name for topic_id, name, _ in tables.topics}
    for topic_id, reader, position in tables.marks:
        reached = readers.get(reader, {}).get(names[topic_id], 0) if reader in readers else position
        reached = min(position, reached)
        row = sealed(topic_id, reader, reached)
        db.execute("INSERT INTO marks VALUES (?, ?, ?, ?)", row)
        least[names[topic_id]] = min(reached, least.get(names[topic_id], reached))
    return least


def _batches(
    reader: Reader, topic_id: int, topic: str, after: int, last: int, copied: Copied
) -> Iterator[list[Row]]:
    while after < last:
        rows: list[Row] = []
        size, through = 0, last
        try:
            for row in reader.rows(topic_id, after, last, None, _BATCH_ENTRIES):
                rows.append(row)
                size += len(row[-1])
                if size >= _BATCH_BYTES:
                    break
            if rows and (len(rows) == _BATCH_ENTRIES or size >= _BATCH_BYTES):
                through = rows[-1][0] - place(topic_id, 0)
        except sqlite3.Error:
            # A damaged page spoils every query that touches it.
            through = min(last, after + _BATCH_ENTRIES)
            rows = _one_by_one(reader, topic_id, topic, after, through, copied)
        yield rows
        after = through


def _one_by_one(
    reader: Reader, topic_id: int, topic: str, after: int, through: int, copied: Copied
) -> list[Row]:
    rows: list[Row] = []
    for position in range(after + 1, through + 1):
        try:
            rows += reader.rows(topic_id, position - 1, position, None, 1)
        except sqlite3.Error as error:
            copied.remarks.append(f"{topic} {position}: unreadable ({error}); not in the backup")
    return rows
