"""Bodies of entries as bytes, and the checksum that seals an entry.

A block is a header and one little-endian array per column, each on a multiple of 8 bytes, so that
reading it is `np.frombuffer` without a copy:

    u1 format · u1 kind · u2 schema · u4 rows · u4 columns (bits) · u4 metrics (bits)
    column, padded to 8 · column, padded to 8 · …

A ragged column is its ends as int32 (one per row), padded to 8, then the bytes of all rows one
after the other, padded to 8. The metrics of readings follow the columns as float64. A small body
is the first 8 bytes of that header (rows: 0) and MessagePack.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from kapelle.errors import JournalDamaged
from kapelle.model.blocks import Block, ColumnType, Ragged, Readings
from kapelle.model.entries import BODY_OF, KIND_OF, Body, Kind
from kapelle.model.enums import Metric
from kapelle.model.ids import Floats

FORMAT = 1
"""Layout of the header and the columns. A higher one was written by a newer Kapelle."""

SCHEMA: Mapping[Kind, int] = dict.fromkeys(Kind, 1) | {Kind.ENROLLED: 3}
"""Version of each kind's columns or fields. It rises when one is added, at the end; a reader fills
in what an older writer did not know, and refuses what a newer one does. It does not rise for a new
`Metric`: each block says which it has, and who lacks one refuses only the blocks with it."""

BODY_BYTES_MAX = 512 << 20
"""No body is longer; SQLite ends at 1 GB."""

_START = struct.Struct("<BBHI")
_BITS = struct.Struct("<II")
_HEADER_BYTES = _START.size + _BITS.size
_SEAL = struct.Struct("<qBqqI")
_PAD = tuple(bytes(n) for n in range(8))

_BLOCKS: dict[Kind, type[Block]] = {
    kind: cast("type[Block]", body) for kind, body in BODY_OF.items() if hasattr(body, "COLUMNS")
}
_COLUMNS: dict[Kind, tuple[tuple[str, ColumnType], ...]] = {
    kind: tuple(body.COLUMNS.items()) for kind, body in _BLOCKS.items()
}
_METRIC_BITS = sum(1 << metric for metric in Metric)
_small_encoder = msgspec.msgpack.Encoder()
_small_decoders = {
    kind: msgspec.msgpack.Decoder(body) for kind, body in BODY_OF.items() if kind not in _BLOCKS
}


class JournalNewer(JournalDamaged):
    """Written by a newer Kapelle. Skipping it would change the outcome, so reading stops."""


def encode(body: Body) -> bytes:
    """Return the bytes of a body.

    Raises:
        ValueError: Columns of unequal length, a type that would lose values, or a body beyond
            `BODY_BYTES_MAX`.
    """
    kind = KIND_OF[type(body)]
    if kind in _BLOCKS:
        encoded = b"".join(_block_parts(kind, cast("Block", body)))
    else:
        encoded = _START.pack(FORMAT, kind, SCHEMA[kind], 0) + _small_encoder.encode(body)
    if len(encoded) > BODY_BYTES_MAX:
        raise ValueError(f"a {kind.name} body of {len(encoded)} bytes; divide its rows")
    return encoded


def decode(kind: Kind, encoded: bytes) -> Body:
    """Return the body; its arrays look into `encoded` and cannot be written.

    Raises:
        JournalNewer: Format, schema, a column or a metric is unknown here.
        JournalDamaged: Anything else that is not a body of this kind.
    """
    try:
        if kind in _BLOCKS:
            return _decode_block(kind, encoded)
        _check_start(kind, encoded)
        body: Body = _small_decoders[kind].decode(memoryview(encoded)[_START.size :])
        return body
    except (ValueError, RecursionError, struct.error) as error:
        # MessagePack errors are ValueErrors; deep nesting ends in a RecursionError.
        raise JournalDamaged(f"not a {kind.name} body: {error}") from error


def checksum(
    topic: str, position: int, kind: int, writer: str, epoch: int, at_ns: int, body_crc: int
) -> int:
    """Return the CRC-32 of an entry, given that of its encoded body."""
    seal = _SEAL.pack(position, kind, epoch, at_ns, body_crc) + f"{topic}\0{writer}".encode()
    return zlib.crc32(seal)


def _block_parts(kind: Kind, block: Block) -> list[bytes | memoryview]:
    columns = _COLUMNS[kind]
    rows = len(block)
    metrics = sorted(block.values.items()) if isinstance(block, Readings) else []
    metric_bits = sum(1 << metric for metric, _ in metrics)
    parts: list[bytes | memoryview] = [
        _START.pack(FORMAT, kind, SCHEMA[kind], rows),
        _BITS.pack((1 << len(columns)) - 1, metric_bits),
    ]
    for name, dtype in columns:
        value = getattr(block, name)
        if isinstance(dtype, np.dtype):
            parts += _array_parts(name, value, dtype, rows)
        else:
            parts += _ragged_parts(name, value, rows)
    for metric, values in metrics:
        parts += _array_parts(metric.name, values, _F8, rows)
    return parts


_F8: np.dtype[np.generic] = np.dtype("<f8")
_I4: np.dtype[np.generic] = np.dtype("<i4")


def _array_parts(
    name: str, value: NDArray[np.generic], dtype: np.dtype[np.generic], rows: int
) -> list[bytes | memoryview]:
    if value.shape != (rows,):
        raise ValueError(f"column {name} has shape {value.shape}, the block {rows} rows")
    if value.dtype != dtype:
        if not np.can_cast(value.dtype, dtype, "same_kind"):
            raise ValueError(f"column {name} is {value.dtype}, not {dtype}")
        value = value.astype(dtype)
    if not value.flags.c_contiguous:
        value = np.ascontiguousarray(value)
    return [value.data, _PAD[-value.nbytes % 8]]


def _ragged_parts(name: str, value: Ragged, rows: int) -> list[bytes | memoryview]:
    if len(value) != rows:
        raise ValueError(f"column {name} has {len(value)} values, the block {rows} rows")
    blob = b"".join(value)
    if len(blob) > BODY_BYTES_MAX:
        raise ValueError(f"column {name} holds {len(blob)} bytes; divide the block's rows")
    lengths = np.fromiter(map(len, value), np.int64, rows)
    ends = np.cumsum(lengths).astype(_I4)
    return [ends.data, _PAD[-ends.nbytes % 8], blob, _PAD[-len(blob) % 8]]


def _check_start(kind: Kind, encoded: bytes) -> int:
    layout, stored, schema, rows = _START.unpack_from(encoded)
    if stored != kind:
        raise ValueError(f"it says kind {stored}")
    if layout > FORMAT or schema > SCHEMA[kind]:
        raise JournalNewer(
            f"{kind.name} body of format {layout}, schema {schema}; this Kapelle reads up to "
            f"format {FORMAT}, schema {SCHEMA[kind]}: install the version that wrote it or newer"
        )
    if layout < 1 or schema < 1:
        raise ValueError(f"it says format {layout}, schema {schema}")
    return cast("int", rows)


def _check_bits(kind: Kind, column_bits: int, metric_bits: int) -> None:
    """Refuse what a block has that nobody here can read. Raises JournalNewer, ValueError."""
    if not column_bits & 1 or (metric_bits and kind is not Kind.READINGS):
        raise ValueError(f"columns {column_bits:#x}, metrics {metric_bits:#x}")
    columns, metrics = column_bits >> len(_COLUMNS[kind]), metric_bits & ~_METRIC_BITS
    if columns or metrics:
        strange = [f"column {len(_COLUMNS[kind]) + place}" for place in _places(columns)]
        strange += [f"metric {place}" for place in _places(metrics)]
        raise JournalNewer(
            f"{kind.name} body with {', '.join(strange)}, not known to this Kapelle: install the "
            "version that wrote it or newer"
        )


def _places(bits: int) -> list[int]:
    return [place for place in range(bits.bit_length()) if bits >> place & 1]


def _decode_block(kind: Kind, encoded: bytes) -> Block:
    rows = _check_start(kind, encoded)
    column_bits, metric_bits = _BITS.unpack_from(encoded, _START.size)
    names = _COLUMNS[kind]
    _check_bits(kind, column_bits, metric_bits)
    # The first column is always there, so `rows` cannot promise more than the bytes can hold.
    if rows * 4 > len(encoded):
        raise ValueError(f"{rows} rows in {len(encoded)} bytes")
    at = _HEADER_BYTES
    columns: dict[str, object] = {}
    for place, (name, dtype) in enumerate(names):
        if not column_bits >> place & 1:
            columns[name] = _absent(dtype, rows)
        elif isinstance(dtype, np.dtype):
            columns[name] = np.frombuffer(encoded, dtype, rows, at)
            at += _padded(rows * dtype.itemsize)
        else:
            columns[name], at = _decode_ragged(encoded, rows, at)
    if kind is Kind.READINGS:
        columns["values"], at = _decode_metrics(encoded, rows, at, metric_bits)
    if at != len(encoded):
        raise ValueError(f"{len(encoded)} bytes where its columns need {at}")
    make = cast("type[Readings]", _BLOCKS[kind])
    return make(**columns)  # type: ignore[arg-type]  # The columns table is what it is made of.


def _decode_metrics(
    encoded: bytes, rows: int, at: int, metric_bits: int
) -> tuple[dict[Metric, Floats], int]:
    values: dict[Metric, Floats] = {}
    for metric in Metric:
        if metric_bits >> metric & 1:
            values[metric] = np.frombuffer(encoded, np.float64, rows, at)
            at += rows * 8
    return values, at


def _decode_ragged(encoded: bytes, rows: int, at: int) -> tuple[Ragged, int]:
    array = np.frombuffer(encoded, np.int32, rows, at)
    at += _padded(rows * 4)
    ends: list[int] = array.tolist()
    length = ends[-1] if ends else 0
    if length == 0 and not array.any():
        return (b"",) * rows, at
    if ends[0] < 0 or np.any(np.diff(array) < 0) or at + length > len(encoded):
        raise ValueError("rows of a ragged column end outside it")
    blob = encoded[at : at + length]
    return _cut(blob, ends), at + _padded(length)


def _cut(blob: bytes, ends: Sequence[int]) -> Ragged:
    starts = [0, *ends[:-1]]
    return tuple([blob[start:end] for start, end in zip(starts, ends, strict=True)])


def _absent(dtype: ColumnType, rows: int) -> object:
    if not isinstance(dtype, np.dtype):
        return (b"",) * rows
    return np.full(rows, np.nan if dtype.kind == "f" else 0, dtype)


def _padded(length: int) -> int:
    return length + -length % 8
