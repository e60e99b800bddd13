"""A plant that is killed in the middle of a dispatch goes on with it, and nothing happens twice.

Everything here is the real thing: processes, sockets, disk, the command line, and MQTT clients that
count on their side what took effect.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.conftest import SHORT_LEASES, Peers, Site

from kapelle.sim.devices import FleetPlan

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]

DEVICES = 120


def test_a_killed_plant_goes_on_with_its_order(
    tmp_path: Path, start_peers: Callable[..., Peers]
) -> None:
    site = Site(tmp_path, **SHORT_LEASES)
    plan = FleetPlan(devices=DEVICES, telemetry_period_s=1.0, revert_s=60.0)
    secrets = site.enrol(plan)
    with site.plant(DEVICES) as plant:
        peers = start_peers(site.mqtt, plan, secrets, keep_alive_s=10, back_off_s_max=2.0)
        peers.until(lambda s: s["connected"] == DEVICES, 60)
        before = peers.newest(4.0)
        order = site.json("order", "create", "--kw", "250", "--for", "10m")
        assert order["committed_w"] == 250_000
        number = str(order["order_no"])
        followed = peers.until(lambda s: s["power_w"] > before["power_w"] + 200_000, 20)
        os.kill(plant.pid, signal.SIGKILL)
        plant.wait()
    assert site.ask("status").returncode == 5, "nobody answers"

    with site.plant(DEVICES):
        back = peers.until(
            lambda s: s["connected"] == DEVICES and s["connects"] > followed["connects"], 45
        )
        # Devices hold what they were asked for while nobody is there, and the plant that is
        # back leaves them where they are.
        held = [back, *peers.during(5.0)]
        off_w = [truth["power_w"] - order["baseline_w"] - 250_000 for truth in held]
        assert max(map(abs, off_w)) < 0.05 * 250_000, off_w
        again = site.json("order", "show", number)
        assert again["status"] == "active"
        assert again["committed_w"] == 250_000
        # However long the restart took, the end is still to come; first refreshes fall due.
        assert site.json("order", "amend", number, "--for", "15s")["status"] == "active"
        peers.until(lambda s: s["following"] == 0, 60)
        last = peers.until(lambda s: s["power_w"] < before["power_w"] + 25_000, 20)
        site.wait(lambda: site.json("order", "show", number)["status"] == "completed")
    assert last["commands"] > 0
    assert (last["double_effects"], last["stale_effects"], last["unreadable"]) == (0, 0, 0)
    assert last["reverted"] == 0, "its refreshes arrived in time"
