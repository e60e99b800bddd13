"""Requests to a utility's VTN: with a token, bounded in size and time, errors as LinkLost."""

import asyncio
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from kapelle.adapters.openadr.settings import UpstreamSettings
from kapelle.errors import LinkLost
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock
from kapelle.runtime.exposure import is_loopback

NAME = "openadr_upstream"
_TOKEN_EARLY_S = 30.0
_TOKEN_S = 600.0
"""Where the utility does not say how long a token is good. [s]"""

T = TypeVar("T")


class _Token(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: float = _TOKEN_S


class _Server(msgspec.Struct, frozen=True):
    token_url: str = msgspec.field(name="tokenURL")


class Requests:
    """Asks a utility's VTN."""

    def __init__(
        self, client: httpx.AsyncClient, *, settings: UpstreamSettings, clock: Clock
    ) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock
        self._base = settings.url.rstrip("/")
        self._token = ""
        self._until_ns = 0

    async def ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int | list[str]] | None = None,
        content: bytes | None = None,
    ) -> bytes:
        """Return the body of an answer; fetches a new token once where the old one is refused.

        Raises:
            LinkLost: It was answered anything but 2xx, or more than may be read.
        """
        for attempt in range(2):
            headers = {"Authorization": f"Bearer {await self._bearer()}"}
            if content is not None:
                headers["Content-Type"] = "application/json"
            status, body = await self._exchange(
                self._client.build_request(
                    method, self._base + path, params=params, content=content, headers=headers
                )
            )
            if status == 401 and not attempt:
                self._token = ""
                continue
            if not 200 <= status < 300:
                raise LinkLost(NAME, f"{method} {path.split('/')[1]}: status {status}")
            return body
        raise AssertionError

    async def _bearer(self) -> str:
        if self._token and self._clock.now_ns() < self._until_ns:
            return self._token
        settings = self._settings
        url = settings.token_url
        if not url:
            url = decoded(await self._open("GET", self._base + "/auth/server"), _Server).token_url
        if not is_private(url, settings.insecure):
            raise LinkLost(NAME, "its token endpoint is not https")
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": settings.client_secret,
        }
        token = decoded(await self._open("POST", url, form), _Token)
        good_s = max(token.expires_in - _TOKEN_EARLY_S, token.expires_in / 2)
        self._token = token.access_token
        self._until_ns = self._clock.now_ns() + int(min(good_s, 86_400.0) * NS_PER_S)
        return self._token

    async def _open(self, method: str, url: str, form: dict[str, str] | None = None) -> bytes:
        status, body = await self._exchange(self._client.build_request(method, url, data=form))
        if status != 200:
            raise LinkLost(NAME, f"{method} of a token: status {status}")
        return body

    async def _exchange(self, request: httpx.Request) -> tuple[int, bytes]:
        """Return status and body, bounded in size and in time altogether."""
        settings = self._settings
        async with asyncio.timeout(settings.answer_s):
            answer = await self._client.send(request, stream=True)
            try:
                parts, left = [], settings.body_bytes_max
                async for part in answer.aiter_raw():
                    left -= len(part)
                    if left < 0:
                        raise LinkLost(NAME, "an answer is longer than may be read")
                    parts.append(part)
            finally:
                await answer.aclose()
        return answer.status_code, b"".join(parts)


def decoded(raw: bytes, shape: type[T]) -> T:
    """Return an answer in its shape. Raises LinkLost."""
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise LinkLost(NAME, f"an answer cannot be read: {error}") from error


def is_private(url: str, insecure: bool) -> bool:
    """Tell whether nobody else can read what is sent there, or the settings do not mind."""
    parts = urlsplit(url)
    return parts.scheme == "https" or insecure or is_loopback(parts.hostname or "")
