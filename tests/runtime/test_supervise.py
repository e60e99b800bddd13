"""What is tried again for ever still stops when it is told to."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from kapelle.app import Doors, run_recorder
from kapelle.config import Config
from kapelle.errors import LinkLost
from kapelle.history.counters import Counters
from kapelle.journal.memory import MemoryJournal
from kapelle.ports import Link
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.supervise import keep_open

LEAVES_S = 5.0


class Breaking:
    """An adapter whose link breaks on the way out, whoever asked to leave."""

    name = "breaking"

    def __init__(self) -> None:
        self.opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        self.opened += 1
        try:
            yield cast(Link, None)
        finally:
            raise LinkLost(self.name, "could not say goodbye")


def test_a_link_that_breaks_while_it_is_closed_does_not_keep_its_task() -> None:
    async def use(_: Link) -> None:
        await asyncio.sleep(60)

    async def main() -> int:
        adapter = Breaking()
        kept = keep_open(adapter, use, clock=SystemClock(), draw=random.Random(1))
        task = asyncio.create_task(kept)
        await asyncio.sleep(0.05)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=LEAVES_S)
        assert done, "it goes on"
        assert task.cancelled()
        return adapter.opened

    assert asyncio.run(main()) == 1


class Lost:
    """An adapter whose link is used by a task group, as ingest does, and lost."""

    name = "lost"

    def __init__(self) -> None:
        self.opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        self.opened += 1
        yield cast(Link, None)


async def fails_in_a_group(error: Exception) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            tasks.create_task(asyncio.sleep(60))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def test_a_link_that_a_task_group_loses_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kapelle.runtime.supervise._PAUSE_S_FIRST", 0.01)

    async def main() -> None:
        adapter = Lost()

        async def use(_: Link) -> None:
            if adapter.opened < 3:
                await fails_in_a_group(LinkLost("lost", "the broker is gone"))

        async with asyncio.timeout(LEAVES_S):
            await keep_open(adapter, use, clock=SystemClock(), draw=random.Random(1))
        assert adapter.opened == 3

    asyncio.run(main())


def test_a_recorder_that_fails_in_a_task_group_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kapelle.app.roles._RECORDER_PAUSE_S", 0.01)
    started: list[int] = []

    class Failing:
        def __init__(self, **_: object) -> None:
            started.append(1)

        async def run(self) -> None:
            await fails_in_a_group(OSError("no space left"))

    monkeypatch.setattr("kapelle.app.roles.Recorder", Failing)

    async def main() -> None:
        clock = SystemClock()
        doors = SimpleNamespace(
            config=Config(), clock=clock, journal=MemoryJournal(clock), history=Counters(),
            ledger=None,
        )  # fmt: skip
        async with asyncio.timeout(LEAVES_S):
            task = asyncio.create_task(run_recorder(cast(Doors, doors)))
            while len(started) < 3:
                assert not task.done()
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(main())


def test_a_recorder_that_fails_while_it_stops_does_not_keep_the_plant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing:
        def __init__(self, **_: object) -> None:
            pass

        async def run(self) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                raise OSError("no space left")

    monkeypatch.setattr("kapelle.app.roles.Recorder", Failing)

    async def main() -> None:
        clock = SystemClock()
        doors = cast(
            Doors,
            SimpleNamespace(
                config=Config(), clock=clock, journal=MemoryJournal(clock), history=Counters()
            ),
        )
        task = asyncio.create_task(run_recorder(doors))
        await asyncio.sleep(0.05)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=LEAVES_S)
        assert done, "it goes on"
        assert task.cancelled()

    asyncio.run(main())
