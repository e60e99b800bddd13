"""Whoever breaks the rules is told, counted and gone, and nobody else notices."""

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kapelle.adapters.mqtt import reader, writer
from kapelle.adapters.mqtt.packets import Answer, ConnAck, Disconnect, Ping, SubAck
from kapelle.adapters.mqtt.reader import Property, Reason

POWER = b'{"power_w": 5}'


def connect(version: int, name: str = "dev-0", **changes: Any) -> bytes:
    chosen = {"username": name, "password": f"{name}!", **changes}
    return writer.connect(version, chosen.pop("client_id", name), **chosen)


def publish(version: int, topic: bytes, qos: int, first: int = 0) -> bytes:
    packet = writer.publish(version, topic, POWER, qos, 1)
    return bytes((packet[0] | first,)) + packet[1:]


async def _still_fine(plant: Any, witness: Any) -> None:
    before = plant.power_w.count(99.0)
    witness.send(writer.publish(4, b"v1/dev-9/tel", b'{"power_w": 99}', 1, 77))
    assert await witness.next() == Answer(reader.PUBACK, 77)
    assert plant.power_w.count(99.0) == before + 1


RETAIN = 1
TOPICS = {
    "v1/dev-0/tel": True,
    "v1/dev-0/ack": True,
    "v1/dev-0/cmd": False,
    "v1/dev-0/evt": False,
    "v1/dev-0": False,
    "v1/dev-0/tel/": False,
    "/v1/dev-0/tel": False,
    "V1/dev-0/tel": False,
    "v1/dev-1/tel": False,
    "v1/dev-1/ack": False,
    "v1/dev-1/cmd": False,
    "v1/dev-00/tel": False,
    "$SYS/broker/load": False,
    "$share/g/v1/dev-0/tel": False,
}


@pytest.mark.parametrize("version", [4, 5])
def test_who_may_publish_where(open_plant: Any, version: int) -> None:
    """S-14, publish: own, other, $SYS × QoS × retain."""

    async def check() -> None:
        async with open_plant() as plant:
            witness = await plant.device(9)
            refused = 0
            for topic, allowed in TOPICS.items():
                for qos in (0, 1):
                    for retain in (0, RETAIN):
                        device = await plant.device(0, version=version)
                        device.send(publish(version, topic.encode(), qos, retain))
                        device.send(writer.PINGREQ)
                        answer = await device.next()
                        if allowed:
                            # {"power_w": …} is no answer to a command: quarantined.
                            code = 0x99 if version == 5 and topic.endswith("ack") else 0
                            answers = [answer, await device.next()] if qos else []
                            assert qos == 0 or Answer(reader.PUBACK, 1, code) in answers
                        elif version == 4:
                            assert answer is None, topic
                        elif qos:
                            answers = [answer, await device.next()]
                            assert Answer(reader.PUBACK, 1, Reason.NOT_AUTHORIZED) in answers
                        else:
                            assert isinstance(answer, Disconnect)
                            assert answer.code == Reason.NOT_AUTHORIZED
                        refused += not allowed
                        assert sum(plant.counters.refused.values()) == refused
                        device.close()
            await _still_fine(plant, witness)
            assert plant.acks == []

    asyncio.run(check())


@pytest.mark.parametrize("version", [4, 5])
def test_who_may_subscribe_where(open_plant: Any, version: int) -> None:
    """S-14, subscribe: own, other, wildcard, $SYS."""

    async def check() -> None:
        async with open_plant() as plant:
            witness = await plant.device(9)
            for filter_, code in {
                "v1/dev-0/cmd": 1,
                "v1/dev-0/tel": 0x87,
                "v1/dev-1/cmd": 0x87,
                "v1/dev-0/cmd/": 0x87,
                "$SYS/uptime": 0x87,
                "#": None,
                "+": None,
                "v1/#": None,
                "v1/+/cmd": None,
                "v1/dev-0/#": None,
                "$SYS/#": None,
                "$share/g/v1/dev-0/cmd": None,
            }.items():
                device = await plant.device(0, version=version)
                device.send(writer.subscribe(version, 4, [(filter_, 2)]))
                answer = await device.next()
                if code is not None:
                    told = 0x80 if code == 0x87 and version == 4 else code
                    assert answer == SubAck(reader.SUBACK, 4, bytes((told,))), filter_
                elif version == 4:
                    assert answer is None, filter_
                else:
                    assert isinstance(answer, Disconnect)
                    assert answer.code == Reason.WILDCARDS_NOT_SUPPORTED
                device.close()
            assert plant.counters.refused == {
                "subscribe with wildcard": 7,
                "subscribe to foreign topic": 4,
            }
            await _still_fine(plant, witness)

    asyncio.run(check())


def _will(version: int, topic: str, flags: int) -> bytes:
    properties = b"\0" if version == 5 else b""
    return writer.packet(
        0x10, writer.text("MQTT"), bytes((version, 0xC6 | flags, 0, 60)), properties,
        writer.text("dev-0"), properties, writer.text(topic), writer.text(b"x"),
        writer.text("dev-0"), writer.text("dev-0!"),
    )  # fmt: skip


REFUSED_CONNECTS = {
    # what: (CONNECT of each version, return code of 3.1.1, reason code of 5)
    "wrong password": (lambda v: connect(v, password="x"), 4, 0x86),
    "unknown device": (lambda v: connect(v, "dev-77"), 4, 0x86),
    "no credentials": (lambda v: connect(v, username="", password=""), 4, 0x86),
    "no password": (lambda v: connect(v, password=""), 4, 0x86),
    "another client id": (lambda v: connect(v, client_id="dev-1"), 2, 0x85),
    "empty client id": (lambda v: connect(v, client_id=""), 2, 0x85),
    "wildcard name": (lambda v: connect(v, "dev-+"), 2, 0x85),
    "will on own cmd": (lambda v: _will(v, "v1/dev-0/cmd", 0), 5, 0x87),
    "retained will on own cmd": (lambda v: _will(v, "v1/dev-0/cmd", 0x20), 5, 0x87),
    "will on other cmd": (lambda v: _will(v, "v1/dev-1/cmd", 0x20), 5, 0x87),
    "will on other tel": (lambda v: _will(v, "v1/dev-1/tel", 0), 5, 0x87),
}


@pytest.mark.parametrize("version", [4, 5])
def test_refused_connects(open_plant: Any, version: int) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            witness = await plant.device(9)
            for count, (what, (packet, v311, v5)) in enumerate(REFUSED_CONNECTS.items(), 1):
                client = await plant.raw_client(version)
                client.send(packet(version), publish(version, b"v1/dev-0/tel", 1))
                answer = await client.next()
                assert isinstance(answer, ConnAck), what
                assert answer.code == (v311 if version == 4 else v5), what
                assert await client.next() is None
                assert sum(plant.counters.refused.values()) == count
            assert plant.sessions == [(9, 1)]
            assert plant.power_w == []
            await _still_fine(plant, witness)

    asyncio.run(check())


BEFORE_CONNECT = {
    "publish before CONNECT": (publish(4, b"v1/dev-0/tel", 1), None),
    "subscribe before CONNECT": (writer.subscribe(4, 1, [("#", 0)]), None),
    "remaining length 4×0xFF": (b"\x10\xff\xff\xff\xff", None),
    "remaining length of five bytes": (b"\x10\x80\x80\x80\x80\x01", None),
    "an oversized CONNECT": (b"\x10\xff\xff\xff\x7f", None),
    "wrong protocol name": (writer.packet(0x10, writer.text("MQIsdp"), b"\3\2\0\0\0\1x"), 1),
    "unknown version": (writer.packet(0x10, writer.text("MQTT"), b"\7\2\0\0\0\0\1x"), 1),
    "NUL in the client id": (connect(4, "dev\0"), None),
    "invalid UTF-8 in the client id": (connect(4, "dev-0").replace(b"dev-0", b"dev\xc3\x28"), None),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 600, None),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 99, None),
}
IN_SESSION = {
    "remaining length 4×0xFF": (b"\x32\xff\xff\xff\xff", 0x95),
    "remaining length of five bytes": (b"\x32\x80\x80\x80\x80\x01", 0x81),
    "oversized": (b"\x32\xff\xff\x7f", 0x95),
    "NUL in a topic": (publish(5, b"v1/dev-0/t\0l", 1), 0x81),
    "invalid UTF-8 in a topic": (publish(5, b"v1/\xff", 1), 0x81),
    "topic of 65535 bytes": (publish(5, b"t" * 65_535, 1), 0x87),
    "nine levels": (publish(5, b"a/b/c/d/e/f/g/h/i", 1), 0x90),
    "wildcard in a topic": (publish(5, b"v1/+/tel", 1), 0x90),
    "empty topic": (publish(5, b"", 1), 0x82),
    "packet id 0": (writer.publish(5, b"v1/dev-0/tel", POWER, 1, 0), 0x82),
    "QoS 3": (publish(5, b"v1/dev-0/tel", 1, 0x06), 0x81),
    "second CONNECT": (connect(5), 0x82),
    "SUBSCRIBE without filters": (writer.subscribe(5, 1, []), 0x82),
    "SUBSCRIBE packet id 0": (writer.subscribe(5, 0, [("v1/dev-0/cmd", 0)]), 0x82),
    "UNSUBSCRIBE without filters": (writer.packet(0xA2, b"\0\1\0"), 0x82),
    "a server's packet": (writer.suback(5, 1, b"\0"), 0x82),
    "reserved flags": (b"\xc1\0", 0x81),
    "reserved type": (b"\x00\0", 0x82),
    "AUTH": (b"\xf0\0", 0x82),
    "topic alias": (writer.packet(0x30, b"\0\0", b"\3\x23\0\1", POWER), 0x94),
    "payload of 64 KiB and a byte": (
        writer.publish(5, b"v1/dev-0/tel", b" " * 65_537, 1, 1), 0x95
    ),
    "session expiry": (writer.packet(0xE0, b"\0", b"\5\x11\0\0\0\x09"), 0x82),
}  # fmt: skip


def test_malformed_before_connect(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            witness = await plant.device(9)
            for count, (what, (packet, code)) in enumerate(BEFORE_CONNECT.items(), 1):
                client = await plant.raw_client()
                client.send(packet)
                answer = await client.next()
                if code is not None:
                    assert isinstance(answer, ConnAck), what
                    assert answer.code == code, what
                    answer = await client.next()
                assert answer is None, what
                assert sum(plant.counters.malformed.values()) == count, what
            assert plant.counters.half_open == 0
            await _still_fine(plant, witness)

    asyncio.run(check())


def test_malformed_in_session(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            witness = await plant.device(9)
            for what, (packet, code) in IN_SESSION.items():
                before = _bad(plant)
                device = await plant.device(0, version=5)
                device.send(publish(5, b"v1/dev-0/tel", 1), packet)
                answer = await device.next()
                while isinstance(answer, Answer) and answer.code == 0:
                    answer = await device.next()
                if not isinstance(answer, Answer):
                    assert isinstance(answer, Disconnect), what
                    assert await device.next() is None, what
                assert answer.code == code, what
                assert _bad(plant) == before + 1, what
                device.close()
            await _still_fine(plant, witness)

    asyncio.run(check())


def _bad(plant: Any) -> int:
    counters = plant.counters
    return sum(counters.malformed.values()) + sum(counters.refused.values())


_pieces = st.sampled_from(
    [connect(4), connect(5), publish(4, b"v1/dev-0/tel", 1), publish(5, b"v1/dev-0/tel", 0)]
    + [packet for packet, _ in (*BEFORE_CONNECT.values(), *IN_SESSION.values()) if len(packet) < 99]
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"", connect(4), connect(5)]),
            st.lists(_pieces | st.binary(max_size=30), max_size=4).map(b"".join),
            st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_comes_touches_nobody_else(open_plant: Any, streams: list[Any]) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            witness = await plant.device(9)
            for head, body, damage in streams:
                stream = bytearray(body)
                for place, byte in damage:
                    if stream:
                        stream[place % len(stream)] = byte
                client = await plant.raw_client()
                client.send(head + bytes(stream))
                client.out.write_eof()
            await _still_fine(plant, witness)
            await plant.until(lambda: plant.counters.sessions == 1)
            assert plant.counters.half_open == 0

    asyncio.run(check())


def test_half_a_connect_and_silence(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(handshake_s=0.5) as plant:
            witness = await plant.device(9)
            mute = await plant.raw_client()
            half = await plant.raw_client()
            half.send(connect(4)[:9])
            dripping = await plant.raw_client()
            started = asyncio.get_running_loop().time()

            async def drip() -> None:
                for byte in connect(4)[:-1]:
                    dripping.send(bytes((byte,)))
                    await asyncio.sleep(0.1)

            drips = asyncio.create_task(drip())
            for client in (mute, half, dripping):
                assert await client.next() is None
            assert asyncio.get_running_loop().time() - started < 3
            assert plant.counters.dropped == {"handshake": 3}
            assert plant.counters.half_open == 0
            drips.cancel()
            await _still_fine(plant, witness)

    asyncio.run(check())


def test_too_many_half_open_pause_accepting_until_some_are_gone(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(handshake_s=0.5, half_open_max=5) as plant:
            for _ in range(8):
                await plant.raw_client()
            await plant.until(lambda: plant.counters.half_open == 5)
            device = await plant.device(1)  # waits for its turn, and gets it
            device.send(writer.PINGREQ)
            assert await device.next() is not None
            assert plant.counters.held["accepting with too many half open"] >= 1

    asyncio.run(check())


def test_a_storm_of_connections_is_let_in_at_its_rate(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(connects_per_s=20, connects_burst=3) as plant:
            started = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as tasks:
                for number in range(10):
                    tasks.create_task(plant.device(number))
            assert 0.25 < asyncio.get_running_loop().time() - started < 3
            assert plant.counters.held["accepting above its rate"] >= 1
            assert plant.counters.sessions == 10

    asyncio.run(check())


def test_beyond_the_most_connections_connect_is_refused(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(connections_max=2) as plant:
            for number in (0, 1):
                await plant.device(number)
            for version, code in ((4, 3), (5, Reason.QUOTA_EXCEEDED)):
                client = await plant.raw_client(version)
                client.send(connect(version, "dev-2"))
                answer = await client.next()
                assert isinstance(answer, ConnAck)
                assert answer.code == code

    asyncio.run(check())


def test_a_device_that_does_not_read_is_dropped(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(write_buffer_max=4_096, publishes_burst=10**9) as plant:
            witness = await plant.device(9)
            device = await plant.device(0)
            device.out.transport.pause_reading()
            ours = plant.endpoint._sessions[0]._transport.get_extra_info("socket")
            for end in (ours, device.out.get_extra_info("socket")):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            try:
                async with asyncio.timeout(10):
                    while not plant.counters.dropped:
                        device.send(writer.PINGREQ * 1_000)
                        await device.out.drain()
            except ConnectionError:
                pass
            assert plant.counters.dropped == {"slow reader": 1}
            await plant.until(lambda: plant.counters.sessions == 1)
            await _still_fine(plant, witness)

    asyncio.run(check())


def test_enhanced_authentication_is_refused(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            client = await plant.raw_client(5)
            client.send(connect(5, given={Property.AUTHENTICATION_METHOD: "SCRAM"}))
            answer = await client.next()
            assert isinstance(answer, ConnAck)
            assert answer.code == Reason.BAD_AUTHENTICATION_METHOD

    asyncio.run(check())


def test_reasons_are_not_sent_to_who_does_not_want_them(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            for wants in (0, 1):
                device = await plant.raw_client(5)
                device.send(connect(5, given={Property.REQUEST_PROBLEM: wants}))
                await device.next()
                device.send(writer.subscribe(5, 1, [("#", 0)]))
                answer = await device.next()
                assert isinstance(answer, Disconnect)
                assert (Property.REASON_STRING in answer.properties) == bool(wants)

    asyncio.run(check())


def test_whose_credentials_no_longer_hold_does_not_stay(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            removed = await plant.device(8, version=5, keep_alive_s=600)
            rotated = await plant.device(2, version=5, keep_alive_s=600)
            staying = await plant.device(3, version=5, keep_alive_s=600)
            plant.endpoint.directory.remove_from(5)
            plant.endpoint.directory.rotate(2)
            for device in (removed, rotated):
                await device.hears_the_end(Reason.NOT_AUTHORIZED)
            assert plant.counters.dropped == {"no longer enrolled": 1, "credentials changed": 1}
            await plant.until(lambda: len(plant.sessions) == 5)
            assert sorted(plant.sessions[-2:]) == [(2, 2), (8, 2)]
            # Who comes back with the new ones stays, as does who was never meant.
            again = await plant.device(2, version=5)
            plant.endpoint.directory.rotate(4)
            await asyncio.sleep(1.2)
            for device in (staying, again):
                device.send(writer.PINGREQ)
                assert isinstance(await device.next(), Ping)

    asyncio.run(check())
