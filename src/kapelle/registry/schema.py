"""Opens the database: connects, brings its tables up to date, and finds the plant in it."""

import sqlite3
from functools import cache

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, make_url, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from kapelle.errors import Invalid, Problem
from kapelle.registry.tables import partitions as partition_table
from kapelle.registry.tables import plant

PARTITIONS_DEFAULT = 4
_BUSY_S = 30
_TRIES = 50
_MIGRATION_LOCK = 0x6B6170656C6C65
"""Of PostgreSQL's advisory locks, ours: the bytes of `kapelle`."""


def connect(url: str) -> Engine:
    """Return an engine for SQLite or PostgreSQL. Raises Invalid for anything else."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        # Whoever waits for the plant's row must see what the one before has done, whatever the
        # server's default is.
        return create_engine(
            parsed, isolation_level="READ COMMITTED", pool_pre_ping=True, pool_timeout=_BUSY_S
        )
    return _sqlite(parsed)


def prepare(engine: Engine, partitions: int | None) -> int:
    """Bring the schema up to date, make the plant if it is new, return its partitions.

    Raises:
        Invalid: The schema is newer than this code, or the plant has other partitions.
    """
    with (
        engine.connect().execution_options(kapelle_writes=True) as connection,
        connection.begin(),
    ):
        if engine.dialect.name == "postgresql":
            # SQLite's transaction is a lock already.
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        _upgrade(connection)
        return _found(connection, partitions)


@cache
def head() -> str:
    """Return the schema version this code was written for."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None
    return newest


@cache
def known() -> frozenset[str]:
    """Return the schema versions this code can bring up to date, its own included."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return frozenset(script.revision for script in scripts)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
            raise Invalid(f"registry url: {parsed.drivername} is not supported; {_EXAMPLES}")
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        raise Invalid(
            f"the registry needs {error.name}: pip install 'kapelle[postgresql]'"
        ) from error
    except ArgumentError as error:
        raise Invalid(f"registry url: {error}; {_EXAMPLES}") from error
    return parsed


_EXAMPLES = "write sqlite:///path/registry.db or postgresql://user@host/name"


def _sqlite(url: URL) -> Engine:
    options: dict[str, int] = {}
    if url.database in (None, "", ":memory:"):
        # One connection is the database: whoever comes second waits in the pool.
        options = {"pool_size": 1, "max_overflow": 0}
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_timeout=_BUSY_S,
        connect_args={"timeout": _BUSY_S, "check_same_thread": False},
        **options,
    )

    @event.listens_for(engine, "connect")
    def _(dbapi_connection: object, _record: object) -> None:
        # The driver would begin transactions by itself, too late to be any use as a lock.
        dbapi_connection.isolation_level = None  # type: ignore[attr-defined]  # sqlite3.Connection
        cursor = dbapi_connection.cursor()  # type: ignore[attr-defined]  # sqlite3.Connection
        _write_ahead(cursor)
        # A credential is shown once: what was committed must outlive a power cut.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        writes = connection.get_execution_options().get("kapelle_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Have the database keep a write-ahead log, also where several open a new one at once."""
    for _ in range(_TRIES):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            # SQLite does not wait for others here; for a transaction of its own it does.
            cursor.execute("BEGIN EXCLUSIVE")
            cursor.execute("ROLLBACK")
        else:
            return
    cursor.execute("PRAGMA journal_mode = WAL")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "kapelle.registry:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection) -> None:
    at = MigrationContext.configure(connection).get_current_revision()
    if at == head():
        return
    if at is not None and at not in known():
        where = connection.engine.url.render_as_string(hide_password=True)
        raise Invalid(
            f"the registry {where} has schema {at}, which is newer than this Kapelle ({head()})",
            [Problem("schema", f"is {at}", "install the newer Kapelle, or restore a backup")],
        )
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _found(connection: Connection, wanted: int | None) -> int:
    found = connection.execute(select(plant.c.partitions)).scalar_one_or_none()
    if found is None:
        made = PARTITIONS_DEFAULT if wanted is None else wanted
        if made < 1:
            raise Invalid(f"a plant needs at least one partition, not {made}")
        connection.execute(insert(plant).values(id=1, partitions=made, revision=0))
        rows = [{"partition": partition, "next_row": 0} for partition in range(made)]
        connection.execute(insert(partition_table), rows)
        return made
    if wanted not in (None, found):
        remedy = f"set partitions = {found}, or start a new plant with an empty registry"
        raise Invalid(
            f"the registry was made for {found} partitions, not {wanted}",
            [Problem("partitions", "are fixed when a plant is made", remedy)],
        )
    return int(found)
