"""The VEN: follows a utility's program, has its events ordered, and reports what became of them."""

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import httpx
import msgspec

from kapelle.adapters.openadr import utility
from kapelle.adapters.openadr.requests import NAME, Requests, decoded, is_private
from kapelle.adapters.openadr.settings import UpstreamSettings
from kapelle.adapters.openadr.utility import Ask, Called, Change, End, Given, Place, Refuse, Step
from kapelle.errors import Invalid, LinkLost, Problem
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock

_PAGE = 50
log = logging.getLogger("kapelle.openadr")


class Declined(Exception):
    """The plant takes an order not; asking again would not help."""


class NotNow(Exception):
    """The plant cannot take an order at this moment; asked again with the next look."""


class Orders(Protocol):
    """The plant's order desk, as far as a utility reaches it."""

    def power_w(self, resource: str) -> float:
        """Return what a resource's power is; NaN where it is not known. [W]"""

    def given(self, key: str) -> list[Given]:
        """Return the orders whose key begins so."""

    async def place(self, resource: str, ask: Ask, key: str, author: str) -> None:
        """Give an order, once per key. Raises Declined, NotNow."""

    async def change(self, order_no: int, ask: Ask, author: str) -> None:
        """Change an order. Raises Declined, NotNow."""

    async def end(self, order_no: int, author: str) -> None:
        """End an order. Raises NotNow."""


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    id: str


class _Program(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    program_name: str


class Ven:
    """Follows one program. Opened by `runtime.supervise.keep_open`, as links are."""

    name = NAME

    def __init__(
        self,
        *,
        settings: UpstreamSettings,
        orders: Orders,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        _check(settings)
        self._settings = settings
        self._orders = orders
        self._clock = clock
        self._transport = transport
        self._author = f"openadr/{settings.program}"
        self._done: dict[str, str] = {}
        """Modification by event that needs nothing more."""
        self._refused: dict[str, str] = {}
        """Why, by the key of the event's order."""
        self._unread: frozenset[str] = frozenset()
        """What was last said about events that cannot be followed."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Following"]:
        """Connect; whatever the utility's server does wrong leaves as LinkLost."""
        settings = self._settings
        verify = ssl.create_default_context(cafile=settings.authority or None)
        try:
            async with httpx.AsyncClient(
                timeout=settings.answer_s,
                follow_redirects=False,
                trust_env=False,
                verify=verify,
                transport=self._transport,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            ) as client:
                following = Following(self, client, self._clock)
                # A client of HTTP is made without a word: only an answer says that there is one.
                await following.greet()
                yield following
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            why = f"{settings.url}: {str(error) or type(error).__name__}"
            raise LinkLost(self.name, why) from error

    # What follows from a look.

    async def act(self, found: Sequence[bytes], is_complete: bool) -> list[Called]:
        """Have ordered what the events ask; return those that are followed."""
        settings = self._settings
        targets = frozenset((*settings.targets, settings.resource_name))
        read = [utility.call(raw, targets if settings.targets else frozenset()) for raw in found]
        called = [one for one in read if isinstance(one, Called)]
        self._say(frozenset(one for one in read if isinstance(one, str) and one))
        known = {one.event_id for one in called}
        self._done = {event: how for event, how in self._done.items() if event in known}
        steps = utility.plan(
            called,
            self._orders.given(utility.KEY),
            now_ns=self._clock.now_ns(),
            power_w=self._orders.power_w(settings.resource),
            power_w_max=settings.power_max_w,
            done=self._done,
            # One that became something we cannot follow is asked for no more, either.
            is_complete=is_complete,
        )
        for step in steps:
            with contextlib.suppress(NotNow):
                await self._do(step)
        keys = {one.key for one in called}
        self._refused = {key: why for key, why in self._refused.items() if key in keys}
        return called

    async def _do(self, step: Step) -> None:
        settings = self._settings
        match step:
            case Place(called, ask):
                try:
                    await self._orders.place(settings.resource, ask, called.key, self._author)
                except Declined as declined:
                    self._refuse(called, str(declined))
                self._done[called.event_id] = called.modified
            case Change(order_no, called, ask):
                try:
                    await self._orders.change(order_no, ask, self._author)
                except Declined as declined:
                    # What the utility no longer wants must not go on either.
                    await self._orders.end(order_no, self._author)
                    self._refuse(called, str(declined))
                self._done[called.event_id] = called.modified
            case End(order_no):
                await self._orders.end(order_no, self._author)
            case Refuse(called, reason):
                self._refuse(called, reason)
                self._done[called.event_id] = called.modified

    def state(self, called: Called) -> tuple[Given | None, bool]:
        """Return the order of an event, and whether there is anything to report of it."""
        mine = [
            one
            for one in self._orders.given(utility.KEY)
            if utility.event_of(one.key) == called.event_id
        ]
        if called.key in self._refused:
            return None, True
        return (mine[-1] if mine else None), bool(mine)

    @property
    def settings(self) -> UpstreamSettings:
        """Return the settings."""
        return self._settings

    def now_ns(self) -> int:
        """Return the time."""
        return self._clock.now_ns()

    def power_w(self) -> float:
        """Return the power of what is called. [W]"""
        return self._orders.power_w(self._settings.resource)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._clock.sleep(seconds)

    def _refuse(self, called: Called, reason: str) -> None:
        self._refused[called.key] = reason
        log.warning("event not followed", extra={"event": called.event_id, "reason": reason})

    def _say(self, unread: frozenset[str]) -> None:
        for reason in sorted(unread - self._unread)[:10]:
            log.warning("event cannot be followed", extra={"reason": reason[:300]})
        self._unread = unread


class Following:
    """A connection to the utility's VTN."""

    def __init__(self, ven: Ven, client: httpx.AsyncClient, clock: Clock) -> None:
        self._ven = ven
        self._requests = Requests(client, settings=ven.settings, clock=clock)
        self._reports: dict[str, str] = {}
        """Id of the report of each event."""
        self._told: dict[str, tuple[str, int]] = {}
        """State last reported of each event, and when."""

    async def greet(self) -> None:
        """See that the utility answers and has the program. Raises LinkLost."""
        await self._program()

    async def run(self) -> None:
        """Look, order and report until the connection is lost. Raises LinkLost."""
        while True:
            await self.turn()
            await self._ven.sleep(self._ven.settings.poll_s)

    async def turn(self) -> None:
        """Look once, have ordered what is asked, and report what is due."""
        found, is_complete = await self._events(await self._program())
        called = await self._ven.act(found, is_complete)
        for one in called:
            await self._report(one)
        known = {one.event_id for one in called}
        self._reports = {event: one for event, one in self._reports.items() if event in known}
        self._told = {event: one for event, one in self._told.items() if event in known}

    async def _program(self) -> str:
        wanted, skip = self._ven.settings.program, 0
        while skip < self._ven.settings.events_max:
            raw = await self._requests.ask(
                "GET", "/programs", params={"skip": skip, "limit": _PAGE}
            )
            page = decoded(raw, list[_Program])
            for one in page:
                if one.program_name == wanted:
                    return one.id
            if len(page) < _PAGE:
                break
            skip += _PAGE
        raise LinkLost(self._ven.name, f"the utility shows no program named {wanted}")

    async def _events(self, program: str) -> tuple[list[bytes], bool]:
        """Return events, and whether these are all."""
        settings = self._ven.settings
        found: dict[str, bytes] = {}
        while len(found) < settings.events_max:
            params: dict[str, str | int | list[str]] = {
                "programID": program,
                "skip": len(found),
                "limit": _PAGE,
            }
            if settings.targets:
                params["targets"] = list(settings.targets)
            raw = await self._requests.ask("GET", "/events", params=params)
            page = decoded(raw, list[msgspec.Raw])
            before = len(found)
            found |= {decoded(bytes(one), _Object).id: bytes(one) for one in page}
            if len(page) < _PAGE:
                return list(found.values()), True
            if len(found) == before:
                break
        return list(found.values())[: settings.events_max], False

    async def _report(self, called: Called) -> None:
        ven = self._ven
        order, is_any = ven.state(called)
        if not is_any:
            return
        state = f"{order.state}/{order.committed_w}" if order is not None else "refused"
        before, at_ns = self._told.get(called.event_id, ("", 0))
        is_live = order is not None and order.is_open
        waited_s = (ven.now_ns() - at_ns) / NS_PER_S
        if before == state and not (is_live and waited_s >= ven.settings.report_s):
            return
        names = ven.settings.client_id, ven.settings.resource_name
        body = utility.report(
            called, order, now_ns=ven.now_ns(), power_w=ven.power_w(), names=names
        )
        await self._put(called.event_id, msgspec.json.encode(body))
        self._told[called.event_id] = state, ven.now_ns()

    async def _put(self, event: str, body: bytes) -> None:
        """Create the report of an event, or replace the one there is."""
        known = self._reports.get(event) or await self._known_report(event)
        if known:
            await self._requests.ask("PUT", f"/reports/{known}", content=body)
        else:
            known = decoded(await self._requests.ask("POST", "/reports", content=body), _Object).id
        self._reports[event] = known

    async def _known_report(self, event: str) -> str:
        """Return the report of an event from before a restart, empty where there is none."""
        client = self._ven.settings.client_id
        params: dict[str, str | int | list[str]] = {"eventID": event, "clientName": client}
        found = decoded(await self._requests.ask("GET", "/reports", params=params), list[_Object])
        return found[0].id if found else ""


def _check(settings: UpstreamSettings) -> None:
    """Refuse to send a secret in the clear.

    Raises:
        Invalid: The VTN or its token endpoint is neither https nor on this machine.
    """
    problems = [
        Problem(f"openadr_upstream.{name}", f"{url} is not https", "use https, or insecure = true")
        for name, url in (("url", settings.url), ("token_url", settings.token_url))
        if url and not is_private(url, settings.insecure)
    ]
    if problems:
        raise Invalid("the OpenADR utility cannot be followed", problems)
