"""Moves what changed in the registry to the journal, then to the directory."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from kapelle.errors import JournalConflict, JournalFull, KapelleError, RegistryUnavailable
from kapelle.model.blocks import Enrolled
from kapelle.model.entries import Body
from kapelle.model.ids import NS_PER_S, partition_topic
from kapelle.model.plant import Members
from kapelle.ports import Clock, Journal
from kapelle.registry.directory import Directory
from kapelle.registry.outbox import Due
from kapelle.registry.persons import People
from kapelle.registry.rows import Stored, to_bearer, to_enrolled
from kapelle.registry.settings import RegistrySettings
from kapelle.registry.store import Cursor, Registry

WRITER = "registry"
_PEOPLE_S = 1.0
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Offload(Protocol):
    """Calls a blocking function where it blocks nobody: `asyncio.to_thread`, or at once."""

    def __call__(self, function: Callable[..., T], /, *args: object) -> Awaitable[T]:
        """Return what the function returns, once awaited."""


async def at_once(function: Callable[..., T], /, *args: object) -> T:
    """Call a function in place: an `Offload` for virtual time, which cannot wait for threads."""
    return function(*args)


class OutboxPump:
    """Brings every change to the journal at least once, in an order that ends with the newest.

    An entry of the registry replaces what was said before whole, and it is read from the
    database *after* this writer's last entry of the topic is known; the journal refuses it if
    another pump has written since. So repeating is harmless and older never follows newer. The
    outbox is emptied only once the journal has everything, so a crash anywhere only repeats.

    The directory follows the journal: whoever can send readings is known to the fleet first.
    Only removals and new credentials do not wait for a journal that refuses.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        journal: Journal,
        directory: Directory,
        clock: Clock,
        settings: RegistrySettings | None = None,
        offload: Offload = asyncio.to_thread,
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._directory = directory
        self._clock = clock
        self._settings = settings or RegistrySettings()
        self._offload = offload
        self._kicked = asyncio.Event()
        self._turning = asyncio.Lock()
        self._followed = 0
        """Revision the directory has reached."""
        self._revoked = 0
        """Revision that devices known to the directory have reached at least."""
        self._last: dict[int, int] = {}
        """Position of the last entry of this line in each partition's topic."""
        self._trouble = ""
        self._trouble_at_ns = 0

    async def run(self) -> None:
        """Move changes until cancelled. Raises JournalFailed."""
        while True:
            try:
                await self.turn()
                self._say("")
            except (RegistryUnavailable, JournalFull, JournalConflict) as error:
                self._say(str(error))
            await self._wait()

    def kick(self) -> None:
        """Look for changes now; for whoever has just made one."""
        self._kicked.set()

    async def turn(self) -> None:
        """Move everything that has been committed; afterwards journal and directory have it.

        Raises:
            RegistryUnavailable, JournalFull, JournalConflict: Not all was moved; it stays due.
        """
        async with self._turning:
            self._kicked.clear()
            due = await self._offload(self._registry.due)
            if due.rows:
                try:
                    await self._publish(due)
                except KapelleError:
                    # Whether somebody has written since is found out next time.
                    self._last.clear()
                    await self._revoke(due.through)
                    raise
                await self._offload(self._registry.settle, due.through)
            await self._follow(due.through)

    async def _publish(self, due: Due) -> None:
        for partition in range(self._registry.partitions):
            if partition not in self._last:
                topic = partition_topic(partition)
                self._last[partition] = await self._journal.last(topic, WRITER)
        sent = await self._publish_devices(Cursor(due.enrolled_since, -1))
        for resource, partition in due.members:
            members = await self._offload(self._registry.members, resource, partition)
            # Some may have been enrolled since; the fleet must know them first.
            sent = await self._publish_devices(sent)
            await self._append(partition, Members(resource, members.tolist()))

    async def _publish_devices(self, sent: Cursor) -> Cursor:
        while rows := await self._offload(self._registry.changed, sent, self._settings.page_rows):
            for partition, block in await self._offload(_blocks, rows, self._registry.partitions):
                await self._append(partition, block)
            sent = Cursor(rows[-1].revision, rows[-1].device_no)
        return sent

    async def _append(self, partition: int, body: Body) -> None:
        self._last[partition] = await self._journal.append(
            partition_topic(partition), [body], writer=WRITER, expected=self._last[partition]
        )

    async def _follow(self, through: int) -> None:
        """Bring the directory to a revision that the journal has reached."""
        async for rows in self._changed(self._followed, through):
            self._directory.apply(to_bearer(row) for row in rows)
        self._followed = max(self._followed, through)

    async def _revoke(self, through: int) -> None:
        """Bring devices the directory knows already to a revision the journal has not reached."""
        async for rows in self._changed(max(self._followed, self._revoked), through):
            known = self._directory.resolve([row.device_id for row in rows]) >= 0
            self._directory.apply(
                to_bearer(row) for row, knows in zip(rows, known, strict=True) if knows
            )
        self._revoked = max(self._revoked, through)

    async def _changed(self, after: int, through: int) -> AsyncIterator[list[Stored]]:
        seen = Cursor(after + 1, -1)
        while seen.revision <= through:
            rows = await self._offload(self._registry.changed, seen, self._settings.page_rows)
            yield [row for row in rows if row.revision <= through]
            if not rows:
                break
            seen = Cursor(rows[-1].revision, rows[-1].device_no)

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.poll_s):
                await self._kicked.wait()

    def _say(self, trouble: str) -> None:
        if trouble and not self._trouble:
            self._trouble_at_ns = self._clock.now_ns()
            _log.warning("registry changes are waiting", extra={"reason": trouble})
        if self._trouble and not trouble:
            waited_s = (self._clock.now_ns() - self._trouble_at_ns) / NS_PER_S
            _log.info("registry changes move again", extra={"waited_s": waited_s})
        self._trouble = trouble


def _blocks(rows: Sequence[Stored], partitions: int) -> list[tuple[int, Enrolled]]:
    """Return the rows of each partition as one block, for those that have any."""
    of: dict[int, list[Stored]] = {}
    for row in rows:
        of.setdefault(row.device_no % partitions, []).append(row)
    return [(partition, to_enrolled(of[partition])) for partition in sorted(of)]


class PeopleWatch:
    """Keeps those whose tokens are good as new as the registry, to within a second."""

    def __init__(
        self,
        *,
        registry: Registry,
        people: People,
        clock: Clock,
        offload: Offload = asyncio.to_thread,
    ) -> None:
        self._registry = registry
        self._people = people
        self._clock = clock
        self._offload = offload
        self._is_lost = False

    async def run(self) -> None:
        """Follow until cancelled. Without a registry nobody loses or gets a token."""
        while True:
            await self.turn()
            await self._clock.sleep(_PEOPLE_S)

    async def turn(self) -> None:
        """Take over who has a token now."""
        try:
            found = await self._offload(self._registry.persons)
        except RegistryUnavailable as error:
            if not self._is_lost:
                _log.warning("tokens are not known anew", extra={"reason": str(error)})
            self._is_lost = True
            return
        self._is_lost = False
        self._people.know(found)
