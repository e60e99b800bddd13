"""The IEEE 2030.5 server: listens, knows who is heard, ends what is overdue."""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np

from kapelle.adapters.errands import Command, Errands, Said
from kapelle.adapters.ieee2030 import store, tls
from kapelle.adapters.ieee2030.client import Client
from kapelle.adapters.ieee2030.controls import Controls
from kapelle.adapters.ieee2030.counters import Counters
from kapelle.adapters.ieee2030.doorway import Doorway
from kapelle.adapters.ieee2030.identity import plain, read_pins
from kapelle.adapters.ieee2030.metering import Signs
from kapelle.adapters.ieee2030.notices import Notices
from kapelle.adapters.ieee2030.resources import Library
from kapelle.adapters.ieee2030.route import RETRY_S, respond, unknown
from kapelle.adapters.ieee2030.server import Connection, Request, Response, lfdi_behind
from kapelle.adapters.ieee2030.setpoint import amount_of, choose
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.adapters.inbox import Answer, Inbox, NotStored
from kapelle.adapters.link import ConversationLink
from kapelle.adapters.mqtt.throttle import TokenBucket
from kapelle.errors import LinkLost
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory, Link
from kapelle.runtime.background import background
from kapelle.runtime.sockets import listen

log = logging.getLogger("kapelle.ieee2030")

_SWEEP_S = 0.5
_PLACE_S = 5.0


class Ieee2030Endpoint:
    """Adapter for clients that speak IEEE 2030.5 or CSIP-AUS."""

    name = "ieee2030"

    def __init__(
        self,
        *,
        settings: Ieee2030Settings,
        directory: Directory,
        clock: Clock,
        file: Path | None = None,
    ) -> None:
        """Make it. `file`: what clients were told, and said once, is kept there over a restart."""
        tls.check(settings)
        self.settings = settings
        self.clock = clock
        self.counters = Counters()
        self.host, self.port = settings.host, 0
        """The port it listens on, once open."""
        self.told_within_s = float(settings.poll_s + settings.poll_spread_s)
        self.inbox: Inbox
        self.library: Library
        self._file = file
        self._store: store.Store
        self._notices: Notices
        self._directory = directory
        self._directory_seen = -1
        self._enrolled: dict[str, int] = {}
        """Device by LFDI, as the directory has it."""
        self._clients: dict[int, Client] = {}
        """Every client that was ever heard, by device."""
        self._present: dict[int, Client] = {}
        self._open: Counter[str] = Counter()
        """Connections of each LFDI."""
        self._number = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Listen; what keeps it from doing so leaves as LinkLost."""
        self.inbox = Inbox(self.name, clock=self.clock)
        async with store.opened(self._file) as self._store, background() as beside:
            # As after a restart, clients are given back what was kept of them when they come.
            for client in list(self._present.values()):
                self._leave(client)
            self._clients.clear()
            beside.start(self._store.run(), "IEEE 2030.5 notes")
            listener, inward, outward = self._listen()
            errands = Errands(
                self.inbox,
                beside,
                clock=self.clock,
                carry_out=self._carry_out,
                answer_s=_PLACE_S,
            )
            self._notices = Notices(beside, outward, settings=self.settings, counters=self.counters)
            beside.start(self._sweep(), "IEEE 2030.5 clients")
            doorway = Doorway(
                listener,
                inward,
                self._connected,
                beside=beside,
                settings=self.settings,
                counters=self.counters,
            )
            beside.start(doorway.run(), "IEEE 2030.5 connections")
            with closing(listener):
                yield ConversationLink(self.inbox, errands, self._present, self.counters)

    def _listen(self) -> tuple[socket.socket, ssl.SSLContext, ssl.SSLContext]:
        """Return what listens, how clients are let in, and how notifications are sent."""
        settings = self.settings
        try:
            self.library = Library(settings, _pins(settings))
            inward, outward = tls.server_context(settings), tls.client_context(settings)
            listener = listen(settings.host, settings.port)
        except (OSError, ValueError) as error:
            where = f"{settings.host}:{settings.port}"
            raise LinkLost(self.name, f"cannot listen on {where}: {error}") from error
        self.port = listener.getsockname()[1]
        return listener, inward, outward

    # Connections and requests.

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lfdi = lfdi_behind(writer)
        if not self._admit(lfdi):
            writer.transport.abort()
            return
        self._open[lfdi] += 1
        self.counters.connections += 1
        connection = Connection(
            reader, writer, lfdi, settings=self.settings, counters=self.counters
        )
        try:
            await connection.run(self._answer)
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        except Exception:
            # What one client asks must not end the connections of all others.
            log.exception("a request could not be answered", extra={"lfdi": lfdi})
        finally:
            self.counters.connections -= 1
            self._open[lfdi] -= 1
            if not self._open[lfdi]:
                del self._open[lfdi]
            writer.close()

    def _admit(self, lfdi: str) -> bool:
        if not lfdi:
            self.counters.connects_refused["no certificate"] += 1
        elif self.counters.connections >= self.settings.connections_max:
            self.counters.connects_refused["too many connections"] += 1
        elif self._open[lfdi] >= self.settings.connections_per_client_max:
            self.counters.connects_refused["too many connections of one client"] += 1
        else:
            return True
        return False

    async def _answer(self, request: Request) -> Response:
        client = self._client(request.lfdi)
        if client is None:
            # Known to its authority but not to us: CSIP-AUS wants it to hear so.
            self.counters.connects_refused["not enrolled"] += 1
            return unknown(request.lfdi)
        now_ns = self.clock.now_ns()
        pause_s = client.bucket.take(1, now_ns)
        if pause_s > 1.0:
            self.counters.drops["too many requests"] += 1
            return Response(429, headers=(("Retry-After", str(int(pause_s) + 1)),))
        self._hear(client, now_ns)
        response = await respond(self, client, request)
        if self._store.keep(client, now_ns):
            # A control that a client sees must not be forgotten: nobody could take it back.
            try:
                await self._store.written()
            except NotStored:
                return Response(503, headers=(("Retry-After", str(RETRY_S)),))
        return response

    def _client(self, lfdi: str) -> Client | None:
        self._look_up()
        device_no = self._enrolled.get(lfdi)
        if device_no is None:
            return None
        client = self._clients.get(device_no)
        if client is None:
            now_ns = self.clock.now_ns()
            settings = self.settings
            bucket = TokenBucket(settings.requests_per_s, settings.requests_burst, now_ns)
            client = Client(
                lfdi, device_no, Controls(lfdi), bucket, _signs(settings, lfdi), now_ns // NS_PER_S
            )
            self._store.restore(client, now_ns)
            self._clients[device_no] = client
        return client

    def _look_up(self) -> None:
        """Learn who is enrolled now, and forget who is not any more."""
        if self._directory.version == self._directory_seen:
            return
        self._directory_seen = self._directory.version
        reached = self._directory.reached_by(self.name)
        self._enrolled = {plain(address): number for address, number in reached.items()}
        self._enrolled.pop("", None)
        for client in list(self._clients.values()):
            if self._enrolled.get(client.lfdi) != client.device_no:
                self._leave(client)
                self._store.forget(client)
                del self._clients[client.device_no]

    def _hear(self, client: Client, now_ns: int) -> None:
        client.heard_ns = now_ns
        if client.session:
            return
        # Numbers also rise over restarts, as long as UTC does.
        self._number = max(self._number + 1, now_ns)
        client.session = self._number
        self._present[client.device_no] = client
        self.counters.connected += 1
        self.counters.sessions = len(self._present)
        self.inbox.session(client.device_no, SessionEvent.UP, client.session)

    def _leave(self, client: Client) -> None:
        if self._present.pop(client.device_no, None) is None:
            return
        self.counters.sessions = len(self._present)
        self.inbox.session(client.device_no, SessionEvent.DOWN, client.session)
        client.session = 0

    async def _sweep(self) -> None:
        """Note who has fallen silent, and what nobody came for in time."""
        silence_ns = int(self.settings.silence_s * NS_PER_S)
        while True:
            await self.clock.sleep(_SWEEP_S)
            self._look_up()
            now_ns = self.clock.now_ns()
            for client in list(self._present.values()):
                for epoch, revision in client.controls.late(now_ns):
                    self.inbox.answered(_late(client.device_no, epoch, revision))
                if now_ns - client.heard_ns > silence_ns:
                    self._leave(client)

    # Commands.

    async def _carry_out(self, command: Command) -> Said | None:
        client = self._present.get(command.device_no)
        if client is None:
            raise ConnectionResetError("the client has gone")
        now_ns = self.clock.now_ns()
        if np.isnan(command.setpoint_w):
            said = client.controls.release(command, now_ns)
            self._store.keep(client, now_ns)
            self._notices.changed(client)
            return said
        up_w, down_w = self._directory.nameplate(np.array([command.device_no], np.int32))
        mode = choose(self.settings.control, client.modes)
        amount = amount_of(
            command.setpoint_w, mode, client.ratings, float(up_w[0]), float(down_w[0])
        )
        if isinstance(amount, str):
            return Said(AckStatus.REJECTED, amount)
        placed = client.controls.place(command, mode, amount, now_ns)
        self._notices.changed(client)
        return placed


def _signs(settings: Ieee2030Settings, lfdi: str) -> Signs:
    turned = {plain(name) or name for name in settings.forward_is_export}
    unsaid = {"load": -1.0, "generation": 1.0, "": 0.0}[settings.unsaid_flow]
    return Signs(1.0 if turned & {lfdi, "*"} else -1.0, unsaid)


def _pins(settings: Ieee2030Settings) -> Mapping[str, int]:
    return read_pins(Path(settings.pins).read_text(encoding="utf-8")) if settings.pins else {}


def _late(device_no: int, epoch: int, revision: int) -> Answer:
    reason = "nobody fetched it before it expired"
    return Answer(device_no, revision, AckStatus.EXPIRED, reason, epoch)
