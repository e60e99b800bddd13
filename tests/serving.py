"""A server in a thread of its own, so that tests may ask it as everybody does."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from kapelle.api.service import Api


async def _nothing() -> None:
    pass


@contextmanager
def in_thread(
    api: Api,
    beside: Callable[[], Coroutine[Any, Any, None]],
    before: Callable[[], Coroutine[Any, Any, None]] = _nothing,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve until the block ends; yield the loop in which it is done.

    Args:
        api: What is served; it answers by the time the block begins.
        beside: Runs as long.
        before: Is over by the time they start.
    """
    loop, stop, up = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def main() -> None:
        await before()
        tasks = [asyncio.create_task(run()) for run in (api.run, beside)]
        await api.ready.wait()
        up.set()
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert up.wait(10), "the server did not start"
        yield loop
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(15)
        loop.close()
