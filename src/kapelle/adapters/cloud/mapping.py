"""What a vendor's documents say about devices, by a mapping: JSON to readings. Pure.

Whatever a document holds, nothing here raises: what cannot be used is named, what is not said is
left out, and a number is never guessed.
"""

import math
import re
from typing import Any, NamedTuple

import msgspec

from kapelle.adapters import quantities
from kapelle.adapters.cloud.documents import CloudShape, CloudValue
from kapelle.adapters.http.rfc3339 import parse_one
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,2})?", re.ASCII)
_UNIX_S_MAX = 7_258_118_400
"""The year 2200: later is no moment anything was measured at."""
_ADDRESS_CHARS_MAX = 256
_RAW_BYTES_MAX = 4_096
_NOTHING = object()


class Broken(NamedTuple):
    """Why a document, or a part of it, cannot be used: `code: place: what; remedy`."""

    reason: str


class Item(NamedTuple):
    """What a document says of one device."""

    address: str
    """The vendor's id; empty where it says none."""
    shape: str
    """Name of the shape it was read in."""
    raw: bytes
    values: dict[Metric, float]
    """Empty where it says nothing of use. [unit of the metric]"""
    measured_at_ns: int = 0
    reachable: bool | None = None
    """What the vendor says of its own way to the device; None: nothing."""
    faults: tuple[str, ...] = ()
    """What is wrong with it, each `code: place: what; remedy`."""


def decode(body: bytes) -> Any:
    """Return a JSON document, or `Broken`."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Broken(f"body: document: is no usable JSON ({str(error)[:80]}); send JSON")


def at(document: Any, path: str) -> Any:
    """Return what stands at a path, None where nothing does. An empty path is the document."""
    found = _find(document, path)
    return None if found is _NOTHING else found


def has(document: Any, path: str) -> bool:
    """Tell whether a document has this path, be there null at its end."""
    return _find(document, path) is not _NOTHING


def _find(document: Any, path: str) -> Any:
    found = document
    for step in path.split(".") if path else ():
        if isinstance(found, dict):
            found = found.get(step, _NOTHING)
        elif isinstance(found, list) and step.isdecimal() and int(step[:9]) < len(found):
            found = found[int(step[:9])]
        else:
            return _NOTHING
    return found


def text(document: Any, path: str) -> str:
    """Return the id, cursor or state at a path as text, empty where there is none."""
    found = at(document, path)
    if isinstance(found, str):
        return found if len(found) <= _ADDRESS_CHARS_MAX else ""
    return str(found) if isinstance(found, int) and not isinstance(found, bool) else ""


def parts(document: Any, path: str, most: int) -> "list[Any] | Broken":
    """Return the list at a path; a document that is one object is a list of one."""
    found = at(document, path)
    place = path or "document"
    if isinstance(found, dict) and not path:
        return [found]
    if not isinstance(found, list):
        return Broken(f"shape: {place}: holds no list; mend `items` in the mapping")
    if len(found) > most:
        return Broken(
            f"too-many: {place}: {len(found)} items, at most {most}; ask for smaller pages"
        )
    return found


def read(item: Any, shape: CloudShape, address: str = "") -> Item:
    """Return what a part of a document says of a device.

    `address`: of the device it was asked for; empty: the part says whose it is.
    """
    raw = raw_of(item)
    if not isinstance(item, dict):
        return Item(
            address, shape.name, raw, {}, faults=("shape: item: is no object; mend `items`",)
        )
    said = address or text(item, shape.id)
    reachable = at(item, shape.reachable) if shape.reachable else None
    known = reachable if isinstance(reachable, bool) else None
    values: dict[Metric, float] = {}
    faults: list[str] = []
    for wanted in shape.values:
        value = _value(item, wanted)
        if isinstance(value, Broken):
            faults.append(value.reason)
        elif value is not None:
            values[quantities.METRICS[wanted.metric]] = value
    measured_at_ns = (
        moment_at(at(item, shape.time), shape.time, shape.time_form) if shape.time and values else 0
    )
    if isinstance(measured_at_ns, Broken):
        # A value of a vendor's cache without its time may be hours old: it proves nothing.
        return Item(said, shape.name, raw, {}, 0, known, (*faults, measured_at_ns.reason))
    return Item(said, shape.name, raw, values, measured_at_ns, known, tuple(faults))


def moment(told: Any) -> int:
    """Return an RFC 3339 time in ns; 0 where it is none."""
    if not isinstance(told, str):
        return 0
    return parse_one(told[:64]) or 0


def raw_of(item: Any) -> bytes:
    """Return a part of a document for the quarantine, cut where it is long."""
    try:
        return msgspec.json.encode(item)[:_RAW_BYTES_MAX]
    except RecursionError:
        return b""


def _value(item: Any, wanted: CloudValue) -> float | Broken | None:
    total: float | None = 0.0
    for path in wanted.paths:
        found = number_at(at(item, path), path)
        if isinstance(found, Broken):
            return found
        total = None if total is None or found is None else total + found
    if total is None:
        is_zero = wanted.zero_where and at(item, wanted.zero_where) is False
        return 0.0 if is_zero else None
    return quantities.ours(total, wanted.unit, wanted.positive)


def number_at(found: Any, path: str) -> float | Broken | None:
    """Return what stands at a path as a number, None where there is nothing."""
    if found is None:
        return None
    if isinstance(found, str) and _NUMBER.fullmatch(found):
        found = float(found)
    if isinstance(found, int | float) and not isinstance(found, bool):
        # No quantity a device measures comes near; an int of any length is compared safely.
        if -1e15 < found < 1e15 and math.isfinite(found):
            return float(found)
        return Broken(f"value-range: {path}: is too large; mend what the vendor sends")
    return Broken(f"value-type: {path}: is {_kind(found)}, no number; mend the path")


def _kind(found: Any) -> str:
    kinds = {dict: "an object", list: "a list", bool: "true or false"}
    return kinds.get(type(found), "text")


def moment_at(told: Any, path: str, form: str) -> int | Broken:
    """Return the time that stands at a path, in one of the forms of `CloudShape`, in ns."""
    if told is None:
        return Broken(f"time-missing: {path}: values without their time; mend `time`")
    if form in ("unix", "unix-ms"):
        number = number_at(told, path)
        per_s = 1_000 if form == "unix-ms" else 1
        if isinstance(number, float) and 0 < number < _UNIX_S_MAX * per_s:
            return round(number * (NS_PER_S // per_s))
    elif isinstance(told, str):
        found = moment(told + "Z" if form == "utc" else told)
        if found:
            return found
    meant = {"rfc3339": "no RFC 3339 time with a zone", "utc": "no RFC 3339 time without a zone"}
    what = meant.get(form, "no such number of seconds or milliseconds")
    return Broken(f"time-unreadable: {path}: is {what}; mend `time_form`")
