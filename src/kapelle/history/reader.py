"""Queries over the record, from this or any other process: what has been flushed, and only that.

Every call reads the catalog anew and sees its files as of that moment. Nothing is ever written.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from kapelle.errors import Invalid, NotFound, Problem
from kapelle.history import views
from kapelle.history.catalog import FILE, Catalog, File
from kapelle.history.tables import TABLES
from kapelle.history.views import at

Step = Literal["raw", "1m", "15m"]
Series = Literal["published", "corrected"]

MEMORY = "512MB"
"""What one query may hold in memory; a larger one fails and says so."""


class Reader:
    """The record in one directory, for reading."""

    def __init__(self, directory: Path, *, memory: str = MEMORY, threads: int = 2) -> None:
        self.directory = Path(directory)
        self._config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "threads": str(threads),
            "memory_limit": memory,
        }
        self._own: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        """Let go of what is kept between queries."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def sql(self, query: str) -> pa.Table:
        """Return the rows of one SELECT over the views (see docs/history.md).

        It can read nothing but the record's files and write nothing at all.

        Raises:
            Invalid: It is not one SELECT, or DuckDB refuses it; the message says why.
            NotFound: There is no record yet.
        """
        with self.session() as session:
            return session.sql(query)

    @contextmanager
    def session(self) -> Iterator["Session"]:
        """Return the record as it is now, for several queries that shall see the same."""
        files = self._files()
        with duckdb.connect(":memory:", config=self._config) as connection:
            for name, sql in views.all_views(self.directory, files).items():
                connection.execute(f'CREATE VIEW "{name}" AS {sql}')
            _confine(connection, [str(self.directory / file.path) for file in files])
            yield Session(connection)

    def device(self, device_no: int, starts_at_ns: int, ends_at_ns: int, step: Step) -> pa.Table:
        """Return what one device reported in [starts_at_ns, ends_at_ns), in order of time.

        Args:
            device_no: Its number.
            starts_at_ns: From here on, by the time of measurement.
            ends_at_ns: Before here.
            step: `raw`: every reading once; `1m` and `15m`: see `minutes` and `quarters`.
        """
        where = f"device_no = {int(device_no)} AND {_within(starts_at_ns, ends_at_ns)}"
        files = self._files(starts_at_ns, ends_at_ns)
        return self._query(f"{self._series(files, step, where)} ORDER BY time")

    def device_no(self, device_id: str) -> int:
        """Return the number of the device that bears or last bore a name.

        Raises:
            NotFound: The record knows no such device.
        """
        files = [file for file in self._files() if file.table == "devices"]
        rows = views.scan(self.directory, TABLES["devices"], files)
        found = self._query(
            f"SELECT device_no FROM ({rows}) WHERE device_id = ? ORDER BY position DESC LIMIT 1",
            device_id,
        )
        if not len(found):
            raise NotFound(f"the history knows no device {device_id}")
        return int(found.column(0)[0].as_py())

    def _series(self, files: Sequence[File], step: Step, where: str) -> str:
        raw = [file for file in files if file.table == "readings"]
        if step == "raw":
            source = views.readings(self.directory, raw, where)
            return views.shown(TABLES["readings"], source)
        if step == "1m":
            tiers = [file for file in files if file.table == "minutes"]
            return views.minutes(self.directory, raw, tiers, where)
        tiers = [file for file in files if file.table == "quarters"]
        return views.quarters(self.directory, raw, tiers, where)

    def _files(self, starts_ns: int | None = None, ends_ns: int | None = None) -> list[File]:
        if not (self.directory / FILE).exists():
            raise NotFound(f"no history in {self.directory}; is the plant's [history] enabled?")
        with closing(Catalog(self.directory, read_only=True)) as catalog:
            return catalog.files(starts_ns=starts_ns, ends_ns=ends_ns)

    def _query(self, query: str, *values: object) -> pa.Table:
        """Run a query of our own; the connection stays for the next one."""
        if self._own is None:
            self._own = duckdb.connect(":memory:", config=self._config)
        with self._own.cursor() as cursor:
            return cursor.sql(query, params=list(values)).to_arrow_table()


class Session:
    """The record at one moment."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def sql(self, query: str) -> pa.Table:
        """See `Reader.sql`."""
        try:
            statements = self._connection.extract_statements(query)
            allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
            if len(statements) != 1 or statements[0].type not in allowed:
                raise _invalid("it is not one SELECT", "ask one question at a time")
            return self._connection.sql(statements[0].query).to_arrow_table()
        except duckdb.Error as error:
            raise _invalid(str(error), "see docs/history.md for tables and columns") from error


def _confine(connection: duckdb.DuckDBPyConnection, paths: list[str]) -> None:
    """Leave a connection the record's files for reading, and nothing else, for good."""
    connection.execute("SET allowed_paths = ?", [paths])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _within(starts_at_ns: int, ends_at_ns: int) -> str:
    return f"time >= {at(starts_at_ns)} AND time < {at(ends_at_ns)}"


def _invalid(what: str, remedy: str) -> Invalid:
    return Invalid("the query cannot be answered", [Problem("query", what, remedy)])
