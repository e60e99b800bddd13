"""The OCPP endpoint's link: what stations said, and the way back to them."""

from collections.abc import AsyncIterator, Mapping

import numpy as np

from kapelle.adapters.errands import Errands
from kapelle.adapters.inbox import Inbox
from kapelle.adapters.ocpp.counters import Counters
from kapelle.adapters.ocpp.session import Session
from kapelle.model.blocks import Commands
from kapelle.model.ids import Flags
from kapelle.ports import Batch


class OcppLink:
    """Every station that is connected."""

    def __init__(
        self,
        inbox: Inbox,
        errands: Errands,
        sessions: Mapping[int, Session],
        counters: Counters,
    ) -> None:
        self._inbox = inbox
        self._errands = errands
        self._sessions = sessions
        """By device."""
        self._counters = counters

    def receive(self) -> AsyncIterator[Batch]:
        """Yield what has arrived."""
        return self._inbox.receive()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Let calls be answered: the journal has them."""
        self._inbox.confirm(batch, refused)

    def decline(self, batch: Batch, reason: str) -> None:
        """Let calls be answered with an error: stations send them again."""
        self._inbox.decline(batch, reason)

    async def send(self, commands: Commands) -> Flags:
        """Begin to tell stations; True where one is connected."""
        taken = self._errands.offer(commands, self._sessions)
        sent = int(np.count_nonzero(taken))
        self._counters.commands_sent += sent
        self._counters.commands_unsent += len(taken) - sent
        return taken
