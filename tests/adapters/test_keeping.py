"""What an adapter keeps is on disk when it was told so, once, however it ends."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from kapelle.adapters.ieee2030 import store as ieee2030
from kapelle.adapters.inbox import NotStored
from kapelle.adapters.keeping import Keeper, Key
from kapelle.adapters.openadr import store as openadr
from kapelle.errors import LinkLost
from kapelle.runtime.background import background

Change = tuple[Key, int | None]


class File:
    """Stands for a file: what was written, and whether it is closed."""

    def __init__(self) -> None:
        self.rows: dict[Key, int] = {}
        self.writes = 0
        self.is_closed = False
        self.free = threading.Event()
        self.free.set()

    def write(self, changes: Sequence[Change]) -> None:
        self.free.wait(10)
        if self.is_closed:
            raise sqlite3.ProgrammingError("closed")
        self.writes += 1
        for key, row in changes:
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row


def keep(act: Callable[[Keeper[int], File], Coroutine[None, None, None]]) -> File:
    file = File()

    async def run() -> None:
        keeper: Keeper[int] = Keeper("trial", file.write)
        running = asyncio.create_task(keeper.run())
        try:
            async with asyncio.timeout(20):
                await act(keeper, file)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            file.free.set()
            keeper.flush()
            file.is_closed = True

    asyncio.run(run())
    return file


def test_what_was_written_is_there_and_of_each_thing_the_newest() -> None:
    async def act(keeper: Keeper[int], file: File) -> None:
        for number in range(100):
            keeper.change(("a", "x"), number)
        keeper.change(("b", "x"), 1)
        await keeper.written()
        assert file.rows == {("a", "x"): 99, ("b", "x"): 1}
        assert file.writes == 1
        keeper.change(("b", "x"), None)
        await keeper.written()
        assert file.rows == {("a", "x"): 99}
        await keeper.written()

    assert keep(act).writes == 2


def test_what_is_on_its_way_is_waited_for() -> None:
    async def act(keeper: Keeper[int], file: File) -> None:
        file.free.clear()
        keeper.change(("a", "x"), 1)
        waiting = asyncio.create_task(keeper.written())
        await asyncio.sleep(0.05)
        later = asyncio.create_task(keeper.written())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert not later.done()
        file.free.set()
        await asyncio.gather(waiting, later)
        assert file.rows == {("a", "x"): 1}

    keep(act)


@pytest.mark.parametrize("turns", range(4))
def test_whenever_it_is_ended_everything_is_written_once(turns: int) -> None:
    async def act(keeper: Keeper[int], file: File) -> None:
        file.free.clear()
        keeper.change(("a", "x"), 1)
        for _ in range(turns):
            await asyncio.sleep(0)
        keeper.change(("b", "x"), 2)

    assert keep(act).rows == {("a", "x"): 1, ("b", "x"): 2}


def test_a_disk_that_fails_is_said_to_whoever_waits() -> None:
    async def run() -> None:
        def fail(_: Sequence[Change]) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        keeper: Keeper[int] = Keeper("trial", fail)
        running = asyncio.create_task(keeper.run())
        keeper.change(("a", "x"), 1)
        with pytest.raises(NotStored, match="disk"):
            await keeper.written()
        with pytest.raises(LinkLost, match="disk"):
            await running
        with pytest.raises(NotStored):
            await keeper.written()
        keeper.flush()

    asyncio.run(run())


@pytest.mark.parametrize("opened", [openadr.opened, ieee2030.opened])
@pytest.mark.parametrize("turns", range(4))
def test_a_link_that_is_lost_leaves_what_was_on_its_way(
    opened: Callable[[Path], AbstractAsyncContextManager[Keeper[Any]]], turns: int, tmp_path: Path
) -> None:
    """The thread that writes must have done so before the file is closed under it."""
    file, is_openadr = tmp_path / "notes.db", opened is openadr.opened

    async def life() -> None:
        async with opened(file) as store, background() as beside:
            if not is_openadr:
                beside.start(store.run(), "notes")
            for number in range(1000):
                key = ("x", str(number))
                store.change(key, (*key, "x", 1, 1, 0, 0, b"") if is_openadr else (1, b""))
            for _ in range(turns):
                await asyncio.sleep(0)
            raise LinkLost("trial", "gone")

    with pytest.raises(LinkLost, match="gone"):
        asyncio.run(life())
    with closing(sqlite3.connect(file)) as connection:
        ((name,),) = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        assert connection.execute(f"SELECT count(*) FROM {name}").fetchone() == (1000,)
