"""The record on disk: writes and reads its files, and takes them into the catalog.

Nothing here waits for anything but the disk, and only one caller at a time may write.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from kapelle.history.catalog import Catalog, File
from kapelle.history.files import Files
from kapelle.history.layout import Layout, from_file, row_groups, to_file
from kapelle.history.order import in_order, numbers
from kapelle.history.settings import HistorySettings
from kapelle.history.tables import DAY_NS, HOUR_NS, TABLES, TIME, Table
from kapelle.model.ids import Ints, Longs

_DRAFT = ".draft"
_SUFFIX = ".parquet"
RECENT_NS = 2 * HOUR_NS
"""Rows this young go to files of their hour, also just after midnight."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table and partition, in the order they arrived in, with its schema."""

    table: str
    partition: int
    data: pa.Table


@dataclass(frozen=True, slots=True)
class Span:
    """What a file is of: one table, one partition, [starts_ns, ends_ns)."""

    table: Table
    partition: int
    starts_ns: int
    ends_ns: int


class Store:
    """The record in one directory."""

    def __init__(
        self,
        directory: Path,
        settings: HistorySettings | None = None,
        files: Files | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.directory = directory
        self.settings = settings or HistorySettings()
        self.files = files or Files()
        if not read_only:
            self.files.make(directory)
        self.catalog = Catalog(directory, read_only=read_only)
        self._next_no = 0 if read_only else self.catalog.next_no()

    def close(self) -> None:
        """Let go of the catalog."""
        self.catalog.close()

    def recover(self) -> int:
        """Remove what a crash left: files the catalog does not know. Return how many."""
        known, removed = self.catalog.paths(), 0
        for name in TABLES:
            for path in sorted((self.directory / name).glob("*/*")):
                if str(path.relative_to(self.directory)) not in known:
                    self.files.remove(path)
                    removed += 1
        return removed

    def commit(
        self,
        rows: Iterable[Rows],
        *,
        now_ns: int,
        positions: Mapping[str, int] | None = None,
        states: Mapping[str, bytes | None] | None = None,
    ) -> list[File]:
        """Write rows into new files and take them in, with positions and states, as one.

        Args:
            rows: They come after everything committed before.
            now_ns: The present; rows of days that are over go into one file per day.
            positions: How far each topic has been followed with these rows.
            states: Whatever must be as old as the rows, complete once they have been taken; None
                forgets.

        Raises:
            OSError: The disk failed or is full; nothing of it counts.
        """
        made: list[File] = []
        for part in rows:
            for span, inside in _spans(part, now_ns):
                ordered = in_order(span.table, inside)
                layout = Layout.of(span.table, ordered)
                with self.drafting(span, layout, 0, now_ns) as draft:
                    draft.write(ordered)
                    made.append(draft.finish())
        self.publish(made)
        self.catalog.commit(made, at_ns=now_ns, positions=positions, states=states)
        return made

    def drafting(
        self, span: Span, layout: Layout, level: int, now_ns: int, arrival: int | None = None
    ) -> "Draft":
        """Begin a file that does not count yet.

        `layout`: holds whatever will be written. `arrival`: the lowest of the files whose rows
        these are; None for new rows.
        """
        number, self._next_no = self._next_no, self._next_no + 1
        path = _path(span, number)
        file = File(
            table=span.table.name,
            partition=span.partition,
            starts_ns=span.starts_ns,
            ends_ns=span.ends_ns,
            first_ns=span.ends_ns,
            last_ns=span.starts_ns,
            rows=0,
            bytes=0,
            level=level,
            columns=str(layout),
            path=path,
            made_at_ns=now_ns,
            file_no=number,
            arrival=number if arrival is None else arrival,
        )
        return Draft(self, span.table, layout, file)

    def publish(self, made: Iterable[File]) -> None:
        """Give drafts their names, durably. They count once the catalog has them."""
        directories: list[Path] = []
        for file in made:
            final = self.directory / file.path
            self.files.rename(final.with_suffix(_DRAFT), final)
            if final.parent not in directories:
                directories.append(final.parent)
        for directory in directories:
            self.files.sync(directory)

    def read(
        self,
        table: str,
        partition: int | None = None,
        starts_ns: int | None = None,
        ends_ns: int | None = None,
        *,
        device_nos: Sequence[int] | Longs | Ints | None = None,
    ) -> pa.Table:
        """Return rows in [starts_ns, ends_ns), sorted and without repetitions.

        All of them are held in memory: ask for what fits. `device_nos`: only these.
        """
        what = TABLES[table]
        found = self.scan(table, partition, starts_ns, ends_ns, device_nos=device_nos)
        return in_order(what, found)

    def scan(
        self,
        table: str,
        partition: int | None = None,
        starts_ns: int | None = None,
        ends_ns: int | None = None,
        *,
        device_nos: Sequence[int] | Longs | Ints | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return what `read` does for those who sort it themselves: in the order of arrival, with
        repetitions, and only some columns where given."""
        what = TABLES[table]
        found = self.catalog.files(table, partition, starts_ns, ends_ns)
        found.sort(key=lambda file: (file.arrival, file.file_no))
        paths = [self.directory / file.path for file in found]
        return read_files(paths, what, starts_ns, ends_ns, device_nos, columns)


class Draft:
    """A file while it is written: sorted chunks, one after the other."""

    def __init__(self, store: Store, table: Table, layout: Layout, file: File) -> None:
        self._files = store.files
        self._table = table
        self._layout = layout
        self._file = file
        self._path = (store.directory / file.path).with_suffix(_DRAFT)
        self._row_group = store.settings.row_group
        self._files.make(self._path.parent)
        options = layout.options(table, store.settings)
        self._writer = self._files.open(self._path, layout.schema(table), **options)
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; one that is not finished is garbage."""
        if self._is_open:
            self._is_open = False
            self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Add rows; in the table's order they follow all those before."""
        if not len(rows):
            return
        laid = to_file(self._table, rows, self._layout)
        for group in row_groups(self._table, rows, self._row_group):
            self._files.write(self._writer, laid.slice(group.start, group.stop - group.start))
        times = numbers(rows, self._table.time)
        self._file = replace(
            self._file,
            rows=self._file.rows + len(rows),
            first_ns=min(self._file.first_ns, int(times.min())),
            last_ns=max(self._file.last_ns, int(times.max())),
        )

    def finish(self) -> File:
        """Make the file durable under its draft's name and return it."""
        self._is_open = False
        return replace(self._file, bytes=self._files.finish(self._writer, self._path))


def read_files(
    paths: Sequence[Path],
    table: Table,
    starts_ns: int | None = None,
    ends_ns: int | None = None,
    device_nos: Sequence[int] | Longs | Ints | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return the rows of files in [starts_ns, ends_ns), of some devices where given.

    They stand as they do in the files, one file after the other; with all columns or some.
    """
    condition = pc.scalar(True)
    if starts_ns is not None:
        condition &= pc.field(TIME) >= pa.scalar(starts_ns, pa.timestamp("ns"))
    if ends_ns is not None:
        condition &= pc.field(TIME) < pa.scalar(ends_ns, pa.timestamp("ns"))
    if device_nos is not None:
        condition &= pc.field("device_no").isin(pa.array(device_nos, pa.int32()))
    wanted = [table.in_files(name) for name in columns or table.schema.names]
    wanted += [name for name in (TIME,) if name not in wanted]
    # One scan of all files: opened one by one, small files cost more than their rows.
    found = ds.dataset([str(path) for path in paths], schema=table.file_schema, format="parquet")
    return from_file(table, found.to_table(wanted, filter=condition), columns)


def _spans(part: Rows, now_ns: int) -> Iterator[tuple[Span, pa.Table]]:
    """Divide rows by what their files cover: an hour, or a day where the day is over."""
    if not len(part.data):
        return
    table = TABLES[part.table]
    times = numbers(part.data, table.time).astype(np.int64)
    spans_ns = np.where(
        times >= min(now_ns // DAY_NS * DAY_NS, now_ns - RECENT_NS), table.span_ns, DAY_NS
    )
    starts = times // spans_ns * spans_ns
    # An hour of today and the day itself may start together; no start is an odd number.
    spans = starts + (spans_ns == DAY_NS)
    # Few differ from the one before: sorting all of them would hold up every thread.
    begins = np.append(True, spans[1:] != spans[:-1])
    for span in np.unique(spans[begins]).tolist():
        starts_ns, span_ns = span // 2 * 2, DAY_NS if span % 2 else table.span_ns
        inside = spans == span
        rows = part.data if inside.all() else part.data.filter(pa.array(inside))
        yield Span(table, part.partition, starts_ns, starts_ns + span_ns), rows


def _path(span: Span, number: int) -> str:
    starts = str(np.datetime64(span.starts_ns, "ns").astype("datetime64[m]"))
    day, _, minute = starts.partition("T")
    part = "day" if span.ends_ns - span.starts_ns >= DAY_NS else minute.replace(":", "")
    owner = f"p{span.partition}" if span.partition >= 0 else "plant"
    return f"{span.table.name}/{day}/{part}-{owner}-{number:09d}{_SUFFIX}"
