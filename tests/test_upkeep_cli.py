"""What `verify`, `backup` and `restore` say where things do not fit together."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from kapelle.cli.backup import put_back, take
from kapelle.cli.upkeep import examine
from kapelle.config import Config, PlantSettings
from kapelle.errors import DataDirectoryHeld, Invalid, RegistryUnavailable
from kapelle.journal.lock import DirectoryLock
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.enums import DeviceKind
from kapelle.model.plant import Tick
from kapelle.registry.device import Device
from kapelle.registry.directory import Directory
from kapelle.registry.service import OutboxPump
from kapelle.registry.settings import RegistrySettings
from kapelle.registry.store import Registry
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.doctor import Verdict

NOBODY = "postgresql://nobody@127.0.0.1:1/none"


def devices(*numbers: int) -> list[Device]:
    return [
        Device(f"dev-{n}", DeviceKind.PV, nameplate_up_w=5000.0, nameplate_down_w=0.0)
        for n in numbers
    ]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return the configuration of a plant of two partitions that has been told of four devices."""
    made = Config(plant=PlantSettings(partitions=2, data_dir=tmp_path / "odd #1 at 100%"))
    asyncio.run(enrol(made, devices(1, 2, 3, 4)))
    return made


async def enrol(config: Config, wanted: list[Device], *, told: bool = True) -> None:
    data = config.plant.data_dir
    data.mkdir(exist_ok=True)
    clock = SystemClock()
    settings = JournalSettings(data / "journal", reserve_bytes=0)
    async with open_journal(settings, clock) as journal:
        with Registry(f"sqlite:///{data / 'registry.db'}", partitions=2) as registry:
            registry.put_devices(wanted, 1)
            if told:
                directory = Directory(2)
                await OutboxPump(
                    registry=registry, journal=journal, directory=directory, clock=clock
                ).turn()
        await journal.append("plant", [Tick(1)], writer="owner")


def flaws(config: Config, data: Path | None = None) -> list[str]:
    return [f"{f.subject}: {f.found}" for f in examine(config, data) if f.verdict is Verdict.BAD]


def test_what_was_backed_up_comes_back(config: Config, tmp_path: Path) -> None:
    assert flaws(config) == []
    taken = take(config, tmp_path / "backup").taken
    assert taken.registry == "sqlite"
    # Later ones are not in it.
    asyncio.run(enrol(config, devices(5)))
    manifest, findings = put_back(config, tmp_path / "backup", tmp_path / "new")
    assert manifest.taken == taken
    assert not [f for f in findings if f.verdict is Verdict.BAD]
    url = f"sqlite:///{tmp_path / 'new' / 'registry.db'}"
    with Registry(url) as registry:
        assert registry.count() == 4
        assert registry.due().rows > 0, "the journal will be told all of it again"
    asyncio.run(enrol(replace(config, plant=replace(config.plant, data_dir=tmp_path / "new")), []))
    assert flaws(config, tmp_path / "new") == [], "telling twice changes nothing"


def test_a_registry_that_is_behind_its_journal_is_found(config: Config, tmp_path: Path) -> None:
    registry = config.plant.data_dir / "registry.db"
    older = registry.read_bytes()
    asyncio.run(enrol(config, devices(5)))
    registry.write_bytes(older)
    (flaw,) = flaws(config)
    assert "the journal has devices the registry never enrolled" in flaw


def test_a_journal_that_was_never_told_is_found(config: Config) -> None:
    asyncio.run(enrol(config, devices(5), told=False))
    assert flaws(config) == [], "it is still due"
    with sqlite3.connect(config.plant.data_dir / "registry.db") as db:
        db.execute("DELETE FROM outbox")
    db.close()
    (flaw,) = flaws(config)
    assert "they differ about 1 devices" in flaw


def test_an_entry_that_was_changed_is_found(config: Config) -> None:
    with sqlite3.connect(config.plant.data_dir / "journal" / "journal.sqlite") as db:
        db.execute("UPDATE entries SET at_ns = at_ns + 1 WHERE kind = 20")
    db.close()
    (flaw,) = flaws(config)
    assert flaw.startswith("plant: ")
    assert "checksum wrong" in flaw


def test_what_cannot_be_restored_is_refused_with_a_remedy(config: Config, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    take(config, backup)
    other = replace(config, plant=replace(config.plant, partitions=4))
    with pytest.raises(Invalid, match=r"set \[plant\] partitions = 2"):
        put_back(other, backup, tmp_path / "new")
    with pytest.raises(Invalid, match="leave it out"):
        put_back(_served(config), backup, tmp_path / "new")
    with pytest.raises(Invalid, match="not empty"):
        put_back(config, backup, config.plant.data_dir)
    lock = DirectoryLock(config.plant.data_dir / "journal", 0)
    try:
        with pytest.raises(DataDirectoryHeld, match="stop the plant first"):
            put_back(config, backup, config.plant.data_dir)
    finally:
        lock.release()
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_registry_in_postgresql_is_backed_up_by_its_own_means(
    config: Config, tmp_path: Path
) -> None:
    served, backup = _served(config), tmp_path / "backup"
    taken = take(served, backup).taken
    assert taken.registry == "postgresql"
    assert any("run pg_dump now, after it" in remark for remark in taken.remarks)
    assert not (backup / "registry.db").exists()
    with pytest.raises(Invalid, match=r"set \[registry\] url to where it is now"):
        put_back(config, backup, tmp_path / "new")
    with pytest.raises(RegistryUnavailable, match="pg_restore first"):
        put_back(served, backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def _served(config: Config) -> Config:
    return replace(config, registry=RegistrySettings(url=NOBODY))
