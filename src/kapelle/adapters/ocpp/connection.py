"""One WebSocket with a station: its calls in order, ours one at a time, each with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from kapelle.adapters.mqtt.throttle import TokenBucket
from kapelle.adapters.ocpp import frames
from kapelle.adapters.ocpp.counters import Counters
from kapelle.adapters.ocpp.dialect import Ask, Dialect
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.ports import Clock
from kapelle.runtime.background import background

_CALLS_MAX = 8
"""Calls of a station that wait for their turn; one more and it is not read. By the specification a
station has one at a time (1.6 JSON, 4.1.1)."""
UNKNOWN_VERSION = 1002
POLICY = 1008
TAKEN = 1000

Answer = Callable[[frames.Call], Awaitable[str | None]]
Garbage = Callable[[frames.Broken, bytes], Awaitable[None]]


class Refused(Exception):
    """The station answered a call with an error; the text is its code."""


class Connection:
    """Speaks OCPP-J over one WebSocket. Ends with it."""

    def __init__(
        self,
        socket: ServerConnection,
        dialect: Dialect,
        *,
        settings: OcppSettings,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self.dialect = dialect
        self.heard = asyncio.Event()
        """Set once the station has had an answer: from then on it takes calls."""
        self._socket = socket
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._calls: asyncio.Queue[frames.Call] = asyncio.Queue(_CALLS_MAX)
        self._turn = asyncio.Lock()
        self._asked = ("", asyncio.get_running_loop().create_future())
        self._count = 0
        self._bucket = TokenBucket(settings.messages_per_s, settings.messages_burst, clock.now_ns())

    async def run(self, answer: Answer, garbage: Garbage) -> None:
        """Serve the station until the connection ends.

        Args:
            answer: Takes a call in and returns the frame that answers it; None: there is none.
            garbage: Takes in what is no frame.
        """
        try:
            async with background() as beside:
                beside.start(self._serve(answer), "calls of a station")
                await self._read(garbage)
        except ConnectionClosedOK:
            return
        except ConnectionClosed as closed:
            sent = closed.sent.code if closed.sent is not None else 0
            if sent == 1011:
                self._drop("ping unanswered")
            elif sent == 1009:
                self._drop("message too big")
        except TimeoutError:
            self._drop("silent")
            await self.close(POLICY, "nothing heard for too long")
        finally:
            self._asked[1].cancel()

    async def call(self, ask: Ask) -> bytes:
        """Ask the station something and return the payload of its result.

        Raises:
            Refused: It answered with an error.
            ConnectionError: The connection is gone.
            TimeoutError: It did not answer in time.
        """
        async with asyncio.timeout(self._settings.call_s), self._turn:
            self._count += 1
            name = f"k{self._count}"
            answered: asyncio.Future[frames.Result | frames.Error]
            answered = asyncio.get_running_loop().create_future()
            self._asked = (name, answered)
            await self._write(frames.call(name, ask.action, ask.payload))
            try:
                answer = await answered
            except asyncio.CancelledError:
                if answered.cancelled() and not _is_leaving():
                    raise ConnectionResetError("the station has gone") from None
                raise
        self._counters.commands_received += 1
        if isinstance(answer, frames.Error):
            raise Refused(answer.code)
        return answer.payload

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, and end the connection whether the station answers or not."""
        try:
            async with asyncio.timeout(self._settings.call_s):
                await self._socket.close(code, reason)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        self._socket.transport.abort()

    def _drop(self, reason: str) -> None:
        self._counters.drops[reason] += 1

    async def _read(self, garbage: Garbage) -> None:
        while True:
            async with asyncio.timeout(self._settings.silence_s):
                text = await self._socket.recv(decode=False)
            pause_s = self._bucket.take(1, self._clock.now_ns())
            if pause_s:
                await self._clock.sleep(pause_s)
            frame = frames.decode(text)
            if isinstance(frame, frames.Call):
                await self._calls.put(frame)
            elif isinstance(frame, frames.Broken):
                await garbage(frame, text)
                await self._write(frames.error(frame.id, self.dialect.frame_error, frame.reason))
            else:
                self._resolve(frame)

    def _resolve(self, frame: frames.Result | frames.Error) -> None:
        name, answered = self._asked
        if frame.id == name and not answered.done():
            answered.set_result(frame)
        else:
            self._counters.astray += 1

    async def _serve(self, answer: Answer) -> None:
        while True:
            said = await answer(await self._calls.get())
            if said is not None:
                await self._write(said)
            self.heard.set()

    async def _write(self, text: str) -> None:
        """Write a message; a station that does not read ends the connection."""
        try:
            async with asyncio.timeout(self._settings.call_s):
                await self._socket.send(text)
        except TimeoutError:
            self._drop("slow reader")
            self.abort()
            raise ConnectionResetError("the station does not read") from None
        except ConnectionClosed as closed:
            raise ConnectionResetError("the station has gone") from closed


def _is_leaving() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
