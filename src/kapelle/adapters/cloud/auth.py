"""Who the plant is to a vendor: the header that says so, renewed before it expires."""

import asyncio
import base64
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable

import msgspec

from kapelle.adapters.cloud.settings import CloudAuth
from kapelle.adapters.cloud.tokens import RefreshToken
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock
from kapelle.runtime.background import Background

log = logging.getLogger("kapelle.cloud")
_LASTS_S = 3_600.0
"""Of a token whose vendor does not say how long (RFC 6749, 5.1 only recommends it)."""
_LASTS_S_MAX = 86_400.0
_EARLY_S_MAX = 60.0
RENEW_S = 30.0
"""Longer than any request: a vendor that has replaced a refresh token must be heard out."""
_FINISH_S = 5.0
_REFUSED = (400, 401, 403)

Fetch = Callable[[dict[str, str], str], Awaitable[tuple[int, bytes]]]
"""Posts a form, with an Authorization header if not empty, to the token's address; returns status
and body. Raises OSError."""


class _Told(msgspec.Struct):
    access_token: str
    expires_in: float | str | None = None
    refresh_token: str | None = None


class Auth:
    """The Authorization header of a cloud."""

    def __init__(
        self,
        settings: CloudAuth,
        *,
        name: str,
        fetch: Fetch,
        refresh: RefreshToken,
        beside: Background,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._name = name
        self._fetch = fetch
        self._refresh = refresh
        self._beside = beside
        self._clock = clock
        self._renewal: asyncio.Task[None] | None = None
        self._failure: str = ""
        """Why the latest renewal brought no token."""
        self._is_refused = False
        self._token = ""
        self._until_ns = 0

    async def header(self) -> str:
        """Return the header's value, empty where there is none.

        Raises:
            OSError: A new token was needed and could not be had.
        """
        settings = self._settings
        match settings.kind:
            case "bearer":
                return f"Bearer {settings.token}"
            case "basic":
                return basic(settings.user, settings.password)
            case "oauth2":
                if self._clock.now_ns() >= self._until_ns:
                    await self._renewed()
                return f"Bearer {self._token}"
        return ""

    def refused(self, header: str) -> bool:
        """Note that a header was refused (401); return whether trying once more may help."""
        if self._settings.kind != "oauth2":
            return False
        if header == f"Bearer {self._token}":
            self._until_ns = 0
        return True

    async def _renewed(self) -> None:
        """Wait for a new token: one renewal for all who need it.

        It goes on when nobody waits for it any more: by then the vendor may have replaced the
        refresh token, and who does not hear the new one is locked out.
        """
        if self._renewal is None or self._renewal.done():
            self._renewal = self._beside.start(self._renew(), f"{self._name} token")
        await asyncio.shield(self._renewal)
        if self._failure:
            raise ConnectionError(self._failure)

    async def finish(self) -> None:
        """Hear out, for a moment, a renewal that is under way as the plant stops."""
        if self._renewal is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FINISH_S):
                    await asyncio.shield(self._renewal)

    async def _renew(self) -> None:
        asked_ns = self._clock.now_ns()
        try:
            async with asyncio.timeout(RENEW_S):
                status, body = await self._fetch(*self._form())
            told, lasts_s = self._read(status, body)
        except OSError as error:
            self._failure = str(error) or type(error).__name__
            return
        self._failure, self._is_refused = "", False
        if told.refresh_token and told.refresh_token != self._refresh.newest:
            self._refresh.replace(told.refresh_token)
        early_s = min(_EARLY_S_MAX, lasts_s / 10)
        self._token = told.access_token
        self._until_ns = asked_ns + int((lasts_s - early_s) * NS_PER_S)

    def _form(self) -> tuple[dict[str, str], str]:
        """Return what is asked, and the header that says who asks (RFC 6749, 2.3.1, 4.4, 6)."""
        settings = self._settings
        form = {"grant_type": "client_credentials"}
        if self._refresh.newest:
            form = {"grant_type": "refresh_token", "refresh_token": self._refresh.newest}
        form |= {"scope": settings.scope} if settings.scope else {}
        form |= {"audience": settings.audience} if settings.audience else {}
        if settings.client_secret and settings.client_in == "header":
            return form, basic(settings.client_id, settings.client_secret)
        form["client_id"] = settings.client_id
        form |= {"client_secret": settings.client_secret} if settings.client_secret else {}
        return form, ""

    def _read(self, status: int, body: bytes) -> tuple[_Told, float]:
        """Return what the vendor told, and how long its token lasts. [s] Raises OSError."""
        if not 200 <= status < 300:
            if status in _REFUSED and not self._is_refused:
                self._is_refused = True
                log.error(
                    "a cloud refuses the plant: mend its [clouds.cloud.auth], or have the owner "
                    "sign in again, write the new refresh token into its file, and restart",
                    extra={"cloud": self._name, "status": status},
                )
            raise ConnectionError(f"the token's address answered {status}")
        try:
            told = msgspec.json.decode(body, type=_Told)
            lasts_s = _LASTS_S if told.expires_in is None else float(told.expires_in)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            told, lasts_s = _Told(""), math.nan
        token = told.access_token
        if not (token and token.isascii() and token.isprintable() and math.isfinite(lasts_s)):
            # What it says may be a token: none of it goes into a message.
            raise ConnectionError("the token's address sent no token")
        return told, min(max(lasts_s, 1.0), _LASTS_S_MAX)


def basic(user: str, password: str) -> str:
    """Return the header of HTTP Basic (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
