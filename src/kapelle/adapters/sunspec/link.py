"""One Modbus TCP connection: one transaction at a time, for all units behind it."""

import asyncio
from typing import Protocol

from kapelle.adapters.sunspec import frames
from kapelle.errors import KapelleError, LinkLost


class Declined(KapelleError):
    """A device answered that it will not do what it was asked, or cannot now."""

    def __init__(self, code: int) -> None:
        super().__init__(frames.why(code))
        self.code = code


class Registers(Protocol):
    """Whatever holds registers of several units."""

    connection: int
    """Rises whenever the connection is made anew: what was known of addresses may be void."""

    async def read(self, unit: int, address: int, count: int) -> bytes:
        """Return registers. Raises LinkLost, Declined."""

    async def write(self, unit: int, address: int, raw: bytes, *, on: int) -> None:
        """Write registers that lie side by side. Raises LinkLost, Declined.

        `on`: the connection on which the address was found. On no other is anything written:
        after a start of the device something else may lie there.
        """


class Line:
    """A connection that is made when it is needed and dropped when an answer is amiss.

    Devices serve one client, some only one, so whoever shares host and port shares the line. After
    a late or foreign answer no later one could be trusted to belong to its question.
    """

    def __init__(self, host: str, port: int, *, answer_s: float) -> None:
        self.connection = 0
        self.name = f"{host}:{port}"
        self._host = host
        self._port = port
        self._answer_s = answer_s
        self._turn = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._transaction = 0

    async def read(self, unit: int, address: int, count: int) -> bytes:
        """See `Registers`."""
        return await self._ask(lambda number: frames.read(number, unit, address, count))

    async def write(self, unit: int, address: int, raw: bytes, *, on: int) -> None:
        """See `Registers`."""
        await self._ask(lambda number: frames.write(number, unit, address, raw), on)

    def close(self) -> None:
        """Drop the connection."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _ask(self, request: frames.Request, on: int | None = None) -> bytes:
        async with self._turn:
            try:
                async with asyncio.timeout(self._answer_s):
                    answer = await self._converse(request, on)
            except TimeoutError as error:
                self.close()
                raise LinkLost(self.name, f"no answer within {self._answer_s:g} s") from error
            except (OSError, EOFError, frames.Mismatch) as error:
                self.close()
                raise LinkLost(self.name, str(error) or type(error).__name__) from error
            except BaseException:
                # Cancelled half way: the answer would meet the next question.
                self.close()
                raise
        if answer.exception:
            raise Declined(answer.exception)
        return answer.raw

    async def _converse(self, request: frames.Request, on: int | None) -> frames.Answer:
        is_open = self._reader is not None and not self._reader.at_eof()
        if on is not None and (on != self.connection or not is_open):
            raise ConnectionResetError("the connection was lost before anything was written")
        if self._reader is None or self._writer is None or not is_open:
            self.close()
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
            self.connection += 1
        self._transaction = self._transaction % 0xFFFF + 1
        asked = request(self._transaction)
        self._writer.write(asked)
        await self._writer.drain()
        head = frames.header(await self._reader.readexactly(frames.HEADER_SIZE))
        return frames.answer(asked, head, await self._reader.readexactly(head.size))
