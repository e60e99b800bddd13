"""`POST /v1/telemetry`: a raw ASGI route that answers once the journal has the readings."""

import asyncio
import base64
import binascii
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from kapelle.adapters.http import problems
from kapelle.adapters.http.arrow import decode_arrow
from kapelle.adapters.http.body import TooLarge, unzip
from kapelle.adapters.http.decoded import Columns, Decoded, Unreadable, settle
from kapelle.adapters.http.link import HttpLink
from kapelle.adapters.http.names import Names
from kapelle.adapters.http.problems import Refused
from kapelle.adapters.http.rows import decode_json, decode_ndjson
from kapelle.adapters.http.settings import HttpSettings
from kapelle.ports import Batch, Clock, Directory

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ARROW = "application/vnd.apache.arrow.stream"
Decode = Callable[[bytes, Names, int | None, int], Columns]
_DECODERS: Mapping[str, Decode] = {
    "application/json": decode_json,
    "application/x-ndjson": decode_ndjson,
    "application/jsonl": decode_ndjson,
    ARROW: decode_arrow,
}


@dataclass(frozen=True, slots=True)
class _Sender:
    name: str
    device_no: int | None
    """None: one that may speak for all devices."""


class HttpTelemetry:
    """The adapter, and the ASGI application that feeds it."""

    name = "http"

    def __init__(
        self,
        *,
        directory: Directory,
        clock: Clock,
        token: str,
        settings: HttpSettings | None = None,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._token = token.encode()
        self._settings = settings if settings is not None else HttpSettings()
        self._names = Names(directory, self._settings.names_remembered_max)
        self._link: HttpLink | None = None
        self._turned_away = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[HttpLink]:
        """Take requests for as long as this is open; before and after they are answered 503."""
        link = HttpLink()
        self._link = link
        try:
            yield link
        finally:
            self._link = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            status, body = await self._take(scope, receive)
            await _answer(send, status, body, {"content-type": "application/json"})
        except _Gone:
            return
        except Refused as refused:
            if refused.status in (503, 507):
                refused.headers["retry-after"] = self._retry_after()
            headers = {"content-type": problems.MEDIA_TYPE}
            await _answer(send, refused.status, refused.body(), headers | refused.headers)

    async def _take(self, scope: MutableMapping[str, Any], receive: Receive) -> tuple[int, bytes]:
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        if scope["method"] != "POST":
            raise Refused(405, "method-unknown", "use POST", headers={"allow": "POST"})
        sender = self._authenticate(headers.get("authorization", ""))
        decode = _decoder(headers.get("content-type", ""))
        is_zipped = _is_zipped(headers.get("content-encoding", ""))
        link = self._link
        settings = self._settings
        if link is None or link.rows_waiting >= settings.rows_waiting_max:
            raise Refused(503, "queue-full", "more waits for the journal than may; send again")
        held = _Held(link)
        try:
            body = await self._read(headers, receive, held)
            if is_zipped:
                body = await self._unzip(body, held)
            return await self._store(body, decode, sender, held)
        except TooLarge:
            most = settings.body_bytes_max
            raise Refused(413, "body-too-large", f"at most {most} bytes, unpacked") from None
        except Unreadable as error:
            status = 413 if error.code == "too-many-rows" else 422
            raise Refused(status, error.code, error.detail) from None
        finally:
            link.bytes_waiting -= held.size

    async def _store(
        self,
        body: bytes,
        decode: Decode,
        sender: _Sender,
        held: "_Held",
    ) -> tuple[int, bytes]:
        settings = self._settings
        received_at_ns = self._clock.now_ns()
        columns = decode(body, self._names, sender.device_no, settings.rows_max)
        decoded = settle(columns, received_at_ns, sender.device_no)
        if not decoded.count:
            return _taken(decoded, {}, settings.listed_max)
        source = f"http/{sender.name}"
        rows = decoded.rows
        batch = Batch(
            readings=decoded.readings,
            raw=lambda place: decoded.raw(int(rows[place])),
            source=source,
            unreadable=decoded.quarantined(received_at_ns, source),
        )
        try:
            size, held.size = held.size, 0
            refused = await held.link.submit(batch, decoded.count, size, settings.durable_s)
        except TimeoutError:
            raise Refused(
                503, "journal-slow", "not known to be stored in time; send again, twice is once"
            ) from None
        return _taken(decoded, refused, settings.listed_max)

    async def _read(self, headers: Mapping[str, str], receive: Receive, held: "_Held") -> bytes:
        """Return the body, bounded in size and time."""
        settings = self._settings
        promised = headers.get("content-length", "0")
        if promised.isdigit() and int(promised) > settings.body_bytes_max:
            raise TooLarge
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(settings.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    part: bytes = message.get("body", b"")
                    parts.append(part)
                    self._hold(len(part), held)
                    if held.size > settings.body_bytes_max:
                        raise TooLarge
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(408, "body-slow", "the body did not arrive in time") from None

    async def _unzip(self, body: bytes, held: "_Held") -> bytes:
        parts: list[bytes] = []
        for part in unzip(body, self._settings.body_bytes_max):
            self._hold(len(part), held)
            parts.append(part)
            # A megabyte took a few milliseconds: let others run in between.
            await asyncio.sleep(0)
        return b"".join(parts)

    def _hold(self, size: int, held: "_Held") -> None:
        if held.link.bytes_waiting + size > self._settings.bytes_waiting_max:
            raise Refused(503, "queue-full", "too many requests at once; send again")
        held.link.bytes_waiting += size
        held.size += size

    def _authenticate(self, authorization: str) -> _Sender:
        scheme, _, value = authorization.partition(" ")
        match scheme.lower():
            case "bearer":
                if hmac.compare_digest(value.strip().encode(), self._token):
                    return _Sender("api", None)
            case "basic":
                name, secret = _credentials(value)
                device_no = self._directory.authenticate(name, secret)
                if device_no is not None:
                    return _Sender(name, int(device_no))
        raise Refused(
            401,
            "credentials-wrong",
            "send a device's own credentials (Basic) or the API token (Bearer)",
            headers={"www-authenticate": 'Basic realm="kapelle", Bearer realm="kapelle"'},
        )

    def _retry_after(self) -> str:
        """Spread those that are turned away, so that they do not return together."""
        self._turned_away += 1
        least = self._settings.retry_after_s
        return str(least + self._turned_away * 7 % (2 * least + 1))


@dataclass(slots=True)
class _Held:
    """How much of `bytes_waiting_max` a request has taken and not yet handed to its batch."""

    link: HttpLink
    size: int = 0


class _Gone(Exception):
    """The client hung up."""


def _taken(decoded: Decoded, refused: Mapping[int, str], listed_max: int) -> tuple[int, bytes]:
    """Return the answer: 200 where anything was taken or nothing was sent, else a problem."""
    listed = [(bad.row, bad.device, bad.code, bad.detail, bad.field) for bad in decoded.bad]
    for place, reason in refused.items():
        code, _, detail = reason.partition(": ")
        row = int(decoded.rows[place])
        listed.append((row, decoded.name(row), code, detail, ""))
    listed.sort()
    accepted = decoded.count - len(listed)
    told = [
        {"row": row, "device": device or None, "code": code, "detail": detail}
        for row, device, code, detail, _ in listed[:listed_max]
    ]
    if accepted or not listed:
        answer = {
            "accepted": accepted, "quarantined": told, "quarantined_total": len(listed)
        }  # fmt: skip
        return 200, msgspec.json.encode(answer)
    faults = [
        problems.Fault(f"/{row}/{field}" if field else f"/{row}", f"{code}: {detail}")
        for row, _, code, detail, field in listed[:listed_max]
    ]
    raise Refused(
        422,
        "no-row-usable",
        f"none of {len(listed)} rows can be used; they are kept in quarantine",
        faults=faults,
        more={"accepted": 0, "quarantined": told, "quarantined_total": len(listed)},
    )


def _decoder(content_type: str) -> Decode:
    media, _, parameters = content_type.partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    found = _DECODERS.get(media.strip().lower())
    if found is None or ("charset=" in charset and "charset=utf-8" not in charset):
        raise Refused(
            415,
            "media-type-unknown",
            f"Content-Type is one of {', '.join(_DECODERS)}, in UTF-8",
            headers={"accept-post": ", ".join(_DECODERS)},
        )
    return found


def _is_zipped(encoding: str) -> bool:
    match encoding.strip().lower():
        case "" | "identity":
            return False
        case "gzip" | "x-gzip":
            return True
        case _:
            raise Refused(
                415,
                "encoding-unknown",
                "Content-Encoding is gzip or absent",
                headers={"accept-encoding": "gzip, identity"},
            )


def _credentials(value: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    name, _, secret = text.partition(":")
    return name, secret


async def _answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    raw = [
        (key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()
    ]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
