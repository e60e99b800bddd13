"""Who the plant is to a vendor: the header that says so, renewed before it expires."""

import asyncio
import base64
from collections.abc import Awaitable, Callable

import msgspec

from kapelle.adapters.cloud.settings import CloudAuth
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock

_LASTS_S = 3_600.0
"""Of a token whose vendor does not say how long (RFC 6749, 5.1 only recommends it)."""
_EARLY_S_MAX = 60.0

Fetch = Callable[[dict[str, str], str], Awaitable[bytes]]
"""Posts a form, with an Authorization header, to the token's address. Raises OSError."""


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float | str | None = None


class Auth:
    """The Authorization header of a cloud."""

    def __init__(self, settings: CloudAuth, fetch: Fetch, clock: Clock) -> None:
        self._settings = settings
        self._fetch = fetch
        self._clock = clock
        self._alone = asyncio.Lock()
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
                # Many requests find an expired token at once: one of them renews it.
                async with self._alone:
                    if self._clock.now_ns() >= self._until_ns:
                        await self._renew()
                return f"Bearer {self._token}"
        return ""

    def refused(self, header: str) -> bool:
        """Note that a header was refused (401); return whether trying once more may help."""
        if self._settings.kind != "oauth2":
            return False
        if header == f"Bearer {self._token}":
            self._until_ns = 0
        return True

    async def _renew(self) -> None:
        settings = self._settings
        form = {"grant_type": "client_credentials"}
        if settings.scope:
            form["scope"] = settings.scope
        asked_ns = self._clock.now_ns()
        body = await self._fetch(form, basic(settings.client_id, settings.client_secret))
        try:
            told = msgspec.json.decode(body, type=_Token)
            lasts_s = _LASTS_S if told.expires_in is None else float(told.expires_in)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # What it says may be a token: none of it goes into a message.
            raise OSError("the token's address sent no token") from None
        if not told.access_token.isascii() or not told.access_token.isprintable():
            raise OSError("the token's address sent no token")
        lasts_s = min(max(lasts_s, 1.0), 86_400.0)
        early_s = min(_EARLY_S_MAX, lasts_s / 10)
        self._token = told.access_token
        self._until_ns = asked_ns + int((lasts_s - early_s) * NS_PER_S)


def basic(user: str, password: str) -> str:
    """Return the header of HTTP Basic (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
