"""Sparkplug B topics and payloads to plain values and back. Pure; reading never raises.

Source: Sparkplug specification 3.0.0, 4 (topics) and 6.4 (payloads).
"""

import math
import struct
from typing import Any, NamedTuple

import msgspec
from google.protobuf.message import DecodeError

from kapelle.adapters.sparkplug.spec.payload import OTHERS, PayloadMessage

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
BDSEQ = "bdSeq"
METRICS_MAX = 20_000
"""Metrics in one payload; one with more is not read."""
_COMPRESSED = b"SPBV1.0_COMPRESSED"
"""What Eclipse Tahu calls a payload with another, compressed one inside."""
_TIME_MS_MAX = 7_258_118_400_000
"""The year 2200."""
_NODE = ("NBIRTH", "NDEATH", "NDATA")
_DEVICE = ("DBIRTH", "DDEATH", "DDATA")
DATA = ("NDATA", "DDATA")
# Data types (6.4.16).
INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT, DOUBLE, BOOLEAN = range(1, 12)
_BITS = {INT8: 8, INT16: 16, INT32: 32, INT64: 64}
_BITS_UNSIGNED = {UINT8: 8, UINT16: 16, UINT32: 32, UINT64: 64}
Value = float | int | bool


class Place(NamedTuple):
    """Who says something, and what kind of message it is."""

    kind: str
    """NBIRTH, NDEATH, NDATA, DBIRTH, DDEATH or DDATA."""
    node: str
    """`<group>/<edge node>`."""
    device: str
    """Empty where the edge node speaks for itself."""

    @property
    def address(self) -> str:
        """Return as what it is enrolled."""
        return f"{self.node}/{self.device}" if self.device else self.node


class Metric(NamedTuple):
    """One metric of a payload."""

    name: str
    """Empty where only its alias is said."""
    alias: int
    """-1 where there is none."""
    timestamp_ms: int
    """0 where neither it nor its payload says one."""
    datatype: int
    """0 where it is not said."""
    is_historical: bool
    value: Value | str | None
    """None: null, or no finite number. A text says what it is where it is none: `a template`. Not
    yet signed where only a birth says the type."""


class Payload(NamedTuple):
    """One message."""

    seq: int
    """-1 where there is none."""
    metrics: list[Metric]


def place(topic: str) -> Place | None:
    """Return who speaks on a topic; None where it is none an edge node speaks on."""
    steps = topic.split("/")
    if len(steps) < 4 or steps[0] != NAMESPACE or not all(steps):
        return None
    if len(steps) == 4 and steps[2] in _NODE:
        return Place(steps[2], f"{steps[1]}/{steps[3]}", "")
    if len(steps) == 5 and steps[2] in _DEVICE:
        return Place(steps[2], f"{steps[1]}/{steps[3]}", steps[4])
    return None


def decode(raw: bytes) -> Payload | str:
    """Read a payload, or say why it cannot be read: `code: place: what; remedy`."""
    try:
        message: Any = PayloadMessage.FromString(raw)  # type: ignore[attr-defined]  # generated
    except DecodeError:
        return "payload: protobuf: is no Sparkplug B payload; mend the edge node"
    if message.uuid == _COMPRESSED:
        return "payload: body: is compressed; turn compression off in the edge node"
    if len(message.metrics) > METRICS_MAX:
        return f"payload: metrics: more than {METRICS_MAX}; send them in several messages"
    sent_ms = _time_ms(message.timestamp)
    metrics = [_metric(each, sent_ms) for each in message.metrics]
    return Payload(message.seq if message.HasField("seq") else -1, metrics)


def _metric(message: Any, sent_ms: int) -> Metric:
    which = message.WhichOneof("value")
    value: Value | str | None = None
    if which in OTHERS:
        value = OTHERS[which][1]
    elif which is not None:
        value = getattr(message, which)
    if message.is_null or (isinstance(value, float) and not math.isfinite(value)):
        value = None
    return Metric(
        message.name.decode(errors="replace"),
        message.alias if message.HasField("alias") else -1,
        _time_ms(message.timestamp) or sent_ms,
        message.datatype,
        message.is_historical,
        signed(value, message.datatype),
    )


def _time_ms(said: int) -> int:
    return said if said < _TIME_MS_MAX else 0


def signed(value: Value | str | None, datatype: int) -> Value | str | None:
    """Return an integer as its type means it: negative ones travel as two's complement (6.4.16)."""
    bits = _BITS.get(datatype)
    if bits is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def fitted(value: float, datatype: int) -> Value | None:
    """Return a number as a metric of this type carries it; None where it cannot."""
    if datatype == DOUBLE:
        return value
    if datatype == FLOAT:
        try:
            narrow: float = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            return None
        return narrow
    whole = round(value)
    bits = _BITS.get(datatype)
    if bits is not None:
        return whole if -(1 << (bits - 1)) <= whole < 1 << (bits - 1) else None
    bits = _BITS_UNSIGNED.get(datatype)
    return whole if bits is not None and 0 <= whole < 1 << bits else None


def encode(name: str, datatype: int, value: Value | None, now_ms: int) -> bytes:
    """Write one metric, fitted to its type, as a command; None is null."""
    message: Any = PayloadMessage()
    message.timestamp = now_ms
    metric = message.metrics.add()
    metric.name = name.encode()
    metric.timestamp = now_ms
    metric.datatype = datatype
    if value is None:
        metric.is_null = True
    elif datatype == BOOLEAN:
        metric.boolean_value = bool(value)
    elif datatype == FLOAT:
        metric.float_value = value
    elif datatype == DOUBLE:
        metric.double_value = value
    elif datatype in (INT64, UINT64):
        metric.long_value = int(value) & 0xFFFFFFFFFFFFFFFF
    else:
        metric.int_value = int(value) & 0xFFFFFFFF
    written: bytes = message.SerializeToString()
    return written


def state_topic(host_id: str) -> str:
    """Return where a host says whether it is there (6.4.27)."""
    return f"{NAMESPACE}/STATE/{host_id}"


def encode_state(online: bool, now_ms: int) -> bytes:
    """Write whether the host is there."""
    return msgspec.json.encode({"online": online, "timestamp": now_ms})


def says_offline(raw: bytes) -> bool:
    """Tell whether a STATE says that the host is gone."""
    try:
        said = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("online") is False
