"""The queue between requests and ingest: a request waits here until the journal has it."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import numpy as np

from kapelle.adapters.http.problems import Refused
from kapelle.model.blocks import Commands
from kapelle.model.ids import Flags
from kapelle.ports import Batch


class _Request:
    """One request that waits for the journal."""

    def __init__(self, rows: int, answered: "asyncio.Future[Mapping[int, str]]") -> None:
        self.rows = rows
        self.answered = answered


class HttpLink:
    """The queue between requests and ingest. Requests wait in it until ingest has an answer."""

    def __init__(self) -> None:
        self.rows_waiting = 0
        self._inbox: asyncio.Queue[Batch] = asyncio.Queue()
        """Bounded by `rows_waiting`, which counts rows until they are answered."""

    async def receive(self) -> AsyncIterator[Batch]:
        """Yield one batch per request."""
        while True:
            yield await self._inbox.get()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Let the request answer: the journal has it."""
        request = batch.receipt
        assert isinstance(request, _Request)
        if not request.answered.done():
            request.answered.set_result(refused)

    def decline(self, batch: Batch, reason: str) -> None:
        """Let the request answer that nothing was stored."""
        request = batch.receipt
        assert isinstance(request, _Request)
        if not request.answered.done():
            request.answered.set_exception(
                Refused(507, "journal-full", f"nothing was stored: {reason}")
            )

    async def send(self, commands: Commands) -> Flags:
        """Write nothing: nobody can be called on this route."""
        return np.zeros(len(commands), np.bool_)

    async def submit(self, batch: Batch, rows: int, wait_s: float) -> Mapping[int, str]:
        """Wait until ingest has the batch in the journal; return what it refused."""
        request = _Request(rows, asyncio.get_running_loop().create_future())
        batch.receipt = request
        self.rows_waiting += rows
        self._inbox.put_nowait(batch)
        try:
            async with asyncio.timeout(wait_s):
                return await request.answered
        finally:
            self.rows_waiting -= rows
