"""Which files make up the record, and how far it has followed each topic: one SQLite file.

A file that is not in it does not count. One transaction takes files in, takes those they replace
out, and moves positions on, so a crash at any moment leaves the record as it was before or after.
In WAL mode other processes read it while the plant runs.
"""

import sqlite3
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kapelle.errors import HistoryFailed, NotFound
from kapelle.history.tables import DAY_NS

FILE = "catalog.db"
LAYOUT = 3
"""Of the catalog and the files in it, in the database's `user_version`."""
_OLDER = 2
"""All that it says holds in this one too; a recorder takes it over. Who knows only that would read
files wrongly that leave columns out, and refuses this one by its number."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    file_no INTEGER PRIMARY KEY AUTOINCREMENT,  -- so no number returns, nor a path
    "table" TEXT NOT NULL,
    partition INTEGER NOT NULL,
    starts_ns INTEGER NOT NULL,   -- [starts_ns, ends_ns): what it may hold
    ends_ns INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,    -- what it holds
    last_ns INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    level INTEGER NOT NULL,       -- 0 flushed, 1 merged while its hour ran, 2 merged for good
    arrival INTEGER NOT NULL,     -- rows of a file with a lower one came earlier
    columns TEXT NOT NULL,
    path TEXT NOT NULL UNIQUE,
    made_at_ns INTEGER NOT NULL,
    gone_at_ns INTEGER            -- replaced or expired: kept a while for those who read it
);
CREATE INDEX IF NOT EXISTS current ON files ("table", partition, starts_ns)
    WHERE gone_at_ns IS NULL;
CREATE INDEX IF NOT EXISTS loose ON files ("table", partition, starts_ns)
    WHERE gone_at_ns IS NULL AND (level < 2 OR ends_ns - starts_ns < 86400000000000);
CREATE TABLE IF NOT EXISTS positions (topic TEXT PRIMARY KEY, position INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS states (name TEXT PRIMARY KEY, body BLOB NOT NULL);
"""
_COLUMNS = (
    'file_no, "table", partition, starts_ns, ends_ns, first_ns, last_ns, rows, bytes, level, '
    "arrival, columns, path, made_at_ns"
)


@dataclass(frozen=True, slots=True)
class File:
    """A file of the record."""

    table: str
    partition: int
    starts_ns: int
    """[starts_ns, ends_ns): every row it may hold; an hour or a day."""
    ends_ns: int
    first_ns: int
    """Earliest and latest row in it."""
    last_ns: int
    rows: int
    bytes: int
    level: int
    """0 flushed; 1 merged while its hour ran; 2 merged for good, with its tiers."""
    columns: str
    """Which columns it has and the unit of its time: see `layout.Layout`."""
    path: str
    """Relative to the directory of the record."""
    made_at_ns: int
    file_no: int
    arrival: int
    """Rows of a file with a lower one came earlier. A merged file has the lowest of its parts."""

    def overlaps(self, starts_ns: int, ends_ns: int) -> bool:
        """Tell whether it may hold rows of an interval."""
        return self.starts_ns < ends_ns and starts_ns < self.ends_ns


class Catalog:
    """The truth about files and positions."""

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self._path = path = directory / FILE
        self.is_frozen = False
        """Whether it cannot be told of anything new."""
        if read_only:
            self._db, self.is_frozen = _opened_to_read(path)
            _check_layout(self._db, path)
            return
        # One worker thread at a time uses it; which one, the loop decides.
        self._db = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=10.0
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if self._db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            _check_layout(self._db, path)
        self._db.execute(f"PRAGMA user_version = {LAYOUT}")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def let_go(self) -> None:
        """End what a reader sees as of one moment; the recorder may tidy up behind it."""
        self._db.execute("COMMIT")

    def look_again(self) -> None:
        """See everything as it is now, after `let_go`."""
        # A newer Kapelle may have taken the record over meanwhile.
        _check_layout(self._db, self._path)
        self._db.execute("BEGIN")
        self._db.execute("SELECT 1 FROM files LIMIT 1")

    def files(
        self,
        table: str | None = None,
        partition: int | None = None,
        starts_ns: int | None = None,
        ends_ns: int | None = None,
    ) -> list[File]:
        """Return the files that count, by table, partition, time and arrival.

        Only those of a table, of a partition, or that hold rows of [starts_ns, ends_ns), where
        given.
        """
        where, values = ["gone_at_ns IS NULL"], list[object]()
        for clause, value in (
            ('"table" = ?', table),
            ("partition = ?", partition),
            ("last_ns >= ?", starts_ns),
            ("first_ns < ?", ends_ns),
        ):
            if value is not None:
                where.append(clause)
                values.append(value)
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM files WHERE {' AND '.join(where)} "
            'ORDER BY "table", partition, starts_ns, arrival, file_no',
            values,
        )
        return [_file(row) for row in rows]

    def holds(self, table: str, partition: int, starts_ns: int, ends_ns: int) -> bool:
        """Tell whether any file may have rows of [starts_ns, ends_ns)."""
        found = self._db.execute(
            'SELECT EXISTS (SELECT 1 FROM files WHERE gone_at_ns IS NULL AND "table" = ? AND '
            "partition = ? AND last_ns >= ? AND first_ns < ?)",
            (table, partition, starts_ns, ends_ns),
        ).fetchone()
        return bool(found[0])

    def unmerged(self) -> list[File]:
        """Return all files of each table, partition and day that has more than one of them."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM files WHERE gone_at_ns IS NULL AND "
            f'("table", partition, starts_ns / {DAY_NS}) IN (SELECT "table", partition, '
            f"starts_ns / {DAY_NS} FROM files WHERE gone_at_ns IS NULL AND "
            f"(level < 2 OR ends_ns - starts_ns < {DAY_NS})) "
            'ORDER BY "table", partition, starts_ns, arrival, file_no'
        )
        return [_file(row) for row in rows]

    def expired(self, table: str, before_ns: int, unmerged: Collection[int] = ()) -> list[int]:
        """Return the numbers of files of a table whose day ended before a moment and which are
        merged, or are among some that cannot be.

        The hours of a day go together: from those that are left of one, its tiers would be made
        anew.
        """
        rows = self._db.execute(
            'SELECT file_no, level FROM files WHERE gone_at_ns IS NULL AND "table" = ? AND '
            f"((ends_ns - 1) / {DAY_NS} + 1) * {DAY_NS} <= ? ORDER BY file_no",
            (table, before_ns),
        )
        return [number for number, level in rows if level == 2 or number in unmerged]

    def gone(self, before_ns: int) -> list[File]:
        """Return the files that were replaced before a moment and are still on disk."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM files WHERE gone_at_ns < ? ORDER BY file_no",
            (before_ns,),
        )
        return [_file(row) for row in rows]

    def paths(self) -> set[str]:
        """Return every file it knows, also those that no longer count."""
        return {path for (path,) in self._db.execute("SELECT path FROM files")}

    def next_no(self) -> int:
        """Return a number no file has had."""
        found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'files'").fetchone()
        return int(found[0]) + 1 if found else 1

    def positions(self) -> dict[str, int]:
        """Return how far the record has followed each topic."""
        return dict(self._db.execute("SELECT topic, position FROM positions ORDER BY topic"))

    def state(self, name: str) -> bytes | None:
        """Return what was last committed under a name."""
        found = self._db.execute("SELECT body FROM states WHERE name = ?", (name,)).fetchone()
        return bytes(found[0]) if found else None

    def commit(
        self,
        made: Iterable[File] = (),
        replaced: Iterable[int] = (),
        *,
        at_ns: int = 0,
        positions: Mapping[str, int] | None = None,
        states: Mapping[str, bytes | None] | None = None,
    ) -> None:
        """Take files in and others (by number) out, and move positions and states on, as one."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            for file in made:
                self._insert(file)
            db.executemany(
                "UPDATE files SET gone_at_ns = ? WHERE file_no = ? AND gone_at_ns IS NULL",
                [(at_ns, number) for number in replaced],
            )
            db.executemany(
                "INSERT INTO positions VALUES (?, ?) ON CONFLICT (topic) DO UPDATE SET "
                "position = excluded.position",
                list((positions or {}).items()),
            )
            for name, body in (states or {}).items():
                if body is None:
                    db.execute("DELETE FROM states WHERE name = ?", (name,))
                else:
                    db.execute("INSERT OR REPLACE INTO states VALUES (?, ?)", (name, body))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop files that no longer count and are no longer on disk."""
        with self._db:
            self._db.executemany(
                "DELETE FROM files WHERE file_no = ?", [(number,) for number in numbers]
            )

    def _insert(self, file: File) -> None:
        self._db.execute(
            f"INSERT INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                file.file_no,
                file.table,
                file.partition,
                file.starts_ns,
                file.ends_ns,
                file.first_ns,
                file.last_ns,
                file.rows,
                file.bytes,
                file.level,
                file.arrival,
                file.columns,
                file.path,
                file.made_at_ns,
            ),
        )


class Catalogs:
    """The catalog of a directory for readers: opening it takes longer than asking it, so it stays
    open. Several threads may ask at once, each gets one of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._idle: list[tuple[int, Catalog]] = []
        weakref.finalize(self, _close_all, self._idle)

    @contextmanager
    def now(self) -> Iterator[Catalog]:
        """Return the catalog as of this moment.

        Raises:
            NotFound: There is no record yet.
        """
        try:
            inode = (self._directory / FILE).stat().st_ino
        except FileNotFoundError as error:
            raise NotFound(
                f"no history in {self._directory}; is the plant's [history] enabled?"
            ) from error
        catalog = self._opened(inode)
        done = False
        try:
            yield catalog
            done = True
        finally:
            if done and not catalog.is_frozen:
                with _closed_on_error(catalog):
                    catalog.let_go()
                self._idle.append((inode, catalog))
            else:
                catalog.close()

    def close(self) -> None:
        """Let go of the file."""
        _close_all(self._idle)

    def _opened(self, inode: int) -> Catalog:
        # Another thread may take the last one between a look and the taking.
        with suppress(IndexError):
            while True:
                known, catalog = self._idle.pop()
                if known == inode:
                    break
                # The directory was put in place of another.
                catalog.close()
            with _closed_on_error(catalog):
                catalog.look_again()
            return catalog
        return Catalog(self._directory, read_only=True)


@contextmanager
def _closed_on_error(catalog: Catalog) -> Iterator[None]:
    try:
        yield
    except BaseException:
        catalog.close()
        raise


def _close_all(idle: list[tuple[int, Catalog]]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop()[1].close()


def _file(row: tuple[object, ...]) -> File:
    number, table, partition, starts, ends, first, last, rows, size, level, arrival, *rest = row
    columns, path, made_at = rest
    if str(path).startswith("/") or ".." in str(path).split("/"):
        # A catalog may come with a backup, from anybody; files it names are read and removed.
        raise HistoryFailed(f"{FILE} names {path!r}, which lies outside of the history")
    integers = (partition, starts, ends, first, last, rows, size, level, made_at, arrival, number)
    p, s, e, f, la, r, b, le, m, a, n = (int(str(value)) for value in integers)
    return File(str(table), p, s, e, f, la, r, b, le, str(columns), str(path), m, n, a)


def _check_layout(db: sqlite3.Connection, path: Path) -> None:
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if found not in (_OLDER, LAYOUT):
        db.close()
        raise HistoryFailed(
            f"{path.parent} is a history of layout {found}, this version knows {LAYOUT}: move it "
            "away and a new one begins, or use the version that wrote it"
        )


def _opened_to_read(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Return the database, and whether it was taken for one that nobody writes to."""
    for mode in ("mode=ro", "immutable=1"):
        db = sqlite3.connect(
            f"file:{_quoted(path)}?{mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=10.0,
        )
        try:
            # Whoever only reads sees all of it as of one moment: this one.
            db.execute("BEGIN")
            db.execute("SELECT 1 FROM files LIMIT 1")
        except sqlite3.OperationalError:
            db.close()
            # A directory we may not write to, of a plant that is stopped: nobody writes there.
            if mode != "mode=ro" or path.with_name(f"{FILE}-wal").exists():
                raise
        else:
            return db, mode != "mode=ro"
    raise AssertionError("one of the two ways was taken")


def _quoted(path: Path) -> str:
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
