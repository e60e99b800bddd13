"""Follows the plant's topic and keeps the view that requests are answered from."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.model.entries import Kind
from kapelle.model.ids import PLANT
from kapelle.ports import Clock, Journal

_LASTING = tuple(
    kind for kind in Kind if kind >= Kind.TICK and kind not in (Kind.TICK, Kind.SUMMARY)
)
"""All that must be known from the beginning; a summary is out of date after a second."""
_READ = 1_000
_SUMMARIES_BACK = 4
"""Seconds of summaries read again at start-up."""

Found = TypeVar("Found")


class Watch:
    """The plant view, always as new as the journal's topic, and waiting for what it will say."""

    def __init__(self, *, journal: Journal, clock: Clock, partitions: int) -> None:
        self.view = PlantView(partitions)
        self._journal = journal
        self._clock = clock
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        last = await self._journal.last(PLANT)
        while entries := await self._journal.read(PLANT, self.view.position, _READ, _LASTING):
            for entry in entries:
                apply_plant(self.view, entry)
            self._tell()
        after = max(self.view.position, last - _SUMMARIES_BACK * self.view.partitions)
        async for entries in self._journal.follow(PLANT, after):
            for entry in entries:
                apply_plant(self.view, entry)
            self._tell()

    async def wait_for(
        self, look: Callable[[PlantView], Found | None], wait_s: float
    ) -> Found | None:
        """Return what `look` finds in the view, now or within this long; else None."""
        try:
            async with asyncio.timeout(wait_s):
                while (found := look(self.view)) is None:
                    await self._changed.wait()
                return found
        except TimeoutError:
            return None

    def _tell(self) -> None:
        # Whoever waits holds the old event; the next ones wait on the new.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
