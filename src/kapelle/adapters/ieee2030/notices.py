"""Subscriptions: telling a client at once that its controls have changed (IEEE 2030.5, 8.9).

A notification here carries no resource. Its client comes and fetches, so that what it was told, and
when, has one answer; one that is lost costs the time until its next poll and nothing else.
"""

import asyncio
import socket
import ssl
from contextlib import suppress

from envoy_schema.server.schema.sep2.pub_sub import Notification, NotificationStatus

from kapelle.adapters.destinations import Place, is_allowed, networks, place
from kapelle.adapters.ieee2030.client import Client, Subscription
from kapelle.adapters.ieee2030.codec import Part
from kapelle.adapters.ieee2030.counters import Counters
from kapelle.adapters.ieee2030.elements import home_of, subscription, to_xml
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.runtime.background import Background

_AT_ONCE = 100
_HEAD_BYTES_MAX = 16_384
_URI_CHARS_MAX = 512
_CHANGING = ("/derp", "/derp/1", "/derp/1/derc", "/derp/1/actderc")
"""What changes with a client's controls, below its EndDevice."""
_LASTING = ("", "/fsa", "/fsa/1", "/derp/1/dderc")
"""What may be subscribed to as well, and never changes while the server runs."""


def subscription_of(client: Client, part: Part) -> Subscription | str:
    """Return the subscription a client asks for, not yet numbered, or why it cannot have it."""
    resource, uri = part.text("subscribedResource"), part.text("notificationURI")
    known = {home_of(client) + below for below in (*_CHANGING, *_LASTING)} | {"/edev"}
    if resource not in known:
        remedy = "subscribe to your DERControlList"
        return f"subscription: subscribedResource: cannot be subscribed to; {remedy}"
    where = place(uri) if len(uri) <= _URI_CHARS_MAX else "is too long"
    if isinstance(where, str):
        return f"subscription: notificationURI: {where}; name a place by https"
    made = Subscription(0, resource, uri, part.whole("limit") or 0)
    try:
        subscription(client, made)
    except ValueError:
        return "subscription: notificationURI: cannot be written back; name a place by https"
    return made


class Notices:
    """Notifications on their way: for each client one at a time, the newest word only."""

    def __init__(
        self,
        beside: Background,
        tls: ssl.SSLContext,
        *,
        settings: Ieee2030Settings,
        counters: Counters,
    ) -> None:
        self._beside = beside
        self._tls = tls
        self._settings = settings
        self._counters = counters
        self._besides = networks(settings.notify_networks)
        self._again: dict[int, bool] = {}
        """Of each client that is being told, whether its controls have changed since."""
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def changed(self, client: Client) -> None:
        """Tell a client that has subscribed that its controls have changed."""
        if not client.subscriptions:
            return
        if client.device_no in self._again:
            self._again[client.device_no] = True
            return
        self._again[client.device_no] = True
        self._beside.start(self._serve(client), "IEEE 2030.5 notifications")

    async def _serve(self, client: Client) -> None:
        try:
            while self._again[client.device_no]:
                self._again[client.device_no] = False
                changing = {home_of(client) + below for below in _CHANGING}
                wanted = [s for s in client.subscriptions.values() if s.resource in changing]
                for subscription in wanted:
                    async with self._turns:
                        taken = await self._tell(client, subscription)
                    self._counters.notified += taken
                    self._counters.unnotified += not taken
        finally:
            del self._again[client.device_no]

    async def _tell(self, client: Client, subscription: Subscription) -> bool:
        where = place(subscription.uri)
        assert isinstance(where, Place)
        body = to_xml(
            Notification(
                subscribedResource=subscription.resource,
                status=NotificationStatus.DEFAULT,
                subscriptionURI=f"{home_of(client)}/sub/{subscription.number}",
            )
        )
        with suppress(OSError, ValueError):
            # TimeoutError and ssl.SSLError are OSErrors.
            async with asyncio.timeout(self._settings.request_s):
                address = await self._address(where)
                return 200 <= await self._post(where, address, body) < 300
        return False

    async def _address(self, where: Place) -> str:
        """Return an address that may be called, where all that the name stands for may be."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
        addresses = [str(info[4][0]) for info in found]
        if not addresses or not all(is_allowed(one, self._besides) for one in addresses):
            raise OSError("resolves to an address that must not be called")
        return addresses[0]

    async def _post(self, where: Place, address: str, body: bytes) -> int:
        """Post to this very address; return the status. Redirects are not followed."""
        reader, writer = await asyncio.open_connection(
            address, where.port, ssl=self._tls, server_hostname=where.host, limit=_HEAD_BYTES_MAX
        )
        try:
            writer.write(_head(where, len(body)) + body)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            return int(head.split(b" ", 2)[1])
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError) as error:
            raise OSError("its answer is no HTTP") from error
        finally:
            writer.transport.abort()


def _head(where: Place, length: int) -> bytes:
    host = f"[{where.host}]" if ":" in where.host else where.host
    lines = (
        f"POST {where.path} HTTP/1.1",
        f"Host: {host}:{where.port}",
        "Content-Type: application/sep+xml",
        f"Content-Length: {length}",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
