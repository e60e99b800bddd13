"""A small broker that notes what the host says to it, and an edge node to play with."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.adapters.conformance.plant import Plant, enrolled, opened, until

from kapelle.adapters.mqtt.packets import Connect, Publish
from kapelle.adapters.sparkplug.endpoint import SparkplugEndpoint
from kapelle.adapters.sparkplug.settings import SparkplugMetric, SparkplugSettings
from kapelle.model.enums import SessionEvent
from kapelle.runtime.clock import SystemClock
from kapelle.sim.peers.broker import Broker
from kapelle.sim.peers.sparkplug import EdgeNode

METRICS = (
    SparkplugMetric("Power", "power_w", "W", "export"),
    SparkplugMetric("Setpoint", "setpoint_w", "W", "export"),
)
STATE = "spBv1.0/STATE/kapelle"


class Watched(Broker):
    """Notes each CONNECT, the filter of each subscription and each publication, in order."""

    def __init__(self) -> None:
        super().__init__(self)
        self.said: list[Connect | Publish | str] = []

    @property
    def publications(self) -> list[Publish]:
        return [said for said in self.said if isinstance(said, Publish)]

    def of(self, kind: str) -> list[Publish]:
        """Return the publications of a kind: STATE, NCMD, DCMD."""
        return [said for said in self.publications if kind in said.topic.split("/")]

    def session(self, connect: Connect, connection: Any) -> Any:
        self.said.append(connect)
        return super().session(connect, connection)

    def retained(self, name: str) -> Any:
        self.said.append(name)
        return super().retained(name)

    def published(self, publish: Publish) -> None:
        self.said.append(publish)
        super().published(publish)

    def on_published(self, topic: str, payload: bytes) -> None:
        """Nobody answers unless the test does."""

    def on_acked(self, waited_s: float) -> None:
        """Nor cares."""


@dataclass
class World:
    """What a test has at hand."""

    broker: Watched
    node: EdgeNode
    plant: Plant
    endpoint: SparkplugEndpoint

    def say(self, kind: str, payload: bytes, device: str = "d") -> None:
        place = f"spBv1.0/g/{kind}/e" + (f"/{device}" if kind.startswith("D") else "")
        self.broker.publish(place, payload)

    async def went(self, *events: SessionEvent) -> bool:
        """Tell whether the device came and went like this, and no more."""
        return await self.plant.events() == list(events)

    async def comes(self) -> None:
        self.node.come()
        await until(lambda: self.went(SessionEvent.UP))


def play(
    act: Callable[[World], Awaitable[None]],
    after: Callable[[Watched], None] = lambda broker: None,
    *,
    before: Callable[[Watched], None] = lambda broker: None,
    **settings: Any,
) -> None:
    """Let a host listen to a broker on which an edge node `g/e` has the enrolled device `d`."""

    async def run() -> None:
        broker = Watched()
        directory = enrolled("sparkplug", "g/e/d")
        clock = SystemClock()
        node = EdgeNode(
            "g",
            "e",
            ["d"],
            metrics={"Power": 1.0, "Setpoint": None},
            publish=broker.publish,
            now_ms=lambda: clock.now_ns() // 1_000_000,
        )
        async with asyncio.timeout(60), broker.serve():
            before(broker)
            given = SparkplugSettings(port=broker.port, metrics=METRICS, **settings)
            endpoint = SparkplugEndpoint(settings=given, directory=directory, clock=clock)
            async with opened(endpoint, directory) as plant:
                await until(lambda: broker.of("STATE"))
                await act(World(broker, node, plant, endpoint))
            await until(lambda: not broker.connected)
            after(broker)

    asyncio.run(run())
