"""What `verify`, `backup` and `restore` say where things do not fit together."""

import asyncio
import re
import shutil
import sqlite3
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest

from kapelle.app import open_plant
from kapelle.cli.backup import put_back, steps_after, take
from kapelle.cli.upkeep import examine
from kapelle.config import Config, PlantSettings
from kapelle.errors import DataDirectoryHeld, Invalid, JournalDamaged, RegistryUnavailable
from kapelle.history.settings import HistorySettings
from kapelle.journal.lock import DirectoryLock
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.journal.store import NAME
from kapelle.model.enums import DeviceKind
from kapelle.model.plant import Tick
from kapelle.registry.device import Device
from kapelle.registry.directory import Directory
from kapelle.registry.service import OutboxPump
from kapelle.registry.settings import RegistrySettings
from kapelle.registry.store import Registry
from kapelle.runtime.archive import Manifest, Sealed, noted_backup_ns
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
    made = Config(plant=PlantSettings(partitions=2, data_dir=tmp_path / "odd #1? at 100%20"))
    asyncio.run(enrol(made, devices(1, 2, 3, 4)))
    return made


async def enrol(config: Config, wanted: list[Device], *, told: bool = True) -> None:
    data = config.plant.data_dir
    data.mkdir(exist_ok=True)
    clock = SystemClock()
    settings = JournalSettings(config.journal_directory, reserve_bytes=0)
    async with open_journal(settings, clock) as journal:
        with Registry(config.registry.database_url(data), partitions=2) as registry:
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


def test_a_plant_knows_when_it_was_backed_up(config: Config, tmp_path: Path) -> None:
    data = config.plant.data_dir
    assert noted_backup_ns(data) is None
    first = take(config, tmp_path / "backup").taken
    assert noted_backup_ns(data) == first.taken_at_ns
    second = take(config, tmp_path / "later").taken
    assert noted_backup_ns(data) == second.taken_at_ns > first.taken_at_ns
    # What was restored has no backup of its own; what could not be noted was made all the same.
    put_back(config, tmp_path / "later", tmp_path / "new")
    assert noted_backup_ns(tmp_path / "new") is None
    (data / "backup.json").unlink()
    (data / "backup.json").mkdir()
    assert take(config, tmp_path / "third").taken.taken_at_ns > second.taken_at_ns
    assert noted_backup_ns(data) is None


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
    for held in (config.plant.data_dir, config.plant.data_dir / "journal"):
        lock = DirectoryLock(held, 0)
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


def forged(source: Path, name: str) -> None:
    """Let a backup name another file, with all hashes right."""
    manifest = msgspec.json.decode((source / "manifest.json").read_bytes(), type=Manifest)
    files = manifest.files | {name: Sealed(5, blake2b(b"owned", digest_size=32).hexdigest())}
    manifest = msgspec.structs.replace(manifest, files=files)
    manifest = msgspec.structs.replace(manifest, blake2b=manifest.hash())
    (source / "manifest.json").write_bytes(msgspec.json.encode(manifest))


@pytest.mark.parametrize("name", ["../{}/loot", "{}/loot", "history/../../{}/loot", "", "."])
def test_a_backup_puts_nothing_outside_of_its_place(
    config: Config, tmp_path: Path, name: str
) -> None:
    take(config, tmp_path / "backup")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "loot").write_bytes(b"owned")
    where = elsewhere if name.startswith("{") else elsewhere.name
    forged(tmp_path / "backup", name.format(where))
    with pytest.raises(JournalDamaged, match="lies outside"):
        put_back(config, tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["loot", "folder/loot"])
def test_a_backup_brings_no_file_from_behind_a_link(
    config: Config, tmp_path: Path, name: str
) -> None:
    take(config, tmp_path / "backup")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "loot").write_bytes(b"owned")
    (tmp_path / "backup" / "loot").symlink_to(tmp_path / "secrets" / "loot")
    (tmp_path / "backup" / "folder").symlink_to(tmp_path / "secrets")
    forged(tmp_path / "backup", name)
    with pytest.raises(JournalDamaged, match="is a link"):
        put_back(config, tmp_path / "backup", tmp_path / "new")


def test_a_journal_in_another_place_is_examined_and_backed_up(tmp_path: Path) -> None:
    journal = JournalSettings(tmp_path / "fast disk" / "journal", reserve_bytes=0)
    made = Config(plant=PlantSettings(partitions=2, data_dir=tmp_path / "data"), journal=journal)
    asyncio.run(enrol(made, devices(1, 2)))
    assert not (tmp_path / "data" / "journal").exists()
    assert flaws(made) == []
    manifest = take(made, tmp_path / "backup")
    _, findings = put_back(made, tmp_path / "backup", tmp_path / "new")
    assert not [f for f in findings if f.verdict is Verdict.BAD]
    steps = steps_after(made, manifest, tmp_path / "new")
    assert any("[journal] directory" in step for step in steps)


def test_a_plant_begins_no_new_journal_beside_its_own(config: Config, tmp_path: Path) -> None:
    moved = replace(config, journal=JournalSettings(tmp_path / "elsewhere"))

    async def start() -> None:
        async with open_plant(moved):
            pass

    with pytest.raises(Invalid, match=r"move .* to .*elsewhere"):
        asyncio.run(start())
    assert not (tmp_path / "elsewhere").exists()


def test_clients_get_in_after_a_restore_wherever_the_token_lay(
    config: Config, tmp_path: Path
) -> None:
    async def start(config: Config) -> None:
        async with open_plant(config):
            pass

    file = tmp_path / "secrets" / "token"
    file.parent.mkdir()
    made = replace(config, api=replace(config.api, token_file=str(file)))
    asyncio.run(start(made))
    token = file.read_text()
    manifest = take(made, tmp_path / "backup")
    file.unlink()
    shutil.rmtree(made.plant.data_dir)
    put_back(made, tmp_path / "backup", made.plant.data_dir)
    kept = made.plant.data_dir / "api.token"
    assert kept.stat().st_mode & 0o077 == 0
    assert any(f"move {kept} to {file}" in step for step in steps_after(made, manifest, None))
    with pytest.raises(Invalid, match=f"move {re.escape(str(kept))} there"):
        asyncio.run(start(made))
    assert not file.exists(), "no token that no client has"
    kept.rename(file)
    asyncio.run(start(made))
    assert file.read_text() == token


@pytest.mark.parametrize("shared", ["data", "history"])
def test_two_plants_share_no_directory_wherever_their_journals_lie(
    tmp_path: Path, shared: str
) -> None:
    def plant(name: str) -> Config:
        mine = {part: tmp_path / name / part for part in ("data", "history", "journal")}
        mine[shared] = tmp_path / shared
        return Config(
            plant=PlantSettings(data_dir=mine["data"]),
            history=HistorySettings(directory=str(mine["history"])),
            journal=JournalSettings(mine["journal"], reserve_bytes=0),
        )

    async def start_both() -> None:
        async with open_plant(plant("one")):
            with pytest.raises(DataDirectoryHeld, match=f"{shared} is in use by process"):
                async with open_plant(plant("two")):
                    pass
            assert not (tmp_path / "two" / "journal").exists()
        async with open_plant(plant("two")):
            pass

    asyncio.run(start_both())


def test_one_directory_may_serve_for_everything(tmp_path: Path) -> None:
    whole = tmp_path / "all"
    made = Config(
        plant=PlantSettings(data_dir=whole),
        history=HistorySettings(directory=f"{tmp_path}/./all"),
        journal=JournalSettings(whole, reserve_bytes=0),
    )

    async def start() -> None:
        async with open_plant(made):
            assert (whole / NAME).exists()

    asyncio.run(start())


def test_a_plant_keeps_its_journal_where_it_is_set_for_its_owner_alone(tmp_path: Path) -> None:
    journal = JournalSettings(tmp_path / "fast" / "journal", reserve_bytes=0)
    made = Config(plant=PlantSettings(data_dir=tmp_path / "data"), journal=journal)

    async def start() -> None:
        async with open_plant(made):
            assert (journal.directory / NAME).exists()

    asyncio.run(start())
    assert not (tmp_path / "data" / "journal").exists()
    assert journal.directory.stat().st_mode & 0o077 == 0
