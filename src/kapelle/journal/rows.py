"""Rows of the table of entries: where they lie, how they are read, whether they are sound."""

import sqlite3
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from kapelle.errors import JournalDamaged
from kapelle.journal.codec import JournalNewer, checksum, decode
from kapelle.model.entries import Entry, Kind
from kapelle.runtime.archive import read_only

_POSITION_BITS = 40
SELECT = "SELECT place, kind, writer, epoch, at_ns, crc, body FROM entries"

Row = tuple[int, int, str, int, int, int, bytes]
"""place · kind · writer · epoch · at_ns · crc · body"""


def place(topic_id: int, position: int) -> int:
    """Return the key of an entry: entries of one topic lie side by side."""
    return topic_id << _POSITION_BITS | position


class Reader:
    """A reading connection: it sees what was committed when it asks, and changes nothing."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(read_only(path), uri=True, check_same_thread=False)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def rows(
        self, topic_id: int, after: int, through: int, kinds: Collection[Kind] | None, most: int
    ) -> Iterator[Row]:
        """Yield stored rows of a topic in (after, through], in order. Raises sqlite3.Error."""
        wanted = "" if kinds is None else f" AND kind IN ({', '.join(str(int(k)) for k in kinds)})"
        cursor = self._db.execute(
            f"{SELECT} WHERE place > ? AND place <= ?{wanted} ORDER BY place LIMIT ?",
            (place(topic_id, after), place(topic_id, through), most),
        )
        try:
            for row in cursor:
                # A flipped bit in a record's header turns a body into something else.
                yield row if isinstance(row[-1], bytes) else (*row[:-1], b"")
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
    except (TypeError, ValueError, struct.error) as error:
        # A flipped bit in SQLite's record header turns a column into another type.
        raise JournalDamaged(f"unreadable ({error})") from error
    try:
        known = Kind(kind)
    except ValueError as error:
        raise JournalNewer(
            f"{topic} {position}: kind {kind} is not known to this Kapelle; start a newer one"
        ) from error
    return Entry(topic, position, known, writer, epoch, at_ns, decode(known, body))
