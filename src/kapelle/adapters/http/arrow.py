"""Reads telemetry as an Arrow IPC stream: columns go straight to NumPy."""

import json
import struct
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
from kapelle.model.ids import Flags, Floats, Ints, Longs

_WHOLE = ("at_ns", "boot", "seq")
_TEXTS = ("device", "mode")
_KNOWN = {"device", "at", *_WHOLE, *METRIC_OF}
_MOST = {"at_ns": 2**63 - 1, "boot": 2**31 - 1, "seq": 2**32 - 1}
_NS_OF = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def decode_arrow(body: bytes, known: Names, sender_no: int | None, rows_max: int) -> Columns:
    """Read one stream. Null and NaN say nothing: columns have no other way to leave out a value.

    Raises:
        Unreadable: It is no Arrow stream, or its columns are not those of telemetry.
    """
    try:
        return _decode(_read(body, sender_no, rows_max), known, sender_no)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise Unreadable("body-malformed", f"no Arrow IPC stream: {reason}") from None


def _decode(table: Any, known: Names, sender_no: int | None) -> Columns:
    count = table.num_rows
    bad: dict[int, BadRow] = {}
    device_no, names = _devices(table, known, sender_no)

    def name(row: int) -> str:
        return str(names[row].as_py() or "") if names is not None else ""

    def refuse(wrong: Flags, code: str, detail: str, field: str) -> None:
        for row in np.flatnonzero(wrong).tolist():
            bad.setdefault(
                row,
                BadRow(row, name(row)[:NAME_LENGTH_MAX], code, detail, field, int(device_no[row])),
            )

    if names is not None and sender_no is None and names.null_count:
        refuse(
            _flags(pc.is_null(names)), "device-missing", "no device named; fill `device`", "device"
        )
    wholes = {field: _whole(table, field, refuse) for field in _WHOLE}
    at_ns = _times(table, wholes["at_ns"], refuse)
    order = rank(wholes["boot"], wholes["seq"], at_ns)
    values = {
        metric: _modes(table.column(field), refuse)
        if field == "mode"
        else _floats(table.column(field))
        for field, metric in METRIC_OF.items()
        if field in table.column_names
    }
    good = np.ones(count, np.bool_)
    good[list(bad)] = False
    return Columns(
        rows=np.flatnonzero(good),
        device_no=device_no[good],
        at_ns=at_ns[good],
        order=order[good],
        values={metric: column[good] for metric, column in values.items()},
        bad=list(bad.values()),
        raw=lambda row: _row_text(table, row),
        name=name,
        count=count,
    )


def _read(body: bytes, sender_no: int | None, rows_max: int) -> Any:
    count = 0
    batches = []
    _refuse_compressed(body)
    with pa.ipc.open_stream(body) as stream:
        _check_columns(stream.schema, sender_no)
        for batch in stream:
            count += batch.num_rows
            if count > rows_max:
                raise Unreadable("too-many-rows", f"more than {rows_max} rows in one request")
            # Offsets from a stranger may point anywhere; only full validation reads them all.
            batch.validate(full=True)
            batches.append(batch)
        return pa.Table.from_batches(batches, stream.schema).combine_chunks()


def _refuse_compressed(body: bytes) -> None:
    """Refuse compressed buffers: each claims its unpacked size, and the reader believes it."""
    for message in pa.ipc.MessageReader.open_stream(body):
        if message.type == "schema":
            continue
        # Field 2 of Message is its header; field 1 of DictionaryBatch is a RecordBatch, whose
        # field 3 is the compression (Arrow format, Message.fbs).
        flat = message.metadata.to_pybytes()
        header = _table(flat, _UINT.unpack_from(flat, 0)[0], 2)
        if message.type == "dictionary" and header is not None:
            header = _table(flat, header, 1)
        if header is None or _table(flat, header, 3) is not None:
            raise Unreadable(
                "encoding-unknown",
                "compressed Arrow buffers are not read; send them plain, and gzip the body",
            )


_UINT = struct.Struct("<I")
_INT = struct.Struct("<i")
_USHORT = struct.Struct("<H")


def _table(flat: bytes, table: int, slot: int) -> int | None:
    """Return where the table in a slot of a FlatBuffers table begins; None where it is absent."""
    try:
        slots = table - _INT.unpack_from(flat, table)[0]
        if 4 + 2 * slot >= _USHORT.unpack_from(flat, slots)[0]:
            return None
        offset = _USHORT.unpack_from(flat, slots + 4 + 2 * slot)[0]
        if not offset:
            return None
        place: int = table + offset
        return place + int(_UINT.unpack_from(flat, place)[0])
    except struct.error:
        raise Unreadable("body-malformed", "no Arrow IPC stream: a message is damaged") from None


def _check_columns(schema: Any, sender_no: int | None) -> None:
    names = schema.names
    unknown = sorted(set(names) - _KNOWN)
    if unknown:
        raise Unreadable("field-unknown", f"columns nobody knows: {', '.join(unknown)[:200]}")
    if len(set(names)) < len(names):
        raise Unreadable("row-ambiguous", "a column stands there twice")
    if "device" not in names and sender_no is None:
        raise Unreadable("device-missing", "no column `device`")
    for field in names:
        kind = schema.field(field).type
        if field in _TEXTS and pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not _fits(field, kind):
            raise Unreadable("field-type", f"column {field} is {kind}")


def _fits(field: str, kind: Any) -> bool:
    types = pa.types
    if field in _TEXTS:
        return bool(types.is_string(kind) or types.is_large_string(kind))
    if field == "at":
        return bool(types.is_timestamp(kind))
    if field in _WHOLE:
        return bool(types.is_integer(kind))
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _devices(table: Any, known: Names, sender_no: int | None) -> tuple[Ints, Any]:
    """Return the device of each row, and the column that names it. Each name is looked up once."""
    if "device" not in table.column_names:
        assert sender_no is not None
        return np.full(table.num_rows, sender_no, np.int32), None
    column = _chunk(table.column("device"))

    def look() -> Ints:
        coded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        names = coded.dictionary.to_pylist()
        if coded.dictionary.null_count:
            names = [name or "" for name in names]
        # One more at the end, which null rows point to.
        numbers = known.look([*names, ""], sender_no)
        codes = pc.fill_null(pc.cast(coded.indices, pa.int64()), len(names))
        found: Ints = numbers[codes.to_numpy(zero_copy_only=False)]
        return found

    return known.recall((sender_no, *_bytes_of(column)), len(column), look), column


def _bytes_of(column: Any) -> tuple[object, ...]:
    """Return everything that makes a column what it is, to compare it with another."""
    parts: list[object] = [str(column.type), len(column), column.offset]
    parts += [None if b is None else b.to_pybytes() for b in column.buffers()]
    if isinstance(column, pa.DictionaryArray):
        parts += _bytes_of(column.dictionary)
    return tuple(parts)


def _whole(table: Any, field: str, refuse: Any) -> Longs:
    """Return whole numbers; -1 (0 for a time) where nothing was said."""
    unsaid = 0 if field == "at_ns" else -1
    if field not in table.column_names:
        return np.full(table.num_rows, unsaid, np.int64)
    column = _chunk(table.column(field))
    if pa.types.is_unsigned_integer(column.type) and column.type.bit_width == 64:
        large = _flags(pc.fill_null(pc.greater(column, pa.scalar(2**63 - 1, pa.uint64())), False))
        refuse(large, "value-unreadable", f"{field} is too large", field)
        column = pc.if_else(pa.array(large), pa.scalar(0, column.type), column)
    said = _flags(pc.is_valid(column))
    whole = pc.cast(pc.fill_null(column, 0), pa.int64()).to_numpy(zero_copy_only=False)
    least = 1 if field == "at_ns" else 0
    outside = said & ((whole < least) | (whole > _MOST[field]))
    refuse(outside, "value-unreadable", f"{field} lies outside {least} to {_MOST[field]}", field)
    kept: Longs = np.where(said & ~outside, whole, unsaid)
    return kept


def _times(table: Any, at_ns: Longs, refuse: Any) -> Longs:
    if "at" not in table.column_names:
        return at_ns
    column = _chunk(table.column("at"))
    factor = _NS_OF[column.type.unit]
    said = _flags(pc.is_valid(column))
    count = pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(zero_copy_only=False)
    outside = said & ((count <= 0) | (count > (2**63 - 1) // factor))
    refuse(
        outside,
        "time-unreadable",
        f"at lies outside 1970 to 2262 in {column.type.unit}; is the unit right?",
        "at",
    )
    refuse(said & (at_ns != 0), "time-twice", "both at and at_ns; send one", "at")
    told: Longs = np.where(said & ~outside, np.where(outside, 0, count) * factor, at_ns)
    return told


def _modes(column: Any, refuse: Any) -> Floats:
    """Return the number of each word; NaN where nothing was said."""
    coded = _chunk(column)
    if not isinstance(coded, pa.DictionaryArray):
        coded = coded.dictionary_encode()
    words = coded.dictionary.to_pylist()
    # One more at the end, which null rows point to.
    numbers = np.array([np.nan if w is None else MODE_OF.get(w, -1.0) for w in words] + [np.nan])
    codes = pc.fill_null(pc.cast(coded.indices, pa.int64()), len(words))
    told: Floats = numbers[codes.to_numpy(zero_copy_only=False)]
    refuse(
        told < 0, "value-unreadable", f"mode is none of {', '.join(MODE_OF)}; leave it out", "mode"
    )
    return told


def _floats(column: Any) -> Any:
    return pc.cast(_chunk(column), pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _chunk(column: Any) -> Any:
    """Return a column as one array."""
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 0:
            return pa.array([], column.type)
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def _flags(column: Any) -> Flags:
    flags: Flags = _chunk(column).to_numpy(zero_copy_only=False)
    return flags


def _row_text(table: Any, row: int) -> bytes:
    """Return one row as text: a column format has no bytes of its own for it."""
    told = table.slice(row, 1).to_pylist()[0]
    said = {field: value for field, value in told.items() if value is not None}
    return json.dumps(said, default=_as_text).encode()


def _as_text(value: Any) -> str:
    """Return what JSON has no form for."""
    return str(value.isoformat()) if isinstance(value, datetime) else str(value)
