"""Followers that sleep until their topic has something new, without polling."""

import asyncio
from collections.abc import Iterable


class Wakes:
    """Who waits for which topic. One event loop; a cancelled waiter leaves nothing behind."""

    def __init__(self) -> None:
        # Dictionaries keep the order of arrival, so that a simulation wakes them alike every time.
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}

    async def wait(self, topic: str) -> None:
        """Return at the next `wake` of the topic."""
        woken = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(topic, {})
        waiting[woken] = None
        try:
            await woken
        finally:
            del waiting[woken]

    def wake(self, topics: Iterable[str]) -> None:
        """Wake everybody who waits for one of these."""
        for topic in topics:
            for woken in self._waiting.get(topic, ()):
                if not woken.done():
                    woken.set_result(None)

    def wake_all(self) -> None:
        """Wake everybody, so that they look and learn what has happened."""
        self.wake(tuple(self._waiting))
