"""The VTN: listens, keeps what is enrolled as VENs and resources, and knows who was heard of."""

import asyncio
import contextlib
import hashlib
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvicorn

from kapelle.adapters.destinations import networks
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
from kapelle.adapters.openadr.objects import OURS, Kept
from kapelle.adapters.openadr.periods import duration, moment
from kapelle.adapters.openadr.route import BASE, Routes
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.adapters.openadr.shapes import (
    Body,
    BusinessResource,
    BusinessVen,
    Event,
    EventDescriptor,
    IntervalPeriod,
    ObjectType,
    Program,
    Report,
    ReportDescriptor,
)
from kapelle.errors import Invalid, LinkLost, Problem
from kapelle.model.enums import SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory, Link
from kapelle.runtime.background import background
from kapelle.runtime.exposure import is_loopback
from kapelle.runtime.sockets import listen
from kapelle.runtime.web import WebServer, bounded

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
        _check(settings)
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
        self._sessions: dict[str, _Session] = {}
        self._present: dict[int, str] = {}
        """Devices whose gateway was heard of lately."""
        self._number = 0
        self._enrolment = -1

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Listen; a port that cannot be had, and a disk that fails, leave as LinkLost."""
        settings = self.settings
        self._inbox = Inbox(self.name, clock=self._clock)
        self._enrolment = -1
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
            self._store = kept
            self.events.begin()
            self._publish(desk)
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
                await stack.enter_async_context(self._served())
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

    # What the plant says itself.

    def _publish(self, desk: Desk) -> None:
        """Publish the program gateways follow, and the event that asks for reports."""
        now_ns = self._clock.now_ns()
        descriptors: list[EventDescriptor | ReportDescriptor] = [
            EventDescriptor(payload_type=codec.SETPOINT, units="KW"),
            *(ReportDescriptor(payload_type=name, units=u) for name, u in codec.REPORTED.items()),
        ]
        program = Program(program_name=codec.PROGRAM, payload_descriptors=descriptors)
        period = IntervalPeriod(
            start=moment(now_ns - now_ns % (3_600 * NS_PER_S)),
            duration=duration(self.settings.report_s),
        )
        telemetry = Event(
            program_id=codec.PROGRAM,
            event_name="report all the time",
            duration=duration(float("inf")),
            priority=1_000,
            report_descriptors=codec.wanted(1),
            interval_period=period,
            intervals=[],
        )
        self._renew(desk, "PROGRAM", codec.PROGRAM, OURS, program)
        self._renew(desk, "EVENT", codec.TELEMETRY, OURS, telemetry)

    def _enrol(self) -> None:
        """Have a VEN for each gateway and a resource for each of its devices, and no others."""
        desk = self.desk
        self._gateways.refresh()
        if desk is None or self._directory.version == self._enrolment:
            return
        self._enrolment = self._directory.version
        wanted: set[str] = set()
        for gateway in self._gateways.everyone():
            ven_id = _id("ven", gateway.name)
            ven = BusinessVen(client_id=gateway.name, ven_name=gateway.name, targets=[gateway.name])
            self._renew(desk, "VEN", ven_id, gateway.name, ven)
            wanted.add(ven_id)
            for name in gateway.devices:
                target = gateway.target(name)
                resource = BusinessResource(
                    client_id=gateway.name, resource_name=name, ven_id=ven_id, targets=[target]
                )
                resource_id = _id("res", target)
                self._renew(desk, "RESOURCE", resource_id, gateway.name, resource)
                wanted.add(resource_id)
        kinds: tuple[ObjectType, ...] = ("RESOURCE", "VEN")
        for kind in kinds:
            for kept in [one for one in self._store.objects.all(kind) if one.by_plant]:
                if kept.id not in wanted:
                    desk.remove(kept)
        for device_no in self.events.devices():
            if self._gateways.of_device(device_no) is None:
                self.events.withdraw(device_no)
        self._renumber()

    def _renew(self, desk: Desk, kind: ObjectType, object_id: str, owner: str, body: Body) -> None:
        """Have an object of the plant's own; what others may say of it (attributes) stays."""
        before = self._store.objects.find(kind, object_id)
        if before is not None and kind in ("VEN", "RESOURCE"):
            return
        now_ns = self._clock.now_ns()
        made_at_ns = before.made_at_ns if before is not None else now_ns
        kept = Kept(kind, object_id, owner, made_at_ns, now_ns, body, by_plant=True)
        desk.put("CREATE" if before is None else "UPDATE", kept)

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

    @asynccontextmanager
    async def _served(self) -> AsyncIterator[None]:
        settings = self.settings
        where = f"{settings.host}:{settings.port}"
        try:
            listening = listen(settings.host, settings.port)
        except OSError as error:
            raise LinkLost(self.name, f"cannot listen on {where}: {error}") from error
        self.port = listening.getsockname()[1]
        routes = Routes(self, clients=self._clients, settings=settings, counters=self.counters)
        ready = asyncio.Event()
        server = WebServer(
            uvicorn.Config(
                routes,
                http=bounded(settings.body_s),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, round(_GOODBYE_S)),
                limit_concurrency=settings.connections_max,
                h11_max_incomplete_event_size=64 * 1024,
                ssl_certfile=settings.tls_certificate or None,
                ssl_keyfile=settings.tls_key or None,
            ),
            ready,
        )
        async with background() as beside:
            try:
                serving = beside.start(server.serve([listening]), "OpenADR serve")
                await ready.wait()
                yield
            finally:
                server.should_exit = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2 * _GOODBYE_S):
                        await asyncio.shield(serving)


def _id(kind: str, name: str) -> str:
    return f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def _check(settings: OpenAdrSettings) -> None:
    """Refuse what must not be served.

    Raises:
        Invalid: Secrets would travel in the clear, or a file or network is none.
    """
    problems = []
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        what = "certificate and key belong together"
        problems.append(Problem("openadr.tls_key", what, "name both files"))
    if not (settings.tls_certificate or settings.insecure or is_loopback(settings.host)):
        what = f"{settings.host} is reachable from other machines and there is no TLS"
        remedy = "set tls_certificate and tls_key, or insecure = true behind a proxy that ends TLS"
        problems.append(Problem("openadr.host", what, remedy))
    try:
        networks(settings.callback_networks)
    except ValueError as error:
        remedy = 'write networks as "10.1.0.0/16"'
        problems.append(Problem("openadr.callback_networks", str(error), remedy))
    try:
        if settings.callback_authority:
            ssl.create_default_context(cafile=settings.callback_authority)
    except (OSError, ssl.SSLError) as error:
        remedy = "name a PEM file of certificates"
        problems.append(Problem("openadr.callback_authority", str(error), remedy))
    if problems:
        raise Invalid("the OpenADR settings cannot be used", problems)
