"""The restore drill: a plant is lost with its disk, and goes on elsewhere from an older backup.

Its devices have lived on meanwhile: they have heard higher epochs and revisions than the backup
knows of, and must obey all the same. Nothing accepted before the backup may be missing.
"""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from kapelle.sim.devices import FleetPlan, make_fleet

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

DEVICES = 60
CLI = [sys.executable, "-m", "kapelle.cli"]
Document = dict[str, Any]


class Site:
    """A configuration, the processes that use it, and the devices' process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mqtt, self.api = _free_port(), _free_port()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
        self.peers: subprocess.Popen[bytes] | None = None
        self.live_in("data")

    def live_in(self, data: str) -> None:
        """Let the configuration name another data directory."""
        (self.directory / "kapelle.toml").write_text(
            f'[plant]\nname = "drill"\ndata_dir = "{self.directory}/{data}"\npartitions = 2\n'
            f"[mqtt]\nport = {self.mqtt}\n"
            f'[api]\nport = {self.api}\ntoken_file = "{self.directory}/token"\n'
            "[fleet]\nlease_ttl_s = 3\nsnapshot_every_s = 4\nretain_s = 6\n"
            "[dispatch]\nlease_s = 3\nsnapshot_every_s = 4\nretain_s = 6\n[history]\nflush_s = 2\n"
        )

    def run(self, *arguments: str, code: int = 0) -> Document:
        done = self.ask(*arguments)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return msgspec.json.decode(done.stdout or done.stderr)

    def ask(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*CLI, *arguments, "--json"], cwd=self.directory, env=self.environment,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    def order(self, *arguments: str) -> Document:
        """Order as soon as enough devices have been heard to take it."""
        deadline = time.monotonic() + 60
        while True:
            done = self.ask("order", "create", *arguments)
            if done.returncode == 0:
                return msgspec.json.decode(done.stdout)
            assert time.monotonic() < deadline, done.stderr
            time.sleep(1.0)

    @contextmanager
    def plant(self) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [*CLI, "up"], cwd=self.directory, env=self.environment, stderr=log
            )
        try:
            deadline = time.monotonic() + 60
            while True:
                assert time.monotonic() < deadline, (self.directory / "log").read_text()
                told = self.ask("status")
                if told.returncode == 0 and json.loads(told.stdout)["plant"]["devices"] == DEVICES:
                    break
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def start_peers(self, plan: FleetPlan, secrets: Document) -> None:
        start = {
            "host": "127.0.0.1", "port": self.mqtt, "plan": plan, "seed": 5,
            "secrets": secrets, "keep_alive_s": 10, "back_off_s_max": 2.0,
        }  # fmt: skip
        self.peers = subprocess.Popen(
            [sys.executable, "-m", "kapelle.sim.peers.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.peers.stdin is not None
        self.peers.stdin.write(msgspec.json.encode(start) + b"\n")
        self.peers.stdin.flush()

    def until(self, holds: Callable[[Document], bool], within_s: float) -> Document:
        """Return the first truth for which something holds."""
        assert self.peers is not None
        assert self.peers.stdout is not None
        deadline, said = time.monotonic() + within_s, {}
        while time.monotonic() < deadline:
            said = msgspec.json.decode(self.peers.stdout.readline())
            if said["event"] == "truth" and holds(said):
                return said
        raise AssertionError(f"not within {within_s} s: {said}")

    def newest(self, seconds: float) -> Document:
        end = time.monotonic() + seconds
        return self.until(lambda _: time.monotonic() >= end, seconds + 30)

    def close(self) -> None:
        if self.peers is not None:
            assert self.peers.stdin is not None
            assert self.peers.stdout is not None
            self.peers.kill()
            self.peers.wait()
            self.peers.stdin.close()
            self.peers.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _entries(directory: Path) -> dict[tuple[str, int], tuple[object, ...]]:
    """Return every entry of a journal, by topic and position."""
    path = directory / "journal" / "journal.sqlite"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute(
            "SELECT t.name, e.place - (t.id << 40), e.kind, e.writer, e.epoch, e.at_ns, e.crc, "
            "e.body FROM topics t JOIN entries e ON e.place >> 40 = t.id"
        ).fetchall()
    return {(row[0], row[1]): row[2:] for row in rows}


def test_a_lost_plant_goes_on_elsewhere_from_its_backup(tmp_path: Path) -> None:
    site = Site(tmp_path)
    plan = FleetPlan(devices=DEVICES, telemetry_period_s=1.0, revert_s=120.0)
    rows = make_fleet(plan, np.random.default_rng(5)).rows()
    fleet = [{key: value for key, value in row.items() if value is not None} for row in rows]
    (tmp_path / "fleet.json").write_bytes(json.dumps(fleet).encode())
    site.run("devices", "import", "fleet.json", "--secrets", str(tmp_path / "secrets.json"))
    secrets = json.loads((tmp_path / "secrets.json").read_text())
    backup = tmp_path / "backup"
    try:
        with site.plant():
            site.start_peers(plan, secrets)
            site.until(lambda s: s["connected"] == DEVICES, 60)
            calm = site.newest(8.0)
            first = site.order("--kw", "60", "--for", "20m")
            site.until(lambda s: s["power_w"] > calm["power_w"] + 48_000, 30)
            accepted = _entries(tmp_path / "data")
            taken = site.run("backup", str(backup))
            at_backup = site.until(lambda s: True, 10)
            # Life goes on: entries, a larger target, revisions the backup knows nothing of …
            site.run("order", "amend", str(first["order_no"]), "--kw", "90")
            site.until(lambda s: s["commands"] > at_backup["commands"] + 10, 30)
            assert site.run("verify")["sound"]
            lived_on = _entries(tmp_path / "data")
        with site.plant():
            # … and an owner with a higher epoch, whom all devices have heard.
            site.until(lambda s: s["connected"] == DEVICES, 60)
            last = site.newest(5.0)
            site.run("restore", str(backup), code=4)  # In use.
        # The disk is gone.
        shutil.move(tmp_path / "data", tmp_path / "lost")
        token = (tmp_path / "token").read_text()
        (tmp_path / "token").unlink()

        into = str(tmp_path / "again")
        # Beside the configured place, then to be configured.
        restored = site.run("restore", str(backup), "--into", into)
        assert restored["sound"], restored
        site.run("restore", str(backup), "--into", into, code=2)  # Not over what is there.
        kept = _entries(tmp_path / "again")
        reached = taken["topics"]
        for (topic, position), entry in lived_on.items():
            if position <= reached[topic]:
                assert kept[topic, position] == entry
        assert all(position <= reached[topic] for topic, position in accepted)
        assert max(lived_on) > max(kept), "the world went on after the backup"

        site.live_in("again")
        # Clients have the token of before; where it belongs is said.
        kept = tmp_path / "again" / "api.token"
        assert any(f"move {kept} to {tmp_path / 'token'}" in step for step in restored["next"])
        kept.rename(tmp_path / "token")
        assert (tmp_path / "token").read_text() == token
        with site.plant():
            back = site.until(
                lambda s: s["connected"] == DEVICES and s["connects"] > last["connects"], 60
            )
            again = site.run("order", "show", str(first["order_no"]))
            assert again["status"] == "active", "the order of before the backup is driven on"
            # Devices obey, although they have heard of later epochs and revisions than it knew.
            before = site.newest(8.0)
            site.run("order", "cancel", str(first["order_no"]))
            site.until(lambda s: s["power_w"] < before["power_w"] - 40_000, 60)
            low = site.newest(6.0)
            site.order("--kw", "60", "--for", "20m")
            site.until(lambda s: s["power_w"] > low["power_w"] + 48_000, 60)
            end = site.newest(3.0)
        assert end["commands"] > back["commands"]
        assert (end["double_effects"], end["stale_effects"], end["unreadable"]) == (0, 0, 0)
        assert site.run("verify")["sound"]
    finally:
        site.close()


def test_a_backup_is_checked_before_it_is_used(tmp_path: Path) -> None:
    site = Site(tmp_path)
    rows = make_fleet(FleetPlan(devices=DEVICES), np.random.default_rng(5)).rows()
    fleet = [{key: value for key, value in row.items() if value is not None} for row in rows]
    (tmp_path / "fleet.json").write_bytes(json.dumps(fleet).encode())
    site.run("devices", "import", "fleet.json", "--secrets", str(tmp_path / "secrets.json"))
    assert "holds no journal" in site.run("backup", "early", code=2)["error"]
    with site.plant():
        pass
    backup = tmp_path / "backup"
    assert site.run("backup", str(backup))["registry"] == "sqlite"
    assert not any(path.stat().st_mode & 0o077 for path in (backup, backup / "registry.db"))
    site.run("backup", str(backup), code=2)
    assert not list(tmp_path.glob(".*.partial"))
    # A byte changed anywhere: named, and nothing is made.
    token = backup / "api.token"
    told = token.read_text()
    token.write_text(told.swapcase())
    said = site.run("restore", str(backup), "--into", "new", code=65)
    assert "api.token: was changed" in said["error"]
    token.write_text(told)
    manifest = backup / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"drill"', '"other"'))
    assert "hash wrong" in site.run("restore", str(backup), "--into", "new", code=65)["error"]
    manifest.write_text(whole)
    assert not (tmp_path / "new").exists()
    assert site.run("restore", str(backup), "--into", "new")["sound"]
    assert (tmp_path / "new" / "api.token").read_text() == told
    # Enrolled after the backup: gone, and nobody stumbles over it.
    with sqlite3.connect(tmp_path / "new" / "registry.db") as db:
        assert db.execute("SELECT count(*) FROM outbox").fetchone()[0] > 0, "all is told again"
    db.close()
