"""One device's readings straight from the files: sorted by device, they hold them side by side.

For so few rows, a query planner takes longer than the answer.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kapelle.errors import HistoryFailed
from kapelle.history.catalog import File
from kapelle.history.layout import DEVICE, ORDER, from_file
from kapelle.history.order import in_order, numbers
from kapelle.history.tables import TABLES, TIME

_TABLE = TABLES["readings"]
FOOTERS_BYTES = 4 << 20
"""Footers kept, as they lie in files; in memory they take nine times as much."""


_Identity = tuple[str, int, int, int]
"""Path, inode, size and time: a restored record may have other rows under a path."""


class Footers:
    """What files say of their row groups, kept for the next question: files never change.

    Of a day of many devices it takes longer to read than the rows of one. Several threads may ask
    at once.
    """

    def __init__(self, bytes_max: int = FOOTERS_BYTES) -> None:
        self._bytes_max = bytes_max
        self._known: dict[_Identity, pq.FileMetaData] = {}

    def open(self, path: Path) -> pq.ParquetFile:
        """Open a file; those not asked for the longest are forgotten where too much is kept."""
        made = path.stat()
        identity = (str(path), made.st_ino, made.st_size, made.st_mtime_ns)
        opened = pq.ParquetFile(path, metadata=self._known.pop(identity, None))
        self._known[identity] = opened.metadata
        for oldest in list(self._known):
            if self.bytes <= self._bytes_max:
                break
            self._known.pop(oldest, None)
        return opened

    @property
    def bytes(self) -> int:
        """How much is kept, as it lies in files."""
        return sum(meta.serialized_size for meta in list(self._known.values()))


def readings_of(
    directory: Path,
    files: Sequence[File],
    device_no: int,
    starts_at_ns: int,
    ends_at_ns: int,
    footers: Footers,
) -> pa.Table:
    """Return what the view `readings` shows of a device in [starts_at_ns, ends_at_ns), by time."""
    parts = list[pa.Table]()
    for file in sorted(files, key=lambda file: (file.arrival, file.file_no)):
        try:
            with footers.open(directory / file.path) as opened:
                parts += [from_file(_TABLE, rows) for rows in _rows(opened, device_no)]
        except (OSError, pa.ArrowException) as error:
            raise unreadable(directory, file.path, error) from error
    if not parts:
        return _shown(_TABLE.schema.empty_table())
    rows = parts[0] if len(parts) == 1 else pa.concat_tables(parts)
    at_ns = numbers(rows, _TABLE.time)
    inside = (at_ns >= starts_at_ns) & (at_ns < ends_at_ns)
    rows = rows if inside.all() else rows.filter(pa.array(inside))
    # Those of one file are in order, and each is there once.
    return _shown(in_order(_TABLE, rows) if len(files) > 1 else rows)


def _rows(opened: pq.ParquetFile, device_no: int) -> list[pa.Table]:
    meta = opened.metadata
    place = meta.schema.names.index(DEVICE)

    def highest(group: int) -> int:
        return int(meta.row_group(group).column(place).statistics.max)

    found, group = [], bisect_left(range(meta.num_row_groups), device_no, key=highest)
    while group < meta.num_row_groups:
        if meta.row_group(group).column(place).statistics.min > device_no:
            break
        rows = opened.read_row_group(group, use_threads=False)
        first, stop = np.searchsorted(numbers(rows, DEVICE), [device_no, device_no + 1]).tolist()
        found.append(rows.slice(first, stop - first))
        group += 1
    return found


def _shown(rows: pa.Table) -> pa.Table:
    """Return rows with the columns of the view (`views.shown`)."""
    at_ns = rows.column(_TABLE.time)
    others = [name for name in rows.schema.names if name != _TABLE.time]
    columns = [at_ns.cast(pa.timestamp("ns")), at_ns, *(rows.column(name) for name in others)]
    names = [TIME, _TABLE.time, *("rank" if name == ORDER else name for name in others)]
    return pa.table(columns, names=names)


def unreadable(directory: Path, path: str, error: Exception) -> HistoryFailed:
    """Return what to say where a file cannot be read: rather no answer than one that lacks rows."""
    why = next(iter(str(error).splitlines()), type(error).__name__)
    return HistoryFailed(
        f"{path or 'a file'} in {directory} cannot be read ({why}); kapelle verify names all that "
        "is damaged, a backup may have it"
    )


def blamed(directory: Path, files: Sequence[File], error: Exception) -> HistoryFailed | None:
    """Return what to say of an error of DuckDB that is the fault of a file; None if it is not."""
    named = re.search(re.escape(str(directory)) + r"/([^'\"]+\.parquet)", str(error))
    if named:
        return unreadable(directory, named[1], error)
    for file in files:
        path = directory / file.path
        if not path.exists() or path.stat().st_size != file.bytes:
            return unreadable(directory, file.path, error)
    text = f"{type(error).__name__} {error}".lower()
    if any(
        word in text
        for word in ("ioexception", "decompress", "corrupt", "thrift", "tprotocol", "parquet")
    ):
        return unreadable(directory, "", error)
    return None
