"""Sparkplug B edge nodes with devices behind them: births, data by alias, commands, deaths.

Payloads are written byte by byte, apart from the plant's own codec, so that one cannot hide the
other's mistakes. Source: Sparkplug specification 3.0.0, 5 (behaviour) and 6.4 (payloads).
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
BDSEQ = "bdSeq"
SETPOINT = "Setpoint"
DOUBLE, BOOLEAN, INT64 = 10, 11, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NAME, _ALIAS, _METRIC_TIME, _DATATYPE, _IS_NULL = 1, 2, 3, 4, 7
_LONG, _FLOAT, _DOUBLE, _BOOLEAN = 11, 12, 13, 14
_TIME, _METRIC, _SEQ = 1, 2, 3


class Told(NamedTuple):
    """One metric of a command."""

    name: str
    value: float | None
    """None: null."""


def payload(time_ms: int, metrics: Sequence[bytes], seq: int = -1) -> bytes:
    """Write a payload; `seq` is left out of deaths."""
    parts = [_varint(_TIME, time_ms), *(_bytes(_METRIC, metric) for metric in metrics)]
    return b"".join(parts) + (_varint(_SEQ, seq) if seq >= 0 else b"")


def metric(
    value: float | None,
    time_ms: int,
    *,
    name: str = "",
    alias: int = -1,
    datatype: int = DOUBLE,
) -> bytes:
    """Write a metric: by name and type in births, by alias alone afterwards; None is null."""
    out = _bytes(_NAME, name.encode()) if name else b""
    out += _varint(_ALIAS, alias) if alias >= 0 else b""
    out += _varint(_METRIC_TIME, time_ms)
    out += _varint(_DATATYPE, datatype) if name else b""
    if value is None:
        return out + _varint(_IS_NULL, 1)
    if datatype == DOUBLE:
        return out + bytes((_DOUBLE << 3 | _FIXED64,)) + struct.pack("<d", value)
    return out + _varint(_BOOLEAN if datatype == BOOLEAN else _LONG, int(value))


def told(raw: bytes) -> list[Told]:
    """Read the metrics of a command. Raises ValueError where it is none."""
    metrics = (each for field, each in _fields(raw) if field == _METRIC)
    return [_told(each) for each in metrics if isinstance(each, bytes)]


def _told(raw: bytes) -> Told:
    name, value = "", None
    for field, found in _fields(raw):
        if field == _NAME and isinstance(found, bytes):
            name = found.decode()
        elif field == _DOUBLE and isinstance(found, bytes):
            (value,) = struct.unpack("<d", found)
        elif field == _FLOAT and isinstance(found, bytes):
            (value,) = struct.unpack("<f", found)
        elif field == _BOOLEAN and isinstance(found, int):
            value = float(found)
    return Told(name, value)


class EdgeNode:
    """One edge node, and what its devices measured last."""

    def __init__(
        self,
        group: str,
        name: str,
        devices: Sequence[str],
        *,
        metrics: Mapping[str, float | None],
        publish: Callable[[str, bytes], None],
        now_ms: Callable[[], int],
    ) -> None:
        """Make it.

        Args:
            group: Of edge nodes.
            name: Its own.
            devices: Their names.
            metrics: What each device has from its birth on, and its first value.
            publish: Hands topic and payload to the broker.
            now_ms: UTC. [ms]
        """
        self.is_born = False
        self.births = 0
        self.present = [True] * len(devices)
        """Devices the edge node can reach."""
        self._place = f"{NAMESPACE}/{group}", name
        self._devices = devices
        self._index = {device: index for index, device in enumerate(devices)}
        self._aliases = {name: alias for alias, name in enumerate(metrics)}
        self._values = [dict(metrics) for _ in devices]
        self._publish = publish
        self._now_ms = now_ms
        self._bdseq = 0
        self._seq = 0

    def come(self) -> None:
        """Begin a session: births of the node and of every device it reaches."""
        now_ms = self._now_ms()
        self._seq = -1
        self.is_born = True
        self.births += 1
        born = [
            metric(self._bdseq, now_ms, name=BDSEQ, datatype=INT64),
            metric(0, now_ms, name=REBIRTH, datatype=BOOLEAN),
        ]
        self._say("NBIRTH", born)
        for index, present in enumerate(self.present):
            if present:
                self._bear(index)

    def die(self) -> None:
        """End the session, as the broker does with the will of a node that is lost."""
        if self.is_born:
            self.is_born = False
            now_ms = self._now_ms()
            gone = metric(self._bdseq, now_ms, name=BDSEQ, datatype=INT64)
            self._publish("/".join((self._place[0], "NDEATH", self._place[1])), payload(0, [gone]))
            self._bdseq = (self._bdseq + 1) % 256

    def find(self, index: int) -> None:
        """Reach a device again."""
        if not self.present[index]:
            self.present[index] = True
            if self.is_born:
                self._bear(index)

    def miss(self, index: int, *, told: bool) -> None:
        """Reach a device no more; `told`: the node has noticed, and says so."""
        if self.present[index] and told and self.is_born:
            self._say("DDEATH", [], index)
        self.present[index] = False

    def measure(self, index: int, values: Mapping[str, float | None], time_ms: int) -> None:
        """Publish what a device measures, or does, now."""
        self._values[index].update(values)
        if self.is_born and self.present[index]:
            aliases = self._aliases
            said = [metric(value, time_ms, alias=aliases[name]) for name, value in values.items()]
            self._say("DDATA", said, index)

    def hear(self, kind: str, device: str, raw: bytes) -> Iterator[float]:
        """Take a command; yield the setpoints a device is given, NaN for a release.

        Raises ValueError where it cannot be read.
        """
        for name, value in told(raw):
            if kind == "NCMD" and name == REBIRTH and value:
                self.come()
            index = self._index.get(device, -1)
            if kind == "DCMD" and name == SETPOINT and index >= 0 and self.present[index]:
                yield math.nan if value is None else value

    def _bear(self, index: int) -> None:
        now_ms = self._now_ms()
        born = [
            metric(value, now_ms, name=name, alias=self._aliases[name])
            for name, value in self._values[index].items()
        ]
        self._say("DBIRTH", born, index)

    def _say(self, kind: str, metrics: Sequence[bytes], index: int = -1) -> None:
        self._seq = (self._seq + 1) % 256
        device = () if index < 0 else (self._devices[index],)
        topic = "/".join((self._place[0], kind, self._place[1], *device))
        self._publish(topic, payload(self._now_ms(), metrics, self._seq))


def _varint(field: int, value: int) -> bytes:
    return _number(field << 3 | _VARINT) + _number(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _number(field << 3 | _BYTES) + _number(len(value)) + value


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(raw):
        tag, at = _read(raw, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read(raw, at)
            yield tag >> 3, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if kind == _BYTES:
            size, at = _read(raw, at)
        if size < 0 or at + size > len(raw):
            raise ValueError("a field runs past its message")
        yield tag >> 3, raw[at : at + size]
        at += size


def _read(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(raw) and shift < 70:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number has no end")
