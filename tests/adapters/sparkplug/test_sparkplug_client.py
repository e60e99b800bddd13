"""An edge node nobody here wrote (`sparkplug-client`) over a broker nobody here wrote."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from tests.adapters.broker import mosquitto
from tests.adapters.conformance.plant import Plant, enrolled, opened, until
from tests.adapters.foreign import node_environment

from kapelle.adapters.sparkplug.endpoint import SparkplugEndpoint
from kapelle.adapters.sparkplug.settings import SparkplugMetric, SparkplugSettings
from kapelle.model.blocks import Readings
from kapelle.model.enums import AckStatus, Metric, SessionEvent
from kapelle.runtime.clock import SystemClock

FOLDER = Path(__file__).parents[2] / "peers" / "sparkplug-client"
METRICS = (
    SparkplugMetric("Battery/Power", "power_w", "W", "import"),
    SparkplugMetric("Battery/Setpoint", "setpoint_w", "kW", "import"),
    SparkplugMetric("Battery/SoC", "soc", "percent"),
)

pytestmark = pytest.mark.integration


class Edge:
    """The edge node's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.births = 0
        self.told: list[float | None] = []

    def say(self, **what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "born" in said:
                self.births = said["born"]
            else:
                self.told.append(said["told"])


@asynccontextmanager
async def edge_node(port: int) -> AsyncIterator[Edge]:
    modules = node_environment(FOLDER)
    process = await asyncio.create_subprocess_exec(
        "node", str(FOLDER / "edge.js"), f"mqtt://127.0.0.1:{port}", "plant", "edge-1", "bat-1",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(modules)},
    )  # fmt: skip
    edge = Edge(process)
    listening = asyncio.ensure_future(edge.listen())
    try:
        yield edge
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


def endpoint(port: int, directory: Any) -> SparkplugEndpoint:
    settings = SparkplugSettings(port=port, metrics=METRICS, rebirth_s=0.5, reorder_s=0.2)
    return SparkplugEndpoint(settings=settings, directory=directory, clock=SystemClock())


def play(act: Callable[[Plant, Edge, int], Awaitable[None]]) -> None:
    async def run() -> None:
        directory = enrolled("sparkplug", "plant/edge-1/bat-1")
        async with (
            asyncio.timeout(150),
            mosquitto() as port,
            opened(endpoint(port, directory), directory) as plant,
            edge_node(port) as edge,
        ):
            await until(lambda: came(plant), 60)
            await act(plant, edge, port)

    asyncio.run(run())


async def came(plant: Plant) -> bool:
    return SessionEvent.UP in await plant.events()


def power(value: int) -> dict[str, Any]:
    return {"name": "Battery/Power", "type": "Int32", "value": value}


def test_what_charges_is_negative_and_names_not_mapped_are_passed_over() -> None:
    async def act(plant: Plant, edge: Edge, port: int) -> None:
        edge.say(metrics=[power(2_000), {"name": "other", "type": "String", "value": "x"}])

        async def heard() -> bool:
            return -2_000.0 in await plant.power_w()

        await until(heard)
        blocks = await plant.stored(Readings)
        soc = [block.values[Metric.SOC] for block in blocks if Metric.SOC in block.values]
        assert soc[0][0] == pytest.approx(0.55)
        assert await plant.reasons() == []

    play(act)


def test_a_setpoint_is_applied_when_the_device_echoes_it_and_null_releases() -> None:
    async def act(plant: Plant, edge: Edge, port: int) -> None:
        assert await plant.send(-2_000.0)

        async def applied(revision: int) -> bool:
            return (revision, AckStatus.APPLIED) in await plant.answers()

        await until(lambda: applied(1))
        assert edge.told == [2.0]
        assert await plant.send(float("nan"), revision=2)
        await until(lambda: applied(2))
        assert edge.told == [2.0, None]

    play(act)


def test_a_missed_message_asks_for_a_new_birth_and_a_death_ends_the_session() -> None:
    async def act(plant: Plant, edge: Edge, port: int) -> None:
        births = edge.births
        edge.say(skip=3)
        edge.say(metrics=[power(700)])
        await until(lambda: edge.births > births)

        async def heard() -> bool:
            return -700.0 in await plant.power_w()

        await until(heard)
        edge.say(death=True)

        async def gone() -> bool:
            return (await plant.events())[-1] == SessionEvent.DOWN

        await until(gone)
        assert not await plant.send(-1_000.0)

    play(act)


def test_a_broken_connection_is_a_death_of_everybody_behind_it() -> None:
    async def act(plant: Plant, edge: Edge, port: int) -> None:
        edge.say(die=True)

        async def gone_and_back() -> bool:
            events = await plant.events()
            return SessionEvent.DOWN in events and events[-1] == SessionEvent.UP

        await until(gone_and_back)

    play(act)


def test_history_carries_the_time_of_the_device() -> None:
    async def act(plant: Plant, edge: Edge, port: int) -> None:
        at_ms = int(time.time() * 1_000) - 3_600_000
        edge.say(metrics=[{**power(900), "timestamp": at_ms, "isHistorical": True}])

        async def heard() -> bool:
            return -900.0 in await plant.power_w()

        await until(heard)
        blocks = await plant.stored(Readings)
        times = [at for block in blocks for at in block.measured_at_ns.tolist()]
        assert at_ms * 1_000_000 in times

    play(act)


def test_the_host_says_where_it_is_and_whoever_was_there_before_is_asked_for_its_birth() -> None:
    async def run() -> None:
        directory = enrolled("sparkplug", "plant/edge-1/bat-1")
        async with asyncio.timeout(90), mosquitto() as port, edge_node(port) as edge:
            await until(lambda: edge.births == 1, 60)
            async with opened(endpoint(port, directory), directory) as plant:
                await until(lambda: came(plant))
                assert edge.births >= 2
                assert (await state(port))["online"] is True
                # The will of an earlier host comes late.
                async with aiomqtt.Client("127.0.0.1", port) as other:
                    gone = json.dumps({"online": False, "timestamp": 1})
                    await other.publish("spBv1.0/STATE/kapelle", gone, qos=1, retain=True)

                async def corrected() -> bool:
                    return bool((await state(port))["online"])

                await until(corrected)
            assert (await state(port))["online"] is False

    asyncio.run(run())


async def state(port: int) -> Any:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("spBv1.0/STATE/kapelle", qos=1)
        message = await anext(aiter(client.messages))
        return json.loads(message.payload)
