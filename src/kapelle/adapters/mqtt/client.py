"""A client of a broker the user already runs; it acknowledges only when it is told to.

aiomqtt and paho acknowledge on receipt, or need private parts to do otherwise; the endpoint's own
packets do it in less.
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol, cast

from kapelle.adapters.mqtt import reader as r
from kapelle.adapters.mqtt import writer
from kapelle.adapters.mqtt.counters import Counters
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
from kapelle.adapters.mqtt.settings import ClientSettings
from kapelle.errors import LinkLost, Problem
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock
from kapelle.runtime.background import background
from kapelle.runtime.exposure import is_loopback

_SUBSCRIPTION = 1
"""Packet id of the one SUBSCRIBE; publications use the others."""


class Will(NamedTuple):
    """What the broker says to everybody when we are gone without a goodbye; QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False


class Listener(Protocol):
    """Whoever wants what the broker has."""

    def on_made(self, connection: "Connection") -> None:
        """There is a connection; nothing was said on it yet."""

    def on_published(self, publish: Publish, answer: bytes, now_ns: int) -> None:
        """Take one publication. `answer`: to `acknowledge` once it is durable; empty for none."""

    def on_read(self) -> None:
        """Everything that arrived together was handed over."""

    def on_answered(self) -> None:
        """The broker has acknowledged a publication of ours."""

    def on_lost(self, reason: str) -> None:
        """The connection is gone."""


@asynccontextmanager
async def connected(
    name: str,
    settings: ClientSettings,
    filters: Sequence[str],
    listener: Listener,
    *,
    clock: Clock,
    counters: Counters,
    will: Will | None = None,
) -> AsyncIterator[None]:
    """Connect and subscribe at QoS 1; the broker keeps for us what comes while we are away.

    Raises:
        LinkLost: The broker cannot be reached, refuses us or a subscription, or breaks MQTT.
    """
    connection = Connection(settings, filters, listener, clock=clock, counters=counters, will=will)
    try:
        context = ssl.create_default_context(cafile=settings.tls_authority or None)
        async with asyncio.timeout(settings.connect_s):
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                settings.host,
                settings.port,
                ssl=context if settings.tls else None,
            )
            await connection.greeted
    except (OSError, EOFError) as error:
        connection.close()
        why = str(error) or type(error).__name__
        raise LinkLost(name, f"{_broker(settings)}: {why}") from error
    except BaseException:
        connection.close()
        raise
    async with background() as beside:
        beside.start(connection.keep_alive(), f"{name} keep-alive")
        try:
            yield
        finally:
            connection.close()


def exposed(section: str, settings: ClientSettings) -> list[Problem]:
    """Return what is wrong where the password would cross a network in clear."""
    if settings.tls or settings.insecure or is_loopback(settings.host):
        return []
    what = f"the password would cross the network to {settings.host} in clear"
    remedy = "set tls = true, or insecure = true on a network you trust"
    return [Problem(f"{section}.tls", what, remedy)]


def _broker(settings: ClientSettings) -> str:
    return f"the broker at {settings.host}:{settings.port}"


class Connection(asyncio.Protocol):
    """The client's side of one connection."""

    def __init__(
        self,
        settings: ClientSettings,
        filters: Sequence[str],
        listener: Listener,
        *,
        clock: Clock,
        counters: Counters,
        will: Will | None = None,
    ) -> None:
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the broker has accepted the connection and the subscriptions."""
        self._settings = settings
        self._filters = filters
        self._listener = listener
        self._clock = clock
        self._counters = counters
        self._will = will
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._need = 0
        self._held = False
        self._heard_ns = clock.now_ns()
        self._next_id = _SUBSCRIPTION
        self._unanswered: set[int] = set()
        self._unanswered_max = settings.commands_inflight_max
        self._stuck: asyncio.TimerHandle | None = None
        self._roomy = asyncio.Event()
        self._roomy.set()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are."""
        settings = self._settings
        self._transport = cast(asyncio.Transport, transport)
        self._listener.on_made(self)
        given: Properties = {
            Property.SESSION_EXPIRY: settings.session_expiry_s,
            Property.RECEIVE_MAXIMUM: settings.receive_max,
            Property.MAXIMUM_PACKET_SIZE: settings.packet_size_max,
        }
        self._write(
            writer.connect(
                settings.version,
                settings.client_id,
                clean=not settings.session_expiry_s,
                keep_alive_s=settings.keep_alive_s,
                username=settings.username,
                password=settings.password,
                given=given if settings.version == V5 else r.NONE,
                will=self._will,
            )
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """End the link."""
        self._transport = None
        self._lose(str(exc or "the broker closed the connection"))

    def pause_writing(self) -> None:
        """Publish nothing until the broker reads on; one that does not in time is lost."""
        self._roomy.clear()
        loop, wait_s = asyncio.get_running_loop(), self._settings.connect_s
        self._stuck = loop.call_later(wait_s, self._fail, "the broker does not read")

    def resume_writing(self) -> None:
        """Publish again."""
        self._roomy.set()
        if self._stuck is not None:
            self._stuck.cancel()

    def data_received(self, data: bytes) -> None:
        """Take in every complete packet."""
        self._counters.received_size += len(data)
        stream = self._rest + data
        if len(stream) < self._need:
            self._rest = stream
            return
        self._heard_ns = now_ns = self._clock.now_ns()
        at = 0
        try:
            while at < len(stream):
                body, stop = r.frame(stream, at, self._settings.packet_size_max)
                if stop > len(stream):
                    break
                packet = parse(stream, at, body, stop, self._settings.version)
                self._take(packet, now_ns)
                at = stop
        except MalformedPacket as error:
            self._counters.malformed[error.reason] += 1
            self._fail(f"the broker sent a malformed packet: {error.reason}")
        self._rest = stream[at:]
        self._need = 0 if at == len(stream) else stop - at
        self._listener.on_read()

    def hold(self) -> bool:
        """Read no more from the broker until `resume`; False where it is so already."""
        if self._held or self._transport is None:
            return False
        self._held = True
        self._counters.held["intake full"] += 1
        self._transport.pause_reading()
        return True

    def resume(self) -> None:
        """Read on."""
        self._held = False
        if self._transport is not None:
            self._transport.resume_reading()

    def _take(self, packet: Packet, now_ns: int) -> None:
        if isinstance(packet, Publish):
            answer = b""
            if packet.qos:
                number = packet.packet_id.to_bytes(2, "big")
                answer = writer.answer(self._settings.version, r.PUBACK, number)
            self._listener.on_published(packet, answer, now_ns)
        elif isinstance(packet, Answer):
            if packet.kind == r.PUBACK and packet.packet_id in self._unanswered:
                self._unanswered.discard(packet.packet_id)
                self._listener.on_answered()
        elif isinstance(packet, ConnAck):
            self._connected(packet)
        elif isinstance(packet, SubAck):
            is_refused = any(code >= 0x80 for code in packet.codes)
            if packet.packet_id != _SUBSCRIPTION:
                # Somebody named us a topic we may not hear: nobody else shall suffer from it.
                self._unanswered.discard(packet.packet_id)
                self._counters.refused["subscription"] += is_refused
            elif is_refused:
                self._fail("the broker refused a subscription")
            elif not self.greeted.done():
                self.greeted.set_result(None)
        elif isinstance(packet, Disconnect):
            self._fail(f"the broker disconnected us: reason code 0x{packet.code:02x}")

    def _connected(self, packet: ConnAck) -> None:
        if packet.code:
            self._fail(f"the broker refused the connection: code 0x{packet.code:02x}")
            return
        limit = packet.properties.get(Property.RECEIVE_MAXIMUM, 0xFFFF)
        assert isinstance(limit, int)
        self._unanswered_max = min(self._settings.commands_inflight_max, limit)
        filters = [(each, 1) for each in self._filters]
        self._write(writer.subscribe(self._settings.version, _SUBSCRIPTION, filters))

    # What the link calls.

    def publish(
        self,
        topic: str,
        payload: bytes,
        ttl_s: float = math.nan,
        *,
        retain: bool = False,
        qos: int = 1,
    ) -> bool:
        """Publish at QoS 0 or 1, unless too much is unanswered or not read; return whether.

        Args:
            topic: Where to.
            payload: What.
            ttl_s: How long the broker may keep it for who is away (MQTT 5); NaN: as it likes. [s]
            retain: The broker keeps it for whoever subscribes later.
            qos: 0 where the protocol wants no acknowledgement.
        """
        if not self._takes():
            return False
        packet_id = self._number() if qos else 0
        version = self._settings.version
        given: Properties = r.NONE
        if version == V5 and not math.isnan(ttl_s):
            # The broker must not hand an old command to a device that comes back.
            given = {Property.MESSAGE_EXPIRY: max(1, int(ttl_s))}
        self._write(
            writer.publish(version, topic.encode(), payload, qos, packet_id, given, retain=retain)
        )
        return True

    def subscribe(self, topics: Sequence[str]) -> bool:
        """Also hear these, unless too much is unanswered or not read; return whether it was asked.

        One the broker refuses is counted, and the others are heard.
        """
        if not self._takes():
            return False
        filters = [(topic, 1) for topic in topics]
        self._write(writer.subscribe(self._settings.version, self._number(), filters))
        return True

    async def room(self) -> None:
        """Wait until the broker reads what is written, or is lost."""
        await self._roomy.wait()

    def acknowledge(self, answers: list[bytes]) -> None:
        """Write answers: the journal has what they answer."""
        self._write(b"".join(answers))

    def leave(self, reason: str) -> None:
        """Break the connection: the broker keeps what is not acknowledged."""
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

    def _takes(self) -> bool:
        """Tell whether something may be published now."""
        is_free = len(self._unanswered) < self._unanswered_max
        return self._transport is not None and self._roomy.is_set() and is_free

    def _number(self) -> int:
        """Return the id of a packet that will be answered."""
        self._next_id = self._next_id % 0xFFFF + 1
        while self._next_id in self._unanswered or self._next_id == _SUBSCRIPTION:
            self._next_id = self._next_id % 0xFFFF + 1
        self._unanswered.add(self._next_id)
        return self._next_id

    def _write(self, packet: bytes) -> None:
        if self._transport is not None and packet:
            self._counters.sent_size += len(packet)
            self._transport.write(packet)

    def _fail(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError(reason))
        self.resume_writing()
        self._listener.on_lost(f"{_broker(self._settings)}: {reason}")
