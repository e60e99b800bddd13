"""Simulated edge nodes over the small broker: the real host adapter hears and commands them."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapters.conformance.plant import enrolled, opened, until

from kapelle.adapters.sparkplug import codec
from kapelle.adapters.sparkplug.endpoint import SparkplugEndpoint
from kapelle.adapters.sparkplug.settings import SparkplugMetric, SparkplugSettings
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.runtime.clock import SystemClock
from kapelle.sim.peers.broker import Broker
from kapelle.sim.peers.sparkplug import EdgeNode, Told, metric, payload, told

METRICS = (
    SparkplugMetric("Power", "power_w", "W", "import"),
    SparkplugMetric("Setpoint", "setpoint_w", "W", "import"),
)


class World:
    """A broker, and one edge node with two devices behind it, which do what they are told."""

    def __init__(self) -> None:
        self.broker = Broker(self)
        self.told: list[float] = []
        self.node = EdgeNode(
            "g",
            "e",
            ["d1", "d2"],
            metrics={"Power": 700.0, "Setpoint": None},
            publish=self.broker.publish,
            now_ms=lambda: 0,
        )

    def on_published(self, topic: str, raw: bytes) -> None:
        if "STATE" in topic:
            self.node.come()
            return
        _, _, kind, _, *device = topic.split("/")
        for setpoint in self.node.hear(kind, "".join(device), raw):
            self.told.append(setpoint)
            self.node.measure(0, {"Setpoint": None if math.isnan(setpoint) else setpoint}, 0)

    def on_acked(self, waited_s: float) -> None:
        raise AssertionError


def test_the_host_hears_and_tells_them_and_asks_for_births() -> None:
    async def run() -> None:
        world = World()
        directory = enrolled("sparkplug", "g/e/d1")
        async with asyncio.timeout(30), world.broker.serve():
            port = world.broker.port
            settings = SparkplugSettings(port=port, metrics=METRICS, rebirth_s=0.2, reorder_s=0.1)
            endpoint = SparkplugEndpoint(
                settings=settings, directory=directory, clock=SystemClock()
            )
            async with opened(endpoint, directory) as plant:

                async def last(event: SessionEvent) -> bool:
                    return (await plant.events())[-1:] == [event]

                async def applied(revision: int) -> bool:
                    return (revision, AckStatus.APPLIED) in await plant.answers()

                await until(lambda: last(SessionEvent.UP))
                world.node.measure(0, {"Power": 2_000.0}, 0)

                async def heard() -> bool:
                    return {-700.0, -2_000.0} <= set(await plant.power_w())

                await until(heard)
                assert await plant.send(-1_500.0)
                await until(lambda: applied(1))
                assert await plant.send(math.nan, revision=2)
                await until(lambda: applied(2))
                assert world.told == [1_500.0, pytest.approx(math.nan, nan_ok=True)]
                births = world.node.births
                world.node._seq += 1
                world.node.measure(0, {"Power": 5.0}, 0)
                await until(lambda: world.node.births > births)
                world.node.miss(0, told=True)
                await until(lambda: last(SessionEvent.DOWN))
                assert not await plant.send(0.0, revision=3)
                world.node.find(0)
                await until(lambda: last(SessionEvent.UP))
                world.node.die()
                await until(lambda: last(SessionEvent.DOWN))
                world.node.come()
                await until(lambda: last(SessionEvent.UP))

    asyncio.run(run())


@given(
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.integers(0, 2**40),
    st.integers(0, 255),
)
def test_the_plant_reads_what_they_write_and_they_read_the_plant(
    value: float | None, name: str, time_ms: int, seq: int
) -> None:
    raw = payload(time_ms, [metric(value, time_ms, name="n" + name, alias=3)], seq)
    read = codec.decode(raw)
    assert isinstance(read, codec.Payload)
    assert read.seq == seq
    (found,) = read.metrics
    assert (found.name, found.alias, found.value) == ("n" + name, 3, value)
    assert found.datatype == codec.DOUBLE
    assert told(codec.encode("n" + name, codec.DOUBLE, value, 1)) == [Told("n" + name, value)]
    assert told(codec.encode(codec.REBIRTH, codec.BOOLEAN, True, 1)) == [Told(codec.REBIRTH, 1.0)]


@given(st.binary(max_size=60))
def test_a_command_that_cannot_be_read_is_said_to_be_so(raw: bytes) -> None:
    try:
        told(raw)
    except ValueError:
        return
