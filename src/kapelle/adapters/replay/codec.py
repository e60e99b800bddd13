"""Mends raw rows from quarantine and decodes them again. Never raises on garbage."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kapelle.adapters.http import decoded as http
from kapelle.adapters.http.names import Names
from kapelle.adapters.http.rows import decode_json
from kapelle.adapters.mqtt import codec as mqtt
from kapelle.adapters.replay import ocpp
from kapelle.adapters.replay.fix import Fix, Unusable
from kapelle.model.blocks import Readings
from kapelle.model.enums import Quality
from kapelle.model.ids import NS_PER_S, Ints
from kapelle.ports import Directory

_ROWS_MAX = 1_000
"""Rows one payload may hold, as it came or as it was replaced."""
_REPORTS = ("mqtt", "broker", "http", "sim", "replay", "")
"""Sources of reports in the plant's own form (docs/adapters/mqtt.md, http.md)."""


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
    return [_one(item, fix, directory, now_ns - int(age_s_max * NS_PER_S)) for item in items]


def _one(item: Item, fix: Fix, directory: Directory, oldest_ns: int) -> Again:
    try:
        raw, readings = _read(item, fix, directory)
    except Unusable as refused:
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


def _read(item: Item, fix: Fix, directory: Directory) -> tuple[bytes, Readings]:
    """Return the row as mended, and what it says. Raises Unusable."""
    adapter, _, sender = item.source.partition("/")
    written = fix.payload.encode() or item.raw
    if adapter == "ocpp" and ocpp.is_call(written):
        return written, ocpp.read(written, item.device_no, fix, directory)
    if adapter not in _REPORTS and not fix.payload:
        raise Unusable(
            f"foreign: what came by {adapter} is no report of the plant's own form; "
            "replace the whole payload by one, or drop it"
        )
    raw = mend(item.raw, fix)
    read = _http if adapter == "http" else _mqtt
    return raw, read(item, raw, fix, Names(directory), sender)


def mend(raw: bytes, fix: Fix) -> bytes:
    """Return the row with the fix applied; every object of it, where it holds several.

    Raises:
        Unusable: It cannot be mended this way.
    """
    if fix.payload:
        raw = fix.payload.encode()
    if not (fix.scale or fix.negate_power or fix.drop or fix.device):
        return raw
    try:
        told = json.loads(raw, object_pairs_hook=lambda pairs: _object(pairs, fix))
    except (ValueError, RecursionError) as error:
        reason = f"fix-unusable: the row is no JSON object ({error}); replace its whole payload"
        raise Unusable(reason) from None
    rows = told.get("readings", [told]) if isinstance(told, dict) else told
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unusable("fix-unusable: the row is no JSON object; replace its whole payload")
    try:
        for row in rows:
            _mend_row(row, fix)
        return json.dumps(told, separators=(",", ":")).encode()
    except (OverflowError, RecursionError) as error:
        raise Unusable(f"fix-unusable: {error}; replace the whole payload") from None


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
            raise Unusable(f"fix-unusable: {field} is no number; drop it, or replace the payload")


def _mqtt(item: Item, raw: bytes, fix: Fix, names: Names, sender: str) -> Readings:
    if b'"revision"' in raw:
        raise Unusable(
            "ack: an answer to a command is not taken again, its time has passed; drop it"
        )
    told = mqtt.decode_telemetry([raw])
    if told.unreadable:
        raise Unusable(told.unreadable[0].reason)
    count = len(told.message)
    if not 0 < count <= _ROWS_MAX:
        raise Unusable(f"empty: a row holds 1 to {_ROWS_MAX} reports; drop it")
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
        raise Unusable(f"{error.code}: {error}") from None
    told = http.settle(columns, item.received_at_ns, None)
    if told.bad:
        raise Unusable(told.bad[0].reason)
    if not told.count:
        raise Unusable("empty: there is no report in it; drop it")
    if fix.device:
        whose: Ints = np.repeat(names.look([fix.device], None), told.count)
        return replace(told.readings, device_no=whose)
    return told.readings
