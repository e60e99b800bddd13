"""The MQTT endpoint: listens, admits devices, keeps their sessions, ends what is overdue."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from kapelle.adapters.mqtt import writer
from kapelle.adapters.mqtt.admission import Refusal, granted, refusal
from kapelle.adapters.mqtt.counters import CONNECT, TLS_HANDSHAKE, Counters
from kapelle.adapters.mqtt.deadlines import Queue, Wheel
from kapelle.adapters.mqtt.intake import Intake, Limits
from kapelle.adapters.mqtt.link import MqttLink, device_numbers
from kapelle.adapters.mqtt.packets import Connect
from kapelle.adapters.mqtt.reader import Reason
from kapelle.adapters.mqtt.session import Session
from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.adapters.mqtt.throttle import TokenBucket
from kapelle.errors import Invalid, LinkLost, Problem
from kapelle.model.enums import SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory, Link
from kapelle.runtime.exposure import is_loopback
from kapelle.runtime.sockets import listen

log = logging.getLogger("kapelle.mqtt")

_ACCEPT_AT_ONCE = 64
_BACKLOG = 4_096
"""Devices that return together after an outage wait here to be accepted."""
_SWEEP_S = 1.0
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class MqttEndpoint:
    """Adapter for devices that speak MQTT 3.1.1 or 5 to us directly."""

    name = "mqtt"

    def __init__(self, *, settings: MqttSettings, directory: Directory, clock: Clock) -> None:
        check(settings)
        self.settings = settings
        self.directory = directory
        self.clock = clock
        self.counters = Counters()
        self.host, self.port = settings.host, 0
        """The port it listens on, once open."""
        self.intake: Intake
        self._sessions: dict[int, Session] = {}
        self._half_open: Queue[Session] = Queue()
        """Connections without CONNECT."""
        self._unanswered: Queue[Session] = Queue()
        """Sessions with a command whose PUBACK has not come."""
        self._shaking = 0
        """Connections in their TLS handshake."""
        self._wheel: Wheel[Session] = Wheel()
        self._handshake_ns = int(settings.handshake_s * NS_PER_S)
        self._command_ack_ns = int(settings.command_ack_s * NS_PER_S)
        self._number = 0
        self._directory_seen = directory.version
        self._listener: socket.socket | None = None
        self._listening = False
        self._bucket = TokenBucket(1, 1, 0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Listen; a port that cannot be had leaves as LinkLost."""
        settings = self.settings
        try:
            context = _tls(settings)
            listener = listen(settings.host, settings.port, backlog=_BACKLOG)
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise LinkLost(self.name, f"cannot listen on {where}: {error}") from error
        self.intake = Intake(
            self.name,
            clock=self.clock,
            limits=Limits(
                settings.waiting_max,
                settings.waiting_size_max,
                settings.batch_max,
                settings.batch_big,
                settings.linger_s,
            ),
            counters=self.counters,
            resolve=device_numbers,
        )
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._bucket = TokenBucket(
            settings.connects_per_s, settings.connects_burst, self.clock.now_ns()
        )
        failed: BaseException | None = None
        async with asyncio.TaskGroup() as tasks:
            sweeper = tasks.create_task(self._sweep())
            self._tasks = tasks
            self._context = context
            self._listen_again()
            try:
                yield MqttLink(self.intake, self._sessions, self.counters)
            except BaseException as error:  # noqa: BLE001  (raised below)
                # Through the group it would arrive wrapped, and nobody would know it by name.
                failed = error
            self._pause_accepting("")
            listener.close()
            self._listener = None
            self._end_all()
            sweeper.cancel()
            await self._drained()
        if failed is not None:
            raise failed

    def _end_all(self) -> None:
        for session in [*self._sessions.values(), *self._half_open.all()]:
            session.end(Reason.SERVER_SHUTTING_DOWN, "the server stops; come back")

    async def _drained(self) -> None:
        for _ in range(20):
            if not (self._sessions or self._half_open or self._shaking):
                return
            await self.clock.sleep(0.01)
        for session in [*self._sessions.values(), *self._half_open.all()]:
            session.drop("slow goodbye")

    # Accepting.

    def _listen_again(self) -> None:
        if self._listener is not None and not self._listening:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _pause_accepting(self, why: str) -> None:
        if self._listener is not None and self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            if why:
                self.counters.held[why] += 1

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPT_AT_ONCE):
            if self._listener is None or self._crowded():
                return
            wait_s = self._bucket.take(0, self.clock.now_ns())
            if self._bucket.tokens < 1:
                self._pause_accepting("accepting above its rate")
                wait_s += 1 / self.settings.connects_per_s
                loop.call_later(wait_s, self._listen_again)
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                self._pause_accepting("accepting without file descriptors")
                loop.call_later(1.0, self._listen_again)
                return
            self._bucket.take(1, self.clock.now_ns())
            self.counters.accepted += 1
            connection.setblocking(False)
            self._shaking += 1
            self._tasks.create_task(self._welcome(connection))

    def _crowded(self) -> bool:
        if self._shaking + len(self._half_open) < self.settings.half_open_max:
            return False
        self._pause_accepting("accepting with too many half open")
        return True

    async def _welcome(self, connection: socket.socket) -> None:
        session = Session(self)
        handshake_s = self.settings.handshake_s if self._context is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: session,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=handshake_s,
                ssl_shutdown_timeout=handshake_s,
            )
        except (OSError, EOFError):  # ssl.SSLError and TimeoutError are OSErrors
            self.counters.refused[TLS_HANDSHAKE] += 1
            connection.close()
        finally:
            self._shaking -= 1
            self._may_accept()

    def _may_accept(self) -> None:
        if not self._listening and not self._crowded():
            self._listen_again()

    def greeted(self, session: Session) -> None:
        """Expect CONNECT from a new connection."""
        self._half_open.add(session, self.clock.now_ns())
        self.counters.half_open = len(self._half_open)

    def awaits_answer(self, session: Session, awaits: bool) -> None:
        """Expect the PUBACK of a command within its time, or no more."""
        if awaits:
            self._unanswered.add(session, self.clock.now_ns())
        else:
            self._unanswered.discard(session)

    # Sessions.

    def admit(self, session: Session, connect: Connect) -> None:
        """Answer CONNECT: make the connection the device's session, or end it saying why."""
        why = self._refusal(connect)
        if why is not None:
            self.counters.refused[CONNECT + why.reason] += 1
            session.refuse(connect, why.code)
            return
        assert connect.password is not None
        device_no = self.directory.authenticate(
            connect.client_id, connect.password.decode(errors="replace")
        )
        if device_no is None:
            self.counters.refused[CONNECT + "wrong user name or password"] += 1
            session.refuse(connect, Reason.BAD_CREDENTIALS)
            return
        now_ns = self.clock.now_ns()
        # Numbers also rise over restarts, as long as UTC does.
        self._number = max(self._number + 1, now_ns)
        self._take_over(device_no, session, now_ns)
        self._forget_half_open(session)
        session.begin(connect, device_no, self._number, now_ns)
        session.generation = int(self.directory.generation(np.array([device_no], np.int32))[0])
        keep_alive_s, properties = granted(connect, self.settings)
        session.silence_ns_max = keep_alive_s * NS_PER_S * 3 // 2
        self._sessions[device_no] = session
        self._watch(session)
        self.counters.sessions += 1
        self.counters.connected += 1
        self.intake.session(device_no, SessionEvent.UP, session.number)
        session.write(writer.connack(connect.version, Reason.SUCCESS, properties))

    def _refusal(self, connect: Connect) -> Refusal | None:
        if len(self._sessions) >= self.settings.connections_max:
            return Refusal(Reason.QUOTA_EXCEEDED, "too many connections")
        return refusal(connect)

    def _take_over(self, device_no: int, session: Session, now_ns: int) -> None:
        older = self._sessions.get(device_no)
        if older is None:
            return
        self.counters.takeovers += 1
        window_ns = int(self.settings.flap_window_s * NS_PER_S)
        recent = [at for at in older.takeovers_ns if now_ns - at < window_ns]
        session.takeovers_ns = (*recent, now_ns)[-self.settings.flaps_max :]
        if len(recent) < self.settings.flaps_max <= len(recent) + 1:
            self.counters.flaps += 1
            log.warning(
                "a device's session is taken over again and again: two use its credentials",
                extra={"device": older.name, "takeovers": len(recent) + 1},
            )
        older.will, older.taken = False, True
        older.end(Reason.SESSION_TAKEN_OVER, "a newer connection of this device has come")

    def ended(self, session: Session) -> None:
        """Forget a connection, as soon as either side ends it."""
        self._forget_half_open(session)
        if self._sessions.get(session.device_no) is session:
            del self._sessions[session.device_no]
            self._wheel.discard(session)
            self._unanswered.discard(session)
            self.counters.sessions -= 1
            event = SessionEvent.WILL if session.will else SessionEvent.DOWN
            if session.taken:
                event = SessionEvent.TAKEN
            self.intake.session(session.device_no, event, session.number)

    def _forget_half_open(self, session: Session) -> None:
        if self._half_open.discard(session):
            self.counters.half_open = len(self._half_open)
            self._may_accept()

    def hold_everybody(self) -> None:
        """Stop reading from every device until the intake has room."""
        for session in self._sessions.values():
            session.hold_full()

    async def _sweep(self) -> None:
        """End, once a second, what is overdue or no longer admitted."""
        while True:
            await self.clock.sleep(_SWEEP_S)
            now_ns = self.clock.now_ns()
            for session in self._half_open.older_than(now_ns - self._handshake_ns):
                session.drop("handshake")
                self._forget_half_open(session)
            for session in self._unanswered.older_than(now_ns - self._command_ack_ns):
                self._unanswered.discard(session)
                session.drop("command unanswered")
            for session in self._wheel.due(now_ns // NS_PER_S):
                if session.overdue(now_ns):
                    self.counters.dropped["keep-alive"] += 1
                    session.end(Reason.KEEP_ALIVE_TIMEOUT, "nothing heard within the keep-alive")
                else:
                    self._watch(session)
            self._expel()

    def _expel(self) -> None:
        """End sessions whose credentials, checked once, would not let them in again."""
        if self.directory.version == self._directory_seen:
            return
        self._directory_seen = self.directory.version
        sessions = list(self._sessions.values())
        numbers = np.fromiter((s.device_no for s in sessions), np.int32, len(sessions))
        began = np.fromiter((s.generation for s in sessions), np.int32, len(sessions))
        present = self.directory.generation(numbers)
        for place in np.flatnonzero(present != began).tolist():
            session = sessions[place]
            if present[place] < 0:
                self.counters.dropped["no longer enrolled"] += 1
                session.end(Reason.NOT_AUTHORIZED, "this device is no longer enrolled")
            else:
                self.counters.dropped["credentials changed"] += 1
                session.end(Reason.NOT_AUTHORIZED, "come back with the new credentials")

    def _watch(self, session: Session) -> None:
        self._wheel.add(session, (session.heard_ns + session.silence_ns_max) // NS_PER_S + 1)


def check(settings: MqttSettings) -> None:
    """Refuse what must not be served: plaintext where other machines can reach it (S-17)."""
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise Invalid(
            "the MQTT settings cannot be used",
            [Problem("mqtt.tls_key", "certificate and key belong together", "name both files")],
        )
    if settings.tls_certificate or settings.insecure or is_loopback(settings.host):
        return
    raise Invalid(
        "the MQTT settings cannot be used",
        [
            Problem(
                "mqtt.host",
                f"{settings.host} is reachable from other machines and there is no TLS",
                "set tls_certificate and tls_key, or insecure = true on a network you trust",
            )
        ],
    )


def _tls(settings: MqttSettings) -> ssl.SSLContext | None:
    if not settings.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context
