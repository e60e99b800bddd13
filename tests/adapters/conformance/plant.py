"""What stands behind an adapter on trial: the real ingest over the journal in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from kapelle.errors import JournalFull, LinkLost
from kapelle.ingest.service import Ingest
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Acks, Commands, Quarantined, Readings, Sessions
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S, partition_topic
from kapelle.ports import Adapter, Link
from kapelle.registry import credentials
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

DEVICE_NO = 0
DEVICE = "dev-0"
SECRET = "a secret of thirty-two characters"
NAMEPLATE_W = 5_000.0
PATIENCE_S = 20.0
"""Nothing here takes long; a machine may be busy."""

B = TypeVar("B")


def enrolled(adapter: str, address: str = "") -> Directory:
    """Return a directory of one battery, 5 kW both ways, that is reached through an adapter."""
    bearer = Bearer(
        DEVICE_NO,
        DEVICE,
        True,
        NAMEPLATE_W,
        NAMEPLATE_W,
        credentials.hash_secret(SECRET),
        adapter=adapter,
        address=address,
    )
    return Directory.build(1, [bearer])


@dataclass
class Plant:
    """An open adapter and all that came of it."""

    link: Link
    journal: MemoryJournal
    directory: Directory
    clock: SystemClock

    async def stored(self, kind: type[B]) -> list[B]:
        """Return the blocks of a kind in the journal."""
        entries = await self.journal.read(partition_topic(0), 0, 10_000)
        return [entry.body for entry in entries if isinstance(entry.body, kind)]

    async def power_w(self) -> list[float]:
        """Return every power in the journal, as it was taken."""
        blocks = await self.stored(Readings)
        told = [block.values[Metric.POWER_W] for block in blocks if Metric.POWER_W in block.values]
        return [value for values in told for value in values.tolist() if not np.isnan(value)]

    async def events(self) -> list[int]:
        return [event for block in await self.stored(Sessions) for event in block.event.tolist()]

    async def answers(self) -> list[tuple[int, int]]:
        """Return (revision, status) of every answer in the journal."""
        return [
            pair
            for block in await self.stored(Acks)
            for pair in zip(block.revision.tolist(), block.status.tolist(), strict=True)
        ]

    async def reasons(self) -> list[str]:
        blocks = await self.stored(Quarantined)
        return [reason.decode() for block in blocks for reason in block.reason]

    async def send(
        self,
        setpoint_w: float,
        *,
        revision: int = 1,
        epoch: int = 1,
        ttl_s: float = 60.0,
        revert_s: float = 300.0,
    ) -> bool:
        """Hand one command over as the last hop does; return whether it was written."""
        filled = {name: np.zeros(1, kind) for name, kind in Commands.COLUMNS.items()}
        now_ns = self.clock.now_ns()
        given = {
            "device_no": DEVICE_NO,
            "order_no": 1,
            "revision": revision,
            "epoch": epoch,
            "attempt": 1,
            "setpoint_w": setpoint_w,
            "issued_at_ns": now_ns,
            "not_after_ns": now_ns + int(ttl_s * NS_PER_S),
            "ttl_s": ttl_s,
            "revert_s": revert_s,
        }
        for name, value in given.items():
            filled[name][0] = value
        written = await self.link.send(Commands(**filled))
        return bool(written[0])

    def fill_disk(self) -> None:
        self.journal.refusing = JournalFull("no space")

    def empty_disk(self) -> None:
        self.journal.refusing = None


async def until(condition: Callable[[], "object"], patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition, plain or awaitable."""
    async with asyncio.timeout(patience_s):
        while True:
            met = condition()
            if asyncio.iscoroutine(met):
                met = await met
            if met:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(adapter: Adapter, directory: Directory) -> AsyncIterator[Plant]:
    """Open an adapter before a real ingest."""
    clock = SystemClock()
    journal = MemoryJournal(clock)
    ingest = Ingest(journal=journal, directory=directory, clock=clock)

    async def run(link: Link) -> None:
        while True:
            try:
                await ingest.run(link)
            except LinkLost:
                return

    async with background() as beside, adapter.open() as link:
        beside.start(run(link), "ingest")
        yield Plant(link, journal, directory, clock)
