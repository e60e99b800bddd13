"""Reading entries back from the disk: checked, damaged ones left out and named."""

import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path

from kapelle.errors import JournalDamaged
from kapelle.journal.codec import JournalNewer
from kapelle.journal.damage import Damage
from kapelle.journal.rows import Reader, Row, entry_of, place
from kapelle.journal.settings import JournalSettings
from kapelle.model.entries import Entry, Kind


class Reads:
    """Reads with a connection of its own. Called from one thread at a time."""

    def __init__(self, path: Path, settings: JournalSettings, damage: Damage) -> None:
        self._reader = Reader(path)
        self._settings = settings
        self._damage = damage

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()

    def entries(
        self,
        topic: str,
        topic_id: int,
        after: int,
        through: int,
        limit: int,
        kinds: Collection[Kind] | None,
    ) -> tuple[list[Entry], int]:
        """Return at most `limit` entries in (after, through], and up to where they were looked for.

        Raises:
            JournalNewer: One was written by a newer Kapelle.
        """
        limit = min(limit, self._settings.batch_entries)
        try:
            rows, reached = self._rows(topic_id, after, through, limit, kinds)
        except sqlite3.Error:
            # A damaged page spoils every query that touches it: ask for one entry at a time.
            through = min(through, after + limit)
            rows, reached = self._one_by_one(topic, topic_id, after, through, kinds), through
        if kinds is None:
            self._note_gaps(topic, [row[0] - place(topic_id, 0) for row in rows], after, reached)
        return self._checked(topic, topic_id, rows), reached

    def _rows(
        self, topic_id: int, after: int, through: int, limit: int, kinds: Collection[Kind] | None
    ) -> tuple[list[Row], int]:
        rows: list[Row] = []
        size = 0
        for row in self._reader.rows(topic_id, after, through, kinds, limit):
            rows.append(row)
            size += len(row[-1])
            if size >= self._settings.batch_bytes:
                break
        else:
            if len(rows) < limit:
                return rows, through
        return rows, rows[-1][0] - place(topic_id, 0)

    def _one_by_one(
        self, topic: str, topic_id: int, after: int, through: int, kinds: Collection[Kind] | None
    ) -> list[Row]:
        rows: list[Row] = []
        for position in range(after + 1, through + 1):
            try:
                rows += self._reader.rows(topic_id, position - 1, position, kinds, 1)
            except sqlite3.Error as error:
                self._damage.add(f"{topic} {position}: unreadable ({error}); left out")
        return rows

    def _note_gaps(self, topic: str, positions: Sequence[int], after: int, through: int) -> None:
        if len(positions) == through - after:
            return
        expected = after + 1
        for position in [*positions, through + 1]:
            if position > expected:
                self._damage.add(f"{topic} {expected} to {position - 1}: missing")
            expected = position + 1

    def _checked(self, topic: str, topic_id: int, rows: Sequence[Row]) -> list[Entry]:
        entries: list[Entry] = []
        for row in rows:
            try:
                entries.append(entry_of(topic, topic_id, row))
            except JournalNewer:
                raise
            except JournalDamaged as error:
                position = row[0] - place(topic_id, 0)
                self._damage.add(f"{topic} {position}: {error}; left out")
        return entries
