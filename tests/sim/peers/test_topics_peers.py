"""Simulated devices on topics of their own: the real adapter hears, tells and misses them."""

import asyncio
import math
import random
import time
from pathlib import Path

import numpy as np
from tests.adapters.conformance.plant import enrolled, opened, until

from kapelle.adapters.topics.endpoint import TopicsEndpoint
from kapelle.config import Config
from kapelle.model.blocks import Readings
from kapelle.model.enums import AckStatus, Metric, SessionEvent
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock
from kapelle.sim.agents import Answers
from kapelle.sim.devices import FleetPlan
from kapelle.sim.peers.messages import Start
from kapelle.sim.peers.party import Ground
from kapelle.sim.peers.topics import Topics
from kapelle.sim.protocols import prepare, speaking
from kapelle.sim.telemetry import Reports

PLAN = FleetPlan(devices=20)
MIX = {"mqtt": 0.9, "topics": 0.1}
UP, DOWN = SessionEvent.UP, SessionEvent.DOWN


def measured(row: int, power_w: float) -> Reports:
    values = {metric: np.full(1, np.nan) for metric in Metric}
    values |= {Metric.POWER_W: np.full(1, power_w), Metric.SOC: np.full(1, 0.25)}
    now, none = np.full(1, time.time_ns()), np.zeros(1, np.int64)
    return Reports(np.full(1, row, np.int32), none, none, now, values)


def applied(row: int, revision: int) -> Answers:
    return Answers(
        np.full(1, row, np.int32), np.full(1, revision, np.int64), np.zeros(1, np.int64),
        np.full(1, AckStatus.APPLIED, np.uint8), (b"",),
    )  # fmt: skip


def test_the_plant_hears_tells_and_misses_them(tmp_path: Path) -> None:
    devices, spoken = speaking(PLAN, 1, MIX)
    prepared = prepare(Config(), devices, spoken, tmp_path)
    assert prepared.config.topics is not None
    rows = np.flatnonzero(np.array(spoken) == "topics").astype(np.int32)
    row, name = int(rows[0]), devices.enrolled.device_id[rows[0]].decode()
    assert prepared.devices.enrolled.address[row] == f"home/{name}".encode()
    start = Start(
        "127.0.0.1", 0, PLAN, 1, {name: "its secret"}, mix=MIX, ports=dict(prepared.ports)
    )
    party = Topics(Ground(start, "topics", devices, rows, random.Random(1), time.time_ns))
    directory = enrolled("topics", f"home/{name}")
    endpoint = TopicsEndpoint(
        settings=prepared.config.topics, directory=directory, clock=SystemClock()
    )

    async def run() -> None:
        async with asyncio.timeout(60), background() as beside:
            beside.start(party.run(), "party")
            await asyncio.sleep(0.05)
            async with opened(endpoint, directory) as plant:

                async def last(event: SessionEvent) -> bool:
                    return (await plant.events())[-1:] == [event]

                async def answered(revision: int) -> bool:
                    return (revision, AckStatus.APPLIED) in await plant.answers()

                await until(lambda: last(UP))
                assert party.connected() == 1
                party.say(measured(row, -700.0))
                await until(plant.power_w)
                (block,) = await plant.stored(Readings)
                assert block.values[Metric.POWER_W].tolist() == [-700.0]
                assert block.values[Metric.SOC].tolist() == [0.25]
                assert Metric.EXPORT_WH not in block.values
                for number, setpoint_w in enumerate((-1_500.0, math.nan), start=1):
                    assert await plant.send(setpoint_w, revision=number)
                    await until(lambda n=number: party.tally().commands == n)
                    told, commands = party.take(time.time_ns())
                    assert told.tolist() == [row]
                    np.testing.assert_array_equal(commands.setpoint_w, [setpoint_w])
                    party.answer(applied(row, number), time.time_ns())
                    await until(lambda n=number: answered(n))
                party.lose([row], 0.0)
                await until(lambda: last(DOWN))
                assert party.connected() == 0
                party.say(measured(row, -800.0))
                party.bring_back([row], 0.0)
                await until(lambda: last(UP))
                assert -800.0 not in await plant.power_w()
                party.lose([row], 1.0)
                # Nobody has noticed yet.
                assert await plant.send(0.0, revision=3)
                party.leave()
                await until(lambda: last(DOWN))
                assert party.tally().unreadable == 0

    asyncio.run(run())
