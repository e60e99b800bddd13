"""A small MQTT broker on the loopback, for a plant that is a client where no broker is installed.

Simulated devices publish into it and hear what the plant publishes, without connections of their
own. QoS 0 and 1, retained messages, wildcards, sessions that are kept; no wills, no keep-alive, no
access list beyond one user. It speaks with the endpoint's own packets: mosquitto's tools and
aiomqtt hold it to MQTT (OASIS MQTT 3.1.1 and 5.0).
"""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, cast

from kapelle.adapters.mqtt import reader as r
from kapelle.adapters.mqtt import writer
from kapelle.adapters.mqtt.packets import (
    V5,
    V311,
    Answer,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    connect_version,
    parse,
)
from kapelle.adapters.mqtt.reader import MalformedPacket, Properties, Property, Reason
from kapelle.sim.peers.subscriber import INFLIGHT_MAX, Message, Subscriber, is_filter, matches

PACKET_SIZE_MAX = 1 << 20
RETAINED_MAX = 10_000
_SESSIONS_MAX = 32
"""Also connections."""
_CONNECT_S = 10.0
_REFUSED = 0x80
_NO_SUBSCRIPTION = 0x11


class Listener(Protocol):
    """Whoever plays the devices behind a broker."""

    def on_published(self, topic: str, payload: bytes) -> None:
        """A session, such as the plant's, has published."""

    def on_acked(self, waited_s: float) -> None:
        """A session acknowledged a publication of a device at QoS 1, so long after it was made."""


class Broker:
    """One broker."""

    def __init__(self, listener: Listener, *, username: str = "", password: str = "") -> None:
        """Make it. With a user name, whoever does not know it and the password is refused."""
        self.port = 0
        self.dropped = 0
        """Messages a full queue did not take."""
        self.listener = listener
        self._user = username.encode(), password.encode()
        self._retained: dict[str, Message] = {}
        self._sessions: dict[str, Subscriber] = {}
        self._connections: set[_Connection] = set()
        self._nameless = 0

    @asynccontextmanager
    async def serve(self, port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[None]:
        """Accept connections as long as the block lasts; 0 takes a free port."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), host, port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            self.cut()
            await asyncio.sleep(0)

    @property
    def connected(self) -> int:
        """How many sessions have a connection."""
        return sum(session.connection is not None for session in self._sessions.values())

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
        """Publish for a device, to every session that subscribed to the topic."""
        now_s = asyncio.get_running_loop().time()
        self._pass_on(Message(topic, payload, qos, retain, now_s))

    def cut(self) -> None:
        """Break every connection without a goodbye."""
        for connection in tuple(self._connections):
            connection.abort()

    # What connections call.

    def came(self, connection: "_Connection") -> bool:
        """Expect a CONNECT; False where there are too many already."""
        self._connections.add(connection)
        return len(self._connections) <= _SESSIONS_MAX

    def went(self, connection: "_Connection", session: "Subscriber | None") -> None:
        """Keep the session of a connection that is gone where that was asked for."""
        self._connections.discard(connection)
        if session is not None and session.connection is connection:
            session.leave()
            if not session.kept:
                self._sessions.pop(session.name, None)

    def knows(self, connect: Connect) -> bool:
        """Tell whether this is the one user, where there is one."""
        username, password = self._user
        said = (connect.username or "").encode(), connect.password or b""
        right = hmac.compare_digest(said[0], username) & hmac.compare_digest(said[1], password)
        return right or not username

    def session(self, connect: Connect, connection: "_Connection") -> "tuple[Subscriber, bool]":
        """Return the session of a client, and whether it was kept from before."""
        name = connect.client_id
        if not name:
            self._nameless += 1
            name = f"nameless-{self._nameless}"
        before = self._sessions.get(name)
        if before is not None and before.connection is not None:
            before.connection.abort()
            before.leave()
        if before is None or connect.clean:
            before = None
            self._sessions.pop(name, None)
            away = (name for name, each in self._sessions.items() if each.connection is None)
            if len(self._sessions) >= _SESSIONS_MAX:
                # There are no more connections than that, so one of them is away.
                del self._sessions[next(away)]
            self._sessions[name] = Subscriber(name)
        session = self._sessions[name]
        expiry_s = connect.properties.get(Property.SESSION_EXPIRY, 0)
        session.kept = bool(expiry_s) if connect.version == V5 else not connect.clean
        limit = connect.properties.get(Property.RECEIVE_MAXIMUM, INFLIGHT_MAX)
        assert isinstance(limit, int)
        session.inflight_max = min(limit, INFLIGHT_MAX)
        session.connection = connection
        return session, before is not None

    def published(self, publish: Publish) -> None:
        """Pass on what a session has published."""
        payload = bytes(publish.payload)
        self._pass_on(Message(publish.topic, payload, publish.qos, publish.retain))
        self.listener.on_published(publish.topic, payload)

    def retained(self, name: str) -> list[Message]:
        """Return the retained messages of a filter."""
        steps = name.split("/")
        return [each for topic, each in self._retained.items() if matches(steps, topic)]

    def _pass_on(self, message: Message) -> None:
        if message.retain:
            self._retain(message)
        for session in self._sessions.values():
            granted = session.granted(message.topic)
            if granted >= 0:
                given = message._replace(qos=min(message.qos, granted), retain=False)
                self.dropped += not session.take(given)

    def _retain(self, message: Message) -> None:
        if not message.payload:
            self._retained.pop(message.topic, None)
        elif message.topic in self._retained or len(self._retained) < RETAINED_MAX:
            self._retained[message.topic] = message
        else:
            self.dropped += 1


class _Connection(asyncio.Protocol):
    def __init__(self, broker: Broker) -> None:
        self.is_open = True
        """Whether the client reads what is written."""
        self._broker = broker
        self._session: Subscriber | None = None
        self._transport: asyncio.Transport | None = None
        self._version = V311
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._late = asyncio.get_running_loop().call_later(_CONNECT_S, self.abort)
        if not self._broker.came(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._late.cancel()
        self._broker.went(self, self._session)

    def pause_writing(self) -> None:
        self.is_open = False

    def resume_writing(self) -> None:
        self.is_open = True
        if self._session is not None:
            self._session.pour()

    def data_received(self, data: bytes) -> None:
        stream, at = self._rest + data, 0
        if self._session is None and stream[0] != r.CONNECT << 4:
            # Whoever speaks something else need not be waited for.
            self.abort()
            return
        try:
            while at < len(stream) and self._transport is not None:
                body, stop = r.frame(stream, at, PACKET_SIZE_MAX)
                if stop > len(stream):
                    break
                self._take(parse(stream, at, body, stop, self._version))
                at = stop
        except MalformedPacket as error:
            if self._session is None:
                self._write(writer.connack(connect_version(stream), error.code))
            else:
                self._write(writer.disconnect(self._version, error.code, error.reason))
            self.close()
        self._rest = stream[at:]

    def deliver(self, message: Message, packet_id: int) -> None:
        self._write(
            writer.publish(
                self._version,
                message.topic.encode(),
                message.payload,
                message.qos,
                packet_id,
                retain=message.retain,
            )
        )

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _take(self, packet: Packet) -> None:
        session = self._session
        if isinstance(packet, Connect) and session is None:
            self._connect(packet)
        elif session is None or isinstance(packet, Connect):
            raise MalformedPacket(Reason.PROTOCOL_ERROR, "CONNECT is the first packet, and once")
        elif isinstance(packet, Publish):
            if packet.qos > 1:
                raise MalformedPacket(Reason.QOS_NOT_SUPPORTED, "QoS 2")
            self._broker.published(packet)
            if packet.qos:
                number = packet.packet_id.to_bytes(2, "big")
                self._write(writer.answer(self._version, r.PUBACK, number))
        elif isinstance(packet, Answer):
            waited_s = asyncio.get_running_loop().time() - session.answered(packet.packet_id)
            if waited_s >= 0:
                self._broker.listener.on_acked(waited_s)
        elif isinstance(packet, Subscribe):
            self._subscribe(session, packet)
        elif isinstance(packet, Unsubscribe):
            codes = (0 if session.unsubscribe(n) else _NO_SUBSCRIPTION for n in packet.filters)
            self._write(writer.unsuback(self._version, packet.packet_id, bytes(codes)))
        elif isinstance(packet, Ping):
            self._write(writer.PINGRESP)
        elif isinstance(packet, Disconnect):
            self.close()

    def _connect(self, connect: Connect) -> None:
        self._late.cancel()
        self._version = connect.version
        if not self._broker.knows(connect):
            self._write(writer.connack(connect.version, Reason.BAD_CREDENTIALS))
            self.close()
            return
        self._session, was_kept = self._broker.session(connect, self)
        given: Properties = {
            Property.MAXIMUM_QOS: 1,
            Property.MAXIMUM_PACKET_SIZE: PACKET_SIZE_MAX,
            Property.SHARED_AVAILABLE: 0,
            **({} if connect.client_id else {Property.ASSIGNED_CLIENT_ID: self._session.name}),
        }
        properties = writer.properties(given) if connect.version == V5 else b""
        self._write(writer.packet(r.CONNACK << 4, bytes((was_kept, 0)), properties))
        self._session.pour()

    def _subscribe(self, session: Subscriber, packet: Subscribe) -> None:
        granted = [min(qos, 1) if is_filter(name) else _REFUSED for name, qos in packet.filters]
        self._write(writer.suback(self._version, packet.packet_id, bytes(granted)))
        for (name, _), qos in zip(packet.filters, granted, strict=True):
            if qos == _REFUSED:
                continue
            session.subscribe(name, qos)
            for message in self._broker.retained(name):
                session.take(message._replace(qos=min(message.qos, qos)))

    def _write(self, packet: bytes) -> None:
        if self._transport is not None and packet:
            self._transport.write(packet)
