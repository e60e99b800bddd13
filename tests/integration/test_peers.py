"""Simulated devices are real MQTT clients: they speak with a server nobody here wrote."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.integration.conftest import SEED, Peers, free_port

from kapelle.sim.devices import FleetPlan, make_fleet

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is missing: apt-get install mosquitto"),
]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    port = free_port()
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


def test_two_hundred_devices_connect_report_drop_out_and_return(
    broker: int, start_peers: Callable[..., Peers]
) -> None:
    plan = FleetPlan(devices=200, telemetry_period_s=1.0)
    enrolled = make_fleet(plan, np.random.default_rng(SEED)).enrolled
    vendor = enrolled.vendor[0]
    members = enrolled.vendor.count(vendor)
    secrets = dict.fromkeys((name.decode() for name in enrolled.device_id), "secret")
    peers = start_peers(broker, plan, secrets)
    said = peers.until(lambda s: s["connected"] == 200 and s["acked"] > 300, 60)
    assert said["refused"] == 0
    peers.tell({"do": "lose", "by": "vendor", "name": vendor.decode()})
    said = peers.until(lambda s: s["connected"] == 200 - members, 60)
    assert said["reachable"] == 200 - members
    peers.tell({"do": "return", "by": "vendor", "name": vendor.decode()})
    peers.until(lambda s: s["connected"] == 200, 60)
    # The end of stdin is the leash: a parent that dies takes its devices along.
    assert peers.process.stdin is not None
    peers.process.stdin.close()
    assert peers.process.wait(10) == 0
