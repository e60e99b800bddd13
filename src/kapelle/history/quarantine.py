"""What could not be used, kept where a person can look at it: a projection in one SQLite file.

The journal is the truth and is trimmed; this file follows it. Rows and the position up to which
they are complete are one transaction, so that each entry counts once whatever crashes. Applying is
commutative (the newest verdict and the newest occurrence decide), so that topics may be read in any
order.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from kapelle.errors import Invalid
from kapelle.history.kept import (
    Counts,
    Kept,
    QuarantineSettings,
    Query,
    fingerprint,
    place_of,
)
from kapelle.history.quarantine_schema import SCHEMA, VERSION
from kapelle.model.blocks import Quarantined
from kapelle.model.entries import Entry
from kapelle.model.plant import Verdict

REPLAY = "replay/"
"""How the source of a row begins that was replayed and refused again; its id follows."""
_CODE_LENGTH_MAX = 40


class Quarantine:
    """The file. Calls block for milliseconds; those that write come one at a time."""

    def __init__(self, path: Path, settings: QuarantineSettings | None = None) -> None:
        """Open or make the file. Raises Invalid where it is not ours to open."""
        self.settings = settings or QuarantineSettings()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            # Durable at `settle`: the journal keeps what has not been settled.
            self._db.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise Invalid(f"{path} was written by another version ({version}); move it away")
            if version == 0:
                self._db.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
        except sqlite3.Error as error:
            remedy = "move it away, and what the journal still holds is read again"
            raise Invalid(f"{path}: {error}; {remedy}") from error
        # Whoever asks sees what is committed, however long a transaction takes.
        self._asked = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._rows, self._size = self._db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM kept"
        ).fetchone()

    def close(self) -> None:
        """Close the file."""
        self._asked.close()
        self._db.close()

    def positions(self) -> dict[str, int]:
        """Return up to where each topic was read."""
        return dict(self._asked.execute("SELECT topic, position FROM position"))

    def apply(self, topic: str, entries: Sequence[Entry], through: int) -> None:
        """Take over entries of a topic that was read up to `through`, as one."""
        rows, size = self._rows, self._size
        self._db.execute("BEGIN IMMEDIATE")
        try:
            found = self._db.execute("SELECT position FROM position WHERE topic = ?", (topic,))
            (before,) = found.fetchone() or (0,)
            for entry in entries:
                if entry.position <= before:
                    continue
                match entry.body:
                    case Quarantined() as block:
                        self._add(int(topic.partition("/")[2]), entry, block)
                    case Verdict() as verdict:
                        self._decide(verdict)
                    case _:
                        pass
            self._push_out()
            self._db.execute(
                "INSERT OR REPLACE INTO position VALUES (?, ?)", (topic, max(before, through))
            )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            self._rows, self._size = rows, size
            raise

    def begin_at(self, topic: str, position: int) -> None:
        """Read a topic on from an earlier position: the journal is not the one it was.

        Rows that lie beyond it are of entries that are gone; they count as pushed out.
        """
        kept, _, partition = topic.partition("/")
        if kept == "p":
            beyond = self._db.execute(
                "DELETE FROM kept WHERE part = ? AND position > ? RETURNING code, state, count,"
                " size",
                (int(partition), position),
            ).fetchall()
            self._forget(beyond)
        self._db.execute("INSERT OR REPLACE INTO position VALUES (?, ?)", (topic, position))

    def settle(self) -> bool:
        """Make durable what was applied; False where a reader was in the way, and it is not."""
        busy: int = self._db.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]
        return not busy

    def find(self, query: Query, limit: int, before: int | None = None) -> list[Kept]:
        """Return rows, newest first; `before`: only those with a lower `seq`."""
        where, values = _where(query)
        if before is not None:
            where.append("seq < ?")
            values.append(before)
        sql = f"SELECT {_COLUMNS} FROM kept WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"  # noqa: S608  # only our own words are put in
        return [Kept(*row) for row in self._asked.execute(sql, (*values, limit))]

    def read(self, ids: Iterable[str]) -> list[Kept]:
        """Return the rows with these ids, in that order; an unknown id is left out."""
        sql = f"SELECT {_COLUMNS} FROM kept WHERE part = ? AND position = ? AND place = ?"  # noqa: S608  # only our own words are put in
        found = (self._asked.execute(sql, place).fetchone() for i in ids if (place := place_of(i)))
        return [Kept(*row) for row in found if row is not None]

    def matching(self, query: Query) -> int:
        """Return how many rows there are of a query."""
        where, values = _where(query)
        sql = f"SELECT count(*) FROM kept WHERE {' AND '.join(where)}"  # noqa: S608  # only our own words are put in
        count: int = self._asked.execute(sql, values).fetchone()[0]
        return count

    def counts(self, sources: int = 50) -> Counts:
        """Count occurrences by code and state, and open ones by source (the largest so many)."""
        by_code: dict[str, dict[str, int]] = {}
        for code, state, count in self._asked.execute(
            "SELECT code, state, rows FROM tally WHERE rows > 0 ORDER BY code"
        ):
            by_code.setdefault(code, {})[state] = count
        for code, count in self._asked.execute(
            "SELECT code, sum(rows) FROM pushed_out GROUP BY code ORDER BY code"
        ):
            by_code.setdefault(code, {})["pushed-out"] = count
        by_source = (
            ()
            if not sources
            else self._asked.execute(
                "SELECT source, sum(count) FROM kept WHERE state = 'open' GROUP BY source"
                " ORDER BY 2 DESC, 1 LIMIT ?",
                (sources,),
            )
        )
        return Counts(by_code, dict(by_source), self._rows, self._size)

    def seen_since(self, since_ns: int, most: int = 10_000) -> int:
        """Return how many open rows came, or came again, at or after a moment; at most `most`."""
        found = self._asked.execute(
            "SELECT count(*) FROM"
            " (SELECT 1 FROM kept WHERE state = 'open' AND last_ns >= ? LIMIT ?)",
            (since_ns, most),
        )
        count: int = found.fetchone()[0]
        return count

    def _add(self, partition: int, entry: Entry, block: Quarantined) -> None:
        at_ns = entry.written_at_ns
        columns = (block.device_no.tolist(), block.received_at_ns.tolist(), block.source)
        for place, (device_no, received_ns, source, reason, raw) in enumerate(
            zip(*columns, block.reason, block.raw, strict=True)
        ):
            told = reason.decode(errors="replace")
            code = told.partition(":")[0][:_CODE_LENGTH_MAX]
            name = source.decode(errors="replace")
            if name.startswith(REPLAY):
                self._refused_again(name.removeprefix(REPLAY), code, told)
                continue
            mark = fingerprint(device_no, source, code.encode(), raw, received_ns)
            size = len(raw) + len(reason) + len(source)
            added = self._db.execute(
                "INSERT INTO kept (part, position, place, device_no, source, code, reason, raw,"
                " print, size, received_at_ns, first_ns, last_ns, count)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)"
                " ON CONFLICT (part, print) DO UPDATE SET count = count + 1,"
                " first_ns = min(first_ns, excluded.first_ns),"
                " last_ns = max(last_ns, excluded.last_ns),"
                # Who comes again after the verdict has not been dealt with.
                " state = CASE WHEN max(last_ns, excluded.last_ns) > decided_at_ns THEN 'open'"
                " ELSE state END RETURNING count",
                (partition, entry.position, place, device_no, name, code, told, raw, mark, size,
                 received_ns, at_ns, at_ns),
            ).fetchone()  # fmt: skip
            if added[0] == 1:
                self._rows += 1
                self._size += size

    def _refused_again(self, row_id: str, code: str, reason: str) -> None:
        place = place_of(row_id)
        found = self._db.execute(
            "UPDATE kept SET code = ?, reason = ? WHERE part = ? AND position = ? AND place = ?"
            " RETURNING 1",
            (code, reason, *(place or (-1, -1, -1))),
        ).fetchone()
        if found is None:
            self._count_out(code, "open", 1)

    def _decide(self, verdict: Verdict) -> None:
        self._db.executemany(
            "UPDATE kept SET verdict = ?1, decided_at_ns = ?2, decided_by = ?3, why = ?4,"
            " fix = ?5, state = CASE WHEN last_ns > ?2 THEN 'open' ELSE ?1 END"
            " WHERE part = ?6 AND position = ?7 AND place = ?8 AND decided_at_ns < ?2",
            [
                (verdict.verdict, verdict.at_ns, verdict.issued_by, verdict.reason, verdict.fix,
                 verdict.partition, verdict.position, row)
                for row in verdict.rows
            ],
        )  # fmt: skip

    def _push_out(self) -> None:
        """Forget the oldest beyond the bounds, and count them."""
        settings = self.settings
        while self._rows > settings.rows_max or self._size > settings.bytes_max:
            beyond = max(1, self._rows - settings.rows_max)
            oldest = self._db.execute(
                "DELETE FROM kept WHERE seq IN (SELECT seq FROM kept ORDER BY seq LIMIT ?)"
                " RETURNING code, state, count, size",
                (beyond,),
            ).fetchall()
            self._forget(oldest)

    def _forget(self, deleted: Sequence[tuple[str, str, int, int]]) -> None:
        for code, state, count, size in deleted:
            self._count_out(code, state, count)
            self._size -= size
        self._rows -= len(deleted)

    def _count_out(self, code: str, state: str, count: int) -> None:
        self._db.execute(
            "INSERT INTO pushed_out VALUES (?, ?, ?)"
            " ON CONFLICT (code, state) DO UPDATE SET rows = rows + excluded.rows",
            (code, state, count),
        )


_COLUMNS = (
    "seq, part, position, place, device_no, source, code, reason, raw, received_at_ns, first_ns,"
    " last_ns, count, verdict, decided_at_ns, decided_by, why, fix, state"
)


def _where(query: Query) -> tuple[list[str], list[object]]:
    where, values = ["last_ns >= ?", "first_ns < ?"], list[object]([query.since_ns, query.until_ns])
    if query.state != "any":
        where.append("state = ?")
        values.append(query.state)
    if query.code:
        where.append("code = ?")
        values.append(query.code)
    if query.source:
        where.append("(source = ? OR substr(source, 1, ?) = ?)")
        begin = query.source.rstrip("/") + "/"
        values += [query.source.rstrip("/"), len(begin), begin]
    if query.device_no is not None:
        where.append("device_no = ?")
        values.append(query.device_no)
    return where, values
