"""Follows the journal for what was quarantined and what was decided about it."""

import asyncio
import logging
import sqlite3
from collections.abc import Mapping

from kapelle.errors import JournalFull
from kapelle.history.quarantine import Quarantine
from kapelle.model.entries import Kind
from kapelle.model.ids import NS_PER_S, PLANT, partition_topic
from kapelle.ports import Clock, Journal

READER = "quarantine"
_READ_LIMIT = 1_000
_SETTLE_S = 10.0
"""How often the projection is made durable and the journal told that it may trim. [s]"""

_log = logging.getLogger(__name__)


class QuarantineFollower:
    """Keeps the projection as new as the journal."""

    def __init__(
        self,
        *,
        journal: Journal,
        quarantine: Quarantine,
        partitions: int,
        clock: Clock,
        settle_s: float = _SETTLE_S,
    ) -> None:
        self.quarantine = quarantine
        self.trouble = ""
        """Why nothing is taken over at present; empty where all is well."""
        self._journal = journal
        self._clock = clock
        self._poll_s = quarantine.settings.poll_s
        self._settle_s = settle_s
        # Rows before verdicts: whoever begins anew must know a row before he hears about it.
        self._kinds: Mapping[str, Kind] = {
            **{partition_topic(k): Kind.QUARANTINED for k in range(partitions)},
            PLANT: Kind.VERDICT,
        }
        self._turning = asyncio.Lock()
        self._begun = False
        self._settled_at_ns = 0
        self._settled: dict[str, int] = {}

    async def run(self) -> None:
        """Follow until cancelled. Where its disk fails the plant goes on, and the journal keeps
        for it what it has not taken over."""
        while True:
            try:
                await self.turn()
                now_ns = self._clock.now_ns()
                if now_ns - self._settled_at_ns >= self._settle_s * NS_PER_S:
                    self._settled_at_ns = now_ns
                    await self.settle()
                self._say("")
            except (sqlite3.Error, JournalFull) as error:
                self._say(f"{type(error).__name__}: {error}")
            await self._clock.sleep(self._poll_s)

    def _say(self, trouble: str) -> None:
        if trouble and not self.trouble:
            _log.error("the quarantine is not kept", extra={"reason": trouble})
        if self.trouble and not trouble:
            _log.info("the quarantine is kept again")
        self.trouble = trouble

    async def turn(self) -> None:
        """Read all there is; afterwards the projection knows what the journal knew before."""
        async with self._turning:
            if not self._begun:
                await self._begin()
                self._begun = True
            positions = self.quarantine.positions()
            for topic, kind in self._kinds.items():
                await self._read(topic, kind, positions.get(topic, 0))

    async def settle(self) -> None:
        """Make the projection durable, and let the journal trim what it has."""
        async with self._turning:
            positions = self.quarantine.positions()
            if positions == self._settled:
                return
            if not await asyncio.to_thread(self.quarantine.settle):
                return
            for topic, position in positions.items():
                if position != self._settled.get(topic):
                    await self._journal.mark(topic, READER, position)
            self._settled = positions

    async def _begin(self) -> None:
        positions = self.quarantine.positions()
        for topic in self._kinds:
            position = positions.get(topic, 0)
            last = await self._journal.last(topic)
            first = await self._journal.first(topic)
            if position > last:
                # Restored from a backup: what comes now has positions that were used before.
                _log.warning(
                    "the journal ends before what the quarantine has read; reading on from its end",
                    extra={"topic": topic, "position": position, "last": last},
                )
                position = last
                self.quarantine.begin_at(topic, position)
            elif position and first > position + 1:
                _log.warning(
                    "entries were trimmed before the quarantine had read them",
                    extra={"topic": topic, "first": position + 1, "last": first - 1},
                )
            await self._journal.mark(topic, READER, min(position, last))

    async def _read(self, topic: str, kind: Kind, after: int) -> None:
        # Asked for first: what is written meanwhile is found next time.
        end = await self._journal.last(topic)
        position = after
        while position < end:
            entries = await self._journal.read(topic, position, _READ_LIMIT, {kind})
            position = entries[-1].position if len(entries) == _READ_LIMIT else end
            if entries:
                position = max(position, entries[-1].position)
            await asyncio.to_thread(self.quarantine.apply, topic, entries, position)
