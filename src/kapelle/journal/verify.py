"""Looks at a journal's directory from outside, also while a plant writes there, changing nothing.

Every read is short: one that stayed open would keep the plant's log from being moved. So what is
asked later may have been trimmed meanwhile, which is no damage.
"""

import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kapelle.errors import JournalDamaged
from kapelle.journal import wal
from kapelle.journal.codec import JournalNewer
from kapelle.journal.damage import Damage
from kapelle.journal.reads import Reads
from kapelle.journal.rows import place
from kapelle.journal.settings import JournalSettings
from kapelle.journal.snapshots import SnapshotFiles
from kapelle.journal.store import MARKS_SINCE, NAME, check_format, failed, sealed
from kapelle.model.entries import Entry
from kapelle.ports import Snapshot
from kapelle.runtime.archive import read_only
from kapelle.runtime.doctor import Finding, Verdict

_BUSY_S = 10.0
_TRIES = 3
_LOST = "entries at the end were lost; start the plant, which goes on behind the snapshot"
_LEFT_OUT = "the plant goes on without it; restore a backup where it matters what it did"
_TABLE = "start the plant, which works it out from the entries, or restore a backup"


class Fold(Protocol):
    """What the entries of one topic make, as its owner would."""

    def begin(self, snapshot: Snapshot | None) -> None:
        """Begin at a snapshot, or at nothing. Raises JournalDamaged where it does not fit."""

    def apply(self, entry: Entry) -> None:
        """Apply the next entry."""

    def digest(self) -> str:
        """Return a fingerprint of the state."""

    def made_alike(self, snapshot: Snapshot) -> bool:
        """Tell whether a snapshot was made with the settings and the version in force here."""


@dataclass(frozen=True, slots=True)
class TopicRow:
    """Where a topic stands, by the tables of the file."""

    topic_id: int
    trimmed: int
    last: int


@dataclass(frozen=True, slots=True)
class _Goal:
    """The newest snapshot, which replay must lead to."""

    position: int
    digest: str
    """Empty where it cannot be compared."""
    kept: int
    """How many snapshots there are."""


def is_held(directory: Path) -> bool:
    """Tell whether a process uses a data directory, without taking it."""
    try:
        file = os.open(directory / "LOCK", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that changes nothing. Raises JournalFailed, JournalDamaged."""
    check_format(path)
    try:
        return sqlite3.connect(read_only(path), uri=True, timeout=_BUSY_S)
    except sqlite3.Error as error:
        raise failed(error, path) from error


class JournalExamination:
    """One look at one journal."""

    def __init__(self, directory: Path) -> None:
        """Open it for reading.

        Raises:
            JournalNewer: A newer Kapelle wrote it.
            JournalDamaged: It cannot be read at all.
        """
        self.findings: list[Finding] = []
        self._path = directory / NAME
        self._db = connect(self._path)
        self._files = SnapshotFiles(directory / "snapshots", Damage(logged=False))
        self._settings = JournalSettings(directory)
        self._damage = Damage(logged=False)
        self._reads = Reads(self._path, self._settings, self._damage)
        try:
            self.topics = self._read_tables()
        except sqlite3.Error as error:
            self.close()
            raise JournalDamaged(f"{self._path}: {error}; restore it from a backup") from error

    def close(self) -> None:
        """Let go of the file."""
        self._reads.close()
        self._db.close()

    def ends(self) -> dict[str, int]:
        """Return where each topic ends by now."""
        return {topic: stand.last for topic, stand in self._read_topics().items()}

    def look_at_file(self) -> None:
        """Check the file's structure and its log. Only while no plant runs.

        SQLite would hold the log meanwhile, and a log that is written to has no fixed end.
        """
        log = self._path.with_name(self._path.name + "-wal")
        page_size = int.from_bytes(_head(self._path)[16:18])
        left, sound = wal.scan(log, page_size), wal.sound_frames(log, page_size)
        if lost := wal.lost(left, sound):
            what = f"{log.name}: damaged after frame {sound}; {lost} or more commits are lost"
            self._bad("journal file", what, "start the plant, which goes on before; keep a copy")
        try:
            told = [str(row[0]) for row in self._db.execute("PRAGMA quick_check(20)")]
        except sqlite3.Error as error:
            told = [str(error)]
        if told == ["ok"]:
            self._say("journal file", Verdict.OK, f"{_mib(self._path)}, structure sound")
        for flaw in told if told != ["ok"] else ():
            self._say("journal file", Verdict.BAD, flaw, "restore the data directory from a backup")

    def look_at_topic(self, topic: str, fold: Fold) -> bool:
        """Check every entry and both snapshots of a topic, and that one leads to the other.

        Returns:
            Whether `fold` was brought to the topic's end.
        """
        stand = self.topics.get(topic, TopicRow(0, 0, 0))
        snapshots = self._generations(topic, fold)
        newest = snapshots[-1].position if snapshots else 0
        reached = max(stand.last, self._stand(topic).last)
        if newest > reached:
            self._bad(topic, f"the snapshot at {newest} is newer than the end, {reached}", _LOST)
        wanted = self._wanted(stand, snapshots, fold)
        begun = snapshots[0].position if snapshots and (len(snapshots) > 1 or not wanted) else 0
        fold.begin(snapshots[0] if begun else None)
        kept = len(snapshots)
        snapshots.clear()
        if stand.trimmed > begun:
            what = f"entries up to {stand.trimmed} were dropped, and no sound snapshot is as new"
            self._bad(topic, what, "restore the data directory from a backup")
        goal = _Goal(newest, wanted, kept)
        whole = self._entries(topic, stand, begun, goal, fold)
        return whole and stand.trimmed <= begun

    def _wanted(self, stand: TopicRow, snapshots: list[Snapshot], fold: Fold) -> str:
        """Return the fingerprint that replay must lead to; empty where nothing can be compared."""
        if not snapshots or not (len(snapshots) > 1 or stand.trimmed == 0):
            return ""
        if not fold.made_alike(snapshots[-1]):
            return ""
        fold.begin(snapshots[-1])
        return fold.digest()

    def _generations(self, topic: str, fold: Fold) -> list[Snapshot]:
        """Return the sound snapshots of a topic, oldest first."""
        for _ in range(_TRIES):
            files, found, flaws = self._files.generations(topic), list[Snapshot](), list[str]()
            gone = False
            for path in files:
                try:
                    snapshot = self._files.read(topic, path)
                    fold.begin(snapshot)
                    found.append(snapshot)
                except FileNotFoundError:
                    # The plant has taken a newer one.
                    gone = True
                except (JournalDamaged, OSError) as error:
                    if isinstance(error, JournalNewer):
                        raise
                    flaws.append(f"{path}: {error}")
            if not gone:
                break
        for flaw in flaws:
            left = "the other generation is used" if found else "no other is there"
            self._bad(topic, f"snapshot {flaw}", f"{left}; the next snapshots replace both")
        return found

    def _entries(self, topic: str, stand: TopicRow, begun: int, goal: _Goal, fold: Fold) -> bool:
        """Read every entry up to the end; return whether all were there and sound."""
        after, count, sound, compared = stand.trimmed, 0, True, ""
        while after < stand.last:
            entries, after_next, flaws, trimmed = self._batch(topic, stand, after)
            if trimmed > after:
                after = trimmed
                sound = sound and trimmed <= begun
                continue
            for flaw in flaws:
                self._bad(topic, flaw, _LEFT_OUT)
            sound = sound and not flaws
            for entry in entries:
                fold.apply(entry)
                if goal.digest and entry.position == goal.position and sound:
                    compared = "alike" if fold.digest() == goal.digest else "unlike"
            count += len(entries)
            after = after_next
        if compared == "unlike":
            at = goal.position
            what = f"replay up to {at} does not give what the snapshot of {at} holds"
            self._bad(
                topic, what, "report it with this output; the plant goes on from the snapshot"
            )
        if sound and compared != "unlike":
            text = f"{count:,} entries up to {stand.last:,} and {goal.kept} snapshots, all sound"
            text += "; replay gives the newest" if compared else ""
            self._say(topic, Verdict.OK, text)
        return sound

    def _batch(
        self, topic: str, stand: TopicRow, after: int
    ) -> tuple[list[Entry], int, tuple[str, ...], int]:
        """Return some entries, up to where, what is wrong there, and what was trimmed by now."""
        known, limit = len(self._damage.found()), self._settings.batch_entries
        entries, reached = self._reads.entries(
            topic, stand.topic_id, after, stand.last, limit, None
        )
        flaws = tuple(self._damage.found()[known:])
        trimmed = self._stand(topic).trimmed if flaws else 0
        return entries, reached, flaws, trimmed

    def _stand(self, topic: str) -> TopicRow:
        return self._read_topics().get(topic, TopicRow(0, 0, 0))

    def _read_tables(self) -> dict[str, TopicRow]:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        tables = ["topics", "lines", "leases"] + (["marks"] if version >= MARKS_SINCE else [])
        for table in tables:
            rows = self._db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 -- our names
            wrong = [row for row in rows if sealed(*row[:-1]) != row]
            for row in wrong:
                named = ", ".join(str(value) for value in row[:2])
                self._bad(f"journal table {table}", f"row {named}: checksum wrong", _TABLE)
            if not wrong:
                text = f"{len(rows)} rows, all sound"
                self._say(f"journal table {table}", Verdict.OK, text)
        return self._read_topics()

    def _read_topics(self) -> dict[str, TopicRow]:
        query = (
            "SELECT name, id, trimmed, (SELECT max(last) FROM lines WHERE topic = id), "
            "(SELECT max(place) FROM entries WHERE place BETWEEN id << 40 AND (id + 1) << 40) "
            "FROM topics ORDER BY name"
        )
        found = {}
        for name, topic_id, trimmed, told, stored in self._db.execute(query).fetchall():
            last = max(told or 0, trimmed, stored - place(topic_id, 0) if stored else 0)
            found[str(name)] = TopicRow(topic_id, trimmed, last)
        return found

    def _bad(self, subject: str, found: str, remedy: str) -> None:
        self._say(subject, Verdict.BAD, found, remedy)

    def _say(self, subject: str, verdict: Verdict, found: str, remedy: str = "") -> None:
        self.findings.append(Finding(subject, verdict, found, remedy))


def _mib(path: Path) -> str:
    return f"{path.stat().st_size / (1 << 20):,.1f} MiB"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(100)
