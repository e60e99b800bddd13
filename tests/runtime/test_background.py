"""Tasks end with their block, and errors keep their names."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kapelle.errors import LinkLost
from kapelle.runtime.background import Background, background


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.sleep(3_600)
    finally:
        ended.append("task")


async def fails() -> None:
    raise LinkLost("x", "broke")


@asynccontextmanager
async def with_one(ended: list[str]) -> AsyncIterator[Background]:
    async with background() as beside:
        beside.start(forever(ended), "forever")
        await asyncio.sleep(0)
        yield beside


def test_tasks_end_with_the_block() -> None:
    async def run() -> None:
        ended: list[str] = []
        async with with_one(ended):
            assert ended == []
        assert ended == ["task"]

    asyncio.run(run())


def test_an_error_of_the_block_leaves_as_it_is() -> None:
    async def run() -> None:
        ended: list[str] = []
        with pytest.raises(LinkLost):
            async with with_one(ended):
                raise LinkLost("x", "gone")
        assert ended == ["task"]

    asyncio.run(run())


def test_an_error_of_a_task_ends_the_block_and_leaves_as_it_is() -> None:
    async def run() -> None:
        ended: list[str] = []

        async def block() -> None:
            async with with_one(ended) as beside:
                beside.start(fails(), "fails")
                await asyncio.sleep(3_600)

        with pytest.raises(LinkLost, match="broke"):
            await block()
        assert ended == ["task"]

    asyncio.run(run())


def test_who_is_cancelled_stays_cancelled() -> None:
    async def run() -> None:
        ended: list[str] = []

        async def block() -> None:
            async with with_one(ended):
                await asyncio.sleep(3_600)

        task = asyncio.ensure_future(block())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert ended == ["task"]

    asyncio.run(run())
