"""The queue between requests and ingest: a batch waits here until the journal has it."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import numpy as np

from kapelle.adapters.http.problems import Refused
from kapelle.model.blocks import Commands
from kapelle.model.ids import Flags
from kapelle.ports import Batch


class _Request:
    """One request that waits for the journal."""

    def __init__(self, rows: int, size: int, answered: "asyncio.Future[Mapping[int, str]]") -> None:
        self.rows = rows
        self.size = size
        self.answered = answered


class HttpLink:
    """The queue between requests and ingest. Requests wait in it until ingest has an answer."""

    def __init__(self) -> None:
        self.rows_waiting = 0
        """Readings that ingest has not answered, even where nobody waits for the answer."""
        self.bytes_waiting = 0
        """Bodies that are being read or that ingest has not answered."""
        self._inbox: asyncio.Queue[Batch] = asyncio.Queue()
        """Bounded by what waits: a request is let in only while that is below its bounds."""

    async def receive(self) -> AsyncIterator[Batch]:
        """Yield one batch per request."""
        while True:
            yield await self._inbox.get()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Let the request answer: the journal has it."""
        request = self._done(batch)
        if not request.answered.done():
            request.answered.set_result(refused)

    def decline(self, batch: Batch, reason: str) -> None:
        """Let the request answer that nothing was stored."""
        request = self._done(batch)
        if not request.answered.done():
            request.answered.set_exception(
                Refused(507, "journal-full", f"nothing was stored: {reason}")
            )

    async def send(self, commands: Commands) -> Flags:
        """Write nothing: nobody can be called on this route."""
        return np.zeros(len(commands), np.bool_)

    async def submit(self, batch: Batch, rows: int, size: int, wait_s: float) -> Mapping[int, str]:
        """Wait until ingest has the batch in the journal; return what it refused.

        A request that has waited long enough leaves, and its batch does not: it takes its memory
        until ingest answers. So a disk that hangs fills the bounds once, not once per time-out.

        Args:
            batch: What was sent.
            rows: Its share of `rows_waiting`.
            size: Its share of `bytes_waiting`, already counted there.
            wait_s: How long the request waits. [s]

        Raises:
            TimeoutError: The batch still waits; it is not known whether it will be stored.
        """
        request = _Request(rows, size, asyncio.get_running_loop().create_future())
        batch.receipt = request
        self.rows_waiting += rows
        self._inbox.put_nowait(batch)
        async with asyncio.timeout(wait_s):
            return await request.answered

    def _done(self, batch: Batch) -> _Request:
        request = batch.receipt
        assert isinstance(request, _Request)
        self.rows_waiting -= request.rows
        self.bytes_waiting -= request.size
        return request
