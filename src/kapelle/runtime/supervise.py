"""Keeps what fails running: reopens lost links with jittered back-off, and says it once."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from kapelle.errors import LinkLost
from kapelle.ports import Clock
from kapelle.runtime.background import background

_log = logging.getLogger(__name__)

_PAUSE_S_FIRST = 0.5
_PAUSE_S_MAX = 120.0
_STABLE_S = 60.0
"""A link that lived this long starts again from the first pause."""


L = TypeVar("L")
L_co = TypeVar("L_co", covariant=True)


class Opens(Protocol[L_co]):
    """Whatever has a link that may be lost: an `Adapter`, an agent's way to its plant."""

    name: str

    def open(self) -> AbstractAsyncContextManager[L_co]:
        """Listen or connect. Every error of the libraries behind it leaves as LinkLost."""


async def keep_open(
    adapter: Opens[L],
    use: Callable[[L], Coroutine[Any, Any, None]],
    *,
    clock: Clock,
    draw: random.Random,
) -> None:
    """Open the adapter and hand its link to `use`; when the link is lost, pause and open it again.

    Pauses have full jitter and double up to a cap, so that many plants behind one broker do not
    return in step. Runs until cancelled; every other error of `use` passes through.
    """
    pause_s = _PAUSE_S_FIRST
    is_said = False
    while True:
        opened_ns = clock.now_ns()
        try:
            async with adapter.open() as link:
                if is_said:
                    _log.info("link is back", extra={"adapter": adapter.name})
                    is_said = False
                await apart(use(link), f"use of {adapter.name}")
                return
        except LinkLost as lost:
            leave_if_asked()
            if not is_said:
                _log.warning("link lost", extra={"adapter": lost.adapter, "reason": lost.reason})
                is_said = True
        if clock.now_ns() - opened_ns > _STABLE_S * 1e9:
            pause_s = _PAUSE_S_FIRST
        await clock.sleep(draw.uniform(0.0, pause_s))
        pause_s = min(_PAUSE_S_MAX, pause_s * 2)


async def apart(work: Coroutine[Any, Any, None], name: str) -> None:
    """Wait for work in a task of its own; an error of it leaves as it is.

    A task group that fails while it is waited for leaves the task around it as if somebody had
    cancelled that, up to Python 3.12: whoever asks `leave_if_asked` next would leave for good.
    """
    async with background() as beside:
        await beside.start(work, name)


def leave_if_asked() -> None:
    """Let a task that was cancelled go, although what ended it was an error on the way out.

    For whoever catches an error to try again: it took the place of the cancellation, and without
    this the task would never hear of it.

    Raises:
        CancelledError: Somebody has cancelled the present task.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
