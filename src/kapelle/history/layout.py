"""How the rows of a table lie in a file: which columns, how fine their time, how encoded.

A file says no more than its rows do. A column that none of them has is left out, and time is kept
in the coarsest of three units that tells it exactly: most devices stamp to the millisecond, and as
nanoseconds what varies would take twice as much.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kapelle.history.order import numbers
from kapelle.history.settings import HistorySettings
from kapelle.history.tables import DELAY, TIME, Table

ORDER = "order"
DEVICE = "device_no"
_UNITS = {"ms": 1_000_000, "us": 1_000, "ns": 1}
"""Units of time that Parquet knows, coarsest first. [ns]"""
_ENCODINGS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_int32, "DELTA_BINARY_PACKED"),
    (pa.types.is_int64, "DELTA_BINARY_PACKED"),
    (pa.types.is_timestamp, "DELTA_BINARY_PACKED"),
    # Measured values vary in few of their bytes: 2 bytes a row less than with dictionaries.
    (pa.types.is_floating, "BYTE_STREAM_SPLIT"),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """What one file holds of a table."""

    columns: tuple[str, ...]
    """As files call them, in the table's order."""
    unit: str
    """Of its time."""

    @classmethod
    def of(cls, table: Table, rows: pa.Table) -> Self:
        """Return the least that holds some rows of a table."""
        times, columns = numbers(rows, table.time), []
        for name in table.schema.names:
            column = rows.column(name)
            # Where a device sends no counters its order is its time, which is not said twice.
            is_told = np.any(numbers(rows, name) != times) if name == ORDER else True
            if is_told and column.null_count < len(column):
                columns.append(table.in_files(name))
        unit = next(unit for unit, ns in _UNITS.items() if not np.any(times % ns))
        return cls(tuple(columns), unit)

    @classmethod
    def whole(cls, table: Table) -> Self:
        """Return what holds any rows of a table."""
        return cls(tuple(table.file_schema.names), "ns")

    @classmethod
    def joining(cls, table: Table, layouts: Iterable["Layout"]) -> Self:
        """Return what holds the rows of several files together."""
        parts = list(layouts)
        told = {name for part in parts for name in part.columns}
        finest = max((part.unit for part in parts), key=list(_UNITS).index)
        return cls(tuple(name for name in table.file_schema.names if name in told), finest)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote; without a unit, as older versions wrote it, it is ns."""
        columns, _, unit = text.partition(";")
        return cls(tuple(columns.split(",")), unit or "ns")

    def __str__(self) -> str:
        return f"{','.join(self.columns)};{self.unit}"

    def schema(self, table: Table) -> pa.Schema:
        """Return the schema of the file."""
        time = pa.field(TIME, pa.timestamp(self.unit))
        known = table.file_schema
        return pa.schema([time if name == TIME else known.field(name) for name in self.columns])

    def options(self, table: Table, settings: HistorySettings) -> dict[str, object]:
        """Return how the file is written."""
        schema = self.schema(table)
        encodings = {
            field.name: encoding
            for field in schema
            if (encoding := next((name for is_of, name in _ENCODINGS if is_of(field.type)), ""))
        }
        sort = [table.in_files(name) for name in table.sort]
        ordering = [(name, "ascending") for name in sort if name in self.columns]
        return {
            "compression": "zstd",
            "compression_level": settings.zstd_level,
            "use_dictionary": [name for name in schema.names if name not in encodings],
            "column_encoding": encodings,
            # Nobody looks for rows by a measured value, and a row group would tell two of each.
            "write_statistics": [f.name for f in schema if not pa.types.is_floating(f.type)],
            "sorting_columns": pq.SortingColumn.from_ordering(schema, ordering),
            "write_page_index": True,
            "write_page_checksum": True,
        }


def row_groups(table: Table, rows: pa.Table, most: int) -> Iterator[slice]:
    """Divide sorted rows into groups of at most so many; a device with fewer is in one of them."""
    device_no = numbers(rows, DEVICE) if table.sort[0] == DEVICE else None
    first = 0
    while first < len(rows):
        stop = min(first + most, len(rows))
        if stop < len(rows) and device_no is not None:
            begins = int(np.searchsorted(device_no, device_no[stop]))
            stop = begins if begins > first else stop
        yield slice(first, stop)
        first = stop


def to_file(table: Table, rows: pa.Table, layout: Layout) -> pa.Table:
    """Return rows of a table as a file holds them."""
    times, columns, schema = rows.column(table.time), [], layout.schema(table)
    for field in table.schema:
        name, column = table.in_files(field.name), rows.column(field.name)
        if name not in layout.columns:
            continue
        if name == TIME:
            # A time that the unit cannot tell is an error here, and never rounded.
            column = times.cast(pa.timestamp("ns")).cast(schema.field(TIME).type)
        elif name == DELAY:
            column = pc.subtract(column, times)
        elif name == ORDER:
            column = pc.if_else(pc.equal(column, times), pa.scalar(None, pa.int64()), column)
        columns.append(column)
    return pa.table(columns, schema=schema)


def from_file(table: Table, rows: pa.Table, names: Sequence[str] | None = None) -> pa.Table:
    """Return rows of a file with the table's own columns; null where the file has none."""
    columns, schema = [], table.schema
    if names is not None:
        schema = pa.schema([table.schema.field(name) for name in names])
    time_ns = rows.column(TIME).cast(pa.timestamp("ns")).cast(pa.int64())
    for field in schema:
        name = table.in_files(field.name)
        if name == TIME:
            columns.append(time_ns)
        elif name == DELAY and name in rows.schema.names:
            columns.append(pc.add(rows.column(name), time_ns))
        elif name in rows.schema.names:
            column = rows.column(name)
            columns.append(column if column.type == field.type else column.cast(field.type))
        else:
            columns.append(pa.nulls(len(rows), field.type))
        if name == ORDER:
            columns[-1] = pc.coalesce(columns[-1], time_ns)
    return pa.table(columns, schema=schema)
