"""Rows in the order of a table, each of them once."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kapelle.history.tables import Table
from kapelle.model.ids import Longs

Numbers = NDArray[np.int64]
"""A column of integers; also of fewer bits."""


def in_order(table: Table, rows: pa.Table) -> pa.Table:
    """Return rows sorted as the table's files are, without repetitions.

    Rows are given in the order they arrived in; of those equal in the table's key the first stays.
    """
    if len(rows) < 2:
        return rows
    rows = rows.combine_chunks()
    if not all(pa.types.is_integer(rows.schema.field(name).type) for name in table.sort):
        return rows.take(pc.sort_indices(rows, [(name, "ascending") for name in table.sort]))
    columns = [numbers(rows, name) for name in table.sort]
    places = _places(columns)
    if places is None and not table.key:
        return rows
    if places is not None:
        columns = [column[places] for column in columns]
    if table.key:
        assert table.key == table.sort[: len(table.key)], "repetitions lie side by side"
        is_first = changes(columns[: len(table.key)])
        if not is_first.all():
            kept = np.flatnonzero(is_first)
            places = kept if places is None else places[kept]
    return rows if places is None else rows.take(pa.array(places))


def numbers(rows: pa.Table, name: str) -> Numbers:
    """Return a column of integers or times [ns] as an array."""
    column = rows.column(name)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    found: Numbers = array.to_numpy(zero_copy_only=False)
    return found


def changes(columns: list[Numbers]) -> NDArray[np.bool_]:
    """Return where a row differs from the one before it in any column; True for the first."""
    is_new = np.zeros(len(columns[0]), np.bool_)
    is_new[:1] = True
    for column in columns:
        is_new[1:] |= column[1:] != column[:-1]
    return is_new


def _places(columns: list[Numbers]) -> Longs | None:
    """Return the stable order of rows by columns, the first of them first; None: it is so."""
    if _ascends(columns):
        return None
    # Reports mostly arrive in the order they were made in: one sort by device is enough then.
    places = np.argsort(columns[0], kind="stable")
    if len(columns) > 1 and not _ascends([column[places] for column in columns]):
        places = np.lexsort(columns[::-1])
    return places


def _ascends(columns: list[Numbers]) -> bool:
    is_level = np.ones(len(columns[0]) - 1, np.bool_)
    for column in columns:
        if (is_level & (column[1:] < column[:-1])).any():
            return False
        is_level &= column[1:] == column[:-1]
    return True
