"""MQTT 3.1.1 and 5 packets to bytes."""

from kapelle.adapters.mqtt import reader as r
from kapelle.adapters.mqtt.packets import V5
from kapelle.adapters.mqtt.reader import KINDS, NONE, Properties, Property, Reason

PINGREQ = bytes((r.PINGREQ << 4, 0))
PINGRESP = bytes((r.PINGRESP << 4, 0))

_V311_CODES = {
    Reason.UNSUPPORTED_VERSION: 0x01,
    Reason.BAD_CLIENT_ID: 0x02,
    Reason.SERVER_UNAVAILABLE: 0x03,
    Reason.SERVER_BUSY: 0x03,
    Reason.QUOTA_EXCEEDED: 0x03,
    Reason.BAD_CREDENTIALS: 0x04,
    Reason.NOT_AUTHORIZED: 0x05,
}
"""Return codes of MQTT 3.1.1 CONNACK (table 3.1); what is not here closes without one."""


def variable(value: int) -> bytes:
    """Encode a variable byte integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str | bytes) -> bytes:
    """Encode a string or bytes with its length."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, *fields: bytes) -> bytes:
    """Put the fixed header before the fields."""
    body = b"".join(fields)
    return bytes((first,)) + variable(len(body)) + body


def properties(given: Properties) -> bytes:
    """Encode properties with their length."""
    sizes = {"flag": 1, "two": 2, "two-positive": 2, "four": 4, "four-positive": 4}
    out = b""
    for name, value in given.items():
        kind = KINDS[name]
        if isinstance(value, int):
            encoded = variable(value) if kind == "variable" else value.to_bytes(sizes[kind], "big")
        else:
            encoded = text(value)
        out += variable(name) + encoded
    return variable(len(out)) + out


def connect(
    version: int,
    client_id: str,
    *,
    clean: bool = True,
    keep_alive_s: int = 60,
    username: str = "",
    password: str = "",
    given: Properties = NONE,
    will: tuple[str, bytes, bool] | None = None,
) -> bytes:
    """Encode a client's CONNECT. `will`: topic, payload, and whether it is retained; QoS 1."""
    flags = 0x02 * clean | (0x80 if username else 0) | (0x40 if password else 0)
    last_words = b""
    if will is not None:
        topic, payload, retain = will
        flags |= 0x04 | 1 << 3 | 0x20 * retain
        length = len(payload).to_bytes(2, "big")
        empty = properties(NONE) if version == V5 else b""
        last_words = empty + text(topic) + length + payload
    return packet(
        r.CONNECT << 4,
        text("MQTT"),
        bytes((version, flags)),
        keep_alive_s.to_bytes(2, "big"),
        properties(given) if version == V5 else b"",
        text(client_id),
        last_words,
        text(username) if username else b"",
        text(password) if password else b"",
    )


def connack(version: int, code: int, given: Properties = NONE) -> bytes:
    """Encode CONNACK; in MQTT 3.1.1 with the nearest return code, or nothing where none fits."""
    if version == V5:
        return packet(r.CONNACK << 4, bytes((0, code)), properties(given))
    if code:
        known = _V311_CODES.get(Reason(code))
        return b"" if known is None else packet(r.CONNACK << 4, bytes((0, known)))
    return packet(r.CONNACK << 4, b"\0\0")


def publish(
    version: int,
    topic: bytes,
    payload: bytes,
    qos: int,
    packet_id: int,
    given: Properties = NONE,
    *,
    retain: bool = False,
) -> bytes:
    """Encode a publication."""
    return packet(
        r.PUBLISH << 4 | qos << 1 | retain,
        text(topic),
        packet_id.to_bytes(2, "big") if qos else b"",
        properties(given) if version == V5 else b"",
        payload,
    )


def answer(version: int, kind: int, packet_id: bytes, code: int = 0, why: str = "") -> bytes:
    """Encode PUBACK, PUBREC, PUBREL or PUBCOMP; MQTT 3.1.1 has no way to say why."""
    first = kind << 4 | (2 if kind == r.PUBREL else 0)
    if version != V5 or not code:
        return bytes((first, 2)) + packet_id
    said = properties({Property.REASON_STRING: why}) if why else b""
    return packet(first, packet_id, bytes((code,)), said)


def subscribe(version: int, packet_id: int, filters: list[tuple[str, int]]) -> bytes:
    """Encode a client's SUBSCRIBE."""
    return packet(
        r.SUBSCRIBE << 4 | 2,
        packet_id.to_bytes(2, "big"),
        properties(NONE) if version == V5 else b"",
        *(text(name) + bytes((qos,)) for name, qos in filters),
    )


def suback(version: int, packet_id: int, codes: bytes) -> bytes:
    """Encode SUBACK."""
    empty = properties(NONE) if version == V5 else b""
    return packet(r.SUBACK << 4, packet_id.to_bytes(2, "big"), empty, codes)


def unsuback(version: int, packet_id: int, codes: bytes) -> bytes:
    """Encode UNSUBACK; MQTT 3.1.1 carries no codes in it."""
    extra = properties(NONE) + codes if version == V5 else b""
    return packet(r.UNSUBACK << 4, packet_id.to_bytes(2, "big"), extra)


def disconnect(version: int, code: int, why: str = "") -> bytes:
    """Encode a server's DISCONNECT; MQTT 3.1.1 has none, so nothing."""
    if version != V5:
        return b""
    said = properties({Property.REASON_STRING: why}) if why else properties(NONE)
    return packet(r.DISCONNECT << 4, bytes((code,)), said)


def goodbye(version: int) -> bytes:
    """Encode a client's DISCONNECT."""
    return packet(r.DISCONNECT << 4, b"\0\0" if version == V5 else b"")
