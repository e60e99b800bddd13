"""Simulated IEEE 2030.5 clients: the real server tells, hears and misses them over mutual TLS."""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.adapters.conformance.plant import Plant, opened, until

from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
from kapelle.config import Config
from kapelle.model.blocks import Readings
from kapelle.model.enums import AckStatus, Metric, SessionEvent
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock
from kapelle.sim.agents import Answers
from kapelle.sim.devices import FleetPlan
from kapelle.sim.peers.der_clients import DerClients
from kapelle.sim.peers.messages import Start
from kapelle.sim.peers.party import Ground
from kapelle.sim.protocols import prepare, speaking
from kapelle.sim.telemetry import Reports

PLAN = FleetPlan(devices=10)
MIX = {"mqtt": 0.7, "ieee2030": 0.3}
PATIENCE_S = 60.0


@dataclass
class Stage:
    endpoint: Ieee2030Endpoint
    directory: Directory
    party: DerClients
    rows: list[int]

    def measure(self, power_w: float, soc: float = 0.25) -> None:
        n = len(self.rows)
        values = {metric: np.full(n, np.nan) for metric in Metric}
        values |= {
            Metric.POWER_W: np.full(n, power_w),
            Metric.SOC: np.full(n, soc),
            Metric.EXPORT_WH: np.full(n, 7_000.0),
        }
        none = np.zeros(n, np.int64)
        at_ns = np.full(n, time.time_ns())
        self.party.say(Reports(np.array(self.rows, np.int32), none, none, at_ns, values))

    async def commanded(self) -> tuple[int, float, float]:
        """Return what the first device is told next: number, setpoint, and for how long."""
        await until(lambda: self.party.tally().commands > self._told, PATIENCE_S)
        (row,), block = self.party.take(time.time_ns())
        assert row == self.rows[0]
        self._told += 1
        return int(block.revision[0]), float(block.setpoint_w[0]), float(block.revert_s[0])

    _told = 0

    def act(self, number: int, status: AckStatus = AckStatus.APPLIED) -> None:
        """Let the first device say what became of a setpoint."""
        one = np.ones(1, np.int64)
        rows = np.array(self.rows[:1], np.int32)
        status_of = np.full(1, status, np.uint8)
        self.party.answer(Answers(rows, number * one, 0 * one, status_of, (b"",)), time.time_ns())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command: it makes certificates")
    devices, spoken = speaking(PLAN, 1, MIX)
    prepared = prepare(Config(), devices, spoken, tmp_path)
    assert prepared.config.ieee2030 is not None
    settings = replace(prepared.config.ieee2030, poll_s=1, poll_spread_s=0, silence_s=2.0)
    rows = np.flatnonzero(np.array(spoken) == "ieee2030").astype(np.int32)
    block = prepared.devices.enrolled
    directory = Directory.build(
        1,
        [
            Bearer(number, f"d-{number}", True, 5e3, 5e3, adapter="ieee2030", address=address)
            for number, address in enumerate(block.address[row].decode() for row in rows)
        ],
    )
    endpoint = Ieee2030Endpoint(settings=settings, directory=directory, clock=SystemClock())
    secrets = {devices.enrolled.device_id[row].decode(): "one" for row in rows}
    ports: dict[str, int] = {}
    start = Start("127.0.0.1", 0, PLAN, 1, secrets, mix=MIX, ports=ports, directory=str(tmp_path))
    party = DerClients(Ground(start, "ieee2030", devices, rows, random.Random(1), time.time_ns))
    return Stage(endpoint, directory, party, rows.tolist())


@asynccontextmanager
async def playing(stage: Stage) -> AsyncIterator[Plant]:
    async with asyncio.timeout(2 * PATIENCE_S):
        async with opened(stage.endpoint, stage.directory) as plant, background() as beside:
            stage.party._ground.start.ports["ieee2030"] = stage.endpoint.port
            beside.start(stage.party.run(), "clients")
            await until(lambda: stage.party.connected() == len(stage.rows), PATIENCE_S)
            yield plant


async def phases(plant: Plant, revision: int) -> list[int]:
    return [status for number, status in await plant.answers() if number == revision]


def test_they_are_told_obey_answer_and_are_released(stage: Stage) -> None:
    async def run() -> None:
        async with playing(stage) as plant:
            assert await plant.send(-1_500.0)
            number, setpoint_w, lasts_s = await stage.commanded()
            assert setpoint_w == -1_500.0
            assert 290.0 < lasts_s <= 300.0
            await until_said(plant, 1, [AckStatus.RECEIVED])
            stage.act(number)
            await until_said(plant, 1, [AckStatus.RECEIVED, AckStatus.APPLIED])
            # The next one takes its place.
            assert await plant.send(2_000.0, revision=2)
            number, setpoint_w, _ = await stage.commanded()
            assert setpoint_w == 2_000.0
            stage.act(number, AckStatus.OPTED_OUT)
            await until_said(plant, 2, [AckStatus.RECEIVED, AckStatus.OPTED_OUT])
            assert await plant.send(1_000.0, revision=3)
            number, *_ = await stage.commanded()
            stage.act(number)
            await until_said(plant, 3, [AckStatus.RECEIVED, AckStatus.APPLIED])
            assert await plant.send(float("nan"), revision=4)
            number, setpoint_w, _ = await stage.commanded()
            assert np.isnan(setpoint_w)
            stage.act(number)
            await until_said(plant, 4, [AckStatus.APPLIED])

    asyncio.run(run())


async def until_said(plant: Plant, revision: int, wanted: list[AckStatus]) -> None:
    async def said() -> bool:
        return await phases(plant, revision) == wanted

    await until(said, PATIENCE_S)


def test_what_they_measure_arrives_with_its_sign_and_who_is_silent_is_missed(stage: Stage) -> None:
    async def run() -> None:
        async with playing(stage) as plant:
            everyone = set(range(len(stage.rows)))
            for power_w in (-2_000.5, 1_000.0):
                stage.measure(power_w, soc=0.5)

                async def arrived(power_w: float = power_w) -> bool:
                    return await newest(plant, Metric.POWER_W) == dict.fromkeys(everyone, power_w)

                await until(arrived, PATIENCE_S)
            assert await newest(plant, Metric.SOC) == dict.fromkeys(everyone, 0.5)
            assert await newest(plant, Metric.EXPORT_WH) == dict.fromkeys(everyone, 7_000.0)
            assert await newest(plant, Metric.IMPORT_WH) == {}
            stage.party.lose(stage.rows[:2], share_deaf=0.5)

            async def missed() -> bool:
                return (await plant.events()).count(SessionEvent.DOWN) == 2

            await until(missed, PATIENCE_S)
            stage.party.bring_back(stage.rows[:2], within_s=0.1)
            await until(lambda: stage.party.connected() == len(stage.rows), PATIENCE_S)
            assert await plant.reasons() == []

    asyncio.run(run())


async def newest(plant: Plant, metric: Metric) -> dict[int, float]:
    found: dict[int, float] = {}
    for block in await plant.stored(Readings):
        if metric in block.values:
            rows = zip(block.device_no.tolist(), block.values[metric].tolist(), strict=True)
            found |= {number: value for number, value in rows if not np.isnan(value)}
    return found
