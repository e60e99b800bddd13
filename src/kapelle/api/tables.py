"""Arrow tables as people and programs take them: JSON, CSV, Arrow IPC, Parquet."""

import io
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

Form = Literal["json", "csv", "arrow", "parquet"]

MEDIA_TYPES: Mapping[Form, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
_UTC = pa.timestamp("ns", "UTC")


def encode(table: pa.Table, form: Form) -> bytes:
    """Return a table as bytes. JSON: one object a row, what is not known is null."""
    match form:
        case "json":
            return msgspec.json.encode(rows(table))
        case "csv":
            buffer = io.BytesIO()
            pyarrow.csv.write_csv(_harmless(_without_nan(_with_texts(table))), buffer)
            return buffer.getvalue()
        case "arrow":
            sink = pa.BufferOutputStream()
            table = in_utc(table)
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            return bytes(sink.getvalue())
        case "parquet":
            sink = pa.BufferOutputStream()
            pyarrow.parquet.write_table(in_utc(table), sink, compression="zstd")
            return bytes(sink.getvalue())


def rows(table: pa.Table) -> list[dict[str, object]]:
    """Return one dictionary a row: moments as RFC 3339 in UTC, what is not known as None."""
    found: list[dict[str, object]] = _without_nan(_with_texts(table)).to_pylist()
    return found


def in_utc(table: pa.Table) -> pa.Table:
    """Return the table with every moment marked as what it is: UTC."""
    return _mapped(table, lambda column: column.cast(_UTC), pa.types.is_timestamp)


def _with_texts(table: pa.Table) -> pa.Table:
    return _mapped(table, _text, pa.types.is_timestamp)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = pc.strftime(column.cast(_UTC), format="%Y-%m-%dT%H:%M:%SZ")
    # `%S` carries nine digits; nobody wants to read their zeros.
    whole = pc.replace_substring_regex(texts, pattern=r"\.0+Z$", replacement="Z")
    return pc.replace_substring_regex(whole, pattern=r"(\.\d*[1-9])0+Z$", replacement=r"\1Z")


def _without_nan(table: pa.Table) -> pa.Table:
    return _mapped(table, _known, pa.types.is_floating)


def _known(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _harmless(table: pa.Table) -> pa.Table:
    """Keep a spreadsheet from taking what a stranger wrote for a formula."""
    return _mapped(
        table,
        lambda column: pc.replace_substring_regex(column, r"^([=+\-@\t\r])", r"'\1"),
        pa.types.is_string,
    )


def _mapped(
    table: pa.Table,
    change: Callable[[pa.ChunkedArray], pa.ChunkedArray],
    applies: Callable[[pa.DataType], bool],
) -> pa.Table:
    columns = {
        name: change(column) if applies(column.type) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pa.table(columns)
