"""Requests on their way to the writer's thread, and what became of them: the loop's side."""

import asyncio
from collections import deque
from collections.abc import Callable

from kapelle.errors import JournalFailed, JournalFull, KapelleError
from kapelle.journal.leases import Held
from kapelle.journal.settings import JournalSettings
from kapelle.journal.writer import Outcome, Request

_CLOSED = "the journal is closed"


class Submissions:
    """At most a bounded amount waits for the disk; beyond that, writers wait here, then give up."""

    def __init__(self, settings: JournalSettings, publish: Callable[[Outcome], None]) -> None:
        """`publish` is called with every outcome before those who asked hear of it."""
        self.failure: str = ""
        """Why nothing is written any more; empty while all is well."""
        self._settings = settings
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._put: Callable[[Request], None] = _nowhere
        self._waiting: deque[tuple[Request, asyncio.Future[int | Held]]] = deque()
        self._waiting_bytes = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._settled = 0
        self._watch: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Return how many requests wait for the disk."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """Return the size of the bodies that wait. [bytes]"""
        return self._waiting_bytes

    def start(self, put: Callable[[Request], None]) -> None:
        """Send requests here from now on."""
        self._put = put

    def check(self) -> None:
        """Raise JournalFailed where nothing is written any more."""
        if self.failure:
            raise JournalFailed(self.failure)

    async def ask(self, request: Request) -> int | Held:
        """Return what became of a request once it is durable, or raise why not."""
        self.check()
        while self._waiting and (
            len(self._waiting) >= self._settings.queue_entries
            or self._waiting_bytes + request.size > self._settings.queue_bytes
        ):
            await self._wait_for_room()
            self.check()
        done: asyncio.Future[int | Held] = self._loop.create_future()
        self._waiting.append((request, done))
        self._waiting_bytes += request.size
        self._put(request)
        if self._watch is None:
            self._watch_on()
        return await done

    def hand_back(self, outcome: Outcome) -> None:
        """Take an outcome from the writer's thread."""
        try:
            self._loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            # The loop has ended without closing the journal; nobody waits any more.
            return

    def fail(self, why: str) -> None:
        """Refuse everything from now on, and whatever waits."""
        self.failure = self.failure or why
        while self._waiting:
            _, done = self._waiting.popleft()
            if not done.done():
                done.set_exception(JournalFailed(self.failure))
        self._waiting_bytes = 0
        self._publish(Outcome(failure=self.failure))

    def refuse_more(self) -> None:
        """Take no further requests; what waits is still done."""
        self.failure = self.failure or _CLOSED

    def close(self) -> None:
        """Refuse everything, in good order."""
        if self._watch is not None:
            self._watch.cancel()
        self.fail(_CLOSED)

    async def _wait_for_room(self) -> None:
        room = self._loop.create_future()
        self._room.append(room)
        try:
            async with asyncio.timeout(self._settings.wait_s):
                await room
        except TimeoutError as error:
            raise JournalFull(
                f"{len(self._waiting)} requests wait for the disk under "
                f"{self._settings.directory}; nothing of this one was written"
            ) from error

    def _settle(self, outcome: Outcome) -> None:
        self._settled += 1
        if not outcome.failure:
            self._publish(outcome)
        for result in outcome.results:
            if not self._waiting:
                break
            request, done = self._waiting.popleft()
            self._waiting_bytes -= request.size
            if done.done():
                continue
            if isinstance(result, KapelleError):
                done.set_exception(result)
            else:
                done.set_result(result)
        if outcome.failure:
            self.fail(outcome.failure)
        while self._room:
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)

    def _watch_on(self) -> None:
        self._watch = self._loop.call_later(
            self._settings.stall_s, self._check_progress, self._settled
        )

    def _check_progress(self, settled: int) -> None:
        self._watch = None
        if not self._waiting:
            return
        if settled != self._settled:
            self._watch_on()
            return
        self.fail(
            f"the disk under {self._settings.directory} has not finished a write for "
            f"{self._settings.stall_s:g} s; nothing is acknowledged any more. Check the disk and "
            "the system log, then start again"
        )


def _nowhere(_: Request) -> None:
    raise JournalFailed("the journal has not started")
