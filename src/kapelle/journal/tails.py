"""The newest entries of every topic in memory, so that followers rarely ask the disk."""

from collections import deque
from collections.abc import Collection, Sequence

from kapelle.journal.rows import Row, entry_of
from kapelle.model.entries import Entry, Kind


class Tails:
    """Bounded by the bytes of its bodies; the oldest entries of all topics go first."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._rows: dict[str, dict[int, Row | Entry]] = {}
        self._ages: deque[tuple[str, int, int]] = deque()

    def add(self, topic: str, first: int, rows: Sequence[Row]) -> None:
        """Keep committed rows; the first one's position is `first`."""
        held = self._rows.setdefault(topic, {})
        for position, row in enumerate(rows, first):
            held[position] = row
            self._ages.append((topic, position, len(row[-1])))
            self._size += len(row[-1])
        while self._size > self._size_max:
            oldest, position, size = self._ages.popleft()
            del self._rows[oldest][position]
            self._size -= size

    def has(self, topic: str, position: int) -> bool:
        """Whether an entry is still here; then all newer ones are too."""
        return position in self._rows.get(topic, ())

    def between(
        self, topic: str, topic_id: int, after: int, through: int, kinds: Collection[Kind] | None
    ) -> list[Entry]:
        """Return the entries in (after, through], all of which must be here."""
        held, entries = self._rows[topic], list[Entry]()
        for position in range(after + 1, through + 1):
            row = held[position]
            if not isinstance(row, Entry):
                if kinds is not None and row[1] not in kinds:
                    continue
                row = held[position] = entry_of(topic, topic_id, row)
            elif kinds is not None and row.kind not in kinds:
                continue
            entries.append(row)
        return entries
