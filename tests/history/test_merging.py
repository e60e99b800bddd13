"""However readings are cut, repeated, late and merged: the record holds each once, and the tiers
are what a slow and obvious calculation finds."""

import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.history.conftest import START_NS, HastyFiles, stored

from kapelle.errors import HistoryFailed
from kapelle.history.compaction import Merge, due
from kapelle.history.layout import Layout, row_groups
from kapelle.history.raw import Footers
from kapelle.history.reader import Reader, Session
from kapelle.history.retention import expire, sweep
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Rows, Span, Store
from kapelle.history.tables import DAY_NS, HOUR_NS, TABLES
from kapelle.model.ids import NS_PER_S

SETTINGS = HistorySettings(compact_files=2, late_s=0.0, grace_s=0.0, row_group=4)
MIDNIGHT_NS = START_NS // DAY_NS * DAY_NS


@dataclass(frozen=True)
class Report:
    device: int
    minute: int
    """Of the day before the start's, on. Few, so that repetitions and late rows are common."""
    power_w: float
    finer_ns: int = 0
    """Some devices tell their time to the microsecond, or the nanosecond."""

    @property
    def at_ns(self) -> int:
        return MIDNIGHT_NS + self.minute * 20 * NS_PER_S + self.finer_ns

    @property
    def order(self) -> int:
        # The first device sends counters, the others only their time.
        return self.at_ns if self.device else (1 << 32) + self.minute + 200 - (1 << 63)


def rows_of(reports: Sequence[Report], received_ns: int) -> Rows:
    count = len(reports)
    columns: dict[str, list[object]] = {
        "device_no": [r.device for r in reports],
        "order": [r.order for r in reports],
        "measured_at_ns": [r.at_ns for r in reports],
        "received_at_ns": [received_ns + n for n in range(count)],
        "quality": [0] * count,
        "power_w": [None if isnan(r.power_w) else r.power_w for r in reports],
    }
    schema = TABLES["readings"].schema
    arrays = [pa.array(columns.get(f.name, [None] * count), f.type) for f in schema]
    return Rows("readings", 0, pa.table(arrays, schema=schema))


def merge_all(store: Store, now_ns: int, chunk_rows: int = 5) -> int:
    done = 0
    while jobs := due(store.catalog.unmerged(), now_ns, store.settings):
        for job in jobs:
            merge = Merge(store, job, now_ns, chunk_rows)
            while merge.step():
                pass
            done += 1
    return done


def slow_minutes(truth: dict[tuple[int, int], float], step_ns: int = 60 * NS_PER_S):
    groups: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for (device, at_ns), power_w in sorted(truth.items()):
        groups.setdefault((device, at_ns // step_ns * step_ns), []).append((at_ns, power_w))
    found = {}
    for key, values in groups.items():
        known = [power for _, power in values if not isnan(power)]
        found[key] = (
            len(values),
            sum(known) / len(known) if known else None,
            min(known, default=None),
            max(known, default=None),
            len(known),
        )
    return found


def told(session: Session, view: str):
    rows = session.sql(
        f"SELECT device_no, starts_at_ns, readings, power_w, power_w_min, power_w_max, powers "
        f"FROM {view} ORDER BY 1, 2"
    ).to_pylist()
    return {(r["device_no"], r["starts_at_ns"]): tuple(r.values())[2:] for r in rows}


def close_to(found, wanted) -> None:
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        for one, other in zip(found[key], values, strict=True):
            assert one == other or one == pytest.approx(other, rel=1e-12, abs=1e-9), key


finer_ns = st.sampled_from([0, 0, 0, 1_000_000, 1_000, 1])
reports = st.builds(
    Report,
    st.integers(0, 3),
    st.integers(-200, 4400),
    st.one_of(st.just(nan), st.floats(-1e6, 1e6)),
    finer_ns,
)


@settings(max_examples=10)
@given(
    st.lists(st.tuples(st.lists(reports, min_size=1, max_size=12), st.integers(0, 5)), max_size=7),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=8),
)
def test_every_reading_once_and_tiers_as_the_slow_way(
    batches: list[tuple[list[Report], int]], busy: list[tuple[int, int]]
) -> None:
    # A device that reports several times in one minute, and again after it was merged.
    busy_reports = [Report(device, minute, float(minute)) for device, minute in busy]
    batches = [*batches, (busy_reports, 30), (busy_reports, 30)] if busy else batches
    truth: dict[tuple[int, int], float] = {}
    orders: set[tuple[int, int, int]] = set()
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name), SETTINGS, HastyFiles())
        now_ns = START_NS
        for batch, hours in batches:
            for report in batch:
                # The first to arrive stays.
                truth.setdefault((report.device, report.at_ns), report.power_w)
                orders.add((report.device, report.at_ns, report.order))
            store.commit([rows_of(batch, now_ns)], now_ns=now_ns)
            now_ns += NS_PER_S  # what arrives next arrives later
            now_ns += hours * HOUR_NS
            if hours:
                merge_all(store, now_ns)
                sweep(store, now_ns + 1)
        reader = Reader(Path(name))
        for _ in range(2):
            wanted = sorted((d, at, -1.0 if isnan(p) else p) for (d, at), p in truth.items())
            with reader.session() as session:
                rows = session.sql("SELECT device_no, measured_at_ns, power_w FROM readings")
                found = [tuple(row.values()) for row in rows.to_pylist()]
                assert sorted((d, at, -1.0 if p is None else p) for d, at, p in found) == wanted
                close_to(told(session, "minutes"), slow_minutes(truth))
                slow_quarters = slow_minutes(truth, 900 * NS_PER_S)
                assert told(session, "quarters").keys() == slow_quarters.keys()
                rows = session.sql("SELECT device_no, measured_at_ns, rank FROM readings")
                assert {tuple(row.values()) for row in rows.to_pylist()} == orders
            read = store.read("readings")
            names = ("device_no", "measured_at_ns", "order")
            assert len(read) == len(orders)
            assert set(zip(*(read[name].to_pylist() for name in names), strict=True)) == orders
            # And again when everything has become one file per day.
            now_ns += 3 * DAY_NS
            merge_all(store, now_ns)
        days = {at // DAY_NS for _, at in truth}
        assert len(store.catalog.files("readings")) == len(days)
        assert len(store.catalog.files("minutes")) == len(days)
        store.close()


def test_late_rows_of_yesterday_leave_its_hours_their_minutes(tmp_path: Path) -> None:
    """Soon after midnight: what came late for a day, and for its last hours, is to be seen."""
    store = Store(tmp_path, SETTINGS)
    now_ns = MIDNIGHT_NS + DAY_NS + 32 * 60 * NS_PER_S
    thirds = [3 * minute for minute in (21 * 60 + 15, 22 * 60 + 40, 23 * 60 + 10, 24 * 60 + 5)]
    batch = [Report(1, third, 100.0) for third in thirds]
    store.commit([rows_of(batch, now_ns)], now_ns=now_ns)
    reader = Reader(tmp_path)
    for later_s in (0, 3_600, 86_400):
        merge_all(store, now_ns + later_s * NS_PER_S)
        for view in ("readings", "minutes", "quarters"):
            assert len(reader.sql(f"FROM {view}")) == len(batch), (later_s, view)
    store.close()


def test_quarter_hours_are_the_mean_of_their_minutes(tmp_path: Path) -> None:
    # Three reports in the first minute, one in the second: each minute weighs the same.
    seconds = [(0, 100.0), (1, 200.0), (2, 300.0), (3, 0.0)]
    batch = [Report(1, minute, power_w) for minute, power_w in seconds]
    store = Store(tmp_path, SETTINGS)
    store.commit([rows_of(batch, START_NS)], now_ns=MIDNIGHT_NS)
    reader = Reader(tmp_path)
    before = reader.sql("SELECT power_w, powers FROM quarters").to_pylist()
    merge_all(store, START_NS)
    after = reader.sql("SELECT power_w, powers FROM quarters").to_pylist()
    assert before == after == [{"power_w": 100.0, "powers": 4}]
    store.close()


def test_each_tier_is_kept_for_its_time(tmp_path: Path) -> None:
    rules = HistorySettings(raw_days=50, minute_days=100, quarter_days=200, late_s=0, grace_s=60)
    store = Store(tmp_path, rules)
    store.commit([rows_of([Report(1, 0, 5.0)], START_NS)], now_ns=START_NS)
    reader = Reader(tmp_path)
    left = []
    for days in (1, 40, 52, 90, 102, 190, 202):
        now_ns = MIDNIGHT_NS + days * DAY_NS
        merge_all(store, now_ns)
        expire(store, now_ns)
        left.append([len(reader.sql(f"FROM {v}")) for v in ("readings", "minutes", "quarters")])
    rows = [[1, 1, 1]] * 2 + [[0, 1, 1]] * 2 + [[0, 0, 1]] * 2 + [[0, 0, 0]]
    assert left == rows
    # Files go only when nobody can be reading them any more.
    assert list(tmp_path.glob("*/*/*.parquet"))
    sweep(store, now_ns + 120 * NS_PER_S)
    assert not list(tmp_path.glob("*/*/*.parquet"))
    store.close()


def test_small_files_of_a_running_hour_are_merged(tmp_path: Path) -> None:
    store = Store(tmp_path, HistorySettings(compact_files=4, row_group=4))
    for second in range(40):
        store.commit([rows_of([Report(1, second, 1.0)], START_NS)], now_ns=MIDNIGHT_NS)
        merge_all(store, MIDNIGHT_NS)
        assert len(store.catalog.files("readings")) <= 2 * 4
    assert len(stored(tmp_path)) == 40
    store.close()


def test_a_late_row_waits_for_others_of_its_day(tmp_path: Path) -> None:
    store = Store(tmp_path, HistorySettings(late_s=600.0))
    store.commit([rows_of([Report(1, 0, 5.0)], START_NS)], now_ns=START_NS)
    now_ns = START_NS + 3 * DAY_NS
    assert merge_all(store, now_ns) == 1
    store.commit([rows_of([Report(1, 1, 7.0)], now_ns)], now_ns=now_ns)
    assert merge_all(store, now_ns + 599 * NS_PER_S) == 0
    # Asked for meanwhile, it is there: the tier of its day is calculated anew.
    assert Reader(tmp_path).sql("SELECT power_w FROM minutes").to_pylist() == [{"power_w": 6.0}]
    assert merge_all(store, now_ns + 601 * NS_PER_S) == 1
    assert Reader(tmp_path).sql("SELECT power_w FROM minutes").to_pylist() == [{"power_w": 6.0}]
    store.close()


def test_when_a_reading_came_is_kept_to_the_nanosecond(tmp_path: Path) -> None:
    received_ns = [MIDNIGHT_NS + delay for delay in (0, 1, 123_456_789_012, -5, -(10**18))]
    store = Store(tmp_path)
    for minute, received in enumerate(received_ns):
        store.commit([rows_of([Report(1, minute, 1.0)], received)], now_ns=START_NS)
    assert store.read("readings")["received_at_ns"].to_pylist() == received_ns
    store.close()
    told = Reader(tmp_path).sql("SELECT received_at_ns FROM readings ORDER BY time")
    assert told.column(0).to_pylist() == received_ns


def test_a_file_says_no_more_than_its_rows(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    told = ["device_no", "time", "delay_ns", "quality", "power_w"]
    for minute, finer_ns, unit in ((0, 1_000_000, "ms"), (1, 1_000, "us"), (2, 1, "ns")):
        report = Report(1, minute, 5.0, finer_ns)
        [file] = store.commit([rows_of([report], START_NS)], now_ns=START_NS)
        schema = pq.read_schema(tmp_path / file.path)
        assert schema.names == told
        assert schema.field("time").type == pa.timestamp(unit)
    counted = Report(0, 3, nan)
    [file] = store.commit([rows_of([counted], START_NS)], now_ns=START_NS)
    assert "order" in pq.read_schema(tmp_path / file.path).names
    merge_all(store, START_NS + 3 * DAY_NS)
    [file] = store.catalog.files("readings")
    schema = pq.read_schema(tmp_path / file.path)
    assert schema.names == [told[0], "order", *told[1:]]
    assert schema.field("time").type == pa.timestamp("ns")
    store.close()


@given(st.lists(st.integers(0, 9)), st.integers(1, 6))
def test_a_device_lies_in_one_row_group_where_it_fits(devices: list[int], most: int) -> None:
    count = len(devices)
    rows = rows_of([Report(device, n, 0.0) for n, device in enumerate(sorted(devices))], START_NS)
    groups = list(row_groups(TABLES["readings"], rows.data, most))
    assert [n for group in groups for n in range(group.start, group.stop)] == list(range(count))
    assert all(0 < group.stop - group.start <= most for group in groups)
    device_no = rows.data["device_no"].to_pylist()
    for device in {device for device in devices if devices.count(device) <= most}:
        assert sum(device in device_no[group] for group in groups) == 1


def test_a_record_of_the_layout_before_is_read_and_taken_over(tmp_path: Path) -> None:
    report, later = Report(1, 0, 5.0, 1), Report(1, 1, 7.0)
    store, table = Store(tmp_path, SETTINGS), TABLES["readings"]
    span = Span(table, 0, MIDNIGHT_NS, MIDNIGHT_NS + HOUR_NS)
    with store.drafting(span, Layout.whole(table), 0, START_NS) as draft:
        draft.write(rows_of([report], START_NS).data)
        file = replace(draft.finish(), columns=",".join(table.file_schema.names))
    store.publish([file])
    store.catalog.commit([file])
    store.close()
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as db:
        db.execute("PRAGMA user_version = 2")
    assert stored(tmp_path) == [(1, report.at_ns, 5.0)]
    store = Store(tmp_path, SETTINGS)
    # A version that knew only that layout refuses what is written from now on.
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
    store.commit([rows_of([later], START_NS)], now_ns=START_NS)
    for _ in range(2):
        assert stored(tmp_path) == [(1, report.at_ns, 5.0), (1, later.at_ns, 7.0)]
        merge_all(store, START_NS + 3 * DAY_NS)
    assert len(store.catalog.files("readings")) == 1
    store.close()


def test_a_reader_notices_a_record_put_in_place_of_another(tmp_path: Path) -> None:
    here, reader = tmp_path / "history", Reader(tmp_path / "history")
    for power_w in (5.0, 7.0):
        store = Store(here, SETTINGS)
        store.commit([rows_of([Report(1, 0, power_w)], START_NS)], now_ns=START_NS)
        store.close()
        found = reader.device(1, MIDNIGHT_NS, MIDNIGHT_NS + DAY_NS, "raw")
        assert found["power_w"].to_pylist() == [power_w]
        here.rename(tmp_path / str(power_w))


def test_footers_are_kept_within_bounds(tmp_path: Path) -> None:
    store, rows = Store(tmp_path, SETTINGS), rows_of([Report(1, 0, 5.0)], START_NS)
    paths = [tmp_path / store.commit([rows], now_ns=START_NS)[0].path for _ in range(4)]
    store.close()
    size = pq.read_metadata(paths[0]).serialized_size
    footers = Footers(bytes_max=3 * size)
    for path in [*paths, paths[2], *paths]:
        with footers.open(path) as opened:
            assert opened.read()["power_w"].to_pylist() == [5.0]
        assert footers.bytes <= 3 * size


def test_a_record_of_another_layout_is_refused_by_name(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(HistoryFailed, match="layout 1"):
        Store(tmp_path)
    with pytest.raises(HistoryFailed, match="layout 1"):
        Reader(tmp_path).sql("SELECT 1")


reports = st.builds(
    Report, st.integers(0, 4), st.integers(-100, 100), st.just(nan) | st.floats(-9e3, 9e3), finer_ns
)


@given(
    flushes=st.lists(st.lists(reports, min_size=1, max_size=12), min_size=1, max_size=5),
    merged=st.integers(0, 5),
    first=st.integers(-100, 100),
    minutes=st.integers(0, 200),
)
@settings(max_examples=30)
def test_one_device_is_what_a_query_finds_of_it(
    flushes: list[list[Report]], merged: int, first: int, minutes: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        store, reader = Store(Path(name), SETTINGS, HastyFiles()), Reader(Path(name))
        bounds = [MIDNIGHT_NS + m * 20 * NS_PER_S for m in (first, first + minutes)]
        for number, flush in enumerate(flushes):
            now_ns = START_NS + number * NS_PER_S
            store.commit([rows_of(flush, now_ns)], now_ns=now_ns)
            # What a reader keeps of earlier questions never shows.
            reader.device(1, *bounds, "raw")
            if number < merged:
                merge_all(store, now_ns)
        store.close()
        for device in range(6):
            wanted = reader.sql(
                f"SELECT * FROM readings WHERE device_no = {device} AND measured_at_ns >= "
                f"{bounds[0]} AND measured_at_ns < {bounds[1]} ORDER BY time, rank"
            )
            found = reader.device(device, *bounds, "raw")
            assert found.schema.names == wanted.schema.names
            assert found.schema.types == wanted.schema.types
            assert found.equals(wanted)


@pytest.mark.parametrize("harm", ["missing", "cut", "flipped"])
def test_a_damaged_file_is_named(tmp_path: Path, harm: str) -> None:
    store = Store(tmp_path)
    rows = [Report(1, minute, float(minute * 7 % 13)) for minute in range(500)]
    [file] = store.commit([rows_of(rows, START_NS)], now_ns=START_NS + 3 * DAY_NS)
    store.close()
    path = tmp_path / file.path
    body = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(body[:-100] if harm == "cut" else bytes(300) + body[300:])
    reader, span = Reader(tmp_path), (MIDNIGHT_NS, MIDNIGHT_NS + DAY_NS)
    for ask in (
        lambda: reader.sql("SELECT sum(power_w + device_no + received_at_ns) FROM readings"),
        lambda: reader.device(1, *span, "raw"),
        lambda: reader.device(1, *span, "1m"),
    ):
        with pytest.raises(HistoryFailed, match=r"kapelle verify") as said:
            ask()
        assert harm == "flipped" or file.path in str(said.value)
