"""A device's MQTT client: lean enough for thousands in one process, honest as a real one.

What was published at QoS 1 is kept until the server acknowledges it and sent again on the next
connection. The client itself never reconnects; the swarm decides when.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from kapelle.sim.peers import packets
from kapelle.sim.peers.packets import Malformed, Received

UNACKED_MAX = 256
"""Publications a device keeps; a full memory forgets the oldest, as small devices do."""


class Listener(Protocol):
    """Who is told what happens to a client."""

    def on_up(self, client: "Client") -> None:
        """The server accepted the connection and the client has subscribed."""

    def on_down(self, client: "Client", reason: str) -> None:
        """The connection is gone, or the server refused it."""

    def on_command(self, client: "Client", payload: bytes) -> None:
        """A command arrived."""

    def on_acked(self, client: "Client", waited_s: float) -> None:
        """The server acknowledged a publication."""


class Client(asyncio.Protocol):
    """One device's connection, and what outlives it."""

    __slots__ = (
        "_ack", "_buffer", "_commands_to", "_keep_alive_s", "_listener", "_next_id", "_now",
        "_paused", "_reason", "_secret", "_sent_at", "_tel", "_transport", "_unacked", "_unsent",
        "attempts", "barred", "deaf", "forgotten", "heard_at", "index", "name", "published",
        "repeated", "up", "up_at", "version", "wanted",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        name: str,
        secret: str,
        listener: Listener,
        *,
        version: int = packets.V311,
        keep_alive_s: int = 60,
        now: Callable[[], float],
    ) -> None:
        self.index = index
        self.name = name
        self.version = version
        self.up = False
        self.barred = False
        """Its network or cloud is gone: it must not connect."""
        self.deaf = False
        """Powered off with the connection half open: says nothing, hears nothing."""
        self.wanted = False
        """The swarm already has it in its queue of connections to make."""
        self.attempts = 0
        self.published = 0
        self.repeated = 0
        self.forgotten = 0
        self._reason = ""
        self.heard_at = 0.0
        self._sent_at = 0.0
        self.up_at = 0.0
        self._secret = secret
        self._listener = listener
        self._keep_alive_s = keep_alive_s
        self._now = now
        self._commands_to = f"v1/{name}/cmd"
        self._tel = packets.prefixed(f"v1/{name}/tel")
        self._ack = packets.prefixed(f"v1/{name}/ack")
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._paused = False
        self._next_id = 0
        self._unacked: dict[int, tuple[bytes, float]] = {}
        self._unsent: list[int] = []
        """Of those, the ones that were never written."""

    @property
    def connected(self) -> bool:
        """Whether a TCP connection is open, whatever is said on it."""
        return self._transport is not None

    @property
    def waiting(self) -> int:
        """How many publications the server has not acknowledged."""
        return len(self._unacked)

    def publish(self, payload: bytes, *, ack: bool = False) -> None:
        """Send telemetry (or an answer to a command), now or on the next connection."""
        # Packet ids lie between 1 and 65535 and must not be in flight twice.
        self._next_id = self._next_id % 0xFFFF + 1
        while self._next_id in self._unacked:
            self._next_id = self._next_id % 0xFFFF + 1
        topic = self._ack if ack else self._tel
        packet = packets.publish(topic, payload, self._next_id, self.version)
        if len(self._unacked) >= UNACKED_MAX:
            del self._unacked[next(iter(self._unacked))]
            self.forgotten += 1
        self._unacked[self._next_id] = packet, self._now()
        self.published += 1
        if self.up and not self._paused and not self.deaf:
            self._write(packet)
        else:
            self._unsent.append(self._next_id)

    def tend(self, now: float) -> None:
        """Ping when nothing was sent for long; give up when nothing was heard for longer."""
        if self._transport is None or self.deaf:
            return
        if now - self.heard_at > 1.5 * self._keep_alive_s:
            self.cut("the server is silent")
        elif self.up and now - self._sent_at > 0.5 * self._keep_alive_s:
            self._write(packets.PINGREQ)

    def cut(self, reason: str) -> None:
        """Drop the connection without a goodbye."""
        if self._transport is not None:
            self._reason = reason
            self._transport.abort()

    def leave(self) -> None:
        """Say goodbye and close."""
        if self._transport is not None:
            self._write(packets.GOODBYE)
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce itself."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""
        self._paused = False
        self._reason = ""
        self.heard_at = self._now()
        if self.barred:
            self.cut("barred")
            return
        self._write(
            packets.connect(
                self.name, self._secret, self.version, self._keep_alive_s, fresh=not self._unacked
            )
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember why, and tell the swarm."""
        self._transport = None
        self.up = False
        self._listener.on_down(self, self._reason or str(exc or "closed by the server"))

    def pause_writing(self) -> None:
        """Stop sending: the server does not read. What is published meanwhile waits."""
        self._paused = True

    def resume_writing(self) -> None:
        """Send what waited."""
        self._paused = False
        self._send_unsent()

    def data_received(self, data: bytes) -> None:
        """Handle what the server sent."""
        if self.deaf:
            return
        self.heard_at = self._now()
        try:
            arrived, self._buffer = packets.split(self._buffer + data if self._buffer else data)
            for packet in arrived:
                self._take(packet)
        except Malformed as error:
            self.cut(str(error))

    def _take(self, packet: Received) -> None:
        if packet.kind == packets.PUBACK:
            packet_id, _ = packets.acknowledged(packet)
            if (sent := self._unacked.pop(packet_id, None)) is not None:
                self._listener.on_acked(self, self.heard_at - sent[1])
        elif packet.kind == packets.PUBLISH:
            delivery = packets.delivery(packet, self.version)
            if delivery.packet_id:
                self._write(packets.puback(delivery.packet_id))
            self._listener.on_command(self, delivery.payload)
        elif packet.kind == packets.CONNACK:
            self._welcomed(packet)
        elif packet.kind == packets.SUBACK:
            if packet.body[-1] >= 0x80:
                self.cut("the server refused the subscription")
        elif packet.kind == packets.DISCONNECT:
            self.cut(f"the server said goodbye (0x{packet.body[0] if packet.body else 0:02x})")

    def _welcomed(self, packet: Received) -> None:
        if code := packets.refusal(packet):
            self.cut(f"refused by the server (0x{code:02x})")
            return
        self.up = True
        self.up_at = self.heard_at
        # Id 0xFFFF is the last one publications reach; they skip it while it is in flight.
        self._write(packets.subscribe(self._commands_to, 0xFFFF, self.version))
        self._send_again(known=packets.kept(packet))
        self._send_unsent()
        self._listener.on_up(self)

    def _send_again(self, *, known: bool) -> None:
        fresh = set(self._unsent)
        for packet_id, (packet, _) in list(self._unacked.items()):
            if packet_id not in fresh:
                self.repeated += 1
                # Only a server that still has the session may take it for the same publication.
                self._write(packets.again(packet) if known else packet)

    def _send_unsent(self) -> None:
        unsent, self._unsent = self._unsent, []
        for packet_id in unsent:
            if (kept := self._unacked.get(packet_id)) is not None:
                self._write(kept[0])

    def _write(self, packet: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._sent_at = self._now()
            self._transport.write(packet)
