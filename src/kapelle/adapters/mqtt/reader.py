"""Fields of MQTT packets: a strict cursor over a packet, and the property table of MQTT 5.

Sources: OASIS MQTT 3.1.1 (2014), section 1.5 and 2.2; OASIS MQTT 5.0 (2019), section 1.5 and 2.2.2.
"""

from collections.abc import Mapping
from enum import IntEnum, unique

from kapelle.errors import KapelleError


class MalformedPacket(KapelleError):
    """A packet that breaks the protocol. Its sender is disconnected with the reason code.

    `reason` is counted and becomes a label: it must not contain what the peer chose at will.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@unique
class Reason(IntEnum):
    """Reason codes of MQTT 5 this endpoint gives or understands (section 2.4)."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    BAD_CLIENT_ID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    PAYLOAD_FORMAT_INVALID = 0x99
    QOS_NOT_SUPPORTED = 0x9B
    WILDCARDS_NOT_SUPPORTED = 0xA2
    SUBSCRIPTION_IDS_NOT_SUPPORTED = 0xA1


@unique
class Property(IntEnum):
    """Identifiers of MQTT 5 properties (section 2.2.2.2)."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION = 0x09
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_AVAILABLE = 0x28
    SUBSCRIPTION_IDS_AVAILABLE = 0x29
    SHARED_AVAILABLE = 0x2A


Value = int | str | bytes
Properties = Mapping[int, Value]
"""By `Property`. User properties and repeated subscription identifiers are read and dropped."""
NONE: Properties = {}

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE = range(1, 9)
SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(9, 16)
WILL = 0
"""Not a packet: the will's own properties inside CONNECT."""

_ACKS = frozenset({PUBACK, PUBREC, PUBREL, PUBCOMP})
_P = Property
KINDS: Mapping[int, str] = {
    **dict.fromkeys((_P.PAYLOAD_FORMAT, _P.REQUEST_PROBLEM, _P.REQUEST_RESPONSE), "flag"),
    **dict.fromkeys((_P.MAXIMUM_QOS, _P.RETAIN_AVAILABLE, _P.WILDCARD_AVAILABLE), "flag"),
    **dict.fromkeys((_P.SUBSCRIPTION_IDS_AVAILABLE, _P.SHARED_AVAILABLE), "flag"),
    **dict.fromkeys((_P.SERVER_KEEP_ALIVE, _P.TOPIC_ALIAS_MAXIMUM), "two"),
    **dict.fromkeys((_P.RECEIVE_MAXIMUM, _P.TOPIC_ALIAS), "two-positive"),
    **dict.fromkeys((_P.MESSAGE_EXPIRY, _P.SESSION_EXPIRY, _P.WILL_DELAY), "four"),
    _P.MAXIMUM_PACKET_SIZE: "four-positive",
    _P.SUBSCRIPTION_ID: "variable",
    **dict.fromkeys((_P.CONTENT_TYPE, _P.RESPONSE_TOPIC, _P.ASSIGNED_CLIENT_ID), "text"),
    **dict.fromkeys((_P.AUTHENTICATION_METHOD, _P.RESPONSE_INFORMATION), "text"),
    **dict.fromkeys((_P.SERVER_REFERENCE, _P.REASON_STRING), "text"),
    **dict.fromkeys((_P.CORRELATION, _P.AUTHENTICATION_DATA), "binary"),
    _P.USER: "pair",
}
_MESSAGE = frozenset({PUBLISH, WILL})
_ANSWERS = _ACKS | {CONNACK, SUBACK, UNSUBACK, DISCONNECT, AUTH}
_CONNACK = frozenset({CONNACK})
ALLOWED: Mapping[int, frozenset[int]] = {
    **dict.fromkeys((_P.PAYLOAD_FORMAT, _P.MESSAGE_EXPIRY, _P.CONTENT_TYPE), _MESSAGE),
    **dict.fromkeys((_P.RESPONSE_TOPIC, _P.CORRELATION), _MESSAGE),
    _P.SUBSCRIPTION_ID: frozenset({PUBLISH, SUBSCRIBE}),
    _P.SESSION_EXPIRY: frozenset({CONNECT, CONNACK, DISCONNECT}),
    **dict.fromkeys((_P.ASSIGNED_CLIENT_ID, _P.SERVER_KEEP_ALIVE, _P.MAXIMUM_QOS), _CONNACK),
    **dict.fromkeys((_P.RESPONSE_INFORMATION, _P.RETAIN_AVAILABLE), _CONNACK),
    **dict.fromkeys((_P.WILDCARD_AVAILABLE, _P.SUBSCRIPTION_IDS_AVAILABLE), _CONNACK),
    _P.SHARED_AVAILABLE: _CONNACK,
    _P.AUTHENTICATION_METHOD: frozenset({CONNECT, CONNACK, AUTH}),
    _P.AUTHENTICATION_DATA: frozenset({CONNECT, CONNACK, AUTH}),
    **dict.fromkeys((_P.REQUEST_PROBLEM, _P.REQUEST_RESPONSE), frozenset({CONNECT})),
    _P.WILL_DELAY: frozenset({WILL}),
    _P.SERVER_REFERENCE: frozenset({CONNACK, DISCONNECT}),
    _P.REASON_STRING: _ANSWERS,
    **dict.fromkeys((_P.RECEIVE_MAXIMUM, _P.TOPIC_ALIAS_MAXIMUM), frozenset({CONNECT, CONNACK})),
    _P.MAXIMUM_PACKET_SIZE: frozenset({CONNECT, CONNACK}),
    _P.TOPIC_ALIAS: frozenset({PUBLISH}),
    _P.USER: _ANSWERS | _MESSAGE | {CONNECT, SUBSCRIBE, UNSUBSCRIBE},
}


def malformed(reason: str) -> MalformedPacket:
    """Name a packet that cannot be read."""
    return MalformedPacket(Reason.MALFORMED_PACKET, reason)


class Reader:
    """A cursor over one packet's body. Every read checks the end first."""

    __slots__ = ("_bytes", "at", "stop")

    def __init__(self, packet: bytes, start: int, stop: int) -> None:
        self._bytes = packet
        self.at = start
        self.stop = stop

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        start = self.at
        if start + size > self.stop:
            raise malformed("a field runs past the end of its packet")
        self.at = start + size
        return self._bytes[start : self.at]

    def rest(self) -> bytes:
        """Return everything to the end."""
        return self.take(self.stop - self.at)

    def one(self) -> int:
        """Read a byte."""
        return self.take(1)[0]

    def two(self) -> int:
        """Read a two byte integer."""
        return int.from_bytes(self.take(2), "big")

    def four(self) -> int:
        """Read a four byte integer."""
        return int.from_bytes(self.take(4), "big")

    def variable(self) -> int:
        """Read a variable byte integer, in its shortest form only ([MQTT-1.5.5-1])."""
        value = shift = 0
        while True:
            byte = self.one()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 21:
                raise malformed("a variable byte integer has more than four bytes")
        if shift and byte == 0:
            raise malformed("a variable byte integer is longer than needed")
        return value

    def binary(self) -> bytes:
        """Read length-prefixed bytes."""
        return self.take(self.two())

    def text(self) -> str:
        """Read a UTF-8 string; NUL and surrogates are refused ([MQTT-1.5.4-1], [MQTT-1.5.4-2])."""
        field = self.binary()
        if b"\0" in field:
            raise malformed("a string contains NUL")
        try:
            return field.decode()
        except UnicodeDecodeError:
            raise malformed("a string is not valid UTF-8") from None

    def packet_id(self) -> int:
        """Read a packet identifier, never 0 ([MQTT-2.2.1-3])."""
        value = self.two()
        if value == 0:
            raise MalformedPacket(Reason.PROTOCOL_ERROR, "packet identifier 0")
        return value

    def end(self) -> None:
        """Insist that nothing follows."""
        if self.at != self.stop:
            raise malformed("bytes follow the last field of a packet")

    def properties(self, packet: int) -> Properties:
        """Read the properties of one packet type (MQTT 5, section 2.2.2)."""
        size = self.variable()
        if size == 0:
            return NONE
        inner = Reader(self._bytes, self.at, self.at + size)
        self.take(size)
        found: dict[int, Value] = {}
        while inner.at < inner.stop:
            name = inner.variable()
            if name not in ALLOWED:
                raise malformed("a property has an unknown identifier")
            if packet not in ALLOWED[name]:
                raise malformed(f"property 0x{name:02x} does not belong in this packet")
            value = inner.value(KINDS[name])
            if name == Property.USER:
                continue
            if name in found and not (name == Property.SUBSCRIPTION_ID and packet == PUBLISH):
                raise MalformedPacket(Reason.PROTOCOL_ERROR, f"property 0x{name:02x} is repeated")
            found[name] = value
        return found

    def value(self, kind: str) -> Value:
        """Read one property's value."""
        if kind == "text":
            return self.text()
        if kind == "binary":
            return self.binary()
        if kind == "pair":
            self.text()
            return self.text()
        number = {
            "flag": self.one,
            "two": self.two,
            "two-positive": self.two,
            "four": self.four,
            "four-positive": self.four,
            "variable": self.variable,
        }[kind]()
        if kind == "flag" and number > 1:
            raise MalformedPacket(Reason.PROTOCOL_ERROR, "a property must be 0 or 1")
        if number == 0 and kind.endswith("positive"):
            raise MalformedPacket(Reason.PROTOCOL_ERROR, "a property must not be 0")
        if kind == "variable" and number == 0:
            raise MalformedPacket(Reason.PROTOCOL_ERROR, "subscription identifier 0")
        return number


def frame(stream: bytes, start: int, size_max: int) -> tuple[int, int]:
    """Find the packet that begins at `start`: where its body begins, and where the packet ends.

    An end past the end of `stream` means that at least as many bytes are missing.

    Raises:
        MalformedPacket: The remaining length has five bytes, or exceeds `size_max`.
    """
    end = len(stream)
    length = shift = 0
    for at in range(start + 1, start + 5):
        if at >= end:
            return at, at + 1
        byte = stream[at]
        length |= (byte & 0x7F) << shift
        if length > size_max:
            raise MalformedPacket(Reason.PACKET_TOO_LARGE, f"a packet exceeds {size_max} bytes")
        if byte < 0x80:
            if shift and byte == 0:
                raise malformed("the remaining length is longer than needed")
            return at + 1, at + 1 + length
        shift += 7
    raise malformed("the remaining length has more than four bytes")
