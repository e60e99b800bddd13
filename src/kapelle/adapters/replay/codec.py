"""Mends raw rows from quarantine and decodes them again. Never raises on garbage."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from kapelle.adapters.http import decoded as http
from kapelle.adapters.http.names import Names
from kapelle.adapters.http.rows import decode_json
from kapelle.adapters.mqtt import codec as mqtt
from kapelle.model.blocks import Readings
from kapelle.model.enums import Metric, Quality
from kapelle.model.ids import NS_PER_S, Ints
from kapelle.ports import Directory

METRICS = tuple(metric.name.lower() for metric in Metric)
_ROWS_MAX = 1_000
"""Rows one payload may hold, as it came or as it was replaced."""


class Fix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is changed in a row before it is decoded again; nothing where nothing is said."""

    scale: dict[str, float] = {}
    """Field -> factor: `{"power_w": 0.001}` where W were multiplied by 1000."""
    negate_power: bool = False
    """Turn the sign of `power_w` round."""
    device: str = ""
    """Whose row it is."""
    drop: list[str] = []
    """Fields left out."""
    payload: str = ""
    """The whole row, written anew."""

    @property
    def text(self) -> str:
        """Return it as JSON, for the record; empty where nothing is changed."""
        told = msgspec.json.encode(self).decode()
        return "" if told == "{}" else told


@dataclass(frozen=True, slots=True)
class Item:
    """A row as the quarantine keeps it."""

    id: str
    source: str
    """Adapter and sender; says who decodes it."""
    device_no: int
    """-1 where it was not known."""
    received_at_ns: int
    raw: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Again:
    """What became of one item."""

    item: Item
    raw: bytes
    """As mended."""
    readings: Readings | None
    """None where it still cannot be read."""
    reason: str = ""
    """`code: sentence; remedy` where it cannot."""


def decode(
    items: Sequence[Item], fix: Fix, directory: Directory, now_ns: int, age_s_max: float
) -> list[Again]:
    """Mend and decode every item: the measured time stays, and so does the time of arrival.

    Args:
        items: The rows.
        fix: What is changed in each of them.
        directory: Who is who by now.
        now_ns: The time.
        age_s_max: Readings older than this are refused, as those that arrive late are. [s]
    """
    names = Names(directory)
    return [_one(item, fix, names, now_ns - int(age_s_max * NS_PER_S)) for item in items]


def _one(item: Item, fix: Fix, names: Names, oldest_ns: int) -> Again:
    try:
        raw = mend(item.raw, fix)
        adapter, _, sender = item.source.partition("/")
        read = _http if adapter == "http" else _mqtt
        readings = read(item, raw, fix, names, sender)
    except _Refused as refused:
        return Again(item, item.raw, None, str(refused))
    measured_ns = np.where(
        readings.measured_at_ns == 0, item.received_at_ns, readings.measured_at_ns
    )
    if (measured_ns < oldest_ns).any():
        reason = "time-old: older by now than late readings may be; drop it"
        return Again(item, raw, None, reason)
    count = len(readings)
    marked = replace(
        readings,
        # Arrival is what it was: what is replayed does not make a device live.
        received_at_ns=np.full(count, item.received_at_ns, np.int64),
        quality=np.full(count, Quality.REPLAYED, np.uint8),
    )
    return Again(item, raw, marked)


class _Refused(Exception):
    """`code: sentence; remedy`."""


def mend(raw: bytes, fix: Fix) -> bytes:
    """Return the row with the fix applied; every object of it, where it holds several.

    Raises:
        _Refused: It cannot be mended this way.
    """
    if fix.payload:
        raw = fix.payload.encode()
    if not (fix.scale or fix.negate_power or fix.drop or fix.device):
        return raw
    try:
        told = json.loads(raw, object_pairs_hook=lambda pairs: _object(pairs, fix))
    except (ValueError, RecursionError) as error:
        reason = f"fix-unusable: the row is no JSON object ({error}); replace its whole payload"
        raise _Refused(reason) from None
    rows = told.get("readings", [told]) if isinstance(told, dict) else told
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _Refused("fix-unusable: the row is no JSON object; replace its whole payload")
    try:
        for row in rows:
            _mend_row(row, fix)
        return json.dumps(told, separators=(",", ":")).encode()
    except (OverflowError, RecursionError) as error:
        raise _Refused(f"fix-unusable: {error}; replace the whole payload") from None


def _object(pairs: list[tuple[str, object]], fix: Fix) -> dict[str, object]:
    kept = [(key, value) for key, value in pairs if key not in fix.drop]
    if len({key for key, _ in kept}) < len(kept):
        raise ValueError("a key stands there twice; drop it")
    return dict(kept)


def _mend_row(row: dict[str, object], fix: Fix) -> None:
    factors = dict(fix.scale)
    if fix.negate_power:
        factors["power_w"] = -factors.get("power_w", 1.0)
    for field, factor in factors.items():
        value = row.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            row[field] = value * factor
        elif field in row:
            raise _Refused(f"fix-unusable: {field} is no number; drop it, or replace the payload")


def _mqtt(item: Item, raw: bytes, fix: Fix, names: Names, sender: str) -> Readings:
    if b'"revision"' in raw:
        raise _Refused(
            "ack: an answer to a command is not taken again, its time has passed; drop it"
        )
    told = mqtt.decode_telemetry([raw])
    if told.unreadable:
        raise _Refused(told.unreadable[0].reason)
    count = len(told.message)
    if not 0 < count <= _ROWS_MAX:
        raise _Refused(f"empty: a row holds 1 to {_ROWS_MAX} reports; drop it")
    whose = names.look([fix.device or sender], None)
    device_no = item.device_no if item.device_no >= 0 and not fix.device else int(whose[0])
    return Readings(
        device_no=np.full(count, device_no, np.int32),
        order=told.order,
        measured_at_ns=told.measured_at_ns,
        received_at_ns=told.measured_at_ns,
        quality=np.zeros(count, np.uint8),
        values=told.values,
    )


def _http(item: Item, raw: bytes, fix: Fix, names: Names, sender: str) -> Readings:
    # Rows without a name are the sender's; a row with one is an operator's word by now.
    sender_no = item.device_no if item.device_no >= 0 else int(names.look([sender], None)[0])
    try:
        columns = decode_json(raw, names, sender_no, _ROWS_MAX)
    except http.Unreadable as error:
        raise _Refused(f"{error.code}: {error}") from None
    told = http.settle(columns, item.received_at_ns, None)
    if told.bad:
        raise _Refused(told.bad[0].reason)
    if not told.count:
        raise _Refused("empty: there is no report in it; drop it")
    if fix.device:
        whose: Ints = np.repeat(names.look([fix.device], None), told.count)
        return replace(told.readings, device_no=whose)
    return told.readings
