"""A client of a broker the user already runs; it acknowledges only what the journal has.

aiomqtt and paho acknowledge on receipt, or need private parts to do otherwise; the endpoint's own
packets do it in less.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import numpy as np

from kapelle.adapters.mqtt import reader as r
from kapelle.adapters.mqtt import writer
from kapelle.adapters.mqtt.codec import encode_commands
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.intake import ACK, TELEMETRY, Intake, Limits, Message
from kapelle.adapters.mqtt.packets import (
    V5,
    Answer,
    ConnAck,
    Disconnect,
    Packet,
    Publish,
    SubAck,
    parse,
)
from kapelle.adapters.mqtt.reader import MalformedPacket, Properties, Property
from kapelle.adapters.mqtt.settings import BrokerSettings
from kapelle.errors import Invalid, LinkLost, Problem
from kapelle.model.blocks import Commands
from kapelle.model.enums import SessionEvent
from kapelle.model.ids import NS_PER_S, Flags, Ints
from kapelle.ports import Batch, Clock, Directory, Link
from kapelle.runtime.background import background
from kapelle.runtime.exposure import is_loopback

_SUBSCRIPTION = 1
"""Packet id of the one SUBSCRIBE; commands use the others."""


class BrokerClient:
    """Adapter for devices behind somebody else's broker."""

    name = "broker"

    def __init__(self, *, settings: BrokerSettings, directory: Directory, clock: Clock) -> None:
        _check(settings)
        self.settings = settings
        self.directory = directory
        self.clock = clock
        self.counters = Counters()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Connect and subscribe; the broker keeps for us what comes while we are away."""
        settings = self.settings
        link = BrokerLink(self)
        try:
            context = _tls(settings)
            async with asyncio.timeout(settings.connect_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: link.connection, settings.host, settings.port, ssl=context
                )
                await link.connection.greeted
        except (OSError, EOFError) as error:
            link.connection.close()
            raise LinkLost(self.name, str(error) or type(error).__name__) from error
        except BaseException:
            link.connection.close()
            raise
        async with background() as beside:
            beside.start(link.connection.keep_alive(), "broker keep-alive")
            try:
                yield link
            finally:
                link.connection.close()
                self.counters.sessions = 0


class BrokerLink:
    """The connection to the broker, and who was heard on it."""

    def __init__(self, client: BrokerClient) -> None:
        settings = client.settings
        self._settings = settings
        self._directory = client.directory
        self._counters = client.counters
        self._heard: set[int] = set()
        self._number = client.clock.now_ns()
        self._intake = Intake(
            client.name,
            clock=client.clock,
            limits=Limits(
                settings.waiting_max,
                settings.waiting_size_max,
                settings.batch_max,
                settings.batch_big,
                settings.linger_s,
            ),
            counters=client.counters,
            resolve=self._resolve,
        )
        self.connection = Connection(settings, self._intake, client.clock)

    def receive(self) -> AsyncIterator[Batch]:
        """Yield what has arrived."""
        return self._intake.receive()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Acknowledge to the broker, which then forgets."""
        self._intake.confirm(batch, {})

    def decline(self, batch: Batch, reason: str) -> None:
        """Leave the broker: it delivers again when we are back."""
        self._intake.decline(batch, reason)

    async def send(self, commands: Commands) -> Flags:
        """Publish commands for the devices heard on this connection."""
        written = np.zeros(len(commands), bool)
        numbers = commands.device_no.tolist()
        present = [row for row, number in enumerate(numbers) if number in self._heard]
        payloads = encode_commands(commands) if present else []
        for row in present:
            topic = self._settings.command_topic.format(id=self._directory.name(numbers[row]))
            written[row] = self.connection.publish(topic, payloads[row], float(commands.ttl_s[row]))
        sent = int(np.count_nonzero(written))
        self._counters.commands_sent += sent
        self._counters.commands_unsent += len(commands) - sent
        return written

    def _resolve(self, messages: list[Message]) -> Ints:
        numbers = self._directory.resolve([message[5] for message in messages])
        # A broker tells nobody who is connected: a device is up once it was heard.
        for number in dict.fromkeys(numbers.tolist()):
            if number >= 0 and number not in self._heard:
                self._heard.add(number)
                self._counters.sessions += 1
                self._intake.session(number, SessionEvent.UP, self._number)
        return numbers


class Connection(asyncio.Protocol):
    """The client's side of one connection."""

    def __init__(self, settings: BrokerSettings, intake: Intake, clock: Clock) -> None:
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the broker has accepted the connection and both subscriptions."""
        self._settings = settings
        self._intake = intake
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._need = 0
        self._held = False
        self._heard_ns = clock.now_ns()
        self._next_id = _SUBSCRIPTION
        self._unanswered: set[int] = set()
        self._unanswered_max = settings.commands_inflight_max
        self._kinds = {
            TELEMETRY: _around_name(settings.telemetry_topic),
            ACK: _around_name(settings.ack_topic),
        }

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are."""
        settings = self._settings
        self._transport = cast(asyncio.Transport, transport)
        given: Properties = {
            Property.SESSION_EXPIRY: settings.session_expiry_s,
            Property.RECEIVE_MAXIMUM: settings.receive_max,
            Property.MAXIMUM_PACKET_SIZE: settings.packet_size_max,
        }
        self._write(
            writer.connect(
                settings.version,
                settings.client_id,
                clean=False,
                keep_alive_s=settings.keep_alive_s,
                username=settings.username,
                password=settings.password,
                given=given if settings.version == V5 else r.NONE,
            )
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """End the link."""
        self._transport = None
        self._lose(str(exc or "the broker closed the connection"))

    def pause_writing(self) -> None:
        """A broker that does not read is as good as gone."""
        self._fail("the broker does not read")

    def resume_writing(self) -> None:
        """Nothing to do: the link is lost by then."""

    def data_received(self, data: bytes) -> None:
        """Take in every complete packet."""
        counters = self._intake.counters
        counters.received_size += len(data)
        stream = self._rest + data
        if len(stream) < self._need:
            self._rest = stream
            return
        self._heard_ns = now_ns = self._clock.now_ns()
        at, size, before = 0, 0, len(self._intake.messages)
        try:
            while at < len(stream):
                body, stop = r.frame(stream, at, self._settings.packet_size_max)
                if stop > len(stream):
                    break
                packet = parse(stream, at, body, stop, self._settings.version)
                size += self._take(packet, now_ns)
                at = stop
        except MalformedPacket as error:
            counters.malformed[error.reason] += 1
            self._fail(f"the broker sent a malformed packet: {error.reason}")
        self._rest = stream[at:]
        self._need = 0 if at == len(stream) else stop - at
        if len(self._intake.messages) != before:
            self._intake.arrived(size)
        if self._intake.full and not self._held and self._transport is not None:
            self._held = True
            counters.held["intake full"] += 1
            self._transport.pause_reading()
            self._intake.when_room(self._room)

    def _room(self) -> None:
        self._held = False
        if self._transport is not None:
            self._transport.resume_reading()

    def _take(self, packet: Packet, now_ns: int) -> int:
        if isinstance(packet, Publish):
            return self._published(packet, now_ns)
        if isinstance(packet, Answer):
            if packet.kind == r.PUBACK and packet.packet_id in self._unanswered:
                self._unanswered.discard(packet.packet_id)
                self._intake.counters.commands_received += 1
        elif isinstance(packet, ConnAck):
            self._connected(packet)
        elif isinstance(packet, SubAck):
            if any(code >= 0x80 for code in packet.codes):
                self._fail("the broker refused a subscription")
            elif not self.greeted.done():
                self.greeted.set_result(None)
        elif isinstance(packet, Disconnect):
            self._fail(f"the broker disconnected us: reason code 0x{packet.code:02x}")
        return 0

    def _published(self, packet: Publish, now_ns: int) -> int:
        answer = b""
        if packet.qos:
            answer = writer.answer(
                self._settings.version, r.PUBACK, packet.packet_id.to_bytes(2, "big")
            )
        for kind, (before, after) in self._kinds.items():
            topic = packet.topic
            if topic.startswith(before) and topic.endswith(after):
                name = topic[len(before) : len(topic) - len(after)]
                self._intake.messages.append((self, answer, kind, packet.payload, now_ns, name))
                return len(packet.payload)
        # Left over from a subscription of before: nobody wants it any more.
        self._write(answer)
        return 0

    def _connected(self, packet: ConnAck) -> None:
        if packet.code:
            self._fail(f"the broker refused the connection: code 0x{packet.code:02x}")
            return
        limit = packet.properties.get(Property.RECEIVE_MAXIMUM, 0xFFFF)
        assert isinstance(limit, int)
        self._unanswered_max = min(self._settings.commands_inflight_max, limit)
        settings = self._settings
        filters = [(settings.telemetry_topic, 1), (settings.ack_topic, 1)]
        self._write(writer.subscribe(settings.version, _SUBSCRIPTION, filters))

    # What the link calls.

    def publish(self, topic: str, payload: bytes, ttl_s: float) -> bool:
        """Publish at QoS 1, unless too much is unanswered; return whether."""
        if self._transport is None or len(self._unanswered) >= self._unanswered_max:
            return False
        self._next_id = self._next_id % 0xFFFF + 1
        if self._next_id in self._unanswered or self._next_id == _SUBSCRIPTION:
            self._next_id = self._next_id % 0xFFFF + 1
        self._unanswered.add(self._next_id)
        version = self._settings.version
        given: Properties = r.NONE
        if version == V5 and ttl_s == ttl_s:
            # The broker must not hand an old command to a device that comes back.
            given = {Property.MESSAGE_EXPIRY: max(1, int(ttl_s))}
        self._write(writer.publish(version, topic.encode(), payload, 1, self._next_id, given))
        return True

    def acknowledge(self, answers: list[bytes]) -> None:
        """Write answers: the journal has what they answer."""
        self._write(b"".join(answers))

    def correct(self, answer: bytes, reason: str) -> bytes:
        """Tell the broker the same as ever: it could not mend the content."""
        return answer

    def decline(self, reason: str) -> None:
        """Leave: the broker keeps what is not acknowledged."""
        self._fail(reason)

    async def keep_alive(self) -> None:
        """Ping, and notice a broker that no longer answers."""
        period_s = self._settings.keep_alive_s / 2
        while self._transport is not None:
            await self._clock.sleep(period_s)
            silent_ns = self._clock.now_ns() - self._heard_ns
            if silent_ns > 3 * period_s * NS_PER_S and not self._held:
                self._fail("the broker is silent")
            else:
                self._write(writer.PINGREQ)

    def close(self) -> None:
        """Say goodbye; what is not acknowledged stays with the broker."""
        if self.greeted.done() and not self.greeted.cancelled():
            self.greeted.exception()
        self.greeted.cancel()
        if self._transport is not None:
            self._write(writer.goodbye(self._settings.version))
            self._transport.close()

    def _write(self, packet: bytes) -> None:
        if self._transport is not None and packet:
            self._intake.counters.sent_size += len(packet)
            self._transport.write(packet)

    def _fail(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError(reason))
        self._intake.lose(reason)


def _around_name(topic: str) -> tuple[str, str]:
    before, _, after = topic.partition("+")
    return before, after


def _check(settings: BrokerSettings) -> None:
    problems = [
        Problem(
            f"broker.{name}", f"`{topic}` has not exactly one `+`", "put `+` where the name stands"
        )
        for name, topic in (
            ("telemetry_topic", settings.telemetry_topic),
            ("ack_topic", settings.ack_topic),
        )
        if topic.count("+") != 1 or "#" in topic
    ]
    if "{id}" not in settings.command_topic:
        problems.append(
            Problem("broker.command_topic", "has no `{id}`", "put `{id}` where the name stands")
        )
    if not (settings.tls or settings.insecure or is_loopback(settings.host)):
        problems.append(
            Problem(
                "broker.tls",
                f"the password would cross the network to {settings.host} in clear",
                "set tls = true, or insecure = true on a network you trust",
            )
        )
    if problems:
        raise Invalid("the broker settings cannot be used", problems)


def _tls(settings: BrokerSettings) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    return ssl.create_default_context(cafile=settings.tls_authority or None)
