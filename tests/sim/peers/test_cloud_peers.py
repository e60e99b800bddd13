"""Simulated devices behind a vendor's cloud: the real adapter polls, commands and misses them."""

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from tests.adapters.cloud.worlds import World, directory, has, world
from tests.adapters.conformance.plant import until

from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.config import Config
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock
from kapelle.sim.devices import FleetPlan
from kapelle.sim.peers.clouds import Clouds
from kapelle.sim.peers.messages import Start
from kapelle.sim.peers.party import Ground
from kapelle.sim.protocols import prepare, speaking
from kapelle.sim.telemetry import Reports

PLAN = FleetPlan(devices=500)
MIX = {"mqtt": 0.75, "cloud": 0.25}


def measured(rows: np.ndarray[tuple[int], np.dtype[np.int32]], power_w: float) -> Reports:
    n = len(rows)
    values = {metric: np.full(n, np.nan) for metric in Metric}
    values |= {Metric.POWER_W: np.full(n, power_w), Metric.SOC: np.full(n, 0.25)}
    none = np.zeros(n, np.int64)
    return Reports(rows, none, none, none, values)


def test_the_plant_polls_tells_and_misses_them(tmp_path: Path) -> None:
    devices, spoken = speaking(PLAN, 1, MIX)
    prepared = prepare(Config(), devices, spoken, tmp_path)
    assert prepared.config.clouds is not None
    (settings,) = prepared.config.clouds.cloud
    settings = replace(
        settings, polls=(replace(settings.polls[0], every_s=0.1),), noticed_s=0.5, answer_s=0.5
    )
    start = Start(
        "127.0.0.1", 0, PLAN, 1, {}, mix=MIX, ports=dict(prepared.ports), directory=str(tmp_path)
    )
    rows = np.flatnonzero(np.array(spoken) == "cloud").astype(np.int32)
    party = Clouds(Ground(start, "cloud", devices, rows, random.Random(1), time.time_ns))
    addresses = [prepared.devices.enrolled.address[row].decode() for row in rows]
    known = directory("cloud", *addresses)
    everyone = set(range(len(rows)))
    assert len(rows) > 100, "less would be one page"

    async def act(here: World) -> None:
        async def all_are_there() -> bool:
            return await here.up() == everyone

        async def read() -> bool:
            values = await here.latest()
            return all(has(values, number, -2_000.0) for number in everyone)

        party.say(measured(rows, -2_000.0))
        await until(all_are_there)
        await until(read)

        async def told() -> bool:
            return party.tally().commands > before

        for setpoint_w in (-1_500.0, float("nan")):
            before = party.tally().commands
            party.take(now_ns := time.time_ns())
            await here.plant.send(setpoint_w, revision=before + 1)
            await until(told)
            (row,), block = party.take(now_ns)
            assert row == rows[0]
            np.testing.assert_array_equal(block.setpoint_w, [setpoint_w])
            lasts_s = float(block.revert_s[0])
            assert lasts_s > 1e6 if np.isnan(setpoint_w) else 0 < lasts_s < 1e4

        party.lose(rows[:3].tolist(), share_deaf=0.0)
        before_outages = here.cloud.counters.outages

        async def those_are_gone() -> bool:
            return await here.up() == everyone - {0, 1, 2}

        await until(those_are_gone)
        assert here.cloud.counters.outages == before_outages == 0
        # Without any device the cloud is out itself, and all are gone at once.
        party.lose(rows.tolist(), share_deaf=0.0)

        async def nobody() -> bool:
            return not await here.up()

        await until(nobody)
        assert here.cloud.counters.outages == 1
        party.bring_back(rows.tolist(), within_s=1.0)
        await until(all_are_there)

    async def run() -> None:
        async with asyncio.timeout(60), background() as beside:
            beside.start(party.run(), "cloud")
            cloud = Cloud(settings=settings, directory=known, clock=SystemClock())
            async with world(cloud, known) as here:
                await act(here)
            async with httpx.AsyncClient(base_url=settings.base_url) as stranger:
                assert (await stranger.get("/batteries")).status_code == 401
            assert party.tally().refused == 1

    asyncio.run(run())


def test_a_device_that_is_gone_unnoticed_is_repeated_as_it_was(tmp_path: Path) -> None:
    devices, spoken = speaking(PLAN, 1, MIX)
    prepared = prepare(Config(), devices, spoken, tmp_path)
    start = Start("127.0.0.1", 0, PLAN, 1, {}, ports=dict(prepared.ports), directory=str(tmp_path))
    rows = np.flatnonzero(np.array(spoken) == "cloud").astype(np.int32)
    moments = iter(range(NS_PER_S, 100 * NS_PER_S, NS_PER_S))
    party = Clouds(Ground(start, "cloud", devices, rows, random.Random(1), lambda: next(moments)))
    party.say(measured(rows, 700.0))
    party.lose(rows.tolist(), share_deaf=0.5)
    deaf = [asset for asset in party._cloud.assets if asset.is_deaf]
    assert 0.3 < len(deaf) / len(rows) < 0.7
    assert all(asset.is_reachable and asset.at_ns == NS_PER_S for asset in deaf)
    party._cloud._tell(deaf[0].name, 1.0, 2 * NS_PER_S)
    assert party.tally().commands == 0
    party.bring_back(rows.tolist(), within_s=1.0)
    assert party.connected() == len(rows)
