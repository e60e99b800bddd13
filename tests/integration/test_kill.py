"""A plant that is killed in the middle of a dispatch goes on with it, and nothing happens twice.

Everything here is the real thing: processes, sockets, disk, the command line, and MQTT clients that
count on their side what took effect.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from kapelle.sim.devices import FleetPlan, make_fleet

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]

DEVICES = 120
CLI = [sys.executable, "-m", "kapelle.cli"]
Document = dict[str, Any]


class Bench:
    """A directory with a configuration, and the processes that use it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mqtt, self.api = free_port(), free_port()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
        (directory / "kapelle.toml").write_text(
            f'[plant]\nname = "bench"\ndata_dir = "{directory}/data"\n'
            f"[mqtt]\nport = {self.mqtt}\n[api]\nport = {self.api}\n"
            "[fleet]\nlease_ttl_s = 3\n[dispatch]\nlease_s = 3\n"
        )

    def cli(self, *arguments: str) -> Document:
        """Run a command and return what it says."""
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        return msgspec.json.decode(done.stdout)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*CLI, *arguments, "--json"], cwd=self.directory, env=self.environment,
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    def wait_up(self) -> None:
        """Wait until the plant answers and knows its devices."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            told = self.run("status")
            if told.returncode == 0 and json.loads(told.stdout)["plant"]["devices"] == DEVICES:
                return
        raise AssertionError((self.directory / "log").read_text())

    @contextmanager
    def plant(self) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [*CLI, "up"], cwd=self.directory, env=self.environment, stderr=log
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class Peers:
    """The simulated devices' process, and the last thing it said."""

    def __init__(self, start: Document) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kapelle.sim.peers.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(start) + b"\n")
        self.process.stdin.flush()

    def until(self, holds: Callable[[Document], bool], within_s: float) -> Document:
        """Return the first truth for which something holds."""
        assert self.process.stdout is not None
        deadline, said = time.monotonic() + within_s, {}
        while time.monotonic() < deadline:
            said = msgspec.json.decode(self.process.stdout.readline())
            if said["event"] == "truth" and holds(said):
                return said
        raise AssertionError(f"not within {within_s} s: {said}")

    def during(self, seconds: float) -> list[Document]:
        """Read on for a while and return every truth."""
        end, said = time.monotonic() + seconds, list[Document]()

        def is_over(truth: Document) -> bool:
            said.append(truth)
            return time.monotonic() >= end

        self.until(is_over, seconds + 20)
        return said

    def newest(self, seconds: float) -> Document:
        """Read on for a while and return the last truth."""
        return self.during(seconds)[-1]

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_killed_plant_goes_on_with_its_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    plan = FleetPlan(devices=DEVICES, telemetry_period_s=1.0, revert_s=60.0)
    rows = make_fleet(plan, np.random.default_rng(5)).rows()
    fleet = [{key: value for key, value in row.items() if value is not None} for row in rows]
    (tmp_path / "fleet.json").write_bytes(json.dumps(fleet).encode())
    secrets = tmp_path / "secrets.json"
    assert bench.cli("devices", "import", "fleet.json", "--secrets", str(secrets))["created"] == 120
    assert secrets.stat().st_mode & 0o077 == 0

    start = {
        "host": "127.0.0.1", "port": bench.mqtt, "plan": plan, "seed": 5,
        "secrets": json.loads(secrets.read_text()), "keep_alive_s": 10, "back_off_s_max": 2.0,
    }  # fmt: skip
    peers = None
    try:
        with bench.plant() as plant:
            bench.wait_up()
            peers = Peers(start)
            peers.until(lambda s: s["connected"] == DEVICES, 60)
            before = peers.newest(4.0)
            order = bench.cli("order", "create", "--kw", "250", "--for", "10m")
            assert order["committed_w"] == 250_000
            number = str(order["order_no"])
            followed = peers.until(lambda s: s["power_w"] > before["power_w"] + 200_000, 20)
            os.kill(plant.pid, signal.SIGKILL)
            plant.wait()
        assert bench.run("status").returncode == 5, "nobody answers"

        with bench.plant():
            back = peers.until(
                lambda s: s["connected"] == DEVICES and s["connects"] > followed["connects"], 45
            )
            # Devices hold what they were asked for while nobody is there, and the plant that is
            # back leaves them where they are.
            held = [back, *peers.during(5.0)]
            off_w = [truth["power_w"] - order["baseline_w"] - 250_000 for truth in held]
            assert max(map(abs, off_w)) < 0.05 * 250_000, off_w
            again = bench.cli("order", "show", number)
            assert again["status"] == "active"
            assert again["committed_w"] == 250_000
            # However long the restart took, the end is still to come; first refreshes fall due.
            assert bench.cli("order", "amend", number, "--for", "15s")["status"] == "active"
            peers.until(lambda s: s["following"] == 0, 60)
            last = peers.until(lambda s: s["power_w"] < before["power_w"] + 25_000, 20)
            over = bench.run("order", "watch", number)
            assert over.returncode == 0, over.stderr
        assert last["commands"] > 0
        assert (last["double_effects"], last["stale_effects"], last["unreadable"]) == (0, 0, 0)
        assert last["reverted"] == 0, "its refreshes arrived in time"
    finally:
        if peers is not None:
            peers.end()
