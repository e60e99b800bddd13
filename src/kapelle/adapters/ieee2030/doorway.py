"""Accepts connections and shakes hands with a bounded number of strangers at once.

Whoever opens connections and says nothing keeps others waiting for `handshake_s` at most, and takes
no more of the system than `half_open_max` sockets: the rest waits where nothing was accepted yet.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from kapelle.adapters.ieee2030.counters import Counters
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.runtime.background import Background

_OUT_OF_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S = 1.0
_GOODBYE_S = 2.0

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Doorway:
    """Lets in whom a context of TLS lets in."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        serve: Serve,
        *,
        beside: Background,
        settings: Ieee2030Settings,
        counters: Counters,
    ) -> None:
        """Make it. `listener` does not block; `serve` has each connection as long as it lasts."""
        self._listener = listener
        self._context = context
        self._serve = serve
        self._beside = beside
        self._settings = settings
        self._counters = counters
        self._room = asyncio.Semaphore(settings.half_open_max)

    async def run(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                self._room.release()
                if error.errno in _OUT_OF_ROOM:
                    await asyncio.sleep(_PAUSE_S)
                elif not isinstance(error, ConnectionError):
                    raise
                continue
            self._beside.start(self._shake(connection), "IEEE 2030.5 handshake")

    async def _shake(self, connection: socket.socket) -> None:
        reader = asyncio.StreamReader(limit=2 * self._settings.body_size_max)
        protocol = asyncio.StreamReaderProtocol(reader, self._begin)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._settings.handshake_s,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        except (OSError, EOFError):  # ssl.SSLError and TimeoutError are OSErrors.
            self._counters.connects_refused["TLS handshake"] += 1
            connection.close()
        finally:
            self._room.release()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._beside.start(self._serve(reader, writer), "IEEE 2030.5 connection")
