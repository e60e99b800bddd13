"""The link of a protocol in which each message is a conversation with one peer.

For whatever has an `Inbox` and `Errands`: stations, clouds, gateways, edge nodes. (MQTT telemetry
comes in blocks and HTTP reads alone: they have links of their own.)
"""

from collections.abc import AsyncIterator, Container, Mapping
from typing import Protocol

import numpy as np

from kapelle.adapters.errands import Errands
from kapelle.adapters.inbox import Inbox
from kapelle.model.blocks import Commands
from kapelle.model.ids import Flags
from kapelle.ports import Batch


class Counted(Protocol):
    """What is counted of commands, since the start."""

    commands_sent: int
    commands_unsent: int


class ConversationLink:
    """Every device one adapter reaches."""

    def __init__(
        self, inbox: Inbox, errands: Errands, present: Container[int], counters: Counted
    ) -> None:
        """Make it.

        Args:
            inbox: What was heard.
            errands: How devices are told.
            present: Who can be told now, by device number.
            counters: Of the adapter.
        """
        self._inbox = inbox
        self._errands = errands
        self._present = present
        self._counters = counters

    def receive(self) -> AsyncIterator[Batch]:
        """Yield what has arrived."""
        return self._inbox.receive()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Let messages be acknowledged: the journal has them."""
        self._inbox.confirm(batch, refused)

    def decline(self, batch: Batch, reason: str) -> None:
        """Let nothing be acknowledged: peers hear so, as their protocol has it, or say it again."""
        self._inbox.decline(batch, reason)

    async def send(self, commands: Commands) -> Flags:
        """Begin to tell devices; True where one is present."""
        taken = self._errands.offer(commands, self._present)
        sent = int(np.count_nonzero(taken))
        self._counters.commands_sent += sent
        self._counters.commands_unsent += len(taken) - sent
        return taken
