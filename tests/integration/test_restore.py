"""The restore drill: a plant is lost with its disk, and goes on elsewhere from an older backup.

Its devices have lived on meanwhile: they have heard higher epochs and revisions than the backup
knows of, and must obey all the same. Nothing accepted before the backup may be missing.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.conftest import Document, Peers, Settings, Site

from kapelle.sim.devices import FleetPlan

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

DEVICES = 60


def settings(directory: Path, data: str) -> dict[str, Settings]:
    """Return a plant that keeps its data there, and forgets as early as it can."""
    soon: Settings = {"snapshot_every_s": 4, "retain_s": 6}
    return {
        "plant": {"name": "drill", "data_dir": str(directory / data), "partitions": 2},
        "api": {"token_file": str(directory / "token")},
        "fleet": {"lease_ttl_s": 3, **soon},
        "dispatch": {"lease_s": 3, **soon},
        "history": {"flush_s": 2},
    }


def _order(site: Site, *arguments: str) -> Document:
    """Order as soon as enough devices have been heard to take it."""

    def given() -> Document:
        done = site.ask("order", "create", *arguments, "--json")
        return done.returncode == 0 and json.loads(done.stdout)

    return site.wait(given)


def _entries(directory: Path) -> dict[tuple[str, int], tuple[object, ...]]:
    """Return every entry of a journal, by topic and position."""
    path = directory / "journal" / "journal.sqlite"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute(
            "SELECT t.name, e.place - (t.id << 40), e.kind, e.writer, e.epoch, e.at_ns, e.crc, "
            "e.body FROM topics t JOIN entries e ON e.place >> 40 = t.id"
        ).fetchall()
    return {(row[0], row[1]): row[2:] for row in rows}


def test_a_lost_plant_goes_on_elsewhere_from_its_backup(
    tmp_path: Path, start_peers: Callable[..., Peers]
) -> None:
    site = Site(tmp_path, **settings(tmp_path, "data"))
    plan = FleetPlan(devices=DEVICES, telemetry_period_s=1.0, revert_s=120.0)
    secrets = site.enrol(plan)
    backup = tmp_path / "backup"
    with site.plant(DEVICES):
        peers = start_peers(site.mqtt, plan, secrets, keep_alive_s=10, back_off_s_max=2.0)
        peers.until(lambda s: s["connected"] == DEVICES, 60)
        calm = peers.newest(8.0)
        first = _order(site, "--kw", "60", "--for", "20m")
        peers.until(lambda s: s["power_w"] > calm["power_w"] + 48_000, 30)
        accepted = _entries(tmp_path / "data")
        taken = site.json("backup", str(backup))
        at_backup = peers.until(lambda s: True, 10)
        # Life goes on: entries, a larger target, revisions the backup knows nothing of …
        site.json("order", "amend", str(first["order_no"]), "--kw", "90")
        peers.until(lambda s: s["commands"] > at_backup["commands"] + 10, 30)
        assert site.json("verify")["sound"]
        lived_on = _entries(tmp_path / "data")
    with site.plant(DEVICES):
        # … and an owner with a higher epoch, whom all devices have heard.
        peers.until(lambda s: s["connected"] == DEVICES, 60)
        last = peers.newest(5.0)
        site.json("restore", str(backup), code=4)  # In use.
    # The disk is gone.
    shutil.move(tmp_path / "data", tmp_path / "lost")
    token = (tmp_path / "token").read_text()
    (tmp_path / "token").unlink()

    into = str(tmp_path / "again")
    # Beside the configured place, then to be configured.
    restored = site.json("restore", str(backup), "--into", into)
    assert restored["sound"], restored
    site.json("restore", str(backup), "--into", into, code=2)  # Not over what is there.
    kept = _entries(tmp_path / "again")
    reached = taken["topics"]
    for (topic, position), entry in lived_on.items():
        if position <= reached[topic]:
            assert kept[topic, position] == entry
    assert all(position <= reached[topic] for topic, position in accepted)
    assert max(lived_on) > max(kept), "the world went on after the backup"

    site.configure(**settings(tmp_path, "again"))
    # Clients have the token of before; where it belongs is said.
    kept = tmp_path / "again" / "api.token"
    assert any(f"move {kept} to {tmp_path / 'token'}" in step for step in restored["next"])
    kept.rename(tmp_path / "token")
    assert (tmp_path / "token").read_text() == token
    with site.plant(DEVICES):
        back = peers.until(
            lambda s: s["connected"] == DEVICES and s["connects"] > last["connects"], 60
        )
        again = site.json("order", "show", str(first["order_no"]))
        assert again["status"] == "active", "the order of before the backup is driven on"
        # Devices obey, although they have heard of later epochs and revisions than it knew.
        before = peers.newest(8.0)
        site.json("order", "cancel", str(first["order_no"]))
        peers.until(lambda s: s["power_w"] < before["power_w"] - 40_000, 60)
        low = peers.newest(6.0)
        _order(site, "--kw", "60", "--for", "20m")
        peers.until(lambda s: s["power_w"] > low["power_w"] + 48_000, 60)
        end = peers.newest(3.0)
    assert end["commands"] > back["commands"]
    assert (end["double_effects"], end["stale_effects"], end["unreadable"]) == (0, 0, 0)
    assert site.json("verify")["sound"]


def test_a_backup_is_checked_before_it_is_used(tmp_path: Path) -> None:
    site = Site(tmp_path, **settings(tmp_path, "data"))
    site.enrol(FleetPlan(devices=DEVICES))
    assert "holds no journal" in site.json("backup", "early", code=2)["error"]
    with site.plant(DEVICES):
        pass
    backup = tmp_path / "backup"
    assert site.json("backup", str(backup))["registry"] == "sqlite"
    assert not any(path.stat().st_mode & 0o077 for path in (backup, backup / "registry.db"))
    site.json("backup", str(backup), code=2)
    assert not list(tmp_path.glob(".*.partial"))
    # A byte changed anywhere: named, and nothing is made.
    token = backup / "api.token"
    told = token.read_text()
    token.write_text(told.swapcase())
    said = site.json("restore", str(backup), "--into", "new", code=65)
    assert "api.token: was changed" in said["error"]
    token.write_text(told)
    manifest = backup / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"drill"', '"other"'))
    assert "hash wrong" in site.json("restore", str(backup), "--into", "new", code=65)["error"]
    manifest.write_text(whole)
    assert not (tmp_path / "new").exists()
    assert site.json("restore", str(backup), "--into", "new")["sound"]
    assert (tmp_path / "new" / "api.token").read_text() == told
    # Enrolled after the backup: gone, and nobody stumbles over it.
    with sqlite3.connect(tmp_path / "new" / "registry.db") as db:
        assert db.execute("SELECT count(*) FROM outbox").fetchone()[0] > 0, "all is told again"
    db.close()
