"""Queries over the record, from this or any other process: what has been flushed, and only that.

Every call reads the catalog anew and sees its files as of that moment. Nothing is ever written.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from kapelle.errors import Invalid, NotFound, Problem
from kapelle.history import corrected, views
from kapelle.history.catalog import Catalogs, File
from kapelle.history.raw import Footers, blamed, readings_of
from kapelle.history.tables import MINUTE_NS, PARTITIONS, QUARTER_NS, TABLES
from kapelle.history.views import at
from kapelle.model.enums import EnergyQuality

Step = Literal["raw", "1m", "15m"]
Series = Literal["published", "corrected"]

_STEP_NS = {"1m": MINUTE_NS, "15m": QUARTER_NS}
_NO_SUMS = pa.table(
    {
        "starts_at_ns": pa.array([], pa.int64()),
        "power_w": pa.array([], pa.float64()),
        "measured": pa.array([], pa.int32()),
        "interpolated": pa.array([], pa.int32()),
    }
)
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
        self._catalogs = Catalogs(self.directory)
        self._footers = Footers()

    def close(self) -> None:
        """Let go of what is kept between queries."""
        self._catalogs.close()
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
            try:
                for name, sql in views.all_views(self.directory, files).items():
                    connection.execute(f'CREATE VIEW "{name}" AS {sql}')
            except duckdb.Error as error:
                raise blamed(self.directory, files, error) or error from error
            _confine(connection, [str(self.directory / file.path) for file in files])
            yield Session(connection, self.directory, files)

    def device(self, device_no: int, starts_at_ns: int, ends_at_ns: int, step: Step) -> pa.Table:
        """Return what one device reported in [starts_at_ns, ends_at_ns), in order of time.

        Args:
            device_no: Its number.
            starts_at_ns: From here on, by the time of measurement.
            ends_at_ns: Before here.
            step: `raw`: every reading once; `1m` and `15m`: see `minutes` and `quarters`.
        """
        if step == "raw":
            files = self._files(starts_at_ns, ends_at_ns, device_no, "readings")
            return readings_of(
                self.directory, files, device_no, starts_at_ns, ends_at_ns, self._footers
            )
        files = self._files(starts_at_ns, ends_at_ns, device_no)
        where = f"device_no = {int(device_no)} AND {_within(starts_at_ns, ends_at_ns)}"
        return self._query(f"{self._series(files, step, where)} ORDER BY time")

    def device_no(self, device_id: str) -> int:
        """Return the number of the device that bears or last bore a name.

        Raises:
            NotFound: The record knows no such device.
        """
        files = self._files(table="devices")
        rows = views.scan(self.directory, TABLES["devices"], files)
        found = self._query(
            f"SELECT device_no FROM ({rows}) WHERE device_id = ? ORDER BY position DESC LIMIT 1",
            device_id,
        )
        if not len(found):
            raise NotFound(f"the history knows no device {device_id}")
        return int(found.column(0)[0].as_py())

    def resource(
        self,
        name: str,
        starts_at_ns: int,
        ends_at_ns: int,
        step: Step = "15m",
        series: Series = "corrected",
    ) -> pa.Table:
        """Return what a resource did in [starts_at_ns, ends_at_ns).

        Args:
            name: Of the resource; `all` is the whole plant.
            starts_at_ns: From here on.
            ends_at_ns: Before here.
            step: `published` knows every tick (`raw`) and means over steps; `corrected` minutes
                (also for `raw`) and quarter-hours.
            series: `published`: what the plant said at the time, which never changes. `corrected`:
                what its members' readings say, as far as they are known now.

        Raises:
            NotFound: No device was ever a member of it (`corrected`).
        """
        if series == "published":
            files = self._files(starts_at_ns, ends_at_ns)
            source = self._shown(files, "aggregates")
            step_ns = 0 if step == "raw" else _STEP_NS[step]
            told = corrected.published(
                source, views.literal(name), starts_at_ns, ends_at_ns, step_ns
            )
            return self._query(told)
        return self._corrected(name, starts_at_ns, ends_at_ns, "1m" if step == "raw" else step)

    def energy(
        self,
        whose: int | str,
        starts_at_ns: int,
        ends_at_ns: int,
        revision: Literal["latest", "all"] | int = "latest",
    ) -> pa.Table:
        """Return the energy ledger of a device (by number) or a resource (by name).

        Args:
            whose: The device, or the resource: then its members at the start of each interval.
            starts_at_ns: First quarter-hour.
            ends_at_ns: Before here.
            revision: What counts now; or as it stood at a revision (0: as first told); or every
                revision with its author and reason.
        """
        ledger = self._ledger(whose, starts_at_ns, ends_at_ns, revision)
        return self._query(f"{ledger} ORDER BY device_no, time, register, revision")

    def energy_sums(
        self,
        whose: int | str,
        starts_at_ns: int,
        ends_at_ns: int,
        revision: Literal["latest"] | int = "latest",
    ) -> pa.Table:
        """Return the ledger's energy of each quarter-hour and register, summed over devices.

        Columns: `starts_at_ns`, `register`, `mwh` (null: nobody knows), `devices`, how many of
        them are `known`, `estimated`, `integrated` and `corrected`, all their `quality` bits, and
        the latest `revision` and `computed_at_ns`. Arguments as of `energy`.
        """
        ledger = self._ledger(whose, starts_at_ns, ends_at_ns, revision)
        counts = ", ".join(
            f"count(*) FILTER (quality & {bit.value} > 0)::INTEGER AS {bit.name.lower()}"
            for bit in EnergyQuality
        )
        return self._query(
            "SELECT starts_at_ns, register, sum(mwh)::BIGINT AS mwh, count(*)::INTEGER AS devices, "
            f"count(mwh)::INTEGER AS known, {counts}, bit_or(quality) AS quality, "
            f"max(revision) AS revision, max(computed_at_ns) AS computed_at_ns FROM ({ledger}) "
            "GROUP BY 1, 2 ORDER BY 1, 2"
        )

    def _ledger(
        self,
        whose: int | str,
        starts_at_ns: int,
        ends_at_ns: int,
        revision: Literal["latest", "all"] | int,
    ) -> str:
        files = self._files(starts_at_ns, ends_at_ns)
        rows = f"SELECT * FROM ({self._shown(files, 'energy')}) WHERE "
        rows += _within(starts_at_ns, ends_at_ns)
        if isinstance(whose, str):
            members = self._members(whose)
            if not len(self._query(f"{members} LIMIT 1")):
                raise NotFound(f"the history knows no resource {whose}")
            rows = (
                f"SELECT ledger.* FROM ({rows}) AS ledger JOIN ({members}) AS member "
                "USING (device_no) WHERE starts_at_ns >= from_ns AND starts_at_ns < until_ns"
            )
        else:
            rows += f" AND device_no = {int(whose)}"
        if revision != "all":
            if revision != "latest":
                rows = f"SELECT * FROM ({rows}) WHERE revision <= {int(revision)}"
            rows = (
                f"SELECT * FROM ({rows}) QUALIFY row_number() OVER (PARTITION BY device_no, time, "
                "register ORDER BY revision DESC) = 1"
            )
        return f"SELECT * FROM ({rows})"

    def _corrected(
        self, name: str, starts_at_ns: int, ends_at_ns: int, step: Literal["1m", "15m"]
    ) -> pa.Table:
        members = self._members(name)
        memberships = self._query(members)
        if not len(memberships):
            raise NotFound(f"the history knows no resource {name}")
        step_ns = _STEP_NS[step]
        first_ns = starts_at_ns // step_ns * step_ns
        parts = []
        for starts_ns, ends_ns in corrected.pieces(first_ns, ends_at_ns, step_ns, len(memberships)):
            reach_ns = (starts_ns - corrected.GAP_NS, ends_ns + corrected.GAP_NS)
            tier = self._series(self._files(*reach_ns), step, _within(*reach_ns))
            parts.append(self._query(corrected.sums(tier, members, starts_ns, ends_ns, step_ns)))
        found = pa.concat_tables(parts) if parts else _NO_SUMS
        return corrected.series(found, memberships, starts_at_ns, ends_at_ns, step_ns)

    def _members(self, resource: str) -> str:
        files = self._files()
        enrolled = self._shown(files, "devices")
        members = [file for file in files if file.table == "members"]
        told = views.memberships(self.directory, members, f"({enrolled})")
        return (
            f"SELECT device_no, from_ns, until_ns FROM ({told}) "
            f"WHERE resource = {views.literal(resource)}"
        )

    def _shown(self, files: Sequence[File], table: str) -> str:
        of = [file for file in files if file.table == table]
        return views.shown(TABLES[table], views.scan(self.directory, TABLES[table], of))

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

    def _files(
        self,
        starts_ns: int | None = None,
        ends_ns: int | None = None,
        device_no: int | None = None,
        table: str | None = None,
    ) -> list[File]:
        with self._catalogs.now() as catalog:
            partitions = catalog.state(PARTITIONS) if device_no is not None else None
            partition = None if not partitions else (device_no or 0) % int(partitions)
            return catalog.files(table, partition, starts_ns, ends_ns)

    def _query(self, query: str, *values: object) -> pa.Table:
        """Run a query of our own; the connection stays for the next one."""
        own = self._own or duckdb.connect(":memory:", config=self._config)
        self._own = own
        try:
            with own.cursor() as cursor:
                return cursor.sql(query, params=list(values)).to_arrow_table()
        except duckdb.Error as error:
            raise blamed(self.directory, self._files(), error) or error from error


class Session:
    """The record at one moment."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, directory: Path, files: Sequence[File]
    ) -> None:
        self._connection = connection
        self._directory = directory
        self._files = files

    def sql(self, query: str) -> pa.Table:
        """See `Reader.sql`."""
        try:
            statements = self._connection.extract_statements(query)
            allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
            if len(statements) != 1 or statements[0].type not in allowed:
                raise _invalid("it is not one SELECT", "ask one question at a time")
            return self._connection.sql(statements[0].query).to_arrow_table()
        except duckdb.Error as error:
            failed = blamed(self._directory, self._files, error)
            raise failed or _invalid(
                str(error), "see docs/history.md for tables and columns"
            ) from error


def _confine(connection: duckdb.DuckDBPyConnection, paths: list[str]) -> None:
    """Leave a connection the record's files for reading, and nothing else, for good."""
    # It is asked for the pattern a view names, and then for the file that it finds.
    allowed = sorted({*paths, *map(views.exact, paths)})
    connection.execute("SET allowed_paths = ?", [allowed])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _within(starts_at_ns: int, ends_at_ns: int) -> str:
    return f"time >= {at(starts_at_ns)} AND time < {at(ends_at_ns)}"


def _invalid(what: str, remedy: str) -> Invalid:
    return Invalid("the query cannot be answered", [Problem("query", what, remedy)])
