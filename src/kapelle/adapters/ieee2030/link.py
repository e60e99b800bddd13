"""The IEEE 2030.5 server's link: what clients said, and what they are told when they look."""

from collections.abc import AsyncIterator, Container, Mapping

import numpy as np

from kapelle.adapters.errands import Errands
from kapelle.adapters.ieee2030.counters import Counters
from kapelle.adapters.inbox import Inbox
from kapelle.model.blocks import Commands
from kapelle.model.ids import Flags
from kapelle.ports import Batch


class Ieee2030Link:
    """Every client that is heard."""

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
        """Let requests be answered: the journal has what they brought."""
        self._inbox.confirm(batch, refused)

    def decline(self, batch: Batch, reason: str) -> None:
        """Let requests be answered with 503: clients send them again."""
        self._inbox.decline(batch, reason)

    async def send(self, commands: Commands) -> Flags:
        """Place controls where clients will find them; True where one is heard."""
        taken = self._errands.offer(commands, self._present)
        sent = int(np.count_nonzero(taken))
        self._counters.commands_sent += sent
        self._counters.commands_unsent += len(taken) - sent
        return taken
