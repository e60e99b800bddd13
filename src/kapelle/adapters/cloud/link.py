"""A cloud's link: what its devices said, and the way back to them."""

from collections.abc import AsyncIterator, Container, Mapping

import numpy as np

from kapelle.adapters.cloud.counters import Counters
from kapelle.adapters.errands import Errands
from kapelle.adapters.inbox import Inbox
from kapelle.model.blocks import Commands
from kapelle.model.ids import Flags
from kapelle.ports import Batch


class CloudLink:
    """Every device one cloud reaches."""

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
        """Let deliveries be answered: the journal has them."""
        self._inbox.confirm(batch, refused)

    def decline(self, batch: Batch, reason: str) -> None:
        """Let deliveries be answered with 503; what was polled comes again."""
        self._inbox.decline(batch, reason)

    async def send(self, commands: Commands) -> Flags:
        """Begin to tell devices; True where the cloud reaches them."""
        taken = self._errands.offer(commands, self._present)
        sent = int(np.count_nonzero(taken))
        self._counters.commands_sent += sent
        self._counters.commands_unsent += len(taken) - sent
        return taken
