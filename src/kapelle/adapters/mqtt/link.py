"""The MQTT endpoint's link: what devices sent, and the way back to them."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import numpy as np

from kapelle.adapters.mqtt.codec import encode_commands
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.delivery import Command
from kapelle.adapters.mqtt.intake import Intake, Message
from kapelle.adapters.mqtt.session import Session
from kapelle.model.blocks import Commands
from kapelle.model.ids import Flags, Ints
from kapelle.ports import Batch

_AT_ONCE = 500


class MqttLink:
    """Every device connected to the endpoint."""

    def __init__(self, intake: Intake, sessions: Mapping[int, Session], counters: Counters) -> None:
        self._intake = intake
        self._sessions = sessions
        self._counters = counters

    def receive(self) -> AsyncIterator[Batch]:
        """Yield what has arrived."""
        return self._intake.receive()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Write the PUBACKs of a batch."""
        self._intake.confirm(batch, refused)

    def decline(self, batch: Batch, reason: str) -> None:
        """Disconnect whoever has something in this batch: only then it is sent again."""
        self._intake.decline(batch, reason)

    async def send(self, commands: Commands) -> Flags:
        """Publish commands on their devices' topics; return which were."""
        written = np.zeros(len(commands), bool)
        numbers = commands.device_no.tolist()
        present = [row for row, number in enumerate(numbers) if number in self._sessions]
        if present:
            payloads = encode_commands(commands)
            revisions = commands.revision.tolist()
            for count, row in enumerate(present, 1):
                if count % _AT_ONCE == 0:
                    # A whole fleet's commands take longer than telemetry may wait.
                    await asyncio.sleep(0)
                if numbers[row] not in self._sessions:
                    continue
                delivery = self._sessions[numbers[row]].delivery
                assert delivery is not None
                command = Command(payloads[row], revisions[row])
                written[row] = delivery.offer(command)
        self._counters.commands_unsent += int(np.count_nonzero(~written))
        return written


def device_numbers(messages: list[Message]) -> Ints:
    """Return who sent each message: sessions know their device since CONNECT."""
    numbers = [peer.device_no if isinstance(peer, Session) else -1 for peer, *_ in messages]
    return np.array(numbers, np.int32)
