"""The recorder: follows every topic and keeps what they say as the long record."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sqlite3 import Error as SqliteError
from typing import Protocol, TypeVar

import pyarrow as pa

from kapelle.errors import HistoryFailed, JournalFull
from kapelle.history.catalog import File
from kapelle.history.compaction import Job, Merge, due
from kapelle.history.counters import Counters
from kapelle.history.files import Files
from kapelle.history.order import numbers
from kapelle.history.postponed import Postponed
from kapelle.history.published import Publisher
from kapelle.history.raw import blamed
from kapelle.history.retention import expire, oldest_ns, sweep
from kapelle.history.rows import KINDS, count, device_rows, events, note
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Rows, Store
from kapelle.history.tables import PARTITIONS, TABLES
from kapelle.model.entries import Entry, Kind
from kapelle.model.ids import NS_PER_S, PLANT, partition_topic
from kapelle.ports import Clock, Journal
from kapelle.runtime.progress import Progress

READER = "history"
"""Under this name the record marks in the journal how far it is."""
_PUBLISHER = "publisher"

log = logging.getLogger(__name__)

T = TypeVar("T")


class Ledger(Protocol):
    """Whoever draws conclusions from rows: it is told of them before they are committed, and
    works once they are. Both are called in the recorder's worker."""

    error_wh: float
    """By how much it differs from what registers counted; whoever reads it sets it to 0. [Wh]"""

    def note(self, rows: Iterable[Rows]) -> dict[str, bytes | None]:
        """Return the states to commit together with rows of one table and partition."""

    def steps(self, now_ns: int) -> Sequence[Callable[[], int]]:
        """Return what is due at the record's present; each step returns how many rows it took."""


class Recorder:
    """Keeps the record, from where it ends, until cancelled.

    Parquet is written in a worker thread: a flush takes a good part of a second of computing,
    and for as long the loop would neither acknowledge nor dispatch. There is one such thread, so
    whatever touches the disk happens one after the other.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        clock: Clock,
        settings: HistorySettings,
        directory: Path,
        partitions: int,
        counters: Counters | None = None,
        files: Files | None = None,
        ledger: Callable[[Store], Ledger] | None = None,
        drawn: Progress | None = None,
    ) -> None:
        self.counters = counters or Counters()
        self.drawn = drawn or Progress()
        """A step for each time the ledger has worked on what had been flushed."""
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._directory = directory
        self._partitions = partitions
        self._files = files
        self._ledger_of = ledger
        self._ledger: Ledger | None = None
        self._topics = [partition_topic(p) for p in range(partitions)] + [PLANT]
        self._waiting: dict[str, list[Entry]] = {topic: [] for topic in self._topics}
        self._rows = 0
        self._positions: dict[str, int] = {}
        """Up to where each topic has been taken into memory."""
        self._written_ns = 0
        """When the newest entry taken was journalled: the record's present."""
        self._is_full = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_flushed = asyncio.Event()
        self._is_doubtful = False
        """Whether something failed, or may have, after nobody waited for it any more."""
        self._postponed = Postponed()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")
        self._store: Store | None = None

    async def run(self) -> None:
        """Record until cancelled; what is in memory then is written first.

        Raises:
            HistoryFailed: The disk or the catalog failed. What the journal holds is taken over by
                the next recorder, from where this one ended.
            JournalFailed: The journal's disk failed.
        """
        try:
            store = self._store = await self._work(self._open)
            try:
                await self._begin(store)
                await self._run(store)
            finally:
                await self._work(store.close)
        finally:
            self._worker.shutdown(wait=False)

    async def _run(self, store: Store) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for topic in self._topics:
                    group.create_task(self._follow(topic), name=f"history {topic}")
                group.create_task(self._keep(store), name="history flushes")
                group.create_task(self._tidy(store), name="history upkeep")
        except ExceptionGroup as errors:
            # The first error cancels the other tasks: to the outside it is the one reason.
            raise errors.exceptions[0] from errors
        except asyncio.CancelledError:
            if self._is_doubtful:
                # What failed comes before what is in memory now; the journal has both.
                raise
            try:
                async with asyncio.timeout(self._settings.stop_timeout_s):
                    await self._flush(store)
            except (TimeoutError, HistoryFailed):
                # The journal still has it.
                log.warning("stopped without a last flush of the history")
            raise

    def _open(self) -> Store:
        store = Store(self._directory, self._settings, self._files)
        removed = store.recover()
        if removed:
            log.info("removed unfinished files of the history", extra={"files": removed})
        self._ledger = self._ledger_of(store) if self._ledger_of is not None else None
        return store

    async def _begin(self, store: Store) -> None:
        """Take up each topic where the record ends, and ask the journal to keep what follows."""
        known = await self._work(store.catalog.positions)
        state = await self._work(store.catalog.state, _PUBLISHER)
        gaps: list[Rows] = []
        for topic in self._topics:
            position, last = known.get(topic, 0), await self._journal.last(topic)
            first = await self._journal.first(topic)
            text = ""
            if position > last:
                # The record outlived its journal. What is in both is recognised as repeated.
                text = f"{topic}: the journal ends at {last}, the record knew {position} entries"
                position, state = first - 1, None if topic == PLANT else state
            elif first > position + 1:
                text = f"{topic}: entries {position + 1} to {first - 1} are not in the journal"
                position = first - 1
            if text:
                self.counters.gaps += 1
                log.warning("the history has a gap", extra={"reason": text})
                gaps.append(note(self._clock.now_ns(), position, "gap", text))
            self._positions[topic] = position
            await self._mark(topic, position)
        self._publisher = Publisher(self._partitions, state)
        now_ns, positions = self._clock.now_ns(), dict(self._positions)
        states = {PARTITIONS: str(self._partitions).encode()}
        await self._work(
            lambda: store.commit(gaps, now_ns=now_ns, positions=positions, states=states)
        )

    async def _follow(self, topic: str) -> None:
        async for entries in self._journal.follow(topic, self._positions[topic], KINDS):
            if not self.counters.oldest_ns:
                self.counters.oldest_ns = entries[0].written_at_ns
            self._waiting[topic] += entries
            self._positions[topic] = entries[-1].position
            self._written_ns = max(self._written_ns, entries[-1].written_at_ns)
            self._rows += sum(map(count, entries))
            self.counters.waiting_rows = self._rows
            if any(entry.kind == Kind.CORRECTION for entry in entries):
                # Somebody waits for it.
                self._is_full.set()
            if self._rows >= self._settings.flush_rows:
                # Until the flush before has ended, the journal keeps what else there is.
                self._has_room.clear()
                self._is_full.set()
                await self._has_room.wait()

    async def _keep(self, store: Store) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.flush_s):
                    await self._is_full.wait()
            except TimeoutError:
                pass
            await self._flush(store)
            self._is_flushed.set()

    async def _tidy(self, store: Store) -> None:
        """After each flush merge what is due, and let go of what is over."""
        while True:
            await self._is_flushed.wait()
            self._is_flushed.clear()
            now_ns = self._written_ns
            if self._settings.compaction:
                files = await self._work(store.catalog.unmerged)
                jobs = due(files, now_ns, self._settings)
                for job in self._postponed.due(jobs, now_ns):
                    await self._merge(store, job, now_ns)
                self.counters.unmerged = len(self._postponed)
                self.counters.merge_reason = self._postponed.reason
            if self._ledger is not None:
                await self._draw(self._ledger, now_ns)
                self.drawn.go_on()
            unmerged = self._postponed.hopeless(now_ns)
            self.counters.expired_files += await self._work(expire, store, now_ns, unmerged)
            await self._work(sweep, store, now_ns)

    async def _draw(self, ledger: Ledger, now_ns: int) -> None:
        """Let the ledger work. Where it cannot, the record goes on, and it is tried again."""
        reason = ""
        # Between two steps the worker flushes: closing a large partition takes seconds.
        for step in ledger.steps(now_ns):
            try:
                self.counters.rows["energy"] += await self._work(step)
            except Exception as failed:  # noqa: BLE001 - whatever it is, readings are kept.
                reason = reason or _why(failed)
                self._ledger_failed(failed)
        self.counters.energy_error_wh += ledger.error_wh
        ledger.error_wh = 0.0
        if self.counters.ledger_reason and not reason:
            log.info("the ledger goes on")
        self.counters.ledger_reason = reason

    def _ledger_failed(self, failed: Exception) -> None:
        if not self.counters.ledger_reason:
            log.error("the ledger stands still", exc_info=failed)
        self.counters.failures += 1
        self.counters.ledger_reason = _why(failed)

    async def _merge(self, store: Store, job: Job, now_ns: int) -> None:
        merge = Merge(store, job, now_ns)
        try:
            # The worker does what else there is between two steps.
            while await self._work(merge.step):
                pass
        except HistoryFailed as failed:
            reason = str(blamed(self._directory, job.files, failed) or failed)
            self._postponed.failed(job, reason, now_ns)
            self.counters.failures += 1
            log.exception("files of the history cannot be merged", extra={"reason": reason})
            # What was written of it would be written again with each try.
            await self._work(store.recover)
            return
        self._postponed.done(job)
        self.counters.merges += 1

    async def _flush(self, store: Store) -> None:
        """Make everything in memory durable in the record, then let the journal forget it."""
        waiting = {topic: entries for topic, entries in self._waiting.items() if entries}
        positions = {topic: self._positions[topic] for topic in waiting}
        now_ns, began_ns = self._written_ns, self._clock.now_ns()
        self._waiting = {topic: [] for topic in self._topics}
        self._rows = 0
        self.counters.oldest_ns = 0
        self._is_full.clear()
        self._has_room.set()
        if not waiting:
            return
        made = await self._work(lambda: self._write(store, waiting, positions, now_ns))
        for topic, position in positions.items():
            await self._mark(topic, position)
        counters = self.counters
        for file in made:
            counters.rows[file.table] += file.rows
            counters.bytes += file.bytes
        counters.files += len(made)
        counters.flushes += 1
        counters.last_flush_ns = self._clock.now_ns()
        counters.flush_s = (counters.last_flush_ns - began_ns) / NS_PER_S
        counters.waiting_rows = self._rows
        if counters.reason:
            log.info("the history is written again")
            counters.reason = ""

    def _write(
        self,
        store: Store,
        waiting: dict[str, list[Entry]],
        positions: dict[str, int],
        now_ns: int,
    ) -> Sequence[File]:
        states: dict[str, bytes | None] = {}

        def parts() -> Iterator[Rows]:
            # One after the other: as tables, rows take several times what they took as entries.
            for topic in list(waiting):
                for part in self._rows_of(topic, waiting.pop(topic), states):
                    kept = self._in_time(part, now_ns)
                    states.update(self._noted(kept))
                    yield kept

        return store.commit(parts(), now_ns=now_ns, positions=positions, states=states)

    def _noted(self, part: Rows) -> dict[str, bytes | None]:
        try:
            return self._ledger.note([part]) if self._ledger is not None else {}
        except Exception as failed:  # noqa: BLE001 - what it does not know it cannot revise.
            self._ledger_failed(failed)
            return {}

    def _rows_of(
        self, topic: str, entries: list[Entry], states: dict[str, bytes | None]
    ) -> list[Rows]:
        if topic != PLANT:
            return device_rows(int(topic.removeprefix("p/")), entries)
        rows = [*self._publisher.apply(entries), *events(entries)]
        states[_PUBLISHER] = self._publisher.state()
        return rows

    def _in_time(self, part: Rows, now_ns: int) -> Rows:
        table = TABLES[part.table]
        if table.keep != "raw":
            return part
        is_kept = numbers(part.data, table.time) >= oldest_ns(self._settings, now_ns)
        if is_kept.all():
            return part
        self.counters.too_late_rows += int((~is_kept).sum())
        return Rows(part.table, part.partition, part.data.filter(pa.array(is_kept)))

    async def _mark(self, topic: str, position: int) -> None:
        try:
            await self._journal.mark(topic, READER, position)
        except JournalFull:
            # A mark that stays behind only keeps more than is needed.
            log.warning("no space to mark how far the history is", extra={"topic": topic})

    async def _work(self, function: Callable[..., T], *args: object) -> T:
        """Run something in the worker; also when cancelled, go on only after it has ended."""
        future = asyncio.get_running_loop().run_in_executor(self._worker, function, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._is_doubtful = True
            await asyncio.wait([future])
            self._is_doubtful = future.exception() is not None
            raise
        except (OSError, SqliteError, pa.ArrowException) as error:
            raise HistoryFailed(f"{self._directory}: {error}") from error


def _why(failed: Exception) -> str:
    return str(failed) or type(failed).__name__
