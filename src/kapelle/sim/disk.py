"""The journal as one incarnation of a role sees it: with a disk's delay, and an end.

When the role is killed its door is shut: nothing the dying code still tries reaches the journal, as
after a SIGKILL. What was appended before stays.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from random import Random

from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import Body, Entry, Kind
from kapelle.ports import Clock, Lease, Snapshot


class Disk:
    """What all doors share: the journal, its delay, and a count of appends."""

    def __init__(
        self,
        journal: MemoryJournal,
        clock: Clock,
        draw: Random,
        *,
        commit_s: tuple[float, float] = (0.0005, 0.004),
    ) -> None:
        self.journal = journal
        self.appends = 0
        """How many appends have begun."""
        self.before: Callable[[int], None] = _nothing
        """Called with the number of an append before it is durable …"""
        self.after: Callable[[int], None] = _nothing
        """… and when it is durable and nobody has been told."""
        self._forgotten: dict[str, list[Entry]] = {}
        self._clock = clock
        self._draw = draw
        self._commit_s = commit_s

    async def commit(
        self,
        topic: str,
        bodies: Sequence[Body],
        writer: str,
        epoch: int,
        expected: int | None,
        door: "Door",
    ) -> int:
        """Append through a door, after the delay of a commit."""
        self.appends += 1
        number = self.appends
        self.before(number)
        door.check()
        await self._clock.sleep(self._draw.uniform(*self._commit_s))
        await door.pass_through()
        position = await self.journal.append(
            topic, bodies, writer=writer, epoch=epoch, expected=expected
        )
        self.after(number)
        door.check()
        return position

    async def trim(self, topic: str, through: int) -> None:
        """Let the journal forget entries; they are kept aside for the audit of the whole run."""
        first = await self.journal.first(topic)
        limit = max(0, through + 1 - first)
        held = await self.journal.read(topic, first - 1, limit)
        await self.journal.trim(topic, through)
        # Readers' marks may have kept some.
        left = await self.journal.first(topic)
        gone = [entry for entry in held if entry.position < left]
        self._forgotten.setdefault(topic, []).extend(gone)

    async def read_all(self, topic: str) -> list[Entry]:
        """Return every entry there ever was."""
        held = await self.journal.read(topic, 0, await self.journal.last(topic))
        return self._forgotten.get(topic, []) + held


class Door:
    """A `Journal` for one life of a role."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._journal = disk.journal
        self._is_shut = False
        self._open = asyncio.Event()
        self._open.set()

    def stall(self) -> None:
        """Let everything wait, as for a process that was stopped and does not know it."""
        self._open.clear()

    def resume(self) -> None:
        """Let what waits go on."""
        self._open.set()

    def shut(self) -> None:
        """Let nothing pass any more."""
        self._is_shut = True

    def check(self) -> None:
        """Stop the caller where the door is shut: to it, this is the kill."""
        if self._is_shut:
            raise asyncio.CancelledError("killed")

    async def pass_through(self) -> None:
        """Wait while stalled; stop the caller where the door is shut."""
        self.check()
        await self._open.wait()
        self.check()

    async def append(
        self,
        topic: str,
        bodies: Sequence[Body],
        *,
        writer: str,
        epoch: int = 0,
        expected: int | None = None,
    ) -> int:
        """See `ports.Journal`."""
        await self.pass_through()
        return await self._disk.commit(topic, bodies, writer, epoch, expected, self)

    async def follow(
        self, topic: str, after: int, kinds: Collection[Kind] | None = None
    ) -> AsyncIterator[list[Entry]]:
        """See `ports.Journal`."""
        await self.pass_through()
        async for entries in self._journal.follow(topic, after, kinds):
            await self.pass_through()
            yield entries

    async def read(
        self, topic: str, after: int, limit: int, kinds: Collection[Kind] | None = None
    ) -> list[Entry]:
        """See `ports.Journal`."""
        await self.pass_through()
        return await self._journal.read(topic, after, limit, kinds)

    async def last(self, topic: str, writer: str | None = None) -> int:
        """See `ports.Journal`."""
        await self.pass_through()
        return await self._journal.last(topic, writer)

    async def first(self, topic: str) -> int:
        """See `ports.Journal`."""
        await self.pass_through()
        return await self._journal.first(topic)

    async def trim(self, topic: str, through: int) -> None:
        """See `ports.Journal`."""
        await self.pass_through()
        await self._disk.trim(topic, through)

    async def mark(self, topic: str, reader: str, position: int) -> None:
        """See `ports.Journal`."""
        await self.pass_through()
        await self._journal.mark(topic, reader, position)

    async def unmark(self, topic: str, reader: str) -> None:
        """See `ports.Journal`."""
        await self.pass_through()
        await self._journal.unmark(topic, reader)

    async def marks(self, topic: str) -> Mapping[str, int]:
        """See `ports.Journal`."""
        await self.pass_through()
        return await self._journal.marks(topic)

    async def save_snapshot(
        self, topic: str, snapshot: Snapshot, *, released: Callable[[], None] | None = None
    ) -> None:
        """See `ports.Journal`."""
        await self.pass_through()
        await self._journal.save_snapshot(topic, snapshot, released=released)

    async def load_snapshot(self, topic: str) -> Snapshot | None:
        """See `ports.Journal`."""
        await self.pass_through()
        return await self._journal.load_snapshot(topic)

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `ports.Journal`."""
        await self.pass_through()
        return await self._journal.acquire(name, holder, ttl_s)

    async def renew(self, lease: Lease, ttl_s: float) -> None:
        """See `ports.Journal`."""
        await self.pass_through()
        await self._journal.renew(lease, ttl_s)

    async def release(self, lease: Lease) -> None:
        """See `ports.Journal`."""
        await self.pass_through()
        await self._journal.release(lease)

    def damage(self) -> Sequence[str]:
        """See `ports.Journal`."""
        return self._journal.damage()


def _nothing(number: int) -> None:
    """Let it pass."""
