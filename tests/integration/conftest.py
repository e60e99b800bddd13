"""A plant as an operator runs it: `kapelle …` as processes, and its devices in one of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from kapelle.sim.devices import FleetPlan, make_fleet

CLI = [sys.executable, "-m", "kapelle.cli"]
SEED = 5
Document = Any
"""What a process says, as JSON is decoded."""
Settings = dict[str, str | int]
SHORT_LEASES: dict[str, Settings] = {"fleet": {"lease_ttl_s": 3}, "dispatch": {"lease_s": 3}}
"""Whoever succeeds a plant that was killed need not wait long."""


class Site:
    """A directory with a configuration, and the processes that use it."""

    def __init__(self, directory: Path, **rooms: Settings) -> None:
        self.directory = directory
        self.mqtt, self.api = free_port(), free_port()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
        self.environment |= {"COLUMNS": "80", "NO_COLOR": "1"}
        self.configure(**rooms)

    def configure(self, **rooms: Settings) -> None:
        """Write the configuration, room by room; the ports stay what they are."""
        for room, port in (("mqtt", self.mqtt), ("api", self.api)):
            rooms[room] = {"port": port} | rooms.get(room, {})
        lines: list[str] = []
        for room, settings in rooms.items():
            # Strings and numbers are the same in JSON and in TOML.
            lines += [f"[{room}]", *(f"{key} = {json.dumps(settings[key])}" for key in settings)]
        (self.directory / "kapelle.toml").write_text("\n".join(lines))

    def ask(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command, however it ends."""
        return subprocess.run(
            [*CLI, *arguments], cwd=self.directory, env=self.environment,
            capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command that ends as expected; return what it says."""
        done = self.ask(*arguments)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def json(self, *arguments: str, code: int = 0) -> Document:
        """Run a command that ends as expected; return what it says to programs."""
        return msgspec.json.decode(self.run(*arguments, "--json", code=code))

    def enrol(self, plan: FleetPlan) -> dict[str, str]:
        """Enrol simulated devices and return their secrets."""
        rows = make_fleet(plan, np.random.default_rng(SEED)).rows()
        fleet = [{key: value for key, value in row.items() if value is not None} for row in rows]
        (self.directory / "fleet.json").write_text(json.dumps(fleet))
        secrets = self.directory / "secrets.json"
        made = self.json("devices", "import", "fleet.json", "--secrets", str(secrets))
        assert made["created"] == plan.devices
        assert secrets.stat().st_mode & 0o077 == 0
        return msgspec.json.decode(secrets.read_bytes(), type=dict[str, str])

    @contextmanager
    def plant(
        self, devices: int, ends_by: signal.Signals = signal.SIGKILL
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the plant; it answers and knows its devices by the time this begins."""
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [*CLI, "up"], cwd=self.directory, env=self.environment, stderr=log
            )
        try:
            self.wait(lambda: self._knows(devices) or process.poll() is not None)
            assert process.poll() is None, (self.directory / "log").read_text()
            yield process
        finally:
            process.send_signal(ends_by)
            process.wait(60)

    def _knows(self, devices: int) -> bool:
        told = self.ask("status", "--json")
        return told.returncode == 0 and json.loads(told.stdout)["plant"]["devices"] == devices

    def wait(self, is_so: Callable[[], object], wait_s: float = 60.0) -> Any:
        """Wait until something is so, and return it."""
        deadline = time.monotonic() + wait_s
        while not (found := is_so()):
            assert time.monotonic() < deadline, (self.directory / "log").read_text()[-3_000:]
            time.sleep(0.2)
        return found


class Peers:
    """The simulated devices' process, and what it says."""

    def __init__(self, port: int, plan: FleetPlan, secrets: dict[str, str], **more: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kapelle.sim.peers.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        start = {"host": "127.0.0.1", "port": port, "plan": plan, "secrets": secrets, "seed": SEED}
        self.tell(start | more)

    def tell(self, document: Document) -> None:
        """Hand a document to the process."""
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(document) + b"\n")
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

        self.until(is_over, seconds + 30)
        return said

    def newest(self, seconds: float) -> Document:
        """Read on for a while and return the last truth."""
        return self.during(seconds)[-1]

    def close(self) -> None:
        """End the devices."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def start_peers() -> Iterator[Callable[..., Peers]]:
    """Start processes of devices that end with the test, as `Peers`."""
    with ExitStack() as ends:
        yield lambda *start, **more: ends.enter_context(closing(Peers(*start, **more)))
