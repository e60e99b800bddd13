"""What the journal holds is in the record once, whatever happens in between."""

import asyncio
import errno
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.history.conftest import START_NS, HandClock, HastyFiles, make_readings, stored

from kapelle.app import Doors, run_recorder
from kapelle.config import Config, PlantSettings
from kapelle.errors import Invalid
from kapelle.history.catalog import Catalog
from kapelle.history.reader import Reader
from kapelle.history.service import READER, Recorder
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Store
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Enrolled
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.plant import Cancel, Hold, Members, Notice, Order, Plan, Tick
from kapelle.registry.directory import Directory

PROMPT = HistorySettings(flush_s=0.02)


@asynccontextmanager
async def recording(recorder: Recorder):
    task = asyncio.create_task(recorder.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def recorder_of(
    journal: MemoryJournal, clock: HandClock, directory: Path, settings: HistorySettings = PROMPT
) -> Recorder:
    return Recorder(
        journal=journal, clock=clock, settings=settings, directory=directory, partitions=2
    )


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


def test_what_the_journal_has_forgotten_is_said(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    async def play() -> None:
        for second in range(3):
            block = make_readings([(0, float(second), 1.0)])
            await journal.append("p/0", [block], writer="ingest")
        await journal.trim("p/0", 2)
        recorder = recorder_of(journal, clock, tmp_path)
        async with recording(recorder):
            await until(lambda: recorder.counters.rows["readings"] == 1)
        assert recorder.counters.gaps == 1

    asyncio.run(play())
    found = Reader(tmp_path).sql("SELECT code, body FROM events").to_pylist()
    assert found[0]["code"] == "gap"
    assert "entries 1 to 2" in found[0]["body"]


def test_a_disk_that_fails_does_not_stop_the_plant_and_nothing_is_missing_after(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    place = tmp_path / "history"
    place.write_text("in the way")
    config = Config(plant=PlantSettings(partitions=2, data_dir=tmp_path), history=PROMPT)
    doors = Doors(config, clock, journal, Directory(2), [])

    async def play() -> None:
        task = asyncio.create_task(run_recorder(doors))
        await journal.append("p/0", [make_readings([(0, 0.0, 5.0)])], writer="ingest")
        await until(lambda: doors.history.failures >= 2)
        assert str(place) in doors.history.reason
        assert not task.done()
        place.unlink()
        await until(lambda: doors.history.rows["readings"] == 1)
        assert doors.history.reason == ""
        # Nobody asks for it any more: the journal may go on without it.
        task.cancel()
        await asyncio.wait([task])
        off = replace(config, history=HistorySettings(enabled=False))
        await run_recorder(Doors(off, clock, journal, Directory(2), []))
        assert READER not in await journal.marks("p/0")

    asyncio.run(play())
    assert stored(place) == [(0, START_NS, 5.0)]


class FailingOnce(HastyFiles):
    """Waits in the first file of readings, and fails there."""

    def __init__(self) -> None:
        self.begun, self.goes_on, self.failed = Event(), Event(), False

    def open(self, path: Path, schema: pa.Schema, **options: object) -> pq.ParquetWriter:
        if not self.failed and "readings" in str(path):
            self.failed = True
            self.begun.set()
            self.goes_on.wait(10.0)
            raise OSError(errno.ENOSPC, "no space")
        return super().open(path, schema, **options)


def test_a_flush_that_fails_while_the_plant_stops_is_not_passed_over(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    async def play() -> None:
        files = FailingOnce()
        recorder = Recorder(
            journal=journal,
            clock=clock,
            settings=PROMPT,
            directory=tmp_path,
            partitions=2,
            files=files,
        )
        task = asyncio.create_task(recorder.run())
        await journal.append("p/0", [make_readings([(0, 0.0, 1.0)])], writer="ingest")
        await until(files.begun.is_set)
        await journal.append("p/0", [make_readings([(0, 1.0, 2.0)])], writer="ingest")
        await until(lambda: recorder.counters.waiting_rows == 1)
        task.cancel()
        await asyncio.sleep(0.02)
        files.goes_on.set()
        await asyncio.wait([task])
        assert (await journal.marks("p/0"))[READER] == 0
        again = recorder_of(journal, clock, tmp_path)
        async with recording(again):
            await until(lambda: again.counters.flushes >= 1)

    asyncio.run(play())
    assert [watts for *_, watts in stored(tmp_path)] == [1.0, 2.0]


def test_a_record_that_fails_for_long_does_not_fill_the_disk_with_journal(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    (tmp_path / "history").write_text("in the way")
    rules = replace(PROMPT, hold_s=60.0)
    config = Config(plant=PlantSettings(partitions=1, data_dir=tmp_path), history=rules)
    doors = Doors(config, clock, journal, Directory(1), [])

    async def play() -> None:
        await journal.mark("p/0", READER, 0)
        task = asyncio.create_task(run_recorder(doors))
        await until(lambda: doors.history.failures >= 2)
        assert READER in await journal.marks("p/0")
        clock.ns += 61 * NS_PER_S
        seen = doors.history.failures
        await until(lambda: doors.history.failures >= seen + 2)
        assert READER not in await journal.marks("p/0")
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(play())


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


def test_a_journal_that_was_made_anew_is_followed_from_its_beginning(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    def said(power_w: float) -> list[Notice]:
        return [Notice(START_NS + n, "shortfall", "", 0, power_w) for n in range(3)]

    async def play(journal: MemoryJournal, power_w: float) -> None:
        recorder = recorder_of(journal, clock, tmp_path)
        block = make_readings([(0, power_w, power_w)])
        async with recording(recorder):
            await journal.append("p/0", [block] * round(power_w), writer="ingest")
            await journal.append(PLANT, said(power_w)[: round(power_w)], writer="owner")
            await until(lambda: recorder.counters.rows["events"] >= power_w)
            await until(lambda: recorder.counters.waiting_rows == 0)

    asyncio.run(play(journal, 3.0))
    asyncio.run(play(MemoryJournal(clock), 2.0))
    assert [power_w for _, _, power_w in stored(tmp_path)] == [2.0, 3.0]
    found = Reader(tmp_path).sql("SELECT kind, count(*) AS n FROM events GROUP BY 1 ORDER BY 1")
    assert found.to_pylist() == [{"kind": "history", "n": 2}, {"kind": "notice", "n": 5}]


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


def enrolled(numbers: list[int], active: int = 1) -> Enrolled:
    count = len(numbers)
    unknown = np.full(count, np.nan)
    columns: dict[str, object] = {
        name: unknown if dtype is not bytes else (b"",) * count
        for name, dtype in Enrolled.COLUMNS.items()
    }
    columns |= {
        "device_no": np.array(numbers, np.int32),
        "active": np.full(count, active, np.uint8),
        "kind": np.full(count, DeviceKind.BATTERY, np.uint8),
        "device_id": tuple(b"dev-%d" % number for number in numbers),
    }
    return Enrolled(**columns)  # type: ignore[arg-type]


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


class FailingLedger:
    """Notes nothing, and fails at the first of its two steps until it is mended."""

    def __init__(self) -> None:
        self.is_mended = False
        self.done = 0

    def note(self, rows: object) -> dict[str, bytes | None]:
        raise ZeroDivisionError

    def steps(self, now_ns: int) -> list[Callable[[], int]]:
        return [self._fail, self._do]

    def _fail(self) -> int:
        if not self.is_mended:
            raise ZeroDivisionError("a bug")
        return 0

    def _do(self) -> int:
        self.done += 1
        return 1


def test_a_ledger_that_fails_does_not_stop_the_record_and_is_told(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    ledger = FailingLedger()

    async def play() -> None:
        recorder = Recorder(
            journal=journal,
            clock=clock,
            settings=PROMPT,
            directory=tmp_path,
            partitions=2,
            ledger=lambda _: ledger,
        )
        counters = recorder.counters
        async with recording(recorder):
            for second in range(3):
                await journal.append("p/0", [make_readings([(0, second, 1.0)])], writer="ingest")
                await until(lambda done=second: ledger.done > done)
                assert counters.ledger_reason == "a bug"
                assert counters.reason == ""
            ledger.is_mended = True
            await journal.append("p/0", [make_readings([(0, 3, 1.0)])], writer="ingest")
            await until(lambda: counters.ledger_reason == "")

    asyncio.run(play())
    assert len(stored(tmp_path)) == 4


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
