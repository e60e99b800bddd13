"""HTTP/1.1 over mutual TLS: one request after the other on each connection, each bounded.

On h11 rather than uvicorn, although that serves the API: who asks is told by the certificate of the
connection, and uvicorn gives an application no way to it.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

import h11

from kapelle.adapters.ieee2030.counters import Counters
from kapelle.adapters.ieee2030.identity import lfdi_of
from kapelle.adapters.ieee2030.settings import Ieee2030Settings

_READ_BYTES = 16_384
_HEAD_BYTES_MAX = 16_384
_QUERY_FIELDS_MAX = 8


class Request(NamedTuple):
    """What a client asks."""

    lfdi: str
    """Who asks, by its certificate."""
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    etag: str
    """If-None-Match; empty: none."""


class Response(NamedTuple):
    """What it is answered."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Answer = Callable[[Request], Awaitable[Response]]


class _TooLarge(Exception):
    """A body is longer than allowed."""


def lfdi_behind(writer: asyncio.StreamWriter) -> str:
    """Return the LFDI of whoever is at the other end; empty: no certificate."""
    secured = writer.get_extra_info("ssl_object")
    certificate = secured.getpeercert(binary_form=True) if secured is not None else None
    return lfdi_of(certificate) if certificate else ""


class Connection:
    """One connection of a client, until it ends."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        lfdi: str,
        *,
        settings: Ieee2030Settings,
        counters: Counters,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._lfdi = lfdi
        self._settings = settings
        self._counters = counters
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES_MAX)

    async def run(self, answer: Answer) -> None:
        """Answer requests until the client leaves, is idle, or says what is no HTTP."""
        try:
            while await self._serve(answer):
                pass
        except h11.RemoteProtocolError:
            self._counters.drops["no HTTP"] += 1
            await self._try_to_say(HTTPStatus.BAD_REQUEST)
        except _TooLarge:
            self._counters.drops["message too big"] += 1
            await self._try_to_say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except TimeoutError:
            self._counters.drops["slow or idle"] += 1
        except (ConnectionError, ssl.SSLError):
            pass  # It has gone.

    async def _serve(self, answer: Answer) -> bool:
        """Answer one request; return whether there may be another."""
        async with asyncio.timeout(self._settings.idle_s):
            first = await self._next()
        if not isinstance(first, h11.Request):
            return False
        async with asyncio.timeout(self._settings.request_s):
            body = await self._body()
        self._counters.requests += 1
        request = _request(self._lfdi, first, body)
        response = await answer(request)
        await self._write(response, is_head=request.method == "HEAD")
        if self._http.our_state is h11.MUST_CLOSE:
            return False
        self._http.start_next_cycle()
        return True

    async def _body(self) -> bytes:
        body = bytearray()
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._settings.body_size_max:
                    raise _TooLarge
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                raise ConnectionResetError("the client has gone")

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._http.send(go_on))
            self._http.receive_data(await self._reader.read(_READ_BYTES))
        return event

    async def _write(self, response: Response, *, is_head: bool = False) -> None:
        headers = [("Content-Length", str(len(response.body))), *response.headers]
        phrase = HTTPStatus(response.status).phrase
        head = h11.Response(status_code=response.status, reason=phrase, headers=headers)
        self._writer.write(self._http.send(head))
        if response.body and not is_head:
            self._writer.write(self._http.send(h11.Data(data=response.body)))
        self._writer.write(self._http.send(h11.EndOfMessage()))
        async with asyncio.timeout(self._settings.request_s):
            await self._writer.drain()

    async def _try_to_say(self, status: HTTPStatus) -> None:
        """Say what is wrong before the connection ends, if HTTP still allows it."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        try:
            await self._write(Response(status, headers=(("Connection", "close"),)))
        except (OSError, h11.LocalProtocolError):
            return


def _request(lfdi: str, head: h11.Request, body: bytes) -> Request:
    target = head.target.decode("ascii", "replace")
    path, _, query = target.partition("?")
    try:
        fields = dict(parse_qsl(query, max_num_fields=_QUERY_FIELDS_MAX))
    except ValueError:
        fields = {}
    etag = next((value.decode("latin-1") for name, value in head.headers if name == _ETAG), "")
    return Request(lfdi, head.method.decode("ascii"), path, fields, body, etag)


_ETAG = b"if-none-match"
