"""Asks the long record on behalf of requests: in threads, a few at a time."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from kapelle.adapters.http.problems import Refused
from kapelle.errors import Invalid, NotFound
from kapelle.history.reader import Reader
from kapelle.runtime.progress import Progress

T = TypeVar("T")


class HistoryDesk:
    """Answers questions about the past, a few at a time: each may hold much memory."""

    def __init__(self, reader: Reader, ledger: Progress | None = None, *, at_once: int = 2) -> None:
        self.reader = reader
        self.ledger = ledger or Progress()
        """Goes on when the ledger has worked, if it does so in this process."""
        self._turns = asyncio.Semaphore(at_once)

    async def ask(self, question: Callable[[Reader], T]) -> T:
        """Return the answer to a question, found in a thread so that nobody else waits.

        Raises:
            Refused: 404 where the record knows no such thing, 422 where it cannot be asked.
        """
        async with self._turns:
            try:
                return await asyncio.to_thread(question, self.reader)
            except NotFound as error:
                raise Refused(404, "history-unknown", str(error)) from error
            except Invalid as error:
                raise Refused(422, "history-question", str(error)) from error
