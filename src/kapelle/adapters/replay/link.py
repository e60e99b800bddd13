"""An adapter without devices behind it: what is handed to it goes through ingest like the rest."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import numpy as np

from kapelle.adapters.replay.codec import Again
from kapelle.model.blocks import Commands, Quarantined
from kapelle.model.ids import Flags
from kapelle.ports import Batch

SOURCE = "replay/"
"""How the source of what is refused again begins; the row's id follows."""


class ReplayFull(Exception):
    """The journal has no space; what was not taken is in quarantine as before."""


class ReplayLink:
    """Rows on their way from quarantine to ingest, one batch each."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[Batch] = asyncio.Queue()
        """Bounded by its one user: `Replay.through` waits for all it put in."""

    async def receive(self) -> AsyncIterator[Batch]:
        """Yield one batch per row of the quarantine."""
        while True:
            yield await self._inbox.get()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Note that the journal has it, and why not as a reading where ingest refused it."""
        answer = _answer_of(batch)
        if not answer.done():
            unreadable = batch.unreadable.reason[0].decode() if batch.unreadable else ""
            answer.set_result(next(iter(refused.values()), unreadable))

    def decline(self, batch: Batch, reason: str) -> None:
        """Note that nothing was stored."""
        answer = _answer_of(batch)
        if not answer.done():
            answer.set_exception(ReplayFull(reason))

    async def send(self, commands: Commands) -> Flags:
        """Write nothing: there is no device."""
        return np.zeros(len(commands), np.bool_)

    def submit(self, again: Again) -> "asyncio.Future[str]":
        """Hand a row to ingest; the future tells why it was refused, or nothing."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        source = SOURCE + again.item.id
        raw = again.raw
        unreadable = None
        if again.readings is None:
            unreadable = Quarantined(
                device_no=np.array([again.item.device_no], np.int32),
                received_at_ns=np.array([again.item.received_at_ns], np.int64),
                source=(source.encode(),),
                reason=(again.reason.encode(errors="replace"),),
                raw=(raw,),
            )
        self._inbox.put_nowait(
            Batch(again.readings, lambda _: raw, source, unreadable, receipt=answer)
        )
        return answer


class Replay:
    """The adapter, and the door for whoever lets rows out of quarantine."""

    name = "replay"

    def __init__(self, wait_s: float = 30.0) -> None:
        self._wait_s = wait_s
        self._link: ReplayLink | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ReplayLink]:
        """Take rows for as long as this is open."""
        self._link = ReplayLink()
        try:
            yield self._link
        finally:
            self._link = None

    async def through(self, rows: Sequence[Again]) -> list[str]:
        """Send rows through ingest; return for each why it was refused, or nothing.

        Raises:
            ReplayFull: The journal has no space, or ingest is not running.
            TimeoutError: It is not known what became of them; replaying again does no harm.
        """
        link = self._link
        if link is None:
            raise ReplayFull("the gateway is not running; try again")
        answers = [link.submit(again) for again in rows]
        try:
            async with asyncio.timeout(self._wait_s):
                return [await answer for answer in answers]
        finally:
            for answer in answers:
                # Nobody asks any more; an exception nobody asked for would be logged.
                if answer.done() and not answer.cancelled():
                    answer.exception()
                answer.cancel()


def _answer_of(batch: Batch) -> "asyncio.Future[str]":
    answer = batch.receipt
    assert isinstance(answer, asyncio.Future)
    return answer
