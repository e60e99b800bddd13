"""S-24 on a running plant: from the touch, the signal or the command to silence in under a second.

What was sent when is read from the journal afterwards: the last hop writes the time at which it
looked at each hand-over. Short timers make a stream of refreshes that never pauses.
"""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.conftest import SHORT_LEASES, Peers, Site

from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.blocks import Phases
from kapelle.model.entries import Kind
from kapelle.model.enums import Phase
from kapelle.model.ids import NS_PER_S, partition_topic
from kapelle.runtime.clock import SystemClock
from kapelle.sim.devices import FleetPlan

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]

DEVICES = 120
PARTITIONS = 4
WITHIN_S = 1.0


async def _sent_ns(directory: Path) -> list[int]:
    """Return when each command left, in order."""
    found: list[int] = []
    async with open_journal(JournalSettings(directory=directory), SystemClock()) as journal:
        for partition in range(PARTITIONS):
            topic = partition_topic(partition)
            for entry in await journal.read(topic, 0, 1_000_000, {Kind.PHASES}):
                assert isinstance(entry.body, Phases)
                found += entry.body.at_ns[entry.body.phase == Phase.SENT].tolist()
    return sorted(found)


def test_everything_stops_within_a_second_and_devices_go_back(
    tmp_path: Path, start_peers: Callable[..., Peers]
) -> None:
    site = Site(tmp_path, plant={"data_dir": "data", "partitions": PARTITIONS}, **SHORT_LEASES)
    plan = FleetPlan(devices=DEVICES, telemetry_period_s=1.0, revert_s=15.0)
    secrets = site.enrol(plan)
    file = tmp_path / "data" / "HOLD"
    stops: list[tuple[float, float]] = []
    with site.plant(DEVICES) as plant:
        peers = start_peers(site.mqtt, plan, secrets, keep_alive_s=10, back_off_s_max=2.0)
        peers.until(lambda s: s["connected"] == DEVICES, 60)
        peers.newest(4.0)
        site.json("order", "create", "--kw", "150", "--for", "30m")
        for stop in (
            file.touch,
            lambda: plant.send_signal(signal.SIGUSR1),
            lambda: site.json("hold", "--reason", "drill"),
        ):
            peers.until(lambda s: s["following"] > DEVICES / 4, 60)
            stopped_s = time.time()
            stop()
            # The command line takes a while to start: what counts is when it has its answer.
            stopped_s = max(stopped_s, time.time() - WITHIN_S)
            site.wait(lambda: site.json("status")["held"])
            # nobody refreshes their timers, and devices return by themselves.
            peers.until(lambda s: s["following"] == 0, 60)
            stops.append((stopped_s, time.time()))
            file.unlink(missing_ok=True)
            assert site.json("status")["held"], "nothing but a release lifts it"
            assert not site.json("release")["held"]
    sent_ns = asyncio.run(_sent_ns(tmp_path / "data" / "journal"))
    for stopped_s, quiet_s in stops:
        before = [ns for ns in sent_ns if stopped_s - 10 < ns / NS_PER_S < stopped_s]
        after_s = [
            ns / NS_PER_S - stopped_s for ns in sent_ns if stopped_s < ns / NS_PER_S < quiet_s
        ]
        assert len(before) > 10, "commands were leaving"
        assert max(after_s, default=0.0) < WITHIN_S
