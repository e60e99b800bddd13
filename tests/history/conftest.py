"""A journal to record, and the truth to hold the record against."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

from kapelle.history.files import Files
from kapelle.history.reader import Reader
from kapelle.history.service import Recorder
from kapelle.history.settings import HistorySettings
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Readings
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S

sys.path.append(str(Path(__file__).parent))

# How long an example takes says something about the machine, not about the record.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

START_NS = 1_763_800_000 * NS_PER_S
"""2025-11-22 08:26:40 UTC, within an hour and a day."""
PROMPT = HistorySettings(flush_s=0.02)
"""What was read is on the disk at once."""


class HandClock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.ns = START_NS

    def now_ns(self) -> int:
        return self.ns

    def not_before(self, utc_ns: int) -> None:
        self.ns = max(self.ns, utc_ns)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.005)


def make_readings(
    rows: Sequence[tuple[int, float, float]], received_ns: int | None = None
) -> Readings:
    """Return a block of (device, seconds after the start, power)."""
    devices, seconds, power = (np.array(column) for column in zip(*rows, strict=True))
    times = START_NS + np.round(seconds * NS_PER_S).astype(np.int64)
    received = times if received_ns is None else np.full(len(rows), received_ns, np.int64)
    return Readings(
        device_no=devices.astype(np.int32),
        order=times,
        measured_at_ns=times,
        received_at_ns=received.astype(np.int64),
        quality=np.zeros(len(rows), np.uint8),
        values={Metric.POWER_W: power.astype(np.float64)},
    )


def stored(directory: Path) -> list[tuple[int, int, float]]:
    """Return every reading of a record: device, time, power."""
    found = Reader(directory).sql(
        "SELECT device_no, measured_at_ns, power_w FROM readings ORDER BY ALL"
    )
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))


def recorder_of(
    journal: MemoryJournal,
    clock: HandClock,
    directory: Path,
    settings: HistorySettings = PROMPT,
    **more: Any,
) -> Recorder:
    """Return a recorder of a journal with two partitions."""
    return Recorder(
        journal=journal, clock=clock, settings=settings, directory=directory, partitions=2, **more
    )


@asynccontextmanager
async def recording(recorder: Recorder) -> AsyncIterator[None]:
    """Run a recorder; what ends it before its time is raised."""
    task = asyncio.create_task(recorder.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a recorder is about to do."""
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110  # a recorder sets no event of ours
            await asyncio.sleep(0.005)


class HastyFiles(Files):
    """Does not wait for the disk: for tests that cut no power."""

    def sync(self, directory: Path) -> None:
        pass

    def finish(self, writer: pq.ParquetWriter, path: Path) -> int:
        writer.close()
        return path.stat().st_size


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def journal(clock: HandClock) -> MemoryJournal:
    return MemoryJournal(clock)
