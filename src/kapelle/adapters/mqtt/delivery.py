"""Commands on their way to one device: at most one is unanswered, and none waits here."""

from typing import NamedTuple, Protocol

from kapelle.adapters.mqtt import writer
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.intake import Intake
from kapelle.model.enums import AckStatus


class Command(NamedTuple):
    """A command to one device."""

    payload: bytes
    revision: int


class Recipient(Protocol):
    """The session a command goes to."""

    name: str
    version: int
    device_no: int
    closed: bool

    def write(self, packet: bytes) -> None:
        """Write to the device, if it is still there."""

    def awaits_answer(self, awaits: bool) -> None:
        """Expect the PUBACK of a command within its time, or no more."""


class Delivery:
    """The command topic of one session."""

    __slots__ = (
        "_counters",
        "_intake",
        "_next_id",
        "_packet_max",
        "_session",
        "_topic",
        "_unanswered",
        "qos",
    )

    def __init__(
        self, session: Recipient, intake: Intake, counters: Counters, packet_max: int
    ) -> None:
        """`packet_max`: longest packet the device accepts, 0 where it did not say. [bytes]"""
        self._session = session
        self._intake = intake
        self._counters = counters
        self._packet_max = packet_max
        self._topic = f"v1/{session.name}/cmd".encode()
        self._next_id = 0
        self._unanswered: Command | None = None
        self.qos = -1
        """-1 while the device has not subscribed."""

    def offer(self, command: Command) -> bool:
        """Write a command; return whether it was written.

        One that finds another unanswered is not taken. It does not wait here either, behind the
        last hop, where a hold would not reach it: who offered it offers it again.
        """
        if self.qos < 0 or self._session.closed or self._unanswered is not None:
            return False
        return self._write(command)

    def answered(self, packet_id: int, code: int) -> None:
        """Take the device's PUBACK: evidence that it received the command."""
        command = self._unanswered
        if command is None or packet_id != self._next_id:
            return
        self._unanswered = None
        self._session.awaits_answer(False)
        status = AckStatus.RECEIVED if code < 0x80 else AckStatus.REJECTED
        reason = b"" if code < 0x80 else b"mqtt reason code 0x%02x" % code
        self._counters.commands_received += 1
        self._intake.command_answered(self._session.device_no, command.revision, status, reason)

    def _write(self, command: Command) -> bool:
        session, qos = self._session, max(self.qos, 0)
        if qos:
            self._next_id = self._next_id % 0xFFFF + 1
        packet = writer.publish(session.version, self._topic, command.payload, qos, self._next_id)
        if self._packet_max and len(packet) > self._packet_max:
            return False
        if qos:
            self._unanswered = command
            session.awaits_answer(True)
        session.write(packet)
        self._counters.commands_sent += 1
        return True
