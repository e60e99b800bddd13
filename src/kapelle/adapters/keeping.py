"""Keeps an adapter's own notes in a file beside the journal, written by one thread behind the loop.

What waits is written at once, and of each thing its newest state: whoever changes one twice in a
moment pays for one write.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from kapelle.adapters.inbox import NotStored
from kapelle.errors import LinkLost

OPENADR, IEEE2030 = "openadr.db", "ieee2030.db"
"""Files of notes, in the data directory."""
NOTES = (OPENADR, IEEE2030)
"""All of them: what backups hold besides journal, record and registry."""
Row = TypeVar("Row")
Key = tuple[str, str]


class Keeper(Generic[Row]):
    """Changes on their way to a file. `run` writes them; needs a running loop."""

    def __init__(
        self, adapter: str, write: Callable[[Sequence[tuple[Key, Row | None]]], None]
    ) -> None:
        """Make it.

        Args:
            adapter: Whose notes they are.
            write: Writes changes in one transaction, off the loop; None removes what was kept.
        """
        self.failed = ""
        """Why nothing is written any more; empty: it is."""
        self._adapter = adapter
        self._write_all = write
        self._waiting: dict[Key, Row | None] = {}
        """Bounded by what there is: a thing that changes twice is written once."""
        self._taken: dict[Key, Row | None] = {}
        """On its way to the file."""
        self._is_over = False
        self._written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._lock = threading.Lock()

    def change(self, key: Key, row: Row | None) -> None:
        """Keep a row, or none under this key; durable once `written` has returned."""
        self._waiting[key] = row
        self._wake.set()

    def is_waited_for(self, key: Key) -> bool:
        """Tell whether a change of this is not durable yet."""
        return key in self._waiting or key in self._taken

    async def written(self) -> None:
        """Return once every change so far is durable.

        Raises:
            NotStored: The disk did not take it. What is in memory is not what is on disk: the
                adapter opens anew from what is.
        """
        if self.failed:
            raise NotStored(self.failed)
        if self._waiting:
            await asyncio.shield(self._written)
        elif self._under_way is not None:
            await asyncio.shield(self._under_way)

    async def run(self) -> None:
        """Write what waits whenever something does. Raises LinkLost when the disk fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._taken, self._waiting = self._waiting, {}
            done, self._written = self._written, asyncio.get_running_loop().create_future()
            self._under_way = done
            try:
                await asyncio.shield(asyncio.to_thread(self._write))
            except sqlite3.Error as error:
                self.failed = str(error)
                for future in (done, self._written):
                    future.set_exception(NotStored(self.failed))
                    future.exception()
                raise LinkLost(self._adapter, f"cannot write its notes: {error}") from error
            self._under_way = None
            done.set_result(None)

    def flush(self) -> None:
        """Write what still waits, or was on its way when `run` was cancelled; the last call."""
        with self._lock:
            left, self._taken, self._is_over = {**self._taken, **self._waiting}, {}, True
            if not self.failed and left:
                self._write_all(tuple(left.items()))

    def _write(self) -> None:
        with self._lock:
            # A thread that comes to run after the last call finds that done.
            if not self._is_over:
                self._write_all(tuple(self._taken.items()))
                self._taken = {}
