"""Requests to a vendor's API: within its quota, bounded in time and size, never redirected."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

import httpx

from kapelle.adapters.cloud.auth import RENEW_S, Auth
from kapelle.adapters.cloud.commands import Request
from kapelle.adapters.cloud.counters import Counters
from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.adapters.cloud.tokens import RefreshToken
from kapelle.adapters.mqtt.throttle import TokenBucket
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock
from kapelle.runtime.background import Background, background

_PAUSE_S_FIRST = 1.0
_RETRY_AFTER_S_MAX = 86_400.0
_BUSY = (429, 503)
"""Answers that may say when to come back (RFC 9110, 10.2.3)."""


class Response(NamedTuple):
    """What the cloud answered."""

    status: int
    body: bytes

    @property
    def is_taken(self) -> bool:
        """Tell whether it did what it was asked."""
        return 200 <= self.status < 300

    @property
    def is_of_the_cloud(self) -> bool:
        """Tell whether an error concerns the cloud as a whole, and not what it was asked for."""
        is_elsewhere = self.status < 200 or 300 <= self.status < 400
        return is_elsewhere or self.status >= 500 or self.status in (401, 429)


class Requests:
    """One cloud's API."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        settings: CloudSettings,
        *,
        file: Path | None,
        beside: Background,
        counters: Counters,
        clock: Clock,
    ) -> None:
        self._client = client
        self._settings = settings
        self._counters = counters
        self._clock = clock
        self.auth = Auth(
            settings.auth,
            name=settings.name,
            fetch=self._fetch_token,
            refresh=RefreshToken(settings.auth.refresh_token, file),
            beside=beside,
            clock=clock,
        )
        self._bucket = TokenBucket(settings.requests_per_s, settings.requests_burst, clock.now_ns())
        self._poll_turn = asyncio.Lock()
        self._draw = random.Random(settings.name)
        self._failures = 0
        self._not_before_ns = 0
        """A cloud that does not answer is not polled before."""
        self._asked_ns = 0
        """The vendor has asked not to be called before."""

    async def poll(self, path: str, params: Mapping[str, str] | None = None) -> Response:
        """Ask for a document when it is its turn: within the quota, after commands.

        Raises:
            OSError: It was not answered.
        """
        async with self._poll_turn:
            # One alone waits for the quota, so that a command waits behind one poll at most; and
            # one alone tries a cloud that is out.
            await self._clock.sleep(self._bucket.take(1, self._clock.now_ns()))
            await self._wait(max(self._not_before_ns, self._asked_ns))
            if self._failures:
                return await self._ask(Request("GET", path), params)
        return await self._ask(Request("GET", path), params)

    async def command(self, request: Request, not_after_ns: int) -> Response | None:
        """Ask for something to be done; waits where the vendor has asked for a pause.

        Returns None where the moment after which it must not be done came first.

        Raises:
            OSError: It was not answered: nobody knows whether it is done.
        """
        await self._clock.sleep(self._bucket.take(1, self._clock.now_ns()))
        await self._wait(self._asked_ns)
        if self._clock.now_ns() > not_after_ns:
            return None
        return await self._ask(request)

    async def _wait(self, until_ns: int) -> None:
        pause_ns = until_ns - self._clock.now_ns()
        if pause_ns > 0:
            await self._clock.sleep(pause_ns / NS_PER_S)

    async def _ask(self, request: Request, params: Mapping[str, str] | None = None) -> Response:
        self._counters.requests += 1
        try:
            async with asyncio.timeout(self._settings.answer_s):
                header = await self.auth.header()
                response, headers = await self._send(request, params, header)
                if response.status == 401 and self.auth.refused(header):
                    header = await self.auth.header()
                    response, headers = await self._send(request, params, header)
        except OSError:
            self._counters.failed += 1
            self._back_off("")
            raise
        if response.is_of_the_cloud:
            self._counters.failed += 1
            self._back_off(headers.get("retry-after", "") if response.status in _BUSY else "")
        else:
            self._failures = 0
            self._not_before_ns = 0
        return response

    async def _send(
        self, request: Request, params: Mapping[str, str] | None, header: str
    ) -> tuple[Response, httpx.Headers]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        headers |= self._settings.headers
        if header:
            headers["Authorization"] = header
        if request.content:
            headers["Content-Type"] = "application/json"
        url = self._settings.base_url.rstrip("/") + request.path
        return await self._read(
            request.method, url, headers, content=request.content or None, params=params
        )

    async def _fetch_token(self, form: dict[str, str], header: str) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if header:
            headers["Authorization"] = header
        response, _ = await self._read("POST", self._settings.auth.token_url, headers, data=form)
        return response

    async def _read(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        *,
        content: bytes | None = None,
        data: dict[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> tuple[Response, httpx.Headers]:
        """Return an answer whose body is bounded; every error of the library leaves as OSError."""
        # A query in the path stays: given parameters are added to it.
        target = httpx.URL(url).copy_merge_params(params) if params else httpx.URL(url)
        try:
            async with self._client.stream(
                method, target, headers=headers, content=content, data=data
            ) as answer:
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise OSError("the cloud packs what it was asked not to pack")
                body = bytearray()
                async for part in answer.aiter_raw():
                    body += part
                    if len(body) > self._settings.body_bytes_max:
                        raise OSError("a document is too long")
                return Response(answer.status_code, bytes(body)), answer.headers
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            # The library's text may carry the address with its query.
            raise ConnectionError(type(error).__name__) from error

    def _back_off(self, retry_after: str) -> None:
        """Keep everybody from asking again too soon: full jitter, doubling, or what was asked."""
        now_ns = self._clock.now_ns()
        self._failures = min(self._failures + 1, 30)
        most_s = min(_PAUSE_S_FIRST * 2.0 ** (self._failures - 1), self._settings.retry_s_max)
        pause_s = self._draw.uniform(most_s / 2, most_s)
        asked_s = retry_after_s(retry_after, now_ns)
        self._not_before_ns = now_ns + int(pause_s * NS_PER_S)
        if asked_s:
            asked_s += self._draw.uniform(0.0, 1.0)
            self._asked_ns = max(self._asked_ns, now_ns + int(asked_s * NS_PER_S))


def retry_after_s(told: str, now_ns: int) -> float:
    """Return how long to stay away, as `Retry-After` says it (RFC 9110, 10.2.3). [s] 0: nothing."""
    if told.isascii() and told.isdecimal():
        return min(float(told[:9]), _RETRY_AFTER_S_MAX)
    try:
        at_s = parsedate_to_datetime(told).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(at_s - now_ns / NS_PER_S, 0.0), _RETRY_AFTER_S_MAX)


@asynccontextmanager
async def opened(
    settings: CloudSettings, counters: Counters, clock: Clock, file: Path | None = None
) -> AsyncIterator[Requests]:
    """Open connections to a cloud as they are needed. `file`: keeps an owner's refresh token.

    Redirects are not followed: where a vendor's API moves to is for its operator to say. Nothing
    is taken from the environment either, no proxy and no credentials.
    """
    limits = httpx.Limits(
        max_connections=2 * settings.at_once, max_keepalive_connections=settings.at_once
    )
    async with (
        # The longest anything may take; requests have a deadline of their own.
        httpx.AsyncClient(
            timeout=RENEW_S, limits=limits, follow_redirects=False, trust_env=False
        ) as client,
        background() as beside,
    ):
        made = Requests(client, settings, file=file, beside=beside, counters=counters, clock=clock)
        try:
            yield made
        finally:
            await made.auth.finish()
