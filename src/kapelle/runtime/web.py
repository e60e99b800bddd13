"""HTTP/1.1 inside the plant's event loop: uvicorn with a deadline for a request's head, which its
own server has not, without its signals, and on a socket that is bound here."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol


class BoundedProtocol(H11Protocol):
    """Closes connections that begin a request and do not finish its head.

    A thousand sockets that say one byte a minute would otherwise hold every place there is.
    """

    head_s = 10.0
    """From the connection, or the first byte of a further request, to the end of its head. [s]"""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Start the clock with the connection."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop the clock when a request is under way; start it when another begins."""
        super().data_received(data)
        if self._is_answering():
            self._disarm()
        elif self._deadline is None:
            self._arm()

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.head_s, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self._is_answering():
            self.transport.close()


def bounded(head_s: float) -> type[BoundedProtocol]:
    """Return the protocol with its deadline: uvicorn makes one object per connection itself."""
    return type("Protocol", (BoundedProtocol,), {"head_s": head_s})


class WebServer(uvicorn.Server):
    """Says when it serves, and leaves signals to the process that runs the plant."""

    def __init__(self, config: uvicorn.Config, ready: asyncio.Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say when requests are taken."""
        await super().startup(sockets)
        self._ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process that runs the plant."""
        yield
