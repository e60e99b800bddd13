"""Follows the plant's topic and keeps the view that requests are answered from."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.recall import recall
from kapelle.model.ids import PLANT
from kapelle.ports import Clock, Journal

Found = TypeVar("Found")


class Watch:
    """The plant view, always as new as the journal's topic, and waiting for what it will say."""

    def __init__(self, *, journal: Journal, clock: Clock, partitions: int) -> None:
        self.view = PlantView(partitions)
        self._journal = journal
        self._clock = clock
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled.

        Raises:
            JournalDamaged: Orders and holds are gone that no snapshot makes up for.
        """
        self.view = await recall(self._journal, self.view.partitions)
        self._tell()
        async for entries in self._journal.follow(PLANT, self.view.position):
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
