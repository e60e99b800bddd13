"""Simulated OpenADR gateways: the real VTN tells, hears and misses them."""

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.adapters.conformance.plant import Plant, opened, until

from kapelle.adapters.openadr.vtn import Vtn
from kapelle.config import Config
from kapelle.model.blocks import Readings
from kapelle.model.enums import AckStatus, Metric, SessionEvent
from kapelle.registry import credentials
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock
from kapelle.sim.devices import FleetPlan
from kapelle.sim.peers.gateways import Gateways
from kapelle.sim.peers.messages import Start
from kapelle.sim.peers.party import Ground
from kapelle.sim.protocols import prepare, speaking
from kapelle.sim.telemetry import Reports

PLAN = FleetPlan(devices=10)
MIX = {"mqtt": 0.7, "openadr": 0.3}
SECRET = "a secret of thirty-two characters"


async def measured(plant: Plant) -> dict[int, float]:
    """Return the newest power of each device."""
    return {
        number: watts
        for block in await plant.stored(Readings)
        for number, watts in zip(
            block.device_no.tolist(), block.values[Metric.POWER_W].tolist(), strict=True
        )
    }


def test_they_are_measured_told_released_and_missed(tmp_path: Path) -> None:
    devices, spoken = speaking(PLAN, 1, MIX)
    prepared = prepare(Config(), devices, spoken, tmp_path)
    assert prepared.config.openadr is not None
    rows = np.flatnonzero(np.array(spoken) == "openadr").astype(np.int32)
    names = [devices.enrolled.device_id[row].decode() for row in rows]
    hashed = credentials.hash_secret(SECRET)
    directory = Directory.build(
        1,
        [
            Bearer(number, name, True, 5e3, 5e3, hashed, adapter="openadr")
            for number, name in enumerate(names)
        ],
    )
    vtn = Vtn(
        settings=replace(prepared.config.openadr, absent_s=2.0),
        directory=directory,
        clock=SystemClock(),
        file=tmp_path / "openadr.db",
    )
    ports: dict[str, int] = {}
    secrets = dict.fromkeys(names, SECRET)
    start = Start("127.0.0.1", 0, PLAN, 1, secrets, mix=MIX, ports=ports, directory=str(tmp_path))
    party = Gateways(Ground(start, "openadr", devices, rows, random.Random(1), time.time_ns))

    def say(power_w: float) -> None:
        values = {metric: np.full(len(rows), np.nan) for metric in Metric}
        values |= {Metric.POWER_W: np.full(len(rows), power_w)}
        none = np.zeros(len(rows), np.int64)
        party.say(Reports(rows, none, none, none, values))

    async def run() -> None:
        # Nobody has called yet: to be cut off is harmless.
        party.leave()
        async with asyncio.timeout(60), opened(vtn, directory) as plant, background() as beside:
            ports["openadr"] = vtn.port
            beside.start(party.run(), "gateways")
            await until(lambda: party.connected() == len(rows))
            say(-2_000.0)

            async def heard() -> bool:
                return await measured(plant) == dict.fromkeys(range(len(rows)), -2_000.0)

            await until(heard)
            for number, setpoint_w in enumerate((-1_500.0, float("nan")), 1):
                assert await plant.send(setpoint_w, revision=number)
                await until(lambda number=number: party.tally().commands == number)
                (row,), block = party.take(time.time_ns())
                assert row == rows[0]
                np.testing.assert_array_equal(block.setpoint_w, [setpoint_w])
                assert np.isnan(setpoint_w) or 290.0 < block.revert_s[0] <= 300.0
                say(1_000.0)

                async def applied(number: int = number) -> bool:
                    return (number, AckStatus.APPLIED) in await plant.answers()

                await until(applied)

            # Who was cut off between two requests has lost a connection, and nothing else.
            party.lose(rows[:1].tolist(), share_deaf=1.0)
            await until(lambda: party.connected() == len(rows) - 1)
            party.bring_back(rows[:1].tolist(), within_s=0.1)
            await until(lambda: party.connected() == len(rows))
            party.lose(rows[1:2].tolist(), share_deaf=0.0)

            async def missed() -> bool:
                return SessionEvent.DOWN in await plant.events()

            await until(missed)
            assert await plant.reasons() == []

    asyncio.run(run())
