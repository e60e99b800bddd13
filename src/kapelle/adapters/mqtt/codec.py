"""MQTT payloads: telemetry and device acks to columns, commands to JSON. Never raises on garbage.

The contract is `docs/adapters/mqtt.md` and the JSON Schema files beside this module.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import numpy as np

from kapelle.adapters.rank import rank
from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus, DeviceMode, Metric
from kapelle.model.ids import Flags, Floats, Ints, Longs

Number = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Nanoseconds = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

_NAN = float("nan")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_YEAR, _LAST_YEAR = 2000, 2199
"""Years outside are garbage, and some do not fit into 64 bit nanoseconds."""
_REASON_MAX = 500


class _Row(msgspec.Struct, gc=False):
    """One report. Absent is NaN: JSON has no NaN, so it cannot be said."""

    at: Annotated[datetime, msgspec.Meta(tz=True)] = _EPOCH
    at_ns: Nanoseconds = 0
    boot: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = -1
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = -1
    power_w: Number = _NAN
    soc: Fraction = _NAN
    export_wh: Number = _NAN
    import_wh: Number = _NAN
    max_w: Number = _NAN
    min_w: Number = _NAN
    voltage_v: Number = _NAN
    frequency_hz: Number = _NAN
    setpoint_w: Number = _NAN
    mode: Literal["own", "command", "local", "fault"] | msgspec.UnsetType = msgspec.UNSET


class _Report(_Row, gc=False):
    """What a publication holds: a report, or several in an envelope."""

    readings: list[_Row] | msgspec.UnsetType = msgspec.UNSET


class _Ack(msgspec.Struct, gc=False):
    revision: Count
    status: Literal[
        "received", "accepted", "applied", "completed", "rejected", "opted_out", "expired"
    ]
    epoch: Count = -1
    at_ns: Nanoseconds = 0
    reason: str = ""


class _Envelope(msgspec.Struct):
    readings: list[msgspec.Raw]


_decode_report = msgspec.json.Decoder(_Report | list[_Row]).decode
_decode_row = msgspec.json.Decoder(_Row).decode
_decode_ack = msgspec.json.Decoder(_Ack).decode
_decode_acks = msgspec.json.Decoder(_Ack | list[_Ack]).decode
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode

_BROKEN = (msgspec.MsgspecError, UnicodeError, RecursionError)

_REMEDIES = {
    "at": "send RFC 3339 with a zone, `2026-01-31T12:00:00Z`, from 2000 to 2199",
    "at_ns": "send UTC nanoseconds since 1970 as an integer",
    "boot": "send an integer from 0 to 2147483647 that grows with every start, and seq with it",
    "seq": "send an integer from 0 to 4294967295 that grows with every report, and boot with it",
    "soc": "send the state of charge as a fraction from 0 to 1, not percent",
    "readings": "send either `readings` or one report",
    "revision": "repeat the command's revision, an integer",
    "epoch": "repeat the command's epoch, an integer",
    "status": "send one of received, accepted, applied, completed, rejected, opted_out, expired",
    "reason": "send text",
    "mode": "send one of own, command, local, fault; leave it out where not known",
}
_METRIC_REMEDY = "send a JSON number in the unit its name says; leave it out where not known"
_METRICS = tuple((metric, metric.name.lower()) for metric in Metric)
_MODES = {mode.name.lower(): float(mode) for mode in DeviceMode}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row, or a whole payload, that goes to quarantine."""

    message: int
    """Which payload."""
    reason: str
    """`code: place: what; remedy`, the place as a JSON pointer."""
    raw: bytes


@dataclass(slots=True, eq=False)
class Telemetry:
    """Reports of many publications, as columns."""

    message: Ints
    """Which payload each row came in."""
    place: Ints
    """Its place in there, -1 where the payload is one report."""
    order: Longs
    measured_at_ns: Longs
    """0 where the device sent no time."""
    values: dict[Metric, Floats]
    unreadable: list[Unreadable] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class DeviceAcks:
    """Answers of devices, as columns."""

    message: list[int] = field(default_factory=list)
    revision: list[int] = field(default_factory=list)
    epoch: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    at_ns: list[int] = field(default_factory=list)
    """0 where the device sent no time."""
    reason: list[bytes] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


def decode_telemetry(payloads: Sequence[bytes]) -> Telemetry:
    """Read publications of reports; what cannot be read is listed, the rest becomes columns."""
    rows: list[_Row] = []
    message: list[int] = []
    place: list[int] = []
    unreadable: list[Unreadable] = []
    for index, payload in enumerate(payloads):
        try:
            report = _decode_report(payload)
        except _BROKEN as error:
            found = _rows_one_by_one(payload, index, error, unreadable)
        else:
            if isinstance(report, _Report):
                if report.readings is msgspec.UNSET:
                    rows.append(report)
                    message.append(index)
                    place.append(-1)
                    continue
                report = _from_envelope(report, payload, index, unreadable)
            elif not report:
                unreadable.append(Unreadable(index, _EMPTY.format("/"), payload))
            found = dict(enumerate(report))
        rows += found.values()
        place += found
        message += [index] * len(found)
    telemetry = Telemetry(
        np.array(message, np.int32),
        np.array(place, np.int32),
        np.array([], np.int64),
        np.array([row.at_ns or _ns(row.at) for row in rows], np.int64),
        {},
        unreadable,
    )
    _fill(telemetry, rows, payloads)
    return telemetry


_EMPTY = "empty: {}: there is no measured value; send at least one of " + ", ".join(
    name for _, name in _METRICS
)


def _from_envelope(
    report: _Report, payload: bytes, index: int, unreadable: list[Unreadable]
) -> list[_Row]:
    assert report.readings is not msgspec.UNSET
    beside = [name for metric, name in _METRICS if not math.isnan(_value(report, metric, name))]
    if beside:
        reason = f"field: /{beside[0]}: stands beside `readings`; {_REMEDIES['readings']}"
        unreadable.append(Unreadable(index, reason, payload))
        return []
    if not report.readings:
        unreadable.append(Unreadable(index, _EMPTY.format("/readings"), payload))
    return report.readings


def _value(row: _Row, metric: Metric, name: str) -> float:
    if metric is Metric.MODE:
        return _NAN if row.mode is msgspec.UNSET else _MODES[row.mode]
    value: float = getattr(row, name)
    return value


def _fill(telemetry: Telemetry, rows: list[_Row], payloads: Sequence[bytes]) -> None:
    said = np.zeros(len(rows), bool)
    for metric, name in _METRICS:
        if metric is Metric.MODE:
            column = np.array([_value(row, metric, name) for row in rows], np.float64)
        else:
            column = np.array([getattr(row, name) for row in rows], np.float64)
        here = ~np.isnan(column)
        if here.any():
            telemetry.values[metric] = column
            said |= here
    seq = np.array([row.seq for row in rows], np.int64)
    boot = np.array([row.boot for row in rows], np.int64)
    telemetry.order = rank(boot, seq, telemetry.measured_at_ns)
    good = said & (telemetry.measured_at_ns >= 0)
    if not good.all():
        _leave_out(telemetry, good, said, payloads)


def _leave_out(telemetry: Telemetry, good: Flags, said: Flags, payloads: Sequence[bytes]) -> None:
    raw = RawRows(telemetry.message, telemetry.place, payloads)
    for row in np.flatnonzero(~good).tolist():
        at, payload = int(telemetry.place[row]), payloads[telemetry.message[row]]
        where = "" if at < 0 else f"{_within(payload)}/{at}"
        if said[row]:
            reason = f"time: {where}/at: is outside the accepted years; {_REMEDIES['at']}"
        else:
            reason = _EMPTY.format(where or "/")
        telemetry.unreadable.append(Unreadable(int(telemetry.message[row]), reason, raw(row)))
    telemetry.message = telemetry.message[good]
    telemetry.place = telemetry.place[good]
    telemetry.order = telemetry.order[good]
    telemetry.measured_at_ns = telemetry.measured_at_ns[good]
    telemetry.values = {metric: column[good] for metric, column in telemetry.values.items()}


def _within(payload: bytes) -> str:
    return "/readings" if payload.lstrip()[:1] == b"{" else ""


class RawRows:
    """Finds what was sent for a row; called with the row's number."""

    def __init__(self, message: Ints, place: Ints, payloads: Sequence[bytes]) -> None:
        self._message = message
        self._place = place
        self._payloads = payloads
        self._opened: tuple[int, list[bytes]] = (-1, [])

    def __call__(self, row: int) -> bytes:
        """Return the bytes of one row."""
        message, place = int(self._message[row]), int(self._place[row])
        if place < 0:
            return self._payloads[message]
        if self._opened[0] != message:
            # Rows are asked for in order: splitting each payload once keeps that linear.
            self._opened = message, raw_rows(self._payloads[message])
        return self._opened[1][place]


def _ns(at: datetime) -> int:
    """Return 0 where no time was sent, -1 where it is outside the accepted years."""
    if at is _EPOCH:
        return 0
    if not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        return -1
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


def raw_rows(payload: bytes) -> list[bytes]:
    """Return the bytes of each row of a publication; the whole where it is one report."""
    for decode in (_decode_raw, lambda given: _decode_envelope(given).readings):
        try:
            return [bytes(raw) for raw in decode(payload)]
        except _BROKEN:
            continue
    return [payload]


def _rows_one_by_one(
    payload: bytes, index: int, error: Exception, unreadable: list[Unreadable]
) -> dict[int, _Row]:
    rows: dict[int, _Row] = {}
    raws = raw_rows(payload)
    if raws == [payload]:
        unreadable.append(Unreadable(index, _reason(error, ""), payload))
        return rows
    within = _within(payload)
    for place, raw in enumerate(raws):
        try:
            rows[place] = _decode_row(raw)
        except _BROKEN as bad:
            unreadable.append(Unreadable(index, _reason(bad, f"{within}/{place}"), raw))
    if len(rows) == len(raws):
        # Every row is fine by itself: the envelope around them is not.
        unreadable.append(Unreadable(index, _reason(error, ""), payload))
        return {}
    return rows


def _reason(error: Exception, where: str) -> str:
    if isinstance(error, RecursionError):
        return f"json: {where or '/'}: is nested too deeply; send flat objects"
    what, _, path = str(error).partition(" - at `$")
    if not isinstance(error, msgspec.ValidationError):
        return f"json: {where or '/'}: {what}; send one JSON object or an array of objects"
    place = where + path.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
    name = place.rpartition("/")[2]
    what = what.replace("`", "")
    what = what[:1].lower() + what[1:]
    if "missing" not in what and (not name or name.isdigit()):
        return f"json: {place or '/'}: {what}; send one JSON object or an array of objects"
    if "missing" in what:
        name = what.rpartition(" ")[2]
    return f"field: {place or '/'}: {what}; {_REMEDIES.get(name, _METRIC_REMEDY)}"


def decode_acks(payloads: Sequence[bytes]) -> DeviceAcks:
    """Read publications of command answers, single or in arrays."""
    acks = DeviceAcks()
    for index, payload in enumerate(payloads):
        try:
            decoded = _decode_acks(payload)
        except _BROKEN as error:
            _acks_one_by_one(payload, index, error, acks)
            continue
        answers = decoded if isinstance(decoded, list) else [decoded]
        if not answers:
            reason = "empty: /: there is no answer; send at least one"
            acks.unreadable.append(Unreadable(index, reason, payload))
        for answer in answers:
            _append(acks, index, answer)
    return acks


def _acks_one_by_one(payload: bytes, index: int, error: Exception, acks: DeviceAcks) -> None:
    try:
        raws = [bytes(raw) for raw in _decode_raw(payload)]
    except _BROKEN:
        acks.unreadable.append(Unreadable(index, _reason(error, ""), payload))
        return
    for place, raw in enumerate(raws):
        try:
            _append(acks, index, _decode_ack(raw))
        except _BROKEN as bad:
            acks.unreadable.append(Unreadable(index, _reason(bad, f"/{place}"), raw))


def _append(acks: DeviceAcks, index: int, answer: _Ack) -> None:
    acks.message.append(index)
    acks.revision.append(answer.revision)
    acks.epoch.append(answer.epoch)
    acks.status.append(AckStatus[answer.status.upper()])
    acks.at_ns.append(answer.at_ns)
    acks.reason.append(answer.reason[:_REASON_MAX].encode())


class _Command(msgspec.Struct, gc=False):
    key: str
    order: int
    revision: int
    epoch: int
    attempt: int
    setpoint_w: float
    """NaN is written as null: back to the device's own schedule."""
    issued_at_ns: int
    not_after_ns: int
    ttl_s: float
    revert_s: float


def encode_commands(commands: Commands) -> list[bytes]:
    """Write the payload of each command."""
    encode = msgspec.json.Encoder().encode
    columns = (
        commands.device_no,
        commands.order_no,
        commands.revision,
        commands.epoch,
        commands.attempt,
        commands.setpoint_w,
        commands.issued_at_ns,
        commands.not_after_ns,
        commands.ttl_s,
        commands.revert_s,
    )
    return [
        encode(_Command(f"{order}/{device_no}/{revision}", order, revision, *rest))
        for device_no, order, revision, *rest in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]
