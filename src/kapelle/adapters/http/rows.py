"""Reads telemetry as JSON or NDJSON: fast where all is well, row by row where something is not."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from kapelle.adapters.http import rfc3339
from kapelle.adapters.http.decoded import (
    METRIC_OF,
    MODE_OF,
    NAME_LENGTH_MAX,
    BadRow,
    Columns,
    Unreadable,
)
from kapelle.adapters.http.names import Names
from kapelle.adapters.rank import rank
from kapelle.model.ids import Longs

_NAN = float("nan")
_BOM = b"\xef\xbb\xbf"


class Row(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One report. What is absent was not said; null says nothing either, and is refused.

    The defaults cannot be sent: JSON has no NaN, and the bounds exclude the others.
    """

    device: Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)] = ""
    at: Annotated[str, Meta(min_length=1, max_length=64)] = ""
    at_ns: Annotated[int, Meta(ge=1, le=2**63 - 1)] = 0
    boot: Annotated[int, Meta(ge=0, le=2**31 - 1)] = -1
    seq: Annotated[int, Meta(ge=0, le=2**32 - 1)] = -1
    power_w: float = _NAN
    soc: float = _NAN
    export_wh: float = _NAN
    import_wh: float = _NAN
    max_w: float = _NAN
    min_w: float = _NAN
    voltage_v: float = _NAN
    frequency_hz: float = _NAN
    setpoint_w: float = _NAN
    mode: Literal["own", "command", "local", "fault"] | msgspec.UnsetType = msgspec.UNSET


class _Wrapped(msgspec.Struct, forbid_unknown_fields=True):
    readings: list[Row]


class _WrappedRaw(msgspec.Struct, forbid_unknown_fields=True):
    readings: list[msgspec.Raw]


class _Named(msgspec.Struct):
    device: str = ""


_FIELDS = Row.__struct_fields__
_DEFAULT = dict(zip(_FIELDS, Row.__struct_defaults__, strict=True))
_FIELD_OF = {field: attrgetter(field) for field in _FIELDS}
_device_of = _FIELD_OF["device"]
_decode_row = msgspec.json.Decoder(Row)
_decode_rows = msgspec.json.Decoder(list[Row] | _Wrapped)
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw] | _WrappedRaw)
_decode_named = msgspec.json.Decoder(_Named)

Column = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    places: Sequence[int]
    rows: Sequence[Row]
    bad: list[BadRow]
    raws: Callable[[], Sequence[bytes]]
    is_sure: bool
    """Whether each row was looked at alone."""


def decode_json(body: bytes, known: Names, sender_no: int | None, rows_max: int) -> Columns:
    """Read `[…]`, `{"readings": […]}` or one report.

    Raises:
        Unreadable: No row can be told from another.
    """
    body = body.removeprefix(_BOM)
    try:
        found = _decode_rows.decode(body)
        rows = found if isinstance(found, list) else found.readings
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _columns(_rowwise(_raws(body)), body, known, sender_no, rows_max)
    plain = _Found(range(len(rows)), rows, [], lambda: _raws(body), is_sure=False)
    return _columns(plain, body, known, sender_no, rows_max)


def decode_ndjson(body: bytes, known: Names, sender_no: int | None, rows_max: int) -> Columns:
    """Read one report a line; empty lines are no rows."""
    body = body.removeprefix(_BOM)
    try:
        rows = _decode_row.decode_lines(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _columns(_rowwise(_lines(body)), body, known, sender_no, rows_max)
    plain = _Found(range(len(rows)), rows, [], lambda: _lines(body), is_sure=False)
    return _columns(plain, body, known, sender_no, rows_max)


def _columns(
    found: _Found, body: bytes, known: Names, sender_no: int | None, rows_max: int
) -> Columns:
    places, rows, bad = found.places, found.rows, found.bad
    count = len(rows) + len(bad)
    if count > rows_max:
        raise Unreadable("too-many-rows", f"{count} rows, at most {rows_max} in one request")
    names = list(map(_device_of, rows))
    named = len(names) - names.count("")
    sent = _every(rows) if found.is_sure else _sent(body, rows, named)
    if sent is None:
        return _columns(_rowwise(found.raws()), body, known, sender_no, rows_max)
    nothing = np.zeros(len(rows), np.int64)
    at_ns = sent.get("at_ns", nothing)
    if sender_no is None and named < len(names):
        bad += [
            BadRow(place, "", "device-missing", "no device named; add `device`", "device")
            for place, name in zip(places, names, strict=True)
            if not name
        ]
    if "at" in sent:
        at_ns = _with_texts(rows, places, at_ns, bad)
    order = at_ns
    if "boot" in sent and "seq" in sent:
        order = rank(sent["boot"], sent["seq"], at_ns)
    raws = cache(found.raws)
    columns = Columns(
        rows=np.fromiter(places, np.intp, len(rows)),
        device_no=known.resolve(names, sender_no),
        at_ns=at_ns,
        order=order,
        values={METRIC_OF[name]: sent[name] for name in METRIC_OF if name in sent},
        bad=bad,
        raw=lambda row: raws()[row],
        name=_name_by_row(places, names, bad),
        count=count,
    )
    return _without(columns, known) if bad else columns


def _name_by_row(
    places: Sequence[int], names: Sequence[str], bad: Sequence[BadRow]
) -> Callable[[int], str]:
    if not bad:
        return lambda row: names[row]
    told = dict(zip(places, names, strict=True)) | {one.row: one.device for one in bad}
    return lambda row: told.get(row, "")


def _every(rows: Sequence[Row]) -> dict[str, Column]:
    """Return every column that some row has, by field."""
    columns = {field: _column(rows, field) for field in _FIELDS if field != "device"}
    return {field: column for field, column in columns.items() if _said(field, column)}


def _sent(body: bytes, rows: Sequence[Row], named: int) -> dict[str, Column] | None:
    """Return the columns some row has, or None where an object may name a key twice.

    Decoders keep the last of two and say nothing. So the keys in the text are counted, and have to
    be as many as were read; then, too, no column has to be looked for once all are found.
    """
    if not rows:
        return {}
    # Most bodies have no such character at all, and one that is absent is found so very fast.
    if any(space in body and b'"' + space in body for space in (b" ", b"\t", b"\n", b"\r")):
        # Perhaps there are spaces before colons; then keys cannot be counted so simply.
        columns = _every(rows)
        counted = {"device": named} | {
            field: _said(field, column) for field, column in columns.items()
        }
        is_sure = all(body.count(f'"{f}"'.encode()) == counted.get(f, 0) for f in _FIELDS)
        return columns if is_sure else None
    wanted = body.count(b'":') - body.count(b'"readings":') - named
    columns = {}
    # What the first row has, the others probably have: then the search ends early.
    first = rows[0]
    order = sorted(_FIELDS, key=lambda field: getattr(first, field) is _DEFAULT[field])
    for field in order:
        if wanted <= 0:
            break
        if field != "device":
            column = _column(rows, field)
            if said := _said(field, column):
                columns[field] = column
                wanted -= said
    return columns if wanted == 0 else None


def _column(rows: Sequence[Row], field: str) -> Column:
    values = map(_FIELD_OF[field], rows)
    if field == "at":
        return np.fromiter(map(bool, values), np.bool_, len(rows))
    if field == "mode":
        return np.fromiter((MODE_OF.get(word, _NAN) for word in values), np.float64, len(rows))
    return np.fromiter(values, np.float64 if field in METRIC_OF else np.int64, len(rows))


def _said(field: str, column: Column) -> int:
    """Count the rows that have a field."""
    if field in METRIC_OF:
        return int(np.count_nonzero(column == column))  # NaN: not said
    if field == "at":
        return int(np.count_nonzero(column))
    return int(np.count_nonzero(column != _DEFAULT[field]))


def _without(columns: Columns, known: Names) -> Columns:
    """Leave out rows that turned out bad, and number the devices of all that are."""
    first = {one.row: one for one in reversed(columns.bad)}
    named = [one for one in first.values() if one.device]
    numbers = dict(
        zip(
            [one.row for one in named],
            known.resolve([one.device for one in named], None).tolist(),
            strict=True,
        )
    )
    bad = [
        BadRow(b.row, b.device, b.code, b.detail, b.field, numbers.get(b.row, -1))
        for b in first.values()
    ]
    good = ~np.isin(columns.rows, list(first))
    return Columns(
        rows=columns.rows[good],
        device_no=columns.device_no[good],
        at_ns=columns.at_ns[good],
        order=columns.order[good],
        values={metric: column[good] for metric, column in columns.values.items()},
        bad=bad,
        raw=columns.raw,
        name=columns.name,
        count=columns.count,
    )


def _with_texts(
    rows: Sequence[Row], places: Sequence[int], at_ns: Longs, bad: list[BadRow]
) -> Longs:
    texts = [row.at for row in rows]
    told = np.fromiter((bool(text) for text in texts), np.bool_, len(texts))
    if told.all():
        parsed, is_bad = rfc3339.parse(texts)
    else:
        parsed, is_bad = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
        some = np.flatnonzero(told)
        parsed[some], is_bad[some] = rfc3339.parse([texts[place] for place in some.tolist()])
    twice = told & (at_ns != 0)
    for place in np.flatnonzero(is_bad | twice).tolist():
        row = rows[place]
        code, detail = (
            ("time-twice", "both at and at_ns; send one")
            if twice[place]
            else ("time-unreadable", f"at {row.at[:40]!r} is no RFC 3339 time with a zone")
        )
        bad.append(BadRow(places[place], row.device, code, detail, "at"))
    return np.where(told, parsed, at_ns)


def _raws(body: bytes) -> list[bytes]:
    """Return the text of every row. Raises Unreadable where the whole is no list of rows."""
    try:
        found = _decode_raws.decode(body)
        raws = found if isinstance(found, list) else found.readings
        return [bytes(raw) for raw in raws]
    except msgspec.ValidationError as error:
        if body.lstrip()[:1] == b"{" and b'"readings"' not in body:
            return [body]
        raise Unreadable(
            "body-shape", f'{error}; send [{{…}}, …] or {{"readings": [{{…}}, …]}}'
        ) from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        return _salvaged(body, error)


def _salvaged(body: bytes, error: Exception) -> list[bytes]:
    """Cut a body into rows where only words that JSON does not know stand in the way.

    Many languages write NaN and Infinity into JSON; the other rows need not suffer for it.
    """
    if b"NaN" in body or b"Infinity" in body or b"\\u" in body:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            found = found.get("readings", [found])
        if isinstance(found, list):
            # Still with NaN in it, so that the row itself is refused, and kept as it came.
            return [json.dumps(row).encode() for row in found]
    if isinstance(error, RecursionError):
        raise Unreadable("body-depth", "nested too deeply") from None
    raise Unreadable("body-malformed", str(error)) from None


def _lines(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if line.strip()]


def _rowwise(raws: Sequence[bytes]) -> _Found:
    places: list[int] = []
    rows: list[Row] = []
    bad: list[BadRow] = []
    for place, raw in enumerate(raws):
        try:
            row = _decode_row.decode(raw)
            if _sent(raw, [row], bool(row.device)) is None and _names_twice(raw):
                bad.append(BadRow(place, row.device, "row-ambiguous", "a key stands there twice"))
                continue
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            bad.append(_bad(place, raw, error))
            continue
        places.append(place)
        rows.append(row)
    return _Found(places, rows, bad, lambda: raws, is_sure=True)


def _names_twice(raw: bytes) -> bool:
    pairs: list[list[str]] = []

    def note(found: list[tuple[str, Any]]) -> None:
        pairs.append([key for key, _ in found])

    json.loads(raw, object_pairs_hook=note)
    return any(len(set(keys)) < len(keys) for keys in pairs)


def _bad(place: int, raw: bytes, error: Exception) -> BadRow:
    """Say what is wrong with a row, and whose it seems to be."""
    try:
        device = _decode_named.decode(raw).device[:NAME_LENGTH_MAX]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        device = ""
    if b"NaN" in raw or b"Infinity" in raw:
        return BadRow(
            place, device, "value-unreadable", "NaN and Infinity are no JSON; leave out what is "
            "not known",
        )  # fmt: skip
    if isinstance(error, RecursionError):
        return BadRow(place, device, "row-depth", "nested too deeply")
    message = str(error)
    what, _, path = message.partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if isinstance(error, msgspec.ValidationError):
        if "unknown field" in what:
            return BadRow(place, device, "field-unknown", what + "; see docs/adapters/http.md")
        said = f"{field}: {what}" if field else what
        return BadRow(place, device, "value-unreadable", said, field)
    return BadRow(place, device, "row-malformed", message)
