"""Packets: what is written can be read, and whatever is read never does more than complain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.mqtt import reader, writer
from kapelle.adapters.mqtt.packets import (
    Answer,
    Connect,
    Disconnect,
    Publish,
    Subscribe,
    connect_version,
    parse,
)
from kapelle.adapters.mqtt.reader import ALLOWED, KINDS, MalformedPacket, Property, Reason

versions = st.sampled_from([4, 5])
texts = st.text(
    st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=20
)


def read(packet: bytes, version: int) -> object:
    body, stop = reader.frame(packet, 0, 1 << 20)
    assert stop == len(packet)
    return parse(packet, 0, body, stop, version)


@given(versions, texts, st.binary(max_size=300), st.integers(0, 2), st.integers(1, 65535))
def test_publications_survive(
    version: int, topic: str, payload: bytes, qos: int, packet_id: int
) -> None:
    packet = writer.publish(version, topic.encode(), payload, qos, packet_id)
    expected = Publish(topic, payload, qos, packet_id if qos else 0)
    assert read(packet, version) == expected


@given(versions, texts, texts, texts, st.booleans(), st.integers(0, 65535))
def test_connects_survive(
    version: int, client_id: str, username: str, password: str, clean: bool, keep_alive_s: int
) -> None:
    packet = writer.connect(
        version,
        client_id,
        clean=clean,
        keep_alive_s=keep_alive_s,
        username=username,
        password=password,
    )
    assert read(packet, version) == Connect(
        version, client_id, clean, keep_alive_s, username, password.encode(), None
    )


@given(versions, st.integers(1, 65535), st.lists(st.tuples(texts, st.integers(0, 2)), min_size=1))
def test_subscriptions_survive(
    version: int, packet_id: int, filters: list[tuple[str, int]]
) -> None:
    packet = writer.subscribe(version, packet_id, filters)
    assert read(packet, version) == Subscribe(packet_id, tuple(filters))


@given(st.integers(0, 268_435_455))
def test_lengths_survive_in_their_shortest_form(value: int) -> None:
    encoded = writer.variable(value)
    assert reader.Reader(encoded, 0, len(encoded)).variable() == value
    assert len(encoded) == 1 + (value >= 128) + (value >= 16_384) + (value >= 2_097_152)


@given(st.sampled_from(Property), st.integers(1, 1), texts, st.binary(max_size=10))
def test_properties_survive(name: Property, number: int, text: str, binary: bytes) -> None:
    kind = KINDS[name]
    if kind == "pair":
        return
    value = {"text": text, "binary": binary}.get(kind, number)
    encoded = writer.properties({name: value})
    for packet in ALLOWED[name]:
        cursor = reader.Reader(encoded, 0, len(encoded))
        assert cursor.properties(packet) == {name: value}
        assert cursor.at == len(encoded)


def test_every_property_has_a_kind_and_a_place() -> None:
    assert set(KINDS) == set(ALLOWED) == set(Property)


@given(versions, st.binary(max_size=200))
def test_garbage_is_malformed_or_a_packet(version: int, stream: bytes) -> None:
    try:
        body, stop = reader.frame(stream, 0, 1000)
        if stop <= len(stream):
            parse(stream, 0, body, stop, version)
    except MalformedPacket as error:
        told = (error.code, error.reason)
    else:
        return
    assert told[0] >= 0x80
    assert told[1]


_SAMPLES = [
    writer.connect(version, "dev-1", username="dev-1", password="x", given=given)
    for version, given in ((4, {}), (5, {Property.SESSION_EXPIRY: 5, Property.RECEIVE_MAXIMUM: 9}))
] + [
    packet
    for version in (4, 5)
    for packet in (
        writer.publish(version, b"v1/dev-1/tel", b'{"power_w":1}', 1, 7),
        writer.subscribe(version, 3, [("v1/dev-1/cmd", 1)]),
        writer.answer(version, reader.PUBACK, b"\0\1", 0x87, "no"),
        writer.disconnect(version, 0x81, "bad") or writer.goodbye(version),
        writer.connack(version, 0, {Property.SERVER_KEEP_ALIVE: 9} if version == 5 else {}),
    )
]


@given(
    versions,
    st.sampled_from(_SAMPLES),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255))),
)
def test_damaged_packets_are_malformed_or_packets(
    version: int, sample: bytes, damage: list[tuple[int, int]]
) -> None:
    stream = bytearray(sample)
    for place, byte in damage:
        stream[place % len(stream)] = byte
    test_garbage_is_malformed_or_a_packet.hypothesis.inner_test(version, bytes(stream))  # type: ignore[attr-defined]  # hypothesis adds it


def test_incomplete_packets_say_how_much_is_missing() -> None:
    packet = writer.publish(4, b"t", b"x" * 300, 1, 1)
    for size in range(1, len(packet)):
        body, stop = reader.frame(packet[:size], 0, 1000)
        assert size < stop <= len(packet)
        assert body <= stop


def _raises(code: Reason, packet: bytes, version: int = 5) -> None:
    with pytest.raises(MalformedPacket) as error:
        read(packet, version)
    assert error.value.code == code


def test_reason_codes() -> None:
    text, packet = writer.text, writer.packet
    name = text("MQTT")
    with pytest.raises(MalformedPacket) as error:
        reader.frame(b"\x30\xff\xff\xff\xff\x01", 0, 1 << 30)
    assert error.value.code == Reason.MALFORMED_PACKET
    with pytest.raises(MalformedPacket) as error:
        reader.frame(b"\x30\xff\xff\x03", 0, 1000)
    assert error.value.code == Reason.PACKET_TOO_LARGE
    malformed = Reason.MALFORMED_PACKET
    with pytest.raises(MalformedPacket):
        reader.frame(b"\x30\x80\x00", 0, 1000)  # not the shortest form
    _raises(Reason.UNSUPPORTED_VERSION, packet(0x10, text("MQIsdp"), b"\3\2\0\0", text("x")))
    _raises(Reason.UNSUPPORTED_VERSION, packet(0x10, name, b"\6\2\0\0\0", text("x")))
    _raises(malformed, packet(0x11, name, b"\4\2\0\0", text("x")))
    _raises(malformed, packet(0x10, name, b"\4\3\0\0", text("x")))
    _raises(malformed, packet(0x10, name, b"\4\x1a\0\0", text("x")))  # will QoS without a will
    _raises(malformed, packet(0x10, name, b"\4\x42\0\0", text("x"), text("p")))
    _raises(malformed, packet(0x10, name, b"\4\2\0\0", text("x"), b"more"))
    _raises(malformed, packet(0x36, text("t"), b"\0\1\0"))  # QoS 3
    _raises(malformed, packet(0x38, text("t"), b"\0"))  # duplicate of QoS 0
    _raises(Reason.PROTOCOL_ERROR, packet(0x32, text("t"), b"\0\0\0"))
    _raises(Reason.PROTOCOL_ERROR, packet(0x30, text(""), b"\0"))
    _raises(Reason.TOPIC_NAME_INVALID, packet(0x30, text("a/#"), b"\0"))
    _raises(Reason.TOPIC_ALIAS_INVALID, packet(0x30, text(""), b"\3\x23\0\1"))
    _raises(malformed, packet(0x30, text("a\0b"), b"\0"))
    _raises(malformed, packet(0x30, text(b"\xff"), b"\0"))
    _raises(malformed, packet(0x30, text(b"\xed\xa0\x80"), b"\0"))  # a surrogate
    _raises(malformed, packet(0x30, text("t"), b"\2\x21\1"))  # receive maximum in PUBLISH
    _raises(malformed, packet(0x30, text("t"), b"\2\x7f\1"))  # no such property
    _raises(Reason.PROTOCOL_ERROR, packet(0x30, text("t"), b"\4\1\1\1\1"))  # repeated
    _raises(Reason.PROTOCOL_ERROR, packet(0x30, text("t"), b"\2\1\2"))  # flag 2
    _raises(Reason.PROTOCOL_ERROR, packet(0x10, name, b"\5\2\0\0\3\x21\0\0", text("x")))
    _raises(Reason.PROTOCOL_ERROR, packet(0x10, name, b"\5\2\0\0\4\x16\0\1a", text("x")))
    _raises(Reason.PROTOCOL_ERROR, packet(0x82, b"\0\1\0"))
    _raises(malformed, packet(0x80, b"\0\1\0", text("t"), b"\1"))
    _raises(malformed, packet(0x82, b"\0\1\0", text("t"), b"\3"))
    _raises(malformed, packet(0xC0, b"x"))
    _raises(Reason.PROTOCOL_ERROR, packet(0xF0, b""))
    _raises(Reason.PROTOCOL_ERROR, packet(0x00, b""))


def test_short_answers_and_goodbyes() -> None:
    assert read(b"\x40\x02\x00\x01", 5) == Answer(reader.PUBACK, 1)
    assert read(b"\x40\x03\x00\x01\x10", 5) == Answer(reader.PUBACK, 1, 0x10)
    assert read(b"\xe0\x00", 5) == Disconnect()
    assert connect_version(_SAMPLES[0]) == 4
    assert connect_version(_SAMPLES[1]) == 5
    assert connect_version(b"\x10") == 4
