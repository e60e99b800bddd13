"""Merges small files: of an hour that is over into one, hours of a day that is over into one.

A merge writes beside what there is and takes over in one transaction of the catalog, together with
the tiers made of it. It goes in steps of bounded size, so that flushes are not held up.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from kapelle.history import tiers
from kapelle.history.catalog import File
from kapelle.history.layout import Layout, from_file
from kapelle.history.order import in_order
from kapelle.history.settings import HistorySettings
from kapelle.history.store import RECENT_NS, Span, Store
from kapelle.history.tables import DAY_NS, METRICS, TABLES, Table
from kapelle.model.ids import NS_PER_S

CHUNK_ROWS = 1_000_000
"""Rows that are sorted at once, about; more only where one device has more."""
_TIERS = ("minutes", "quarters")
_OPEN, _MERGED, _SETTLED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Job:
    """Files to be replaced by one."""

    span: Span
    files: tuple[File, ...]
    level: int


def due(files: Iterable[File], now_ns: int, settings: HistorySettings) -> list[Job]:
    """Return what there is to merge, the youngest first: those are asked for most.

    Args:
        files: The files of whole days: all those of a table, partition and day, or none.
        now_ns: The present.
        settings: How long to wait, and how many small files are too many.
    """
    jobs: list[Job] = []
    ordered = sorted(files, key=lambda file: (file.table, file.partition, file.starts_ns))
    for (name, partition, day), group in groupby(
        ordered, key=lambda file: (file.table, file.partition, file.starts_ns // DAY_NS)
    ):
        if name in _TIERS:
            continue
        table, of_day = TABLES[name], list(group)
        ends_ns = (day + 1) * DAY_NS
        if now_ns >= ends_ns + RECENT_NS + settings.close_s * NS_PER_S:
            jobs += _job(
                Span(table, partition, ends_ns - DAY_NS, ends_ns), of_day, now_ns, settings
            )
            continue
        spans = sorted({(file.starts_ns, file.ends_ns) for file in of_day})
        for starts_ns, stop_ns in spans:
            inside = [f for f in of_day if (f.starts_ns, f.ends_ns) == (starts_ns, stop_ns)]
            span = Span(table, partition, starts_ns, stop_ns)
            # A day's late rows wait for the rest of their day: merged alone, their tiers would take
            # the place of those of its hours.
            waits = name == "readings" and stop_ns - starts_ns == DAY_NS
            if not waits and now_ns >= stop_ns + settings.close_s * NS_PER_S:
                jobs += _job(span, inside, now_ns, settings)
            else:
                jobs += _crowd(span, inside, settings.compact_files)
    return sorted(jobs, key=lambda job: -job.span.starts_ns)


def _job(span: Span, files: Sequence[File], now_ns: int, settings: HistorySettings) -> list[Job]:
    """Merge a span that is over for good; where it was and has late rows, wait for more."""
    loose = [file for file in files if file.level < _SETTLED]
    spans = [(file.starts_ns, file.ends_ns) for file in files]
    if not loose and spans == [(span.starts_ns, span.ends_ns)]:
        return []
    if loose and len(loose) < len(files):
        quiet_ns = now_ns - max(file.made_at_ns for file in loose)
        waited_ns = now_ns - min(file.made_at_ns for file in loose)
        late_ns = settings.late_s * NS_PER_S
        if quiet_ns < late_ns and waited_ns < 6 * late_ns:
            return []
    return [Job(span, tuple(files), _SETTLED)]


def _crowd(span: Span, files: Sequence[File], most: int) -> list[Job]:
    """Merge the small files of a span that goes on, where there are too many."""
    small = [file for file in files if file.level == _OPEN]
    merged = [file for file in files if file.level == _MERGED]
    if len(merged) >= most:
        small = [*merged, *small]
    elif len(small) < most:
        return []
    return [Job(span, tuple(small), _MERGED)]


class Merge:
    """One job in steps."""

    def __init__(self, store: Store, job: Job, now_ns: int, chunk_rows: int = CHUNK_ROWS) -> None:
        self._store = store
        self._job = job
        self._now_ns = now_ns
        self._chunk_rows = chunk_rows
        self._steps = self._run()

    def step(self) -> bool:
        """Do a part of the work; return whether there is more."""
        return next(self._steps, None) is not None

    def close(self) -> None:
        """Give up: what was written so far is garbage, and goes with the next recovery."""
        self._steps.close()

    def _run(self) -> Generator[bool]:
        job, store, span = self._job, self._store, self._job.span
        arrival = min(file.arrival for file in job.files)
        is_thinned = span.table.name == "readings" and job.level == _SETTLED
        layout = Layout.joining(span.table, (Layout.parse(file.columns) for file in job.files))
        with store.drafting(span, layout, job.level, self._now_ns, arrival) as draft:
            thin = [
                store.drafting(
                    Span(TABLES[name], span.partition, span.starts_ns, span.ends_ns),
                    _tier_layout(TABLES[name], layout),
                    _SETTLED,
                    self._now_ns,
                )
                for name in _TIERS
                if is_thinned
            ]
            try:
                for rows in _chunks(store, span.table, job.files, self._chunk_rows):
                    draft.write(rows)
                    if thin:
                        by_minute = tiers.minutes(rows)
                        thin[0].write(by_minute)
                        thin[1].write(tiers.quarters(by_minute))
                    yield True
                made = [draft.finish(), *(tier.finish() for tier in thin)]
            finally:
                for tier in thin:
                    tier.close()
        replaced = [file.file_no for file in job.files]
        if is_thinned:
            replaced += self._older_tiers()
        store.publish(made)
        store.catalog.commit(made, replaced, at_ns=self._now_ns)

    def _older_tiers(self) -> list[int]:
        span = self._job.span
        return [
            file.file_no
            for name in _TIERS
            for file in self._store.catalog.files(name, span.partition)
            if file.overlaps(span.starts_ns, span.ends_ns)
        ]


def _tier_layout(tier: Table, readings: Layout) -> Layout:
    """Return what holds a tier of readings: whole minutes, of the metrics that they tell."""
    whole = Layout.whole(tier)
    silent = {name for name in METRICS if name not in readings.columns}
    return Layout(tuple(name for name in whole.columns if name not in silent), "ms")


def _chunks(
    store: Store, table: Table, files: Sequence[File], chunk_rows: int
) -> Iterator[pa.Table]:
    """Yield the rows of files, sorted and once, in chunks that no device is divided by."""
    ordered = sorted(files, key=lambda file: (file.arrival, file.file_no))
    with ExitStack() as opened:
        paths = [store.directory / file.path for file in ordered]
        parts = [opened.enter_context(pq.ParquetFile(path)) for path in paths]
        if "device_no" not in table.sort[:1]:
            yield in_order(table, pa.concat_tables([from_file(table, p.read()) for p in parts]))
            return
        cuts = _cuts(parts, chunk_rows)
        for first, stop in pairwise(cuts):
            found = [_between(table, part, first, stop) for part in parts]
            yield in_order(table, pa.concat_tables(found))


def _groups(part: pq.ParquetFile) -> Iterator[tuple[int, int, int]]:
    """Yield rows, lowest and highest device of each row group."""
    meta = part.metadata
    column = meta.schema.names.index("device_no")
    for group in range(meta.num_row_groups):
        found = meta.row_group(group).column(column).statistics
        yield meta.row_group(group).num_rows, found.min, found.max


def _cuts(parts: Sequence[pq.ParquetFile], chunk_rows: int) -> list[int]:
    """Return device numbers between which there are about so many rows, first and end included."""
    groups = sorted((low, high, rows) for part in parts for rows, low, high in _groups(part))
    if not groups:
        return []
    cuts, rows_since = [groups[0][0]], 0
    for low, _, rows in groups:
        if rows_since + rows > chunk_rows and low > cuts[-1]:
            cuts.append(low)
            rows_since = 0
        rows_since += rows
    return [*cuts, max(high for _, high, _ in groups) + 1]


def _between(table: Table, part: pq.ParquetFile, first: int, stop: int) -> pa.Table:
    places = [
        place for place, (_, low, high) in enumerate(_groups(part)) if low < stop and first <= high
    ]
    rows = from_file(table, part.read_row_groups(places)) if places else table.schema.empty_table()
    device_no = rows.column("device_no").to_numpy()
    inside = (device_no >= first) & (device_no < stop)
    return rows if inside.all() else rows.filter(pa.array(inside))
