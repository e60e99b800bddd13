"""The embedded journal: one SQLite file, one writer thread, acknowledged when it is on disk."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

from kapelle.errors import JournalFailed, JournalFull
from kapelle.journal.codec import encode
from kapelle.journal.damage import Damage
from kapelle.journal.durability import Durability, durability
from kapelle.journal.leases import Held, step_acquire, step_release, step_renew
from kapelle.journal.lines import Line, TopicState
from kapelle.journal.lock import DirectoryLock
from kapelle.journal.metrics import JournalMetrics
from kapelle.journal.reads import Reads
from kapelle.journal.reserve import Reserve
from kapelle.journal.settings import JournalSettings
from kapelle.journal.snapshots import SnapshotFiles
from kapelle.journal.store import NAME, open_store
from kapelle.journal.submissions import Submissions
from kapelle.journal.tails import Tails
from kapelle.journal.wakes import Wakes
from kapelle.journal.writer import Append, Leasing, Mark, Outcome, Trim, Writer
from kapelle.model.entries import KIND_OF, Body, Entry, Kind
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Lease, Snapshot

__all__ = ["Durability", "SqliteJournal", "durability", "open_journal"]

_CLOSE_S = 20.0
"""Longest the writer is waited for at the end."""


@asynccontextmanager
async def open_journal(settings: JournalSettings, clock: Clock) -> AsyncIterator["SqliteJournal"]:
    """Take the data directory and open the journal in it; close both afterwards.

    Raises:
        DataDirectoryHeld: Another process uses it.
        JournalNewer: A newer Kapelle wrote it; nothing was changed.
        JournalDamaged: It cannot be read at all.
        JournalFailed: The directory cannot be written.
    """
    lock = DirectoryLock(settings.directory, clock.now_ns())
    try:
        journal = SqliteJournal(settings, clock)
        try:
            yield journal
        finally:
            await journal.close()
    finally:
        lock.release()


class SqliteJournal:
    """`ports.Journal` on SQLite. One event loop; made by `open_journal`."""

    def __init__(self, settings: JournalSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        path = settings.directory / NAME
        self._store, found = open_store(path, settings.synchronous)
        # Before anything is dated: time that has been journalled has passed.
        clock.not_before(found.newest_ns)
        self._damage = Damage(found.damage)
        self._snapshots = SnapshotFiles(settings.directory / "snapshots", self._damage)
        self._snapshots.clear()
        found.topics = self._snapshots.reconcile(found.topics)
        self._topics: dict[str, TopicState] = dict(found.topics)
        self._reads = Reads(path, settings, self._damage)
        self._tails = Tails(settings.cache_bytes)
        self._wakes = Wakes()
        self._closed = False
        # One thread for whatever blocks besides writing; reads of several followers queue there.
        self._aside = ThreadPoolExecutor(1, "journal-reader")
        # Two for snapshots: nobody's columns stand still while another's snapshot is flushed.
        self._columns = ThreadPoolExecutor(1, "journal-columns")
        self._finishing = ThreadPoolExecutor(1, "journal-snapshots")
        self._reserve = Reserve(settings.directory, settings.reserve_bytes)
        self._submissions = Submissions(settings, self._publish)
        hand_back = self._submissions.hand_back
        self._writer = Writer(self._store, found, self._reserve, settings, path, hand_back)
        self._submissions.start(self._writer.put)

    async def append(
        self,
        topic: str,
        bodies: Sequence[Body],
        *,
        writer: str,
        epoch: int = 0,
        expected: int | None = None,
    ) -> int:
        """See `ports.Journal`. Cancelled while it waits, it may or may not have happened."""
        assert bodies, "an append of nothing"
        sealed = []
        size = 0
        for body in bodies:
            encoded = encode(body)
            size += len(encoded)
            sealed.append((KIND_OF[type(body)], encoded, zlib.crc32(encoded)))
        at_ns = self._clock.now_ns()
        request = Append(topic, sealed, writer, epoch, expected, at_ns, size)
        return cast("int", await self._submissions.ask(request))

    async def follow(
        self, topic: str, after: int, kinds: Collection[Kind] | None = None
    ) -> AsyncIterator[list[Entry]]:
        """See `ports.Journal`. Raises JournalFailed once all is served and the disk has failed."""
        while True:
            entries, through = await self._next(topic, after, self._settings.batch_entries, kinds)
            if through == after:
                self._submissions.check()
                await self._wakes.wait(topic)
            after = through
            if entries:
                yield entries
                # Whoever catches up from memory would never let others run.
                await asyncio.sleep(0)

    async def read(
        self, topic: str, after: int, limit: int, kinds: Collection[Kind] | None = None
    ) -> list[Entry]:
        """See `ports.Journal`."""
        found: list[Entry] = []
        while len(found) < limit:
            entries, through = await self._next(topic, after, limit - len(found), kinds)
            if through == after:
                break
            found += entries
            after = through
        return found

    async def last(self, topic: str, writer: str | None = None) -> int:
        """See `ports.Journal`."""
        state = self._topics.get(topic, TopicState())
        return state.last if writer is None else state.lines.get(writer, Line()).last

    async def first(self, topic: str) -> int:
        """See `ports.Journal`."""
        return self._topics.get(topic, TopicState()).trimmed + 1

    async def trim(self, topic: str, through: int) -> None:
        """See `ports.Journal`. They are out of sight at once and deleted later."""
        await self._submissions.ask(Trim(topic, through))

    async def mark(self, topic: str, reader: str, position: int) -> None:
        """See `ports.Journal`."""
        await self._submissions.ask(Mark(topic, reader, position))

    async def unmark(self, topic: str, reader: str) -> None:
        """See `ports.Journal`."""
        await self._submissions.ask(Mark(topic, reader, None))

    async def marks(self, topic: str) -> Mapping[str, int]:
        """See `ports.Journal`."""
        return dict(self._topics.get(topic, TopicState()).marks)

    async def save_snapshot(
        self, topic: str, snapshot: Snapshot, *, released: Callable[[], None] | None = None
    ) -> None:
        """See `ports.Journal`. The columns are written from where they lie, by a thread.

        They are the system's, and released, long before the disk has them.
        """
        self._submissions.check()
        began_ns = self._clock.now_ns()
        write = partial(self._snapshots.draft, topic, snapshot)
        run = self._loop.run_in_executor
        try:
            try:
                draft = await run(self._columns, write)
            except JournalFull:
                self._writer.open_reserve()
                draft = await run(self._columns, write)
            if released is not None:
                released()
            await run(self._finishing, self._snapshots.finish, draft)
            self._store.timings.snapshot_s.observe((self._clock.now_ns() - began_ns) / NS_PER_S)
        except JournalFailed as error:
            self._submissions.fail(str(error))
            raise

    async def load_snapshot(self, topic: str) -> Snapshot | None:
        """See `ports.Journal`. The caller may write into the columns."""
        return await self._loop.run_in_executor(self._aside, self._snapshots.load, topic)

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `ports.Journal`."""
        now_ns = self._clock.now_ns()
        step = partial(step_acquire, name=name, holder=holder, ttl_s=ttl_s, now_ns=now_ns)
        held = cast("Held", await self._submissions.ask(Leasing(name, step)))
        return Lease(name, holder, held.epoch)

    async def renew(self, lease: Lease, ttl_s: float) -> None:
        """See `ports.Journal`."""
        step = partial(step_renew, lease=lease, ttl_s=ttl_s, now_ns=self._clock.now_ns())
        await self._submissions.ask(Leasing(lease.name, step))

    async def release(self, lease: Lease) -> None:
        """See `ports.Journal`."""
        await self._submissions.ask(Leasing(lease.name, partial(step_release, lease=lease)))

    def metrics(self) -> JournalMetrics:
        """Return how the journal does; a few looks at the file system, no waiting."""
        topics = self._topics.values()
        lags: dict[str, int] = {}
        for state in topics:
            for reader, position in state.marks.items():
                lags[reader] = lags.get(reader, 0) + state.last - max(position, state.trimmed)
        return JournalMetrics(
            timings=self._store.timings,
            file_bytes=self._store.file_bytes(),
            snapshot_bytes=self._snapshots.bytes(),
            free_bytes=self._reserve.free_bytes(),
            reserve_bytes=self._reserve.held_bytes(),
            waiting=self._submissions.waiting,
            waiting_bytes=self._submissions.waiting_bytes,
            damage=len(self._damage.found()),
            lags=lags,
            held=sum(state.last - state.trimmed for state in topics),
        )

    def damage(self) -> Sequence[str]:
        """See `ports.Journal`."""
        return self._damage.found()

    async def close(self) -> None:
        """Finish what was asked for, then refuse everything. Does nothing the second time."""
        if self._closed:
            return
        self._closed = True
        sound = not self._submissions.failure
        self._submissions.refuse_more()
        ended = await asyncio.to_thread(self._writer.stop, _CLOSE_S)
        # What the writer handed back last is still on its way through the loop.
        await asyncio.sleep(0)
        self._submissions.close()
        if ended and sound:
            for pool in (self._columns, self._finishing, self._aside):
                await asyncio.to_thread(pool.shutdown, cancel_futures=True)
            self._reads.close()
            self._store.close()
        else:
            # Closing a connection would write and sync; the process is about to end instead.
            for pool in (self._columns, self._finishing, self._aside):
                pool.shutdown(wait=False, cancel_futures=True)

    async def _next(
        self, topic: str, after: int, limit: int, kinds: Collection[Kind] | None
    ) -> tuple[list[Entry], int]:
        """Return entries after a position, and up to where the journal was looked through."""
        state = self._topics.get(topic, TopicState())
        after_trim = max(after, state.trimmed)
        if after_trim >= state.last:
            return [], max(after, min(after_trim, state.last))
        topic_id = self._store.id_of(topic)
        if self._tails.has(topic, after_trim + 1):
            through = min(state.last, after_trim + limit)
            return self._tails.between(topic, topic_id, after_trim, through, kinds), through
        look = partial(self._reads.entries, topic, topic_id, after_trim, state.last, limit, kinds)
        return await self._loop.run_in_executor(self._aside, look)

    def _publish(self, outcome: Outcome) -> None:
        for topic, rows in outcome.rows.items():
            self._tails.add(topic, outcome.topics[topic].last - len(rows) + 1, rows)
        self._topics |= outcome.topics
        if outcome.failure:
            self._wakes.wake_all()
        else:
            self._wakes.wake(outcome.topics)
