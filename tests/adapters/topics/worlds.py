"""A small broker that notes what the plant publishes, and a plant on it that knows one device."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.adapters.conformance.plant import Plant, enrolled, opened, until

from kapelle.adapters.topics.endpoint import TopicsEndpoint
from kapelle.adapters.topics.settings import TopicsSettings
from kapelle.model.enums import SessionEvent
from kapelle.runtime.clock import SystemClock
from kapelle.sim.peers.broker import Broker


class Noted:
    """Notes publications of the plant."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def on_published(self, topic: str, payload: bytes) -> None:
        self.said.append((topic, payload.decode()))

    def on_acked(self, waited_s: float) -> None:
        """Nobody waits for it."""


@dataclass
class World:
    """What a test has at hand."""

    broker: Broker
    noted: Noted
    plant: Plant
    endpoint: TopicsEndpoint

    def say(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        raw = payload.encode() if isinstance(payload, str) else payload
        self.broker.publish(topic, raw, 1, retain=retain)

    async def measured(self, *power_w: float) -> bool:
        return await self.plant.power_w() == list(power_w)

    async def went(self, *events: SessionEvent) -> bool:
        return await self.plant.events() == list(events)

    async def named(self, *starts: str) -> bool:
        """Tell whether the quarantine has a reason that begins with each of these."""
        reasons = await self.plant.reasons()
        return all(any(reason.startswith(start) for reason in reasons) for start in starts)


def play(
    address: str,
    act: Callable[[World], Awaitable[None]],
    *,
    before: Callable[[Broker], None] = lambda broker: None,
    **settings: Any,
) -> None:
    """Let a plant listen to a broker, with one device enrolled."""

    async def run() -> None:
        noted = Noted()
        broker = Broker(noted)
        directory = enrolled("topics", address)
        async with asyncio.timeout(60), broker.serve():
            before(broker)
            given = TopicsSettings(port=broker.port, **settings)
            endpoint = TopicsEndpoint(settings=given, directory=directory, clock=SystemClock())
            async with opened(endpoint, directory) as plant:
                await until(lambda: broker.connected)
                await act(World(broker, noted, plant, endpoint))

    asyncio.run(run())
