"""Merges that cannot be done are told and tried again, and what they leave goes in its time."""

import asyncio
from pathlib import Path

from tests.history.conftest import (
    PROMPT,
    HandClock,
    make_readings,
    recorder_of,
    recording,
    stored,
    until,
)

from kapelle.history.service import Recorder
from kapelle.journal.memory import MemoryJournal
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Tick


def first_file(directory: Path) -> Path:
    return min(directory.glob("readings/*/*.parquet"))


async def later(
    journal: MemoryJournal, clock: HandClock, recorder: Recorder, seconds: float
) -> None:
    """Let time pass and the recorder notice: it goes by what is journalled."""
    flushes = recorder.counters.flushes
    clock.ns += round(seconds * NS_PER_S)
    await journal.append("p/0", [Tick(clock.ns)], writer="owner")
    await until(lambda: recorder.counters.flushes > flushes)


def test_a_merge_that_fails_is_told_and_tried_again(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    async def play() -> None:
        recorder = recorder_of(journal, clock, tmp_path)
        counters = recorder.counters
        async with recording(recorder):
            for second in range(2):
                block = make_readings([(0, float(second), 1.0)])
                await journal.append("p/0", [block], writer="ingest")
                await until(lambda n=second: counters.rows["readings"] > n)
            lost = first_file(tmp_path)
            lost.rename(tmp_path / "kept")
            await later(journal, clock, recorder, 2 * 3600)
            await until(lambda: counters.unmerged == 1)
            assert lost.name in counters.merge_reason
            # Not again at once, and not never.
            failures = counters.failures
            await later(journal, clock, recorder, 59)
            await later(journal, clock, recorder, 2)
            await until(lambda: counters.failures == failures + 1)
            (tmp_path / "kept").rename(lost)
            await later(journal, clock, recorder, 119)
            assert counters.merges == 0
            await later(journal, clock, recorder, 2)
            await until(lambda: counters.merges == 1)
            await until(lambda: counters.unmerged == 0)
            assert counters.merge_reason == ""

    asyncio.run(play())
    assert len(stored(tmp_path)) == 2
    assert not list(tmp_path.glob("*/*/*.draft"))


def test_files_that_cannot_be_merged_go_when_their_time_is_over(
    journal: MemoryJournal, clock: HandClock, tmp_path: Path
) -> None:
    async def play() -> None:
        recorder = recorder_of(journal, clock, tmp_path)
        counters = recorder.counters
        async with recording(recorder):
            block = make_readings([(0, 1.0, 1.0)])
            await journal.append("p/0", [block], writer="ingest")
            await until(lambda: counters.rows["readings"] == 1)
            first_file(tmp_path).write_bytes(b"harmed")
            await later(journal, clock, recorder, 2 * 3600)
            await until(lambda: counters.unmerged == 1)
            # Kept for as long as any reading: a backup may mend it.
            await later(journal, clock, recorder, (PROMPT.raw_days - 1) * 86_400)
            await until(lambda: counters.failures == 2)
            assert counters.expired_files == 0
            await later(journal, clock, recorder, 2 * 86_400)
            await until(lambda: counters.expired_files == 1)
            await later(journal, clock, recorder, PROMPT.grace_s + 1)
            await until(lambda: not list(tmp_path.glob("readings/*/*")))
            assert counters.unmerged == 0

    asyncio.run(play())
