"""MQTT 3.1.1 and 5 packets: bytes to typed packets, strictly, and typed packets to bytes.

Sources: OASIS MQTT 3.1.1 (2014) and MQTT 5.0 (2019), section 3 of each.
"""

from dataclasses import dataclass, field

from kapelle.adapters.mqtt import reader as r
from kapelle.adapters.mqtt.reader import MalformedPacket, Properties, Property, Reader, Reason

V311, V5 = 4, 5


@dataclass(frozen=True, slots=True)
class Will:
    """What a client asks to be published when its connection breaks."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """The first packet of a client."""

    version: int
    client_id: str
    clean: bool
    keep_alive_s: int
    username: str | None
    password: bytes | None
    will: Will | None
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConnAck:
    """The answer to CONNECT."""

    session_present: bool
    code: int
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Publish:
    """A publication."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    """0 with QoS 0."""
    retain: bool = False
    duplicate: bool = False
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    kind: int
    packet_id: int
    code: int = 0


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Filters with the QoS asked for."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Filters to forget."""

    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubAck:
    """The answer to SUBSCRIBE or UNSUBSCRIBE, one code for each filter."""

    kind: int
    packet_id: int
    codes: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """PINGREQ or PINGRESP."""

    kind: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A goodbye."""

    code: int = 0
    properties: Properties = field(default_factory=dict)


Packet = Connect | ConnAck | Publish | Answer | Subscribe | Unsubscribe | SubAck | Ping | Disconnect

_FLAGS = {r.PUBREL: 2, r.SUBSCRIBE: 2, r.UNSUBSCRIBE: 2}


def parse(stream: bytes, start: int, body: int, stop: int, version: int) -> Packet:
    """Read the packet `frame` found at `start`.

    Args:
        stream: Bytes that contain the whole packet.
        start: Its first byte.
        body: First byte after the remaining length.
        stop: First byte after the packet.
        version: Protocol level of the connection; CONNECT brings its own.

    Raises:
        MalformedPacket: It breaks the protocol.
    """
    first = stream[start]
    kind, flags = first >> 4, first & 0x0F
    body_reader = Reader(stream, body, stop)
    if kind == r.PUBLISH:
        return _publish(body_reader, flags, version)
    if flags != _FLAGS.get(kind, 0):
        raise r.malformed("reserved header flags are set")
    if kind == r.CONNECT:
        return _connect(body_reader)
    if kind in (r.PUBACK, r.PUBREC, r.PUBREL, r.PUBCOMP):
        return _answer(body_reader, kind, version)
    if kind == r.SUBSCRIBE:
        return _subscribe(body_reader, version)
    if kind == r.UNSUBSCRIBE:
        return _unsubscribe(body_reader, version)
    if kind in (r.PINGREQ, r.PINGRESP):
        body_reader.end()
        return Ping(kind)
    if kind == r.DISCONNECT:
        return _disconnect(body_reader, version)
    if kind == r.CONNACK:
        return _connack(body_reader, version)
    if kind in (r.SUBACK, r.UNSUBACK):
        return _suback(body_reader, kind, version)
    raise MalformedPacket(Reason.PROTOCOL_ERROR, f"packet type {kind} has no meaning here")


def _connect(body: Reader) -> Connect:
    name, version = body.binary(), body.one()
    if name != b"MQTT" or version not in (V311, V5):
        raise MalformedPacket(
            Reason.UNSUPPORTED_VERSION, "protocol is neither MQTT 3.1.1 nor MQTT 5"
        )
    flags, keep_alive_s = body.one(), body.two()
    will_qos, will = flags >> 3 & 3, bool(flags & 0x04)
    if flags & 0x01:
        raise r.malformed("the reserved flag of CONNECT is set")
    if will_qos == 3 or (not will and flags & 0x38):
        raise r.malformed("the will flags of CONNECT contradict each other")
    if version == V311 and flags & 0xC0 == 0x40:
        raise r.malformed("CONNECT has a password and no user name")
    properties = body.properties(r.CONNECT) if version == V5 else r.NONE
    if Property.AUTHENTICATION_DATA in properties and (
        Property.AUTHENTICATION_METHOD not in properties
    ):
        raise MalformedPacket(Reason.PROTOCOL_ERROR, "authentication data without a method")
    client_id = body.text()
    testament = None
    if will:
        if version == V5:
            body.properties(r.WILL)
        topic = _topic(body.text())
        testament = Will(topic, body.binary(), will_qos, bool(flags & 0x20))
    username = body.text() if flags & 0x80 else None
    password = body.binary() if flags & 0x40 else None
    body.end()
    return Connect(
        version,
        client_id,
        bool(flags & 0x02),
        keep_alive_s,
        username,
        password,
        testament,
        properties,
    )


def _connack(body: Reader, version: int) -> ConnAck:
    flags, code = body.one(), body.one()
    if flags > 1:
        raise r.malformed("reserved flags of CONNACK are set")
    properties = body.properties(r.CONNACK) if version == V5 else r.NONE
    body.end()
    return ConnAck(bool(flags), code, properties)


def _topic(topic: str) -> str:
    if not topic:
        raise MalformedPacket(Reason.PROTOCOL_ERROR, "a topic name is empty")
    if "+" in topic or "#" in topic:
        raise MalformedPacket(Reason.TOPIC_NAME_INVALID, "a topic name contains a wildcard")
    return topic


def _publish(body: Reader, flags: int, version: int) -> Publish:
    qos = flags >> 1 & 3
    if qos == 3:
        raise r.malformed("QoS 3")
    if qos == 0 and flags & 0x08:
        raise r.malformed("a QoS 0 publication is marked as a duplicate")
    topic = body.text()
    packet_id = body.packet_id() if qos else 0
    properties = body.properties(r.PUBLISH) if version == V5 else r.NONE
    if Property.TOPIC_ALIAS in properties:
        # We grant none (Topic Alias Maximum 0), neither as endpoint nor as client.
        raise MalformedPacket(Reason.TOPIC_ALIAS_INVALID, "topic aliases are not accepted")
    topic = _topic(topic)
    payload = body.rest()
    return Publish(topic, payload, qos, packet_id, bool(flags & 1), bool(flags & 8), properties)


def _answer(body: Reader, kind: int, version: int) -> Answer:
    packet_id, code = body.packet_id(), 0
    if version == V5 and body.at < body.stop:
        code = body.one()
        if body.at < body.stop:
            body.properties(kind)
    body.end()
    return Answer(kind, packet_id, code)


def _subscribe(body: Reader, version: int) -> Subscribe:
    packet_id = body.packet_id()
    properties = body.properties(r.SUBSCRIBE) if version == V5 else r.NONE
    filters: list[tuple[str, int]] = []
    while body.at < body.stop:
        name, options = body.text(), body.one()
        if not name:
            raise MalformedPacket(Reason.TOPIC_FILTER_INVALID, "a topic filter is empty")
        reserved = 0xC0 if version == V5 else 0xFC
        if options & reserved or options & 3 == 3 or options & 0x30 == 0x30:
            raise r.malformed("subscription options are not valid")
        filters.append((name, options & 3))
    if not filters:
        raise MalformedPacket(Reason.PROTOCOL_ERROR, "SUBSCRIBE without a topic filter")
    return Subscribe(packet_id, tuple(filters), properties)


def _unsubscribe(body: Reader, version: int) -> Unsubscribe:
    packet_id = body.packet_id()
    if version == V5:
        body.properties(r.UNSUBSCRIBE)
    filters: list[str] = []
    while body.at < body.stop:
        filters.append(body.text())
    if not filters:
        raise MalformedPacket(Reason.PROTOCOL_ERROR, "UNSUBSCRIBE without a topic filter")
    return Unsubscribe(packet_id, tuple(filters))


def _suback(body: Reader, kind: int, version: int) -> SubAck:
    packet_id = body.packet_id()
    if version == V5:
        body.properties(kind)
    return SubAck(kind, packet_id, body.rest())


def _disconnect(body: Reader, version: int) -> Disconnect:
    code, properties = 0, r.NONE
    if version == V5 and body.at < body.stop:
        code = body.one()
        if body.at < body.stop:
            properties = body.properties(r.DISCONNECT)
    body.end()
    return Disconnect(code, properties)


def connect_version(stream: bytes) -> int:
    """Guess the protocol level of a CONNECT that could not be read, to answer in its terms."""
    at = stream.find(b"\x00\x04MQTT", 0, 12)
    return V5 if at >= 0 and stream[at + 6 : at + 7] == bytes((V5,)) else V311
