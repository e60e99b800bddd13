"""The small broker of simulated devices is held to MQTT by clients nobody here wrote."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.adapters.conformance.plant import until

from kapelle.sim.peers.broker import PACKET_SIZE_MAX, Broker
from kapelle.sim.peers.subscriber import WAITING_MAX, Message, Subscriber, is_filter, matches

STEPS = st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=4).map("/".join)
FILTERS = st.lists(st.sampled_from(["a", "b", "", "+", "#", "$x"]), min_size=1, max_size=4)
VERSIONS = pytest.mark.parametrize(
    "version", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5], ids=["3.1.1", "5"]
)


class Devices:
    """Whoever plays the devices."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.acked = 0

    def on_published(self, topic: str, payload: bytes) -> None:
        self.heard.append((topic, payload))

    def on_acked(self, waited_s: float) -> None:
        self.acked += 1


def play(act: Callable[[Broker, Devices], Awaitable[None]], **user: str) -> None:
    async def run() -> None:
        devices = Devices()
        broker = Broker(devices, **user)
        async with asyncio.timeout(30), broker.serve():
            await act(broker, devices)

    asyncio.run(run())


@given(FILTERS.map("/".join).filter(is_filter), STEPS)
def test_filters_mean_what_paho_means_by_them(name: str, topic: str) -> None:
    assert matches(name.split("/"), topic) == topic_matches_sub(name, topic)


@pytest.mark.parametrize("name", ["", "a/#/b", "a#", "a/b+", "$share/g/a"])
def test_what_is_no_filter_cannot_be_subscribed_to(name: str) -> None:
    assert not is_filter(name)


@pytest.mark.integration
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_s_tools_speak_with_it(version: str) -> None:
    if shutil.which("mosquitto_sub") is None:
        pytest.skip("needs mosquitto's tools (Debian: mosquitto-clients)")

    async def act(broker: Broker, devices: Devices) -> None:
        broker.publish("v1/kept", b"since before", retain=True)
        tool = ["-h", "127.0.0.1", "-p", str(broker.port), "-V", version, "-q", "1"]
        listening = await asyncio.create_subprocess_exec(
            "mosquitto_sub", *tool, "-t", "v1/#", "-C", "3", "-F", "%t %r %p",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert listening.stdout is not None
        assert await listening.stdout.readline() == b"v1/kept 1 since before\n"
        broker.publish("v1/dev/tel", b"7", 1)
        assert await listening.stdout.readline() == b"v1/dev/tel 0 7\n"
        saying = await asyncio.create_subprocess_exec(
            "mosquitto_pub", *tool, "-t", "v1/dev/cmd", "-m", "on"
        )
        assert await saying.wait() == 0
        assert await listening.stdout.readline() == b"v1/dev/cmd 0 on\n"
        assert await listening.wait() == 0
        assert devices.heard == [("v1/dev/cmd", b"on")]
        # What the tool said itself is not the devices'.
        assert devices.acked == 1

    play(act)


@pytest.mark.integration
@VERSIONS
def test_a_kept_session_gets_what_came_while_it_was_away(
    version: aiomqtt.ProtocolVersion,
) -> None:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
    properties.SessionExpiryInterval = 60

    def client(port: int) -> aiomqtt.Client:
        if version == aiomqtt.ProtocolVersion.V5:
            return aiomqtt.Client(
                "127.0.0.1", port, protocol=version, identifier="plant",
                clean_start=False, properties=properties,
            )  # fmt: skip
        return aiomqtt.Client(
            "127.0.0.1", port, protocol=version, identifier="plant", clean_session=False
        )

    async def act(broker: Broker, devices: Devices) -> None:
        async with client(broker.port) as plant:
            await plant.subscribe("a/+", qos=1)
        await until(lambda: not broker.connected)
        broker.publish("a/1", b"kept", 1)
        broker.publish("a/1", b"not kept", 0)
        broker.publish("b/1", b"for nobody", 1)
        async with client(broker.port) as plant:
            broker.publish("a/2", b"last", 0)
            arrived = [(await anext(aiter(plant.messages))).payload for _ in range(2)]
            assert arrived == [b"kept", b"last"]
            await plant.unsubscribe("a/+")
            broker.publish("a/3", b"for nobody", 1)
            await plant.publish("c", b"x" * 100_000, qos=1)
        assert devices.heard == [("c", b"x" * 100_000)]
        assert devices.acked == 1

    play(act)


@pytest.mark.integration
@VERSIONS
@pytest.mark.parametrize("password", ["", "wrong"])
def test_who_does_not_know_the_password_is_refused(
    version: aiomqtt.ProtocolVersion, password: str
) -> None:
    async def act(broker: Broker, devices: Devices) -> None:
        async with aiomqtt.Client("127.0.0.1", broker.port, username="plant", password="right"):
            assert broker.connected == 1
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client(
                "127.0.0.1", broker.port, protocol=version, username="plant", password=password
            ):
                pass

    play(act, username="plant", password="right")


def test_garbage_and_too_much_end_a_connection_and_nothing_else() -> None:
    async def act(broker: Broker, devices: Devices) -> None:
        too_much = b"\x30" + bytes((0xFF, 0xFF, 0xFF, 0x7F))
        assert PACKET_SIZE_MAX < 1 << 28
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 9, too_much, b"\xc0\x00"):
            stream, out = await asyncio.open_connection("127.0.0.1", broker.port)
            out.write(garbage)
            await stream.read()
            out.close()
        many = [await asyncio.open_connection("127.0.0.1", broker.port) for _ in range(33)]
        assert await many[-1][0].read() == b""
        for _, out in many:
            out.close()
        await until(lambda: not broker._connections)
        async with aiomqtt.Client("127.0.0.1", broker.port):
            assert broker.connected == 1

    play(act)


def test_the_newer_connection_of_a_name_wins() -> None:
    async def act(broker: Broker, devices: Devices) -> None:
        async with aiomqtt.Client("127.0.0.1", broker.port, identifier="plant") as older:
            async with aiomqtt.Client("127.0.0.1", broker.port, identifier="plant") as newer:
                await newer.subscribe("a", qos=1)
                with pytest.raises(aiomqtt.MqttError):
                    await anext(aiter(older.messages))
                broker.publish("a", b"1", 1)
                assert (await anext(aiter(newer.messages))).payload == b"1"
            # A goodbye on a connection that is gone says so.
            with pytest.raises(aiomqtt.MqttError):
                await older.publish("a", b"2", qos=1)

    play(act)


class Deaf:
    """A connection whose client does not read on."""

    is_open = False

    def deliver(self, message: Message, packet_id: int) -> None:
        raise AssertionError

    def abort(self) -> None:
        raise AssertionError


def test_a_client_that_does_not_read_has_a_bounded_queue() -> None:
    deaf = Subscriber("deaf")
    deaf.connection = Deaf()
    taken = [deaf.take(Message("a", b"", 1, False)) for _ in range(WAITING_MAX + 1)]
    assert taken.count(False) == 1
