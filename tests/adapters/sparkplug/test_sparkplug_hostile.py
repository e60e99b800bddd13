"""Edge nodes and brokers that flood, babble, lie or say nothing: a reason, nobody else harmed."""

import asyncio
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import aiomqtt
import pytest
from tests.adapters.broker import mosquitto
from tests.adapters.conformance.plant import enrolled, opened, until
from tests.adapters.sparkplug.watched import METRICS, Watched, World, play

from kapelle.adapters.errands import Command
from kapelle.adapters.inbox import Inbox, InboxSettings
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.packets import Publish
from kapelle.adapters.sparkplug import codec
from kapelle.adapters.sparkplug.endpoint import SparkplugEndpoint
from kapelle.adapters.sparkplug.host import Host
from kapelle.adapters.sparkplug.settings import SparkplugSettings
from kapelle.errors import LinkLost
from kapelle.model.blocks import Readings
from kapelle.model.enums import SessionEvent
from kapelle.runtime.clock import SystemClock
from kapelle.sim.peers.broker import Broker
from kapelle.sim.peers.sparkplug import INT64, metric, payload

NOBODY = enrolled("sparkplug", "g/e/d")


def power(watts: float, seq: int, at_ms: int = 0) -> bytes:
    return payload(0, [metric(watts, at_ms, name="Power")], seq)


def endpoint(port: int, **settings: Any) -> SparkplugEndpoint:
    given = SparkplugSettings(port=port, metrics=METRICS, **settings)
    return SparkplugEndpoint(settings=given, directory=NOBODY, clock=SystemClock())


def refused(port: int, **settings: Any) -> Any:
    """Return a coroutine that expects a broker to be of no use, and what is said of it."""

    async def run() -> str:
        with pytest.raises(LinkLost) as lost:
            async with endpoint(port, **settings).open():
                raise AssertionError
        return str(lost.value)

    return run()


async def heard(world: World, watts: float) -> bool:
    return watts in await world.plant.power_w()


class Silent(asyncio.Protocol):
    """A broker that takes a connection and says nothing."""


@pytest.mark.parametrize("version", [4, 5])
def test_a_broker_that_refuses_us_is_a_lost_link_without_a_password(version: int) -> None:
    async def run() -> None:
        broker = Broker(Watched(), username="plant", password="right")
        async with asyncio.timeout(20), broker.serve():
            said = await refused(
                broker.port, version=version, username="plant", password="wrong-secret"
            )
            assert "refused" in said
            assert "wrong-secret" not in said

    asyncio.run(run())


def test_a_broker_that_says_nothing_is_left() -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0)
        async with asyncio.timeout(20), server:
            await refused(server.sockets[0].getsockname()[1], connect_s=0.2)

    asyncio.run(run())


@pytest.mark.integration
def test_what_is_too_big_is_kept_away_by_the_broker() -> None:
    async def run() -> None:
        async with (
            asyncio.timeout(60),
            mosquitto() as port,
            opened(endpoint(port, packet_size_max=10_000), NOBODY) as plant,
            aiomqtt.Client("127.0.0.1", port) as node,
        ):
            birth = payload(0, [metric(0, 0, name="bdSeq", datatype=INT64)], 0)
            await node.publish("spBv1.0/g/NBIRTH/e", birth, qos=1)
            await node.publish("spBv1.0/g/DBIRTH/e/d", b"\x12\x00" * 10_000, qos=1)
            await node.publish("spBv1.0/g/DBIRTH/e/d", power(5.0, 1), qos=1)

            async def measured() -> bool:
                return await plant.power_w() == [5.0]

            await until(measured)

    asyncio.run(run())


class Held:
    """A connection that is asked to read no more."""

    def __init__(self) -> None:
        self.holds = self.resumes = 0
        self.answers = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def hold(self) -> bool:
        self.holds += 1
        return self.holds > self.resumes

    def resume(self) -> None:
        self.resumes += 1

    def acknowledge(self, answers: list[bytes]) -> None:
        self.answers += len(answers)

    def publish(self, *_: Any, **__: Any) -> bool:
        return True

    async def room(self) -> None:
        self.meanwhile()


class Stage:
    """A host on a connection of which nothing is read by itself."""

    def __init__(self, waiting_max: int) -> None:
        clock = SystemClock()
        self.inbox = Inbox("sparkplug", clock=clock, settings=InboxSettings(waiting_max))
        given = SparkplugSettings(metrics=METRICS)
        self.host = Host(
            given, inbox=self.inbox, directory=NOBODY, clock=clock, counters=Counters()
        )
        self.wire = Held()
        self.host.on_made(self.wire)  # type: ignore[arg-type]  # as much of one as it takes
        self._now_ns = clock.now_ns()
        self.say("g/NBIRTH/e", payload(0, [metric(0, 0, name="bdSeq", datatype=INT64)], 0))
        self.say("g/DBIRTH/e/d", power(0.0, 1))

    def say(self, place: str, raw: bytes) -> None:
        packet = Publish(f"spBv1.0/{place}", raw, 1, 1)
        self.host.on_published(packet, b"ok", self._now_ns)
        self.host.on_read()

    async def store(self) -> None:
        self.inbox.confirm(await anext(self.inbox.receive()), {})
        await asyncio.sleep(0)


def test_a_flood_is_read_no_faster_than_it_is_stored() -> None:
    async def run() -> None:
        stage = Stage(waiting_max=50)
        sent = 0
        while not stage.wire.holds:
            sent += 1
            stage.say("g/DDATA/e/d", power(float(sent), 1 + sent))
        assert sent == 49
        await stage.store()
        assert stage.wire.resumes
        # The birth of the edge node itself had nothing to store.
        assert stage.wire.answers == 51

    asyncio.run(run())


def test_who_dies_while_its_command_waits_has_said_nothing_to_it() -> None:
    async def run() -> None:
        stage = Stage(waiting_max=50)
        death = payload(0, [metric(0, 0, name="bdSeq", datatype=INT64)])
        stage.wire.meanwhile = lambda: stage.say("g/NDEATH/e", death)
        with pytest.raises(ConnectionError):
            await stage.host.carry_out(Command(0, 1, 1, 1, 500.0, 2**62, 60.0))

    asyncio.run(run())


def test_of_devices_nobody_enrolled_nothing_is_kept_but_some_names() -> None:
    async def run() -> None:
        stage = Stage(waiting_max=10_000)
        for number in range(12_000):
            stage.say(f"g/DBIRTH/e/stranger-{number}", power(1.0, 2 + number))
            stage.say(f"other/NBIRTH/edge-{number}", payload(0, [], 0))
            if number % 1_000 == 0:
                await stage.store()
        assert list(stage.host._nodes._nodes) == ["g/e"]
        assert list(stage.host._nodes._nodes["g/e"].sources) == ["g/e", "g/e/d"]
        assert len(stage.host._strangers) == 10_000

    asyncio.run(run())


def test_what_an_edge_node_repeats_changes_nothing() -> None:
    """The same bdSeq again, a DBIRTH twice, data delivered twice."""

    async def act(world: World) -> None:
        await world.comes()
        world.node.come()
        for _ in range(2):
            world.say("DBIRTH", payload(0, [metric(3.0, 0, name="Power", alias=0)], 2))
        for _ in range(2):
            world.say("DDATA", payload(0, [metric(4.0, 0, alias=0)], 3))
        await until(lambda: heard(world, 4.0))
        assert await world.went(SessionEvent.UP)
        assert await world.plant.reasons() == []

    play(act)


def test_a_clock_that_is_ahead_is_named_and_history_stays_history() -> None:
    async def act(world: World) -> None:
        await world.comes()
        now_ms = int(time.time() * 1_000)
        world.say("DDATA", power(5.0, 2, now_ms + 86_400_000))
        late = metric(6.0, now_ms - 3_600_000, name="Power") + b"\x28\x01"
        world.say("DDATA", payload(0, [late], 3))
        await until(lambda: heard(world, 6.0))
        blocks = await world.plant.stored(Readings)
        at_ns = [at for block in blocks for at in block.measured_at_ns.tolist()]
        assert (now_ms - 3_600_000) * 1_000_000 in at_ns
        assert max(at_ns) < (now_ms + 60_000) * 1_000_000
        (reason,) = await world.plant.reasons()
        assert reason.startswith("time-ahead")

    play(act)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (b"\x7a\x015", "a text"),
        (b"\x82\x01\x00", "bytes"),
        (b"\x8a\x01\x02\x08\x01", "a data set"),
        (b"\x92\x01\x03\x0a\x01v", "a template"),
        (b"\x9a\x01\x00", "an extension"),
        (b"\x70\x01", "a flag"),
    ],
    ids=["text", "bytes", "data-set", "template", "extension", "flag"],
)
def test_a_metric_that_is_no_number_is_named_and_the_rest_is_read(value: bytes, what: str) -> None:
    async def act(world: World) -> None:
        await world.comes()
        odd = b"\x0a\x05Power" + value
        setpoint = metric(1.0, 0, name="Setpoint")
        world.say("DDATA", payload(0, [odd, setpoint], 2))

        async def named() -> bool:
            return await world.plant.reasons() == [
                f"value-type: Power: is {what}, and no number; mend the mapping"
            ]

        await until(named)
        blocks = await world.plant.stored(Readings)
        assert blocks

    play(act)


def test_a_compressed_payload_is_named() -> None:
    read = codec.decode(payload(0, [], 0) + b"\x22\x12SPBV1.0_COMPRESSED")
    assert read == "payload: body: is compressed; turn compression off in the edge node"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x12\x00" * 500_000,
        b"\x12\x02\x10\x01" * 250_000,
        (b"\x12\x82\x01\x0a\x7f" + b"x" * 127) * 7_000,
        b"\x0b" * 1_000_000,
        b"\x12\xc0\x84\x3d" + b"\x4a\x80\x01" * 300_000,
    ],
    ids=["empty", "alias", "names", "groups", "cut"],
)
def test_the_biggest_packet_there_may_be_is_read_in_bounded_time_and_memory(raw: bytes) -> None:
    raw = raw[: SparkplugSettings(metrics=METRICS).packet_size_max]
    begun_s = time.process_time()
    tracemalloc.start()
    codec.decode(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - begun_s < 5.0
    assert peak < 64 * len(raw)
