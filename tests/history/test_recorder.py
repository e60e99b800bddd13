"""What the journal holds is in the record once, whatever happens in between."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.history.conftest import (
    START_NS,
    HandClock,
    make_readings,
    recorder_of,
    recording,
    stored,
    until,
)

from kapelle.errors import Invalid
from kapelle.history.catalog import Catalog
from kapelle.history.reader import Reader
from kapelle.history.service import READER
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Store
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Enrolled
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.orders import Cancel, Hold, Order, Plan
from kapelle.model.plant import Members, Notice, Tick


def test_a_reading_is_found_once_and_the_journal_may_forget_it(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    rows = [(device, float(second), device + second) for second in range(5) for device in (0, 2)]

    async def play() -> None:
        recorder = recorder_of(journal, clock, tmp_path)
        block = make_readings(rows)
        async with recording(recorder):
            await journal.append("p/0", [block, block], writer="ingest")
            await until(lambda: recorder.counters.flushes >= 1)
            # Sent again, as after a lost acknowledgement.
            await journal.append("p/0", [block], writer="ingest")
            await until(lambda: recorder.counters.flushes >= 2)
            await until(lambda: recorder.counters.waiting_rows == 0)
            assert (await journal.marks("p/0"))[READER] == 3
            assert (await journal.marks(PLANT))[READER] == 0

    asyncio.run(play())
    assert stored(tmp_path) == sorted((d, START_NS + round(s * 1e9), p) for d, s, p in rows)


def test_stopping_writes_what_is_in_memory(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    async def play() -> None:
        slow = HistorySettings(flush_s=3600.0)
        recorder = recorder_of(journal, clock, tmp_path, slow)
        async with recording(recorder):
            await journal.append("p/1", [make_readings([(1, 0.0, 5.0)])], writer="ingest")
            await until(lambda: recorder.counters.waiting_rows > 0)
        assert (await journal.marks("p/1"))[READER] == 1

    asyncio.run(play())
    assert stored(tmp_path) == [(1, START_NS, 5.0)]


def test_memory_is_bounded_and_the_journal_keeps_the_rest(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    rows = [(0, float(second), 1.0) for second in range(400)]

    async def play() -> None:
        small = HistorySettings(flush_s=0.2, flush_rows=50)
        recorder = recorder_of(journal, clock, tmp_path, small)
        blocks = [make_readings(rows[at : at + 10]) for at in range(0, 400, 10)]
        for block in blocks:
            await journal.append("p/0", [block], writer="ingest")
        async with recording(recorder):
            await until(lambda: sum(recorder.counters.rows.values()) == 400)

    asyncio.run(play())
    assert len(stored(tmp_path)) == 400


def test_orders_that_are_long_over_are_still_found(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    order = Order(7, "fleet", 500.0, START_NS, START_NS + NS_PER_S, START_NS, issued_by="anna")
    plan = Plan(7, START_NS + 1, 1, 1, 10.0, 400.0, 100.0, "headroom")
    said = [
        order,
        plan,
        Notice(START_NS + 2, "shortfall", "feeder 3 is lost", 7, -50.0),
        Hold(True, START_NS + 3, "works", "otto"),
        Cancel(7, START_NS + 4, "anna"),
    ]

    async def play() -> None:
        recorder = recorder_of(journal, clock, tmp_path)
        async with recording(recorder):
            await journal.append(PLANT, said, writer="api")
            await until(lambda: recorder.counters.rows["events"] == 5)

    asyncio.run(play())
    reader = Reader(tmp_path)
    found = reader.sql("SELECT kind, code, order_no FROM events ORDER BY time").to_pylist()
    assert [row["kind"] for row in found] == ["order", "plan", "notice", "hold", "cancel"]
    assert [row["order_no"] for row in found] == [7, 7, 7, None, 7]
    body = reader.sql("SELECT body ->> 'reason' AS why FROM events WHERE kind = 'plan'")
    assert body.to_pylist() == [{"why": "headroom"}]


def test_membership_is_known_for_every_moment(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    async def play() -> None:
        recorder = recorder_of(journal, clock, tmp_path)
        async with recording(recorder):
            await journal.append("p/0", [enrolled([0, 2]), Members("x", [0, 2])], writer="registry")
            clock.ns += NS_PER_S
            await journal.append("p/0", [Members("x", [2])], writer="registry")
            clock.ns += NS_PER_S
            await journal.append("p/0", [Members("x", []), enrolled([2], 0)], writer="registry")
            await until(lambda: recorder.counters.waiting_rows == 0 < recorder.counters.flushes)

    asyncio.run(play())
    found = Reader(tmp_path).sql(
        "SELECT resource, device_no, (from_ns - $s) // 1000000000 AS a, "
        "CASE WHEN member_until IS NOT NULL THEN (until_ns - $s) // 1000000000 END AS b "
        "FROM memberships ORDER BY ALL".replace("$s", str(START_NS))
    )
    rows = [tuple(row.values()) for row in found.to_pylist()]
    assert rows == [
        ("all", 0, 0, None),
        ("all", 2, 0, 2),
        ("x", 0, 0, 1),
        ("x", 2, 0, 1),
        ("x", 2, 1, 2),
    ]
    names = Reader(tmp_path).sql("SELECT device_no, device_id, active FROM devices ORDER BY 1")
    assert names.to_pylist()[1] == {"device_no": 2, "device_id": "dev-2", "active": 0}
    assert Reader(tmp_path).device_no("dev-0") == 0


def test_an_hour_that_is_over_becomes_one_file_while_the_recorder_runs(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    async def play() -> None:
        recorder = recorder_of(journal, clock, tmp_path)
        async with recording(recorder):
            for second in range(4):
                block = make_readings([(0, float(second), 1.0)])
                await journal.append("p/0", [block], writer="ingest")
                await until(lambda n=second: recorder.counters.rows["readings"] > n)
            clock.ns += 2 * 3600 * NS_PER_S
            # Time goes on by what is journalled: nothing but a tick is needed.
            await journal.append("p/0", [Tick(clock.ns)], writer="owner")
            await until(lambda: recorder.counters.merges > 0)

    asyncio.run(play())
    catalog = Catalog(tmp_path, read_only=True)
    assert [(file.rows, file.level) for file in catalog.files("readings")] == [(4, 2)]
    assert [file.rows for file in catalog.files("minutes")] == [1]
    catalog.close()
    assert len(stored(tmp_path)) == 4


def test_what_is_older_than_the_record_keeps_is_counted_and_left_out(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    day_s = 86_400.0

    async def play() -> None:
        recorder = recorder_of(journal, clock, tmp_path)
        block = make_readings([(0, -day_s * days, 1.0) for days in (1, 45, 70)])
        async with recording(recorder):
            await journal.append("p/0", [block], writer="ingest")
            await until(lambda: recorder.counters.rows["readings"] == 2)
        assert recorder.counters.too_late_rows == 1

    asyncio.run(play())
    assert len(stored(tmp_path)) == 2


def _unknown(dtype: np.dtype[np.generic], count: int) -> np.ndarray:
    return np.full(count, np.nan if dtype.kind == "f" else 0, dtype)


def enrolled(numbers: list[int], active: int = 1) -> Enrolled:
    count = len(numbers)
    columns: dict[str, object] = {
        name: (b"",) * count if dtype is bytes else _unknown(np.dtype(dtype), count)
        for name, dtype in Enrolled.COLUMNS.items()
    }
    columns |= {
        "device_no": np.array(numbers, np.int32),
        "active": np.full(count, active, np.uint8),
        "kind": np.full(count, DeviceKind.BATTERY, np.uint8),
        "device_id": tuple(b"dev-%d" % number for number in numbers),
    }
    return Enrolled(**columns)  # type: ignore[arg-type]  # columns by name


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY readings TO '/tmp/stolen.parquet'",
        "SELECT 1; SELECT 2",
        "CREATE TABLE t AS SELECT 1",
        "SET memory_limit = '100GB'",
        "ATTACH '/tmp/other.db'",
        "SELECT nothing FROM readings",
    ],
)
def test_a_query_reads_the_record_and_nothing_else(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path, query: str
) -> None:
    Store(tmp_path).close()
    with pytest.raises(Invalid):
        Reader(tmp_path).sql(query)


@pytest.mark.parametrize("name", ["a*b", "a?b", "a[x]b"])
def test_a_directory_with_a_pattern_in_its_name_is_only_itself(
    clock: HandClock, tmp_path: Path, name: str
) -> None:
    async def play(folder: str, power_w: float) -> None:
        journal = MemoryJournal(clock)
        recorder = recorder_of(journal, clock, tmp_path / folder)
        async with recording(recorder):
            block = make_readings([(0, 1.0, power_w)])
            await journal.append("p/0", [block], writer="ingest")
            await until(lambda: recorder.counters.flushes >= 1)

    asyncio.run(play(name, 1.0))
    asyncio.run(play("axb", 2.0))
    assert [power_w for _, _, power_w in stored(tmp_path / name)] == [1.0]
