"""Home Assistant discovery with a publisher nobody here wrote (`ha-mqtt-discoverable`)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.broker import mosquitto
from tests.adapters.conformance.plant import Plant, enrolled, opened, until
from tests.adapters.foreign import python_environment

from kapelle.adapters.topics.endpoint import TopicsEndpoint
from kapelle.adapters.topics.settings import TopicDiscovery, TopicEntity, TopicsSettings
from kapelle.model.blocks import Readings
from kapelle.model.enums import AckStatus, Metric, SessionEvent
from kapelle.runtime.clock import SystemClock

PEER = Path(__file__).parents[2] / "peers" / "ha-mqtt-discoverable" / "battery.py"
REQUIREMENTS = ("ha-mqtt-discoverable==0.22.0", "paho-mqtt==2.1.0", "pydantic==2.12.0")
ENTITIES = (
    TopicEntity("power_w", device_class="power", unique_id="bat_*", positive="import"),
    TopicEntity("soc", device_class="battery"),
    TopicEntity("setpoint_w", component="number", positive="import", release="0"),
    TopicEntity("setpoint_w", component="switch", positive="import", release="OFF"),
)

pytestmark = pytest.mark.integration


class Battery:
    """The publisher's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.told: list[Any] = []

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def die(self) -> None:
        self._process.kill()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.told.append(json.loads(line)["told"])


@asynccontextmanager
async def battery(port: int) -> AsyncIterator[Battery]:
    python = python_environment("ha-mqtt-discoverable", REQUIREMENTS)
    process = await asyncio.create_subprocess_exec(
        str(python), str(PEER), str(port),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    peer = Battery(process)
    listening = asyncio.ensure_future(peer.listen())
    try:
        yield peer
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


def play(address: str, act: Callable[[Plant, Battery], Awaitable[None]]) -> None:
    async def run() -> None:
        directory = enrolled("topics", address)
        async with asyncio.timeout(150), mosquitto() as port:
            settings = TopicsSettings(port=port, discovery=TopicDiscovery(ENTITIES))
            endpoint = TopicsEndpoint(settings=settings, directory=directory, clock=SystemClock())
            async with opened(endpoint, directory) as plant, battery(port) as peer:
                await act(plant, peer)

    asyncio.run(run())


async def came(plant: Plant) -> bool:
    return SessionEvent.UP in await plant.events()


async def applied(plant: Plant, revision: int) -> bool:
    return (revision, AckStatus.APPLIED) in await plant.answers()


async def charged(plant: Plant) -> bool:
    blocks = await plant.stored(Readings)
    return any(0.55 in block.values.get(Metric.SOC, ()) for block in blocks)


def test_it_is_told_obeys_is_measured_released_and_gone() -> None:
    async def act(plant: Plant, peer: Battery) -> None:
        await until(lambda: came(plant), 60)
        assert await plant.send(-2_000.0)
        await until(lambda: applied(plant, 1))
        assert peer.told == [2_000.0]

        async def measured(power_w: float) -> bool:
            return (await plant.power_w())[-1:] == [power_w]

        await until(lambda: measured(-2_000.0))
        assert await plant.send(float("nan"), revision=2)
        await until(lambda: applied(plant, 2))
        assert peer.told == [2_000.0, 0.0]
        await until(lambda: measured(0.0))
        await until(lambda: charged(plant))
        assert all("bat-1" not in reason for reason in await plant.reasons())
        # Its last will, which the broker publishes.
        peer.die()

        async def gone() -> bool:
            return (await plant.events())[-1] == SessionEvent.DOWN

        await until(gone)
        assert not await plant.send(-1_000.0, revision=3)

    play("homeassistant/bat-1", act)


def test_what_says_that_it_is_not_available_is_told_nothing() -> None:
    async def act(plant: Plant, peer: Battery) -> None:
        await until(lambda: came(plant), 60)
        peer.say("offline")

        async def gone() -> bool:
            return (await plant.events())[-1] == SessionEvent.DOWN

        await until(gone)
        assert not await plant.send(-1_000.0)
        peer.say("online")

        async def back() -> bool:
            return await plant.send(-1_000.0, revision=2)

        await until(back)
        await until(lambda: applied(plant, 2))
        assert peer.told == [1_000.0]

    play("homeassistant/bat-1", act)


def test_whoever_is_not_enrolled_is_listed_with_his_address_and_not_subscribed_to() -> None:
    async def act(plant: Plant, peer: Battery) -> None:
        async def listed() -> bool:
            reasons = await plant.reasons()
            return {"homeassistant/bat-1", "homeassistant/heater-1"} <= {
                reason.split(": ")[1] for reason in reasons if reason.startswith("stranger")
            }

        await until(listed, 60)
        assert await plant.power_w() == []

    play("homeassistant/somebody-else", act)
