"""Simulated devices are real MQTT clients: they speak with a server nobody here wrote."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from kapelle.sim.devices import FleetPlan, make_fleet

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is missing: apt-get install mosquitto"),
]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = tmp_path / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    assert MOSQUITTO is not None
    server = subprocess.Popen([MOSQUITTO, "-c", str(file)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait()


def test_two_hundred_devices_connect_report_drop_out_and_return(broker: int) -> None:
    plan = FleetPlan(devices=200, telemetry_period_s=1.0)
    devices = make_fleet(plan, np.random.default_rng(3))
    names = [name.decode() for name in devices.enrolled.device_id]
    start = {
        "host": "127.0.0.1", "port": broker, "plan": plan, "seed": 3,
        "secrets": dict.fromkeys(names, "secret"),
    }  # fmt: skip
    vendor = devices.enrolled.vendor[0].decode()
    members = sum(name.decode() == vendor for name in devices.enrolled.vendor)
    process = subprocess.Popen(
        [sys.executable, "-m", "kapelle.sim.peers.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def write(document: object) -> None:
        process.stdin.write(msgspec.json.encode(document) + b"\n")
        process.stdin.flush()

    def until(condition) -> dict:
        for _ in range(60):
            said = msgspec.json.decode(process.stdout.readline())
            if said["event"] == "truth" and condition(said):
                return said
        raise AssertionError(f"never came true: {said}")

    try:
        write(start)
        said = until(lambda s: s["connected"] == 200 and s["acked"] > 300)
        assert said["refused"] == 0
        write({"do": "lose", "by": "vendor", "name": vendor})
        said = until(lambda s: s["connected"] == 200 - members)
        assert said["reachable"] == 200 - members
        write({"do": "return", "by": "vendor", "name": vendor})
        until(lambda s: s["connected"] == 200)
        # The end of stdin is the leash: a parent that dies takes its devices along.
        process.stdin.close()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
