"""What goes wrong around the recorder is told, stops nobody, and leaves nothing out."""

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import pyarrow as pa
import pyarrow.parquet as pq
from tests.history.conftest import (
    PROMPT,
    START_NS,
    HandClock,
    HastyFiles,
    make_readings,
    recorder_of,
    recording,
    stored,
    until,
)

from kapelle.app import Doors, run_recorder
from kapelle.config import Config, PlantSettings
from kapelle.history.reader import Reader
from kapelle.history.service import READER
from kapelle.history.settings import HistorySettings
from kapelle.journal.memory import MemoryJournal
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.plant import Notice
from kapelle.registry.directory import Directory


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
        recorder = recorder_of(journal, clock, tmp_path, files=files)
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


class FailingLedger:
    """Notes nothing, and fails at the first of its two steps until it is mended."""

    def __init__(self) -> None:
        self.is_mended = False
        self.done = 0
        self.error_wh = 0.0

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
        recorder = recorder_of(journal, clock, tmp_path, ledger=lambda _: ledger)
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
