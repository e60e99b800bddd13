"""Migrations make exactly the tables the code uses, and newer ones are refused."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from tests.registry.conftest import make_older

from kapelle.errors import Invalid
from kapelle.model.enums import DeviceKind
from kapelle.registry import schema
from kapelle.registry.device import Device
from kapelle.registry.settings import RegistrySettings
from kapelle.registry.store import Registry
from kapelle.registry.tables import metadata


def test_migrations_and_tables_agree(url: str) -> None:
    Registry(url, 2).close()
    engine = schema.connect(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == schema.head()
    engine.dispose()


def test_a_newer_schema_is_refused(url: str) -> None:
    Registry(url, 2).close()
    engine = schema.connect(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(Invalid, match=r"schema 9999, which is newer.*\n.*newer Kapelle"):
        Registry(url)


def test_a_failed_opening_leaves_no_half_plant(url: str) -> None:
    with pytest.raises(Invalid, match="at least one partition"):
        Registry(url, 0)
    with Registry(url, 2) as registry:
        assert registry.partitions == 2


def test_the_default_database_is_in_the_data_directory(tmp_path) -> None:
    url = RegistrySettings().database_url(tmp_path)
    Registry(url, 2).close()
    assert (tmp_path / "registry.db").is_file()
    assert RegistrySettings(url="sqlite://").database_url(tmp_path) == "sqlite://"


def test_an_older_registry_gains_what_it_did_not_know(url: str) -> None:
    with Registry(url, 2) as registry:
        registry.put_devices([Device(id="a", kind=DeviceKind.LOAD, nameplate_down_w=5e3)], 1)
    make_older(url)
    with Registry(url) as registry:
        found = registry.device("a")
        assert (found.nameplate_down_w, found.meter_rollover_wh) == (5e3, None)
