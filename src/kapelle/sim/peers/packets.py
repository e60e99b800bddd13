"""The few MQTT packets a device needs, versions 3.1.1 (4) and 5, as pure functions.

Sources: OASIS MQTT 3.1.1 and 5.0, section 3 of each. Written apart from the plant's own codec, so
that one cannot hide the other's mistakes.
"""

from dataclasses import dataclass

V311, V5 = 4, 5

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 13, 14
PINGREQ = b"\xc0\x00"
GOODBYE = b"\xe0\x00"

_SESSION_EXPIRY = 0x11
_KEPT_S = 3600
_LENGTH_BYTES_MAX = 4


class Malformed(ValueError):
    """The server sent what is not MQTT."""


@dataclass(frozen=True, slots=True)
class Received:
    """One packet from the server: type, flags, and what follows the fixed header."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """A PUBLISH from the server."""

    topic: str
    packet_id: int
    """0 at QoS 0."""
    payload: bytes


def connect(name: str, secret: str, version: int, keep_alive_s: int, *, fresh: bool) -> bytes:
    """Encode CONNECT with user name (the client id again) and password."""
    properties = b""
    if version == V5:
        properties = b"\x05" + bytes([_SESSION_EXPIRY]) + _KEPT_S.to_bytes(4, "big")
    flags = 0b1100_0000 | (0b10 if fresh else 0)
    variable = _text("MQTT") + bytes([version, flags]) + keep_alive_s.to_bytes(2, "big")
    return _packet(0x10, variable + properties + _text(name) + _text(name) + _text(secret))


def subscribe(topic: str, packet_id: int, version: int) -> bytes:
    """Encode SUBSCRIBE to one topic at QoS 1."""
    properties = b"\x00" if version == V5 else b""
    return _packet(0x82, packet_id.to_bytes(2, "big") + properties + _text(topic) + b"\x01")


def publish(topic: bytes, payload: bytes, packet_id: int, version: int) -> bytes:
    """Encode PUBLISH at QoS 1. `topic` is already length-prefixed (`prefixed`)."""
    properties = b"\x00" if version == V5 else b""
    return _packet(0x32, topic + packet_id.to_bytes(2, "big") + properties + payload)


def again(packet: bytes) -> bytes:
    """Return a PUBLISH marked as sent before (DUP)."""
    return bytes([packet[0] | 0x08]) + packet[1:]


def puback(packet_id: int) -> bytes:
    """Encode PUBACK; success needs no reason code in either version."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def prefixed(text: str) -> bytes:
    """Encode a string as MQTT does: two bytes of length, then UTF-8."""
    return _text(text)


def split(buffer: bytes) -> tuple[list[Received], bytes]:
    """Cut a stream into packets; return them and the incomplete rest."""
    packets: list[Received] = []
    at, end = 0, len(buffer)
    while end - at >= 2:
        length, shift, place = 0, 0, at + 1
        while True:
            if place - at > _LENGTH_BYTES_MAX:
                raise Malformed("remaining length is longer than four bytes")
            if place >= end:
                return packets, buffer[at:]
            byte = buffer[place]
            place += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        if place + length > end:
            break
        packets.append(Received(buffer[at] >> 4, buffer[at] & 15, buffer[place : place + length]))
        at = place + length
    return packets, buffer[at:]


def delivery(packet: Received, version: int) -> Delivery:
    """Decode a PUBLISH."""
    body = packet.body
    try:
        after = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:after].decode()
        packet_id = 0
        if packet.flags & 0b0110:
            packet_id = int.from_bytes(body[after : after + 2], "big")
            after += 2
        if version == V5:
            length, used = _varint(body, after)
            after += used + length
    except (IndexError, UnicodeDecodeError) as error:
        raise Malformed(f"PUBLISH cannot be read: {error}") from error
    return Delivery(topic, packet_id, body[after:])


def refusal(packet: Received) -> int:
    """Return the reason code of a CONNACK; 0 where the server accepted."""
    if len(packet.body) < 2:
        raise Malformed("CONNACK is too short")
    return packet.body[1]


def kept(packet: Received) -> bool:
    """Tell whether a CONNACK says that the server still knows our session."""
    return bool(packet.body[0] & 1)


def acknowledged(packet: Received) -> tuple[int, int]:
    """Return packet id and reason code of a PUBACK."""
    if len(packet.body) < 2:
        raise Malformed("PUBACK is too short")
    return int.from_bytes(packet.body[:2], "big"), packet.body[2] if len(packet.body) > 2 else 0


def _packet(first: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray([first])
    while True:
        length, low = length >> 7, length & 0x7F
        encoded.append(low | (0x80 if length else 0))
        if not length:
            return bytes(encoded) + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value, used = 0, 0
    while True:
        byte = body[at + used]
        value |= (byte & 0x7F) << (7 * used)
        used += 1
        if not byte & 0x80:
            return value, used
