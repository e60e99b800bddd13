"""`POST /v1/webhooks/<name>`: a vendor's deliveries, answered once the journal has them."""

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any

from kapelle.adapters.cloud import mapping
from kapelle.adapters.cloud.actions import Actions
from kapelle.adapters.cloud.counters import Counters
from kapelle.adapters.cloud.intake import Intake
from kapelle.adapters.cloud.mapping import Broken, Item
from kapelle.adapters.cloud.presence import Presence
from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.adapters.cloud.signature import Remembered, examine
from kapelle.adapters.http import problems
from kapelle.adapters.http.problems import Refused
from kapelle.adapters.http.route import Message, Receive, Send
from kapelle.adapters.inbox import NotStored
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock

_EVENTS_MAX = 1_000
_RETRY_AFTER = "5"


class Webhook:
    """One vendor's deliveries. Lives as long as its link is open."""

    def __init__(
        self,
        settings: CloudSettings,
        *,
        intake: Intake,
        presence: Presence,
        actions: Actions,
        lasts_ns: int,
        counters: Counters,
        clock: Clock,
    ) -> None:
        """Make it. `lasts_ns`: how long a device counts as known once it is named; 0: for good."""
        self._settings = settings.webhook
        self._intake = intake
        self._presence = presence
        self._actions = actions
        self._lasts_ns = lasts_ns
        self._counters = counters
        self._clock = clock
        self._shapes = {shape.name: shape for shape in settings.shapes}
        self._events = {event.name: event for event in settings.webhook.events}
        self._stored = Remembered(settings.webhook.remembered_max)
        self._inside = 0
        self._is_alone = not settings.polls

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one delivery: 200 when it is durable, or was already; else why not."""
        try:
            async with asyncio.timeout(self._settings.answer_s):
                await self._deliver(scope, receive)
        except _Gone:
            return
        except Refused as refused:
            await self._refuse(send, refused)
        except (TimeoutError, NotStored):
            later = "it is not known to be stored; deliver it again, twice is once"
            await self._refuse(send, Refused(503, "not-stored", later))
        else:
            await answer(send, 200, b"{}", {"content-type": "application/json"})

    async def _refuse(self, send: Send, refused: Refused) -> None:
        self._counters.connects_refused[refused.code] += 1
        await refuse(send, refused)

    async def _deliver(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        if scope["method"] != "POST":
            raise Refused(405, "method-unknown", "use POST", headers={"allow": "POST"})
        if self._inside >= self._settings.at_once_max:
            raise Refused(503, "queue-full", "too many deliveries at once; deliver it again")
        self._inside += 1
        try:
            body = await self._read(receive)
            await self._take(body, _headers(scope))
        finally:
            self._inside -= 1

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message: Message = await receive()
            if message["type"] != "http.request":
                raise _Gone
            body += message.get("body", b"")
            if len(body) > self._settings.body_bytes_max:
                most = self._settings.body_bytes_max
                raise Refused(413, "body-too-large", f"at most {most} bytes are read")
            if not message.get("more_body", False):
                return bytes(body)

    async def _take(self, body: bytes, headers: Mapping[str, str]) -> None:
        now_ns = self._clock.now_ns()
        found = examine(self._settings, headers, body, now_ns)
        if isinstance(found, str):
            raise Refused(401, "signature-wrong", f"{found}; sign with the webhook's secret")
        self._counters.deliveries += 1
        if found.signed in self._stored:
            self._counters.repeated += 1
            return
        document = mapping.decode(body)
        events = document
        if not isinstance(document, Broken):
            events = mapping.parts(document, self._settings.items, _EVENTS_MAX)
        if isinstance(events, Broken):
            # It is signed, so it is the vendor's: kept, and not asked for again.
            await self._intake.unreadable(events.reason, body)
        else:
            await self._take_events(events, found.at_ns, now_ns)
        self._stored.add(found.signed)

    async def _take_events(self, events: list[Any], signed_ns: int, now_ns: int) -> None:
        items: list[Item] = []
        said_ns: list[int] = []
        about_actions: list[Any] = []
        for event in events:
            at_ns = self._moment(event) or signed_ns
            if at_ns and now_ns - at_ns > self._settings.age_s_max * NS_PER_S:
                continue
            if self._is_alone:
                # A heartbeat, too, says that the cloud lived when it was sent.
                self._presence.answered(min(at_ns or now_ns, now_ns))
            meant = self._events.get(mapping.text(event, self._settings.kind))
            if meant is None:
                continue
            found = mapping.at(event, meant.item)
            if not meant.shape:
                about_actions.append(found)
                continue
            item = mapping.read(found, self._shapes[meant.shape])
            if not item.measured_at_ns:
                item = item._replace(measured_at_ns=at_ns)
            items.append(item)
            said_ns.append(min(at_ns or item.measured_at_ns, now_ns))
        numbers = await self._intake.take(items)
        for number, item, at_ns in zip(numbers, items, said_ns, strict=True):
            if number >= 0:
                self._presence.named(number, item.reachable, at_ns, self._lasts_ns)
        for document in about_actions:
            self._actions.heard(document)

    def _moment(self, event: Any) -> int:
        """Return when an event was made, 0 where it does not say. [ns]"""
        return mapping.moment(mapping.at(event, self._settings.time)) if self._settings.time else 0


class _Gone(Exception):
    """The vendor hung up."""


def _headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    return {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}


async def refuse(send: Send, refused: Refused) -> None:
    """Answer with a problem (RFC 9457)."""
    headers = {"content-type": problems.MEDIA_TYPE, **refused.headers}
    if refused.status == 503:
        headers["retry-after"] = _RETRY_AFTER
    await answer(send, refused.status, refused.body(), headers)


async def answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a whole answer."""
    raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
