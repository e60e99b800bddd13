"""The link to devices behind other people's topics."""

from collections.abc import AsyncIterator, Container, Mapping

import numpy as np

from kapelle.adapters.errands import Errands
from kapelle.adapters.inbox import Inbox
from kapelle.adapters.mqtt.counters import Counters
from kapelle.model.blocks import Commands
from kapelle.model.ids import Flags
from kapelle.ports import Batch


class TopicsLink:
    """Everybody who is there on one broker."""

    def __init__(
        self, inbox: Inbox, errands: Errands, present: Container[int], counters: Counters
    ) -> None:
        self._inbox = inbox
        self._errands = errands
        self._present = present
        self._counters = counters

    def receive(self) -> AsyncIterator[Batch]:
        """Yield what has arrived."""
        return self._inbox.receive()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Let publications be acknowledged: the journal has them."""
        self._inbox.confirm(batch, refused)

    def decline(self, batch: Batch, reason: str) -> None:
        """Let the broker be left: its devices publish again when we are back."""
        self._inbox.decline(batch, reason)

    async def send(self, commands: Commands) -> Flags:
        """Begin to tell devices; True where they are there."""
        taken = self._errands.offer(commands, self._present)
        sent = int(np.count_nonzero(taken))
        self._counters.commands_sent += sent
        self._counters.commands_unsent += len(taken) - sent
        return taken
