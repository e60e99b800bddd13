"""Tasks that live as long as a block of code, and whose errors leave it under their own names."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


class Background:
    """Tasks beside a body. Made by `background`."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run this beside the body; an error of it ends the body."""
        task = self._tasks.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def stop(self) -> None:
        """Cancel everything that still runs."""
        for task in tuple(self._running):
            task.cancel()


@asynccontextmanager
async def background() -> AsyncIterator[Background]:
    """Run tasks beside a body. They are cancelled when it ends.

    An error of the body, or the first of a task, leaves as it is: a task group would wrap it, and
    whoever handles it by name would not know it again.
    """
    failed: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            beside = Background(tasks)
            try:
                yield beside
            except BaseException as error:  # noqa: BLE001  (raised below)
                failed = error
            beside.stop()
    except BaseExceptionGroup as group:
        raise _first(group) from None
    if failed is not None:
        raise failed


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    cause = group.exceptions[0]
    return _first(cause) if isinstance(cause, BaseExceptionGroup) else cause
