"""The VTN's REST routes as one ASGI application: bounded bodies, tokens, and one form of errors.

The document has errors as `application/json`; they are RFC 9457 problems all the same.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

import msgspec

from kapelle.adapters.http.problems import Refused
from kapelle.adapters.openadr.clients import Client, Clients
from kapelle.adapters.openadr.counters import Counters
from kapelle.adapters.openadr.desk import Desk
from kapelle.adapters.openadr.objects import Kept
from kapelle.adapters.openadr.query import Query
from kapelle.adapters.openadr.settings import OpenAdrSettings, is_id
from kapelle.adapters.openadr.shapes import OBJECT_TYPES, Body, ObjectType

BASE = "/openadr3/3.1.0"
_KINDS: dict[str, ObjectType] = {
    "programs": "PROGRAM",
    "events": "EVENT",
    "reports": "REPORT",
    "subscriptions": "SUBSCRIPTION",
    "vens": "VEN",
    "resources": "RESOURCE",
}
_PAGE_MAX = 50
_FIELDS_MAX = 100
_FORM = "application/x-www-form-urlencoded"
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_Answer = tuple[int, object]

log = logging.getLogger("kapelle.openadr")


class Host(Protocol):
    """What the routes need of the adapter."""

    @property
    def desk(self) -> Desk | None:
        """Return who answers; None while the adapter is not open."""

    def heard(self, client: Client) -> None:
        """Note that a client lives."""

    async def reported(self, client: Client, body: Body, raw: bytes) -> None:
        """Take in what a report says; returns once it is durable. Raises Refused."""

    def token_url(self) -> str:
        """Return where tokens come from."""


class Routes:
    """Answers requests."""

    def __init__(
        self, host: Host, *, clients: Clients, settings: OpenAdrSettings, counters: Counters
    ) -> None:
        self._host = host
        self._clients = clients
        self._settings = settings
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        self._counters.requests += 1
        headers: dict[str, str] = {}
        try:
            status, told = await self._answer(scope, receive)
            body = msgspec.json.encode(told)
        except _Gone:
            return
        except Refused as refused:
            status, body, headers = refused.status, refused.body(), refused.headers
        except Exception:
            log.exception("a request failed", extra={"path": scope["path"]})
            failed = Refused(500, "internal", "an error of ours; it is in the log")
            status, body = failed.status, failed.body()
        await _send(send, status, body, headers)

    async def _answer(self, scope: Scope, receive: Receive) -> _Answer:
        parts = _parts(scope)
        if parts[:1] == ["auth"]:
            return await self._auth(scope, receive, parts[1:])
        headers = _headers(scope)
        client = self._clients.who(headers.get("authorization", ""))
        if client is None:
            raise Refused(
                401,
                "token-wrong",
                "send a bearer token of /auth/token that is still good",
                headers={"www-authenticate": 'Bearer realm="openadr"'},
            )
        if (wait_s := self._clients.wait_s(client)) > 0:
            retry = {"retry-after": str(1 + int(wait_s))}
            raise Refused(429, "too-many-requests", "this client asks too often", headers=retry)
        desk = self._host.desk
        if desk is None:
            raise Refused(503, "closed", "come back", headers={"retry-after": "2"})
        self._host.heard(client)
        if parts[:1] == ["notifiers"]:
            return self._notifiers(scope, parts[1:])
        kind = _KINDS.get(parts[0]) if parts else None
        if kind is None or len(parts) > 2:
            raise Refused(404, "route-unknown", "there is no such route")
        if len(parts) == 1:
            return await self._many(desk, client, kind, scope, receive)
        return await self._one(desk, client, kind, parts[1], scope, receive)

    async def _many(
        self, desk: Desk, client: Client, kind: ObjectType, scope: Scope, receive: Receive
    ) -> _Answer:
        if scope["method"] == "GET":
            return 200, [kept.told() for kept in desk.search(client, kind, _query(scope))]
        _only(scope, "GET", "POST")
        raw = await self._json(scope, receive)
        body = desk.asked(client, kind, raw)
        kept = await desk.create(client, kind, body, self._before(client, kind, body, raw))
        return 201, kept.told()

    async def _one(
        self,
        desk: Desk,
        client: Client,
        kind: ObjectType,
        object_id: str,
        scope: Scope,
        receive: Receive,
    ) -> _Answer:
        _only(scope, "GET", "PUT", "DELETE")
        if not is_id(object_id):
            raise Refused(400, "id-invalid", "an id is 1 to 128 of a-z A-Z 0-9 _ -")
        kept: Kept
        if scope["method"] == "GET":
            kept = desk.find(client, kind, object_id)
        elif scope["method"] == "DELETE":
            kept = await desk.delete(client, kind, object_id)
        else:
            raw = await self._json(scope, receive)
            body = desk.asked(client, kind, raw)
            before = self._before(client, kind, body, raw)
            kept = await desk.update(client, kind, object_id, body, before)
        return 200, kept.told()

    def _before(
        self, client: Client, kind: ObjectType, body: Body, raw: bytes
    ) -> Callable[[], Awaitable[None]] | None:
        """Return what must be done before an object is kept: of a report, take its readings in."""
        if kind != "REPORT":
            return None

        async def take_in() -> None:
            await self._host.reported(client, body, raw)

        return take_in

    def _notifiers(self, scope: Scope, parts: list[str]) -> _Answer:
        _only(scope, "GET")
        if parts:
            raise Refused(404, "route-unknown", "there is no MQTT notifier; use a webhook")
        return 200, {"WEBHOOK": True}

    async def _auth(self, scope: Scope, receive: Receive, parts: list[str]) -> _Answer:
        if parts == ["server"]:
            _only(scope, "GET")
            return 200, {"tokenURL": self._host.token_url()}
        if parts != ["token"]:
            raise Refused(404, "route-unknown", "there is no such route")
        _only(scope, "POST")
        address = str((scope.get("client") or ("",))[0])
        return 200, self._token(_form(await self._read(scope, receive, _FORM)), address)

    def _token(self, given: dict[str, str], address: str) -> object:
        """Return a token (RFC 6749, 4.4 and 5)."""
        if not all(given.get(name) for name in ("grant_type", "client_id", "client_secret")):
            raise _oauth(400, "invalid_request", "give grant_type, client_id and client_secret")
        if given["grant_type"] != "client_credentials":
            raise _oauth(400, "unsupported_grant_type", "grant_type is client_credentials")
        if (wait_s := self._clients.guess_wait_s(address, given["client_id"])) > 0:
            retry = {"retry-after": str(1 + int(wait_s))}
            raise Refused(429, "too-many-guesses", "wrong secrets too often", headers=retry)
        token = self._clients.issue(given["client_id"], given["client_secret"], address)
        if token is None:
            self._counters.connects_refused["wrong credentials"] += 1
            raise _oauth(401, "invalid_client", "wrong client id or secret")
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": int(self._settings.token_s),
        }

    async def _json(self, scope: Scope, receive: Receive) -> bytes:
        return await self._read(scope, receive, "application/json")

    async def _read(self, scope: Scope, receive: Receive, media: str) -> bytes:
        """Return the body, bounded in size and time."""
        given = _headers(scope).get("content-type", "").partition(";")[0].strip().lower()
        if given and given != media:
            raise Refused(415, "media-type-unknown", f"Content-Type is {media}")
        settings = self._settings
        parts, left = [], settings.body_bytes_max
        try:
            async with asyncio.timeout(settings.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    part: bytes = message.get("body", b"")
                    parts.append(part)
                    left -= len(part)
                    if left < 0:
                        most = settings.body_bytes_max
                        raise Refused(413, "body-too-large", f"at most {most} bytes are read")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(408, "body-slow", "the body did not arrive in time") from None


class _Gone(Exception):
    """The client hung up."""


def _oauth(status: int, error: str, detail: str) -> Refused:
    more = {"error": error, "error_description": detail}
    headers = {"www-authenticate": 'Basic realm="openadr"'} if status == 401 else {}
    return Refused(status, error.replace("_", "-"), detail, headers=headers, more=more)


def _parts(scope: Scope) -> list[str]:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.split(b"?")[0].decode("latin-1")
    if not path.startswith(f"{BASE}/"):
        raise Refused(404, "route-unknown", f"everything is below {BASE}")
    return [unquote(part) for part in path[len(BASE) + 1 :].split("/")]


def _headers(scope: Scope) -> dict[str, str]:
    return {
        key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]
    }


def _only(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        allow = {"allow": ", ".join(methods)}
        raise Refused(405, "method-unknown", f"use {' or '.join(methods)}", headers=allow)


def _form(raw: bytes) -> dict[str, str]:
    try:
        given = parse_qs(raw.decode(), strict_parsing=False, max_num_fields=_FIELDS_MAX)
    except ValueError:
        raise _oauth(400, "invalid_request", "the body is no form") from None
    if any(len(values) > 1 for values in given.values()):
        raise _oauth(400, "invalid_request", "a parameter stands there twice")
    return {name: values[0] for name, values in given.items()}


def _query(scope: Scope) -> Query:
    try:
        raw = scope["query_string"].decode("latin-1")
        given = parse_qs(raw, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError:
        raise Refused(400, "query-invalid", "the query cannot be read") from None
    objects = given.get("objects", [])
    if any(one not in OBJECT_TYPES for one in objects):
        raise Refused(400, "query-invalid", f"objects are of {', '.join(OBJECT_TYPES)}")
    names = [_text(given, name) for name in ("venName", "resourceName")]
    active = given.get("active", ["false"])[-1]
    if active not in ("true", "false"):
        raise Refused(400, "query-invalid", "active is true or false")
    return Query(
        skip=_number(given, "skip", 0, 2**31 - 1),
        limit=_number(given, "limit", _PAGE_MAX, _PAGE_MAX),
        targets=[_named(one, "targets") for one in given.get("targets", [])],
        program_id=_id(given, "programID"),
        event_id=_id(given, "eventID"),
        ven_id=_id(given, "venID"),
        client_name=_text(given, "clientName"),
        name=next((name for name in names if name), ""),
        objects=objects,
        active=active == "true",
    )


def _number(given: dict[str, list[str]], name: str, default: int, most: int) -> int:
    if name not in given:
        return default
    text = given[name][-1]
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most):
        raise Refused(400, "query-invalid", f"{name} is a number from 0 to {most}")
    return int(text)


def _text(given: dict[str, list[str]], name: str) -> str:
    return _named(given[name][-1], name) if name in given else ""


def _named(text: str, name: str) -> str:
    if not 1 <= len(text) <= 128:
        raise Refused(400, "query-invalid", f"{name} has 1 to 128 characters")
    return text


def _id(given: dict[str, list[str]], name: str) -> str:
    text = _text(given, name)
    if text and not is_id(text):
        raise Refused(400, "query-invalid", f"{name} is no id")
    return text


async def _send(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    raw = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    raw += [
        (key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
