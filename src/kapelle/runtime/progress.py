"""Work that goes on step by step, and those in the same process who wait for it."""

import asyncio
from contextlib import suppress


class Progress:
    """Says that a step was made; everybody who waits then looks what has become of it."""

    def __init__(self) -> None:
        self.steps = 0
        """Made so far."""
        self._next = asyncio.Event()

    def go_on(self) -> None:
        """Say that a step was made."""
        self.steps += 1
        made, self._next = self._next, asyncio.Event()
        made.set()

    async def wait_beyond(self, steps: int, timeout_s: float) -> None:
        """Wait until more steps were made than these, or the time is over.

        Whoever takes `steps` before it looks misses none.
        """
        if self.steps > steps:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._next.wait()
