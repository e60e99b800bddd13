"""The CSMS endpoint: listens, admits stations, keeps their sessions, ends what is overdue."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from kapelle.adapters.errands import Command, Errands, Said
from kapelle.adapters.inbox import Inbox
from kapelle.adapters.link import ConversationLink
from kapelle.adapters.ocpp import door
from kapelle.adapters.ocpp.connection import POLICY, TAKEN, UNKNOWN_VERSION, Connection
from kapelle.adapters.ocpp.counters import Counters
from kapelle.adapters.ocpp.session import Known, Session
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.errors import LinkLost
from kapelle.model.enums import SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory, Link
from kapelle.runtime.background import Background, background

log = logging.getLogger("kapelle.ocpp")
_wire = logging.getLogger("kapelle.ocpp.wire")
_wire.setLevel(logging.CRITICAL + 1)
"""The library logs headers, passwords among them, and every handshake that fails."""

_SWEEP_S = 1.0
_BACKLOG = 4_096
"""Stations that return together after an outage wait here to be accepted."""
_READ_AHEAD = 4
_WRITE_AHEAD = 65_536
_GOODBYE_S = 2.0


class OcppEndpoint:
    """Adapter for charging stations that speak OCPP 1.6J, 2.0.1 or 2.1."""

    name = "ocpp"

    def __init__(self, *, settings: OcppSettings, directory: Directory, clock: Clock) -> None:
        door.check(settings)
        self.settings = settings
        self.directory = directory
        self.clock = clock
        self.counters = Counters()
        self.host, self.port = settings.host, 0
        """The port it listens on, once open."""
        self.inbox: Inbox
        self._sessions: dict[str, Session] = {}
        self._by_device: dict[int, Session] = {}
        self._known: dict[str, Known] = {}
        self._open = 0
        """Connections, those in their handshake among them."""
        self._number = 0
        self._transaction = 0
        self._directory_seen = directory.version
        self._beside: Background

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Listen; a port that cannot be had leaves as LinkLost."""
        settings = self.settings
        self.inbox = Inbox(self.name, clock=self.clock)
        try:
            server = await self._listen()
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise LinkLost(self.name, f"cannot listen on {where}: {error}") from error
        self.port = next(iter(server.sockets)).getsockname()[1]
        async with background() as beside:
            self._beside = beside
            errands = Errands(
                self.inbox,
                beside,
                clock=self.clock,
                carry_out=self._carry_out,
                answer_s=settings.command_s,
                # Each has a connection of its own: however many are deaf, nobody waits for them.
                at_once=settings.connections_max,
            )
            beside.start(self._sweep(), "OCPP sessions")
            try:
                yield ConversationLink(self.inbox, errands, self._by_device, self.counters)
            finally:
                await self._shut(server)

    def next_transaction(self) -> int:
        """Return a number no transaction has had: it also rises over restarts, as UTC does."""
        self._transaction = max(self._transaction + 1, self.clock.now_ns() // NS_PER_S)
        return self._transaction

    async def _listen(self) -> Server:
        settings = self.settings
        context = door.tls(settings)
        more: dict[str, Any] = {"create_connection": self._greet, "backlog": _BACKLOG}
        if context is not None:
            more["ssl_handshake_timeout"] = settings.handshake_s
        return await serve(
            self._serve,
            settings.host,
            settings.port,
            ssl=context,
            # OCPP allows compression, and a station without it works all the same; it would cost
            # tens of kB of memory a connection.
            compression=None,
            process_request=self._admit,
            select_subprotocol=_choose,
            server_header="kapelle",
            open_timeout=settings.handshake_s,
            ping_interval=settings.ping_s,
            ping_timeout=settings.ping_s,
            close_timeout=_GOODBYE_S,
            max_size=settings.message_size_max,
            max_queue=_READ_AHEAD,
            write_limit=_WRITE_AHEAD,
            logger=_wire,
            **more,
        )

    async def _shut(self, server: Server) -> None:
        server.close(code=1001, reason="the server stops; come back")
        try:
            async with asyncio.timeout(2 * _GOODBYE_S):
                await server.wait_closed()
        except TimeoutError:
            for session in list(self._sessions.values()):
                session.connection.abort()
            await server.wait_closed()

    # Admitting.

    def _greet(self, *given: Any, **named: Any) -> "_Socket":
        return _Socket(self, *given, **named)

    def made(self) -> bool:
        """Count a connection; return whether there is room for it."""
        self._open += 1
        self.counters.half_open = self._open - len(self._sessions)
        if self._open <= self.settings.connections_max:
            return True
        self.counters.connects_refused["too many connections"] += 1
        return False

    def lost(self) -> None:
        """Count a connection that has ended."""
        self._open -= 1
        self.counters.half_open = max(0, self._open - len(self._sessions))

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        assert isinstance(socket, _Socket)
        mutual = bool(self.settings.tls_client_authority)
        admitted = door.admit(socket, request.path, request.headers, self.directory, mutual)
        if isinstance(admitted, door.Admitted):
            socket.admitted = admitted
            return None
        self.counters.connects_refused[admitted.reason] += 1
        status = HTTPStatus(admitted.status)
        headers = Headers({"Content-Length": "0", "Connection": "close"})
        if status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Basic realm="kapelle", charset="UTF-8"'
        return Response(status.value, status.phrase, headers)

    # Sessions.

    async def _serve(self, socket: ServerConnection) -> None:
        """Serve one station until its connection ends."""
        assert isinstance(socket, _Socket)
        assert socket.admitted is not None
        if socket.subprotocol is None:
            self.counters.connects_refused["no version in common"] += 1
            await socket.close(UNKNOWN_VERSION, "offer ocpp1.6, ocpp2.0.1 or ocpp2.1")
            return
        dialect = door.DIALECTS[socket.subprotocol]
        connection = Connection(
            socket, dialect, settings=self.settings, clock=self.clock, counters=self.counters
        )
        session = self._begin(socket.admitted, connection)
        try:
            async with background() as beside:
                beside.start(session.set_up(), f"setting up {session.identity}")
                await connection.run(session.answer, session.garbage)
        except ConnectionError:
            return
        except Exception:
            log.exception("a station's session failed", extra={"station": session.identity})
            raise
        finally:
            self._end(session, SessionEvent.DOWN)

    def _begin(self, admitted: door.Admitted, connection: Connection) -> Session:
        # Numbers also rise over restarts, as long as UTC does.
        now_ns = self.clock.now_ns()
        self._number = max(self._number + 1, now_ns)
        known = self._known.setdefault(admitted.identity, Known())
        older = self._sessions.get(admitted.identity)
        if older is not None:
            self._take_over(older, known, now_ns)
        session = Session(
            self, admitted.identity, admitted.devices, known, connection, self._number
        )
        session.generation = self._generations(session)
        self._sessions[session.identity] = session
        for device_no in session.devices.values():
            self._by_device[device_no] = session
            self.inbox.session(device_no, SessionEvent.UP, session.number)
        self.counters.connected += 1
        self.counters.sessions = len(self._sessions)
        self.counters.half_open = max(0, self._open - len(self._sessions))
        return session

    def _take_over(self, older: Session, known: Known, now_ns: int) -> None:
        settings, counters = self.settings, self.counters
        counters.takeovers += 1
        window_ns = int(settings.flap_window_s * NS_PER_S)
        recent = [at for at in known.takeovers_ns if now_ns - at < window_ns]
        known.takeovers_ns = (*recent, now_ns)[-settings.flaps_max :]
        if len(recent) < settings.flaps_max <= len(recent) + 1:
            counters.flaps += 1
            log.warning(
                "a station's connection is taken over again and again: two use its identity",
                extra={"station": older.identity, "takeovers": len(recent) + 1},
            )
        self._end(older, SessionEvent.TAKEN)
        self._leave(older, TAKEN, "a newer connection of this station has come")

    def _leave(self, session: Session, code: int, reason: str) -> None:
        self._beside.start(session.connection.close(code, reason), f"goodbye to {session.identity}")

    def _end(self, session: Session, event: SessionEvent) -> None:
        """Forget a session; again is harmless."""
        if self._sessions.get(session.identity) is not session:
            return
        del self._sessions[session.identity]
        for device_no in session.devices.values():
            if self._by_device.get(device_no) is session:
                del self._by_device[device_no]
                self.inbox.session(device_no, event, session.number)
        self.counters.sessions = len(self._sessions)

    def _generations(self, session: Session) -> list[int]:
        numbers = np.fromiter(session.devices.values(), np.int32, len(session.devices))
        generations: list[int] = self.directory.generation(numbers).tolist()
        return generations

    async def _sweep(self) -> None:
        """End, once a second, sessions that would not be let in again as they are."""
        while True:
            await self.clock.sleep(_SWEEP_S)
            if self.directory.version == self._directory_seen:
                continue
            self._directory_seen = self.directory.version
            for session in list(self._sessions.values()):
                devices = door.devices_of(self.directory, session.identity)
                if devices == session.devices and self._generations(session) == session.generation:
                    continue
                if not devices:
                    self._known.pop(session.identity, None)
                self.counters.drops["enrolment changed"] += 1
                self._end(session, SessionEvent.DOWN)
                self._leave(session, POLICY, "the enrolment has changed; come back")

    async def _carry_out(self, command: Command) -> Said | None:
        session = self._by_device.get(command.device_no)
        if session is None:
            raise ConnectionResetError("the station has gone")
        return await session.carry_out(command)


class _Socket(ServerConnection):
    """A connection that is counted from its first byte on."""

    def __init__(self, endpoint: OcppEndpoint, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.admitted: door.Admitted | None = None
        self._endpoint = endpoint

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._endpoint.made():
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._endpoint.lost()
        super().connection_lost(exc)


def _choose(_: ServerConnection, offered: Sequence[str]) -> Any:
    return door.choose(list(offered))
