"""What others left with the VTN is in a backup, and there again after it was put back."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import DEVICE, until
from tests.adapters.openadr.site import BUSINESS_SECRET, site

from kapelle.adapters.keeping import OPENADR
from kapelle.cli.backup import put_back, take
from kapelle.config import Config, PlantSettings
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.plant import Tick
from kapelle.runtime.clock import SystemClock


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return the configuration of a plant with a journal."""
    made = Config(plant=PlantSettings(partitions=1, data_dir=tmp_path / "data"))

    async def begin() -> None:
        made.plant.data_dir.mkdir()
        settings = JournalSettings(made.journal_directory, reserve_bytes=0)
        async with open_journal(settings, SystemClock()) as journal:
            await journal.append("plant", [Tick(1)], writer="owner")

    asyncio.run(begin())
    return made


def test_objects_of_a_running_vtn_are_restored(config: Config, tmp_path: Path) -> None:
    data, kinds = config.plant.data_dir, ("programs", "events", "subscriptions", "vens")

    async def kept(file: Path) -> dict[str, list[dict]]:
        async with site(file) as opened, opened.client("business", BUSINESS_SECRET) as business:
            # What the plant makes itself it makes anew with every start.
            told = {kind: (await business.get(f"/{kind}")).json() for kind in kinds}
            return {
                kind: [one for one in every if not one["id"].startswith("kapelle")]
                for kind, every in told.items()
            }

    async def run() -> None:
        async with (
            site(data / OPENADR) as opened,
            opened.client("business", BUSINESS_SECRET) as business,
            opened.client(DEVICE) as gateway,
        ):
            program = await business.post("/programs", json={"programName": "prices"})
            price = {"id": 0, "payloads": [{"type": "PRICE", "values": [0.21]}]}
            event = {"programID": program.json()["id"], "intervals": [price]}
            assert (await business.post("/events", json=event)).status_code == 201
            watched = {
                "objects": ["EVENT"],
                "operations": ["CREATE"],
                "callbackUrl": "https://gateway.test/told",
            }
            body = {"clientName": DEVICE, "objectOperations": [watched]}
            # It is told nothing before it was heard of.
            assert (await gateway.get("/programs")).status_code == 200
            await until(lambda: opened.plant.send(-2_000.0))
            assert len((await gateway.get("/events?active=true")).json()) == 3
            # Once this is answered all that went before is on disk.
            assert (await gateway.post("/subscriptions", json=body)).status_code == 201
            # Beside the running plant.
            manifest = await asyncio.to_thread(take, config, tmp_path / "backup")
            assert OPENADR in manifest.files
            await business.post("/programs", json={"programName": "later"})
        put_back(config, tmp_path / "backup", tmp_path / "new")
        found = await kept(tmp_path / "new" / OPENADR)
        assert {kind: len(every) for kind, every in found.items()} == {
            "programs": 1,
            "events": 2,
            "subscriptions": 1,
            "vens": 2,
        }
        before = await kept(data / OPENADR)
        before["programs"] = [p for p in before["programs"] if p["programName"] != "later"]
        assert found == before

    asyncio.run(run())


def test_notes_that_cannot_be_read_spoil_no_backup(config: Config, tmp_path: Path) -> None:
    with closing(sqlite3.connect(config.plant.data_dir / OPENADR)) as notes:
        notes.execute("CREATE TABLE objects (id)")
        notes.executemany("INSERT INTO objects VALUES (?)", [("x" * 3_000,) for _ in range(20)])
        notes.commit()
    whole = bytearray((config.plant.data_dir / OPENADR).read_bytes())
    whole[:100] = bytes(100)
    (config.plant.data_dir / OPENADR).write_bytes(whole)
    manifest = take(config, tmp_path / "backup")
    assert OPENADR not in manifest.files
    assert any(OPENADR in remark for remark in manifest.taken.remarks)
