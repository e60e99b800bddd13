"""Commands on their way to one device: at most one unanswered, the newest waits behind it."""

from typing import TYPE_CHECKING, NamedTuple

from kapelle.adapters.mqtt import writer
from kapelle.adapters.mqtt.codec import shorten
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S

if TYPE_CHECKING:
    from kapelle.adapters.mqtt.endpoint import MqttEndpoint
    from kapelle.adapters.mqtt.session import Session


class Command(NamedTuple):
    """A command to one device."""

    payload: bytes
    revision: int
    not_after_ns: int


class Delivery:
    """The command topic of one session."""

    __slots__ = (
        "_endpoint",
        "_next_id",
        "_packet_max",
        "_queued",
        "_queued_at_ns",
        "_session",
        "_topic",
        "_unanswered",
        "qos",
    )

    def __init__(self, session: "Session", endpoint: "MqttEndpoint", packet_max: int) -> None:
        """`packet_max`: longest packet the device accepts, 0 where it did not say. [bytes]"""
        self._session = session
        self._endpoint = endpoint
        self._packet_max = packet_max
        self._topic = f"v1/{session.name}/cmd".encode()
        self._next_id = 0
        self._unanswered: Command | None = None
        self._queued: Command | None = None
        self._queued_at_ns = 0
        self.qos = -1
        """-1 while the device has not subscribed."""

    def offer(self, command: Command) -> bool:
        """Write a command; return whether it was written.

        One that finds another unanswered waits for that answer and takes the place of any that
        waits already, so that a change of mind loses no time. It is not sent yet: who offered it
        offers it again, in case the answer never comes, and the device carries it out once.
        """
        if self.qos < 0 or self._session.closed:
            return False
        if self._unanswered is None:
            return self._write(command)
        if self._queued is not None:
            self._endpoint.counters.commands_replaced += 1
        self._queued, self._queued_at_ns = command, self._endpoint.clock.now_ns()
        return False

    def answered(self, packet_id: int, code: int) -> None:
        """Take the device's PUBACK: evidence that it received the command."""
        command = self._unanswered
        if command is None or packet_id != self._next_id:
            return
        self._unanswered = None
        self._endpoint.command_answered(self._session)
        status = AckStatus.RECEIVED if code < 0x80 else AckStatus.REJECTED
        reason = b"" if code < 0x80 else b"mqtt reason code 0x%02x" % code
        self._endpoint.counters.commands_received += 1
        self._endpoint.intake.command_answered(
            self._session.device_no, command.revision, status, reason
        )
        queued, self._queued = self._queued, None
        if queued is not None:
            now_ns = self._endpoint.clock.now_ns()
            if queued.not_after_ns < now_ns:
                self._endpoint.counters.commands_expired += 1
            else:
                # a device without a clock counts `ttl_s` from receipt.
                waited_s = (now_ns - self._queued_at_ns) / NS_PER_S
                self._write(queued._replace(payload=shorten(queued.payload, waited_s)))

    def _write(self, command: Command) -> bool:
        session, qos = self._session, max(self.qos, 0)
        if qos:
            self._next_id = self._next_id % 0xFFFF + 1
        packet = writer.publish(session.version, self._topic, command.payload, qos, self._next_id)
        if self._packet_max and len(packet) > self._packet_max:
            return False
        if qos:
            self._unanswered = command
            self._endpoint.command_written(session)
        session.write(packet)
        self._endpoint.counters.commands_sent += 1
        return True
