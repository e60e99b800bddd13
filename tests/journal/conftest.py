"""The backends every test of the port runs against, bodies to put into them, and how to look."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from kapelle.journal.memory import MemoryJournal
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.blocks import Readings
from kapelle.model.entries import Entry, Kind
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Tick
from kapelle.ports import Journal

# How long an example takes says something about the machine, not about the journal.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


class HandClock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000 * NS_PER_S

    def now_ns(self) -> int:
        return self.ns

    def not_before(self, utc_ns: int) -> None:
        self.ns = max(self.ns, utc_ns)

    async def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * NS_PER_S)


@dataclass
class Backend:
    """One way to keep a journal. Opening it again finds what was there."""

    name: str
    clock: HandClock
    settings: JournalSettings
    memory: MemoryJournal

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Journal]:
        if self.name == "memory":
            yield self.memory
        else:
            async with open_journal(self.settings, self.clock) as journal:
                yield journal


def make_backend(name: str, directory: Path) -> Backend:
    clock = HandClock()
    settings = JournalSettings(directory, reserve_bytes=0)
    return Backend(name, clock, settings, MemoryJournal(clock))


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return make_backend(request.param, tmp_path / "data")


@pytest.fixture(scope="session")
def backend_maker():
    return make_backend


def make_block(rows: int, seed: int = 0) -> Readings:
    draw = np.random.default_rng(seed)
    times = draw.integers(1, 1 << 60, rows)
    return Readings(
        device_no=draw.integers(0, 1000, rows, dtype=np.int32),
        order=times,
        measured_at_ns=times,
        received_at_ns=times + 1,
        quality=np.zeros(rows, np.uint8),
        values={Metric.POWER_W: draw.normal(0, 5000, rows), Metric.SOC: draw.random(rows)},
    )


@pytest.fixture(scope="session")
def block_maker():
    return make_block


def check(backend: Backend, scenario: Callable[[Journal], Awaitable[None]]) -> None:
    """Run a scenario on an open journal."""

    async def run() -> None:
        async with asyncio.timeout(30), backend.open() as journal:
            await scenario(journal)
            assert not journal.damage()

    asyncio.run(run())


def ticks(*now_ns: int) -> list[Tick]:
    return [Tick(each_ns) for each_ns in now_ns]


def times(entries: Iterable[Entry]) -> list[int]:
    """Return the moments ticks tell of."""
    return [entry.body.now_ns for entry in entries]  # type: ignore[union-attr]  # ticks all


async def follow_until(
    journal: Journal,
    topic: str,
    position: int,
    after: int = 0,
    kinds: Collection[Kind] | None = None,
) -> list[Entry]:
    """Follow a topic until a position is reached, and return all that came."""
    found: list[Entry] = []
    async for entries in journal.follow(topic, after, kinds):
        assert entries
        found += entries
        if found[-1].position >= position:
            return found
    raise AssertionError("a follow ended by itself")
