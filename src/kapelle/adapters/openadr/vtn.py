"""The VTN: listens, keeps what is enrolled as VENs and resources, and knows who was heard of."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kapelle.adapters.errands import Errands
from kapelle.adapters.http.problems import Refused
from kapelle.adapters.inbox import Heard, Inbox, NotStored
from kapelle.adapters.link import ConversationLink
from kapelle.adapters.openadr import codec, store
from kapelle.adapters.openadr.callbacks import Callbacks, Resolve
from kapelle.adapters.openadr.clients import ADAPTER, Client, Clients, Gateway, Gateways
from kapelle.adapters.openadr.codec import Resource
from kapelle.adapters.openadr.counters import Counters
from kapelle.adapters.openadr.desk import Desk
from kapelle.adapters.openadr.dispatched import DispatchEvents
from kapelle.adapters.openadr.objects import Kept
from kapelle.adapters.openadr.own import OwnObjects
from kapelle.adapters.openadr.route import BASE, Routes
from kapelle.adapters.openadr.server import check, served
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.adapters.openadr.shapes import (
    Body,
    Report,
)
from kapelle.model.enums import SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory, Link
from kapelle.runtime.background import background

_SWEEP_S = 0.5
_GOODBYE_S = 2.0
_ANSWER_S = 10.0

log = logging.getLogger("kapelle.openadr")


@dataclass(slots=True)
class _Session:
    """A gateway that was heard of lately."""

    number: int
    heard_ns: int
    devices: tuple[int, ...]


class Vtn:
    """Adapter for gateways that are OpenADR 3.1 VENs."""

    name = ADAPTER

    def __init__(
        self,
        *,
        settings: OpenAdrSettings,
        directory: Directory,
        clock: Clock,
        file: Path,
        resolve: Resolve | None = None,
    ) -> None:
        """Make it.

        Args:
            settings: The bounds.
            directory: Who is enrolled.
            clock: The time.
            file: Where its objects are kept.
            resolve: How the hosts of callbacks are looked up; None: as the system does.
        """
        check(settings)
        self.settings = settings
        self.counters = Counters()
        self.host, self.port = settings.host, 0
        """The port it listens on, once open."""
        self.told_within_s = settings.poll_s
        self.desk: Desk | None = None
        self.events: DispatchEvents
        self._directory = directory
        self._clock = clock
        self._file = file
        self._resolve = resolve
        self._gateways = Gateways(directory)
        self._clients = Clients(
            settings=settings, directory=directory, gateways=self._gateways, clock=clock
        )
        self._inbox: Inbox
        self._own: OwnObjects
        self._sessions: dict[str, _Session] = {}
        self._present: dict[int, str] = {}
        """Devices whose gateway was heard of lately."""
        self._number = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Listen; a port that cannot be had, and a disk that fails, leave as LinkLost."""
        settings = self.settings
        self._inbox = Inbox(self.name, clock=self._clock)
        async with contextlib.AsyncExitStack() as stack:
            kept = await stack.enter_async_context(store.opened(self._file))
            beside = await stack.enter_async_context(background())
            callbacks = Callbacks(
                beside,
                kept.objects,
                settings=settings,
                clock=self._clock,
                counters=self.counters,
                delivered=self._delivered,
                is_due=self._is_current,
                resolve=self._resolve,
            )
            stack.callback(callbacks.close)
            desk = Desk(
                kept,
                gateways=self._gateways,
                clock=self._clock,
                settings=settings,
                notify=callbacks.notify,
                is_over=lambda one: self.events.is_over(one),
                is_due=lambda one: self.events.is_due(one),
                shown=self._shown,
            )
            self.events = DispatchEvents(
                desk=lambda: desk,
                objects=kept.objects,
                gateways=self._gateways,
                clock=self._clock,
                answered=self._inbox.answered,
                ended_s=settings.ended_s,
            )
            self.events.begin()
            self._own = OwnObjects(
                desk,
                kept.objects,
                events=self.events,
                gateways=self._gateways,
                directory=self._directory,
                clock=self._clock,
                report_s=settings.report_s,
            )
            self._own.publish()
            self.desk = desk
            errands = Errands(
                self._inbox,
                beside,
                clock=self._clock,
                carry_out=self.events.carry_out,
                answer_s=_ANSWER_S,
            )
            beside.start(self._sweep(), "OpenADR gateways")
            try:
                routes = Routes(
                    self, clients=self._clients, settings=settings, counters=self.counters
                )
                self.port = await stack.enter_async_context(served(routes, settings))
                yield ConversationLink(self._inbox, errands, self._present, self.counters)
            finally:
                self.desk = None
                for name in list(self._sessions):
                    self._end(name, "closed")

    # What the routes need.

    def heard(self, client: Client) -> None:
        """Note that a gateway lives."""
        self._enrol()
        if client.is_business:
            return
        gateway = self._gateways.named(client.id)
        if gateway is None:
            return
        session = self._sessions.get(client.id)
        now_ns = self._clock.now_ns()
        if session is not None:
            session.heard_ns = now_ns
            return
        # Numbers also rise over restarts, as long as UTC does.
        self._number = max(self._number + 1, now_ns)
        devices = tuple(sorted(gateway.devices.values()))
        self._sessions[client.id] = _Session(self._number, now_ns, devices)
        for device_no in devices:
            self._present[device_no] = client.id
            self._inbox.session(device_no, SessionEvent.UP, self._number)
        self.counters.connected += 1
        self.counters.sessions = len(self._sessions)

    async def reported(self, client: Client, body: Body, raw: bytes) -> None:
        """Take in what a report says; returns once the journal has it.

        Raises:
            Refused: It did not take it (503); the gateway has the report still.
        """
        assert isinstance(body, Report)
        gateway = self._gateways.named(client.id)
        resources = {} if gateway is None else self._resources(gateway)
        found = codec.read(body, resources, self.events.asked(body.event_id))
        if not (found.reports or found.answers or found.unreadable):
            return
        self.counters.unreadable += len(found.unreadable)
        heard = Heard(client.id, raw, found.reports, found.answers, found.unreadable)
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._inbox.accept(heard)
        except (NotStored, TimeoutError) as error:
            what = f"the journal did not take it: {str(error) or 'not in time'}"
            raise Refused(503, "not-stored", what, headers={"retry-after": "5"}) from None

    def token_url(self) -> str:
        """Return where tokens come from."""
        settings = self.settings
        if settings.public_url:
            return settings.public_url.rstrip("/") + "/auth/token"
        scheme = "https" if settings.tls_certificate else "http"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"{scheme}://{host}:{self.port}{BASE}/auth/token"

    def _resources(self, gateway: Gateway) -> dict[str, Resource]:
        numbers = np.fromiter(gateway.devices.values(), np.int32, len(gateway.devices))
        up_w, _ = self._directory.nameplate(numbers)
        return {
            name: Resource(device_no, not power_w <= 0)
            for (name, device_no), power_w in zip(
                gateway.devices.items(), up_w.tolist(), strict=True
            )
        }

    def _shown(self, client: Client, kept: Kept) -> None:
        self.counters.commands_received += self.events.shown(client.id, kept)

    def _delivered(self, client: str, kept: Kept) -> None:
        self.heard(Client(client, client == self.settings.business_id))
        if kept.by_plant and kept.kind == "EVENT":
            self.counters.commands_received += self.events.delivered(client, kept)

    def _is_current(self, kept: Kept) -> bool:
        """Tell whether a notification still says what is so."""
        return kept.kind != "EVENT" or self.events.is_due(kept)

    def _enrol(self) -> None:
        self._gateways.refresh()
        if self.desk is not None and self._own.enrol():
            self._renumber()

    def _renumber(self) -> None:
        """End sessions whose devices are no longer those they began with."""
        for name, session in list(self._sessions.items()):
            gateway = self._gateways.named(name)
            devices = () if gateway is None else tuple(sorted(gateway.devices.values()))
            if devices != session.devices:
                self._end(name, "enrolment changed")

    async def _sweep(self) -> None:
        """Twice a second: who is silent is absent, what expired is withdrawn."""
        silent_ns = int(self.settings.absent_s * NS_PER_S)
        while True:
            await self._clock.sleep(_SWEEP_S)
            self._enrol()
            self.events.sweep()
            now_ns = self._clock.now_ns()
            for name, session in list(self._sessions.items()):
                if now_ns - session.heard_ns > silent_ns:
                    self._end(name, "silent")

    def _end(self, name: str, reason: str) -> None:
        session = self._sessions.pop(name)
        for device_no in session.devices:
            if self._present.pop(device_no, None) is not None:
                self._inbox.session(device_no, SessionEvent.DOWN, session.number)
        self.counters.drops[reason] += 1
        self.counters.sessions = len(self._sessions)
