"""Runs ingest: receives from a link, checks, appends to the journal, and only then confirms."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from kapelle.errors import JournalFull
from kapelle.ingest.breaker import Breaker, Mute
from kapelle.ingest.prepare import Prepared, prepare
from kapelle.ingest.settings import IngestSettings
from kapelle.model.entries import Body
from kapelle.model.ids import NS_PER_S, PLANT, partition_topic
from kapelle.model.plant import Notice
from kapelle.ports import Batch, Clock, Directory, Journal, Link

WRITER = "ingest"
_log = logging.getLogger(__name__)

COMMIT_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(slots=True)
class Counters:
    """What became of everything that came in, since the process started."""

    accepted: int = 0
    """Readings in the journal."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """Rows in quarantine, by the code of their reason."""
    muted: int = 0
    """Unusable rows of muted devices: counted, not kept."""
    declined: int = 0
    """Batches not acknowledged because the journal was full; their senders have them still."""
    commits: int = 0
    commit_s: float = 0.0
    """Sum of the time commits took. [s]"""
    commit_buckets: list[int] = field(default_factory=lambda: [0] * (len(COMMIT_BOUNDS_S) + 1))
    """Commits by duration: at most each of `commit_bounds_s`, and longer."""

    @property
    def commit_bounds_s(self) -> Sequence[float]:
        """Upper bounds of the buckets, but for the last, which has none. [s]"""
        return COMMIT_BOUNDS_S


class Ingest:
    """Takes from any number of links; each `run` serves one.

    While one commit is on its way to the disk, the next is checked and a third gathers. What waits
    is bounded: then the link is not asked for more, and stops reading from its peers.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        directory: Directory,
        clock: Clock,
        settings: IngestSettings | None = None,
    ) -> None:
        self.counters = Counters()
        self._journal = journal
        self._directory = directory
        self._clock = clock
        self._settings = settings if settings is not None else IngestSettings()
        self.breaker = Breaker(self._settings)
        """Who is muted."""
        self._full = False

    async def run(self, link: Link) -> None:
        """Serve a link until it is lost (LinkLost) or ends; JournalFailed ends it too."""
        inbox = _Inbox(self._settings.batch_rows)
        ready: asyncio.Queue[Prepared | None] = asyncio.Queue(1)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_gather(link, inbox), name="ingest gather")
                tasks.create_task(self._prepare(inbox, ready), name="ingest prepare")
                tasks.create_task(self._commit(link, ready), name="ingest commit")
        except BaseExceptionGroup as group:
            # The first cause alone: callers handle LinkLost and JournalFailed by name.
            raise _first(group) from None

    async def _prepare(self, inbox: "_Inbox", ready: asyncio.Queue[Prepared | None]) -> None:
        settings = self._settings
        while await inbox.wait_filled():
            if inbox.rows < settings.enough_rows and not inbox.closed and settings.linger_s > 0:
                await self._clock.sleep(settings.linger_s)
            now_ns = self._clock.now_ns()
            prepared = prepare(inbox.take(), self._directory, self.breaker, settings, now_ns)
            await ready.put(prepared)
        await ready.put(None)

    async def _commit(self, link: Link, ready: asyncio.Queue[Prepared | None]) -> None:
        while (prepared := await ready.get()) is not None:
            started_ns = self._clock.now_ns()
            full = await self._append(prepared)
            if full is not None:
                self.counters.declined += len(prepared.verdicts)
                if not self._full:
                    _log.warning("journal full, batches declined", extra={"reason": full})
                self._full = True
                for batch, _ in prepared.verdicts:
                    link.decline(batch, full)
                continue
            if self._full and prepared.bodies:
                self._full = False
                declined = self.counters.declined
                _log.info("journal takes batches again", extra={"declined": declined})
            self._count(prepared, (self._clock.now_ns() - started_ns) / NS_PER_S)
            for batch, refused in prepared.verdicts:
                link.confirm(batch, refused)
            await self._alarm([mute for mute in prepared.newly_muted if mute.is_new])

    async def _append(self, prepared: Prepared) -> str | None:
        """Append to all partitions at once; return why there was no space, or None.

        Where one partition took its rows and another did not, everything is declined and comes
        again: the fold ignores what it has seen.
        """
        full: list[str] = []

        async def one(partition: int, bodies: Sequence[Body]) -> None:
            try:
                await self._journal.append(partition_topic(partition), bodies, writer=WRITER)
            except JournalFull as error:
                full.append(str(error) or "journal full")

        if len(prepared.bodies) == 1:
            ((partition, bodies),) = prepared.bodies.items()
            await one(partition, bodies)
        elif prepared.bodies:
            async with asyncio.TaskGroup() as tasks:
                for partition, bodies in prepared.bodies.items():
                    tasks.create_task(one(partition, bodies))
        return full[0] if full else None

    def _count(self, prepared: Prepared, took_s: float) -> None:
        counters = self.counters
        counters.accepted += prepared.accepted
        counters.muted += prepared.muted
        counters.commits += 1
        counters.commit_s += took_s
        place = sum(took_s > bound for bound in COMMIT_BOUNDS_S)
        counters.commit_buckets[place] += 1
        for code, count in prepared.quarantined.items():
            counters.quarantined[code] = counters.quarantined.get(code, 0) + count
        for mute in prepared.newly_muted:
            if mute.is_new:
                _log.warning(
                    "device muted: too many unusable reports",
                    extra={"device_no": mute.device_no, "mute_s": self._settings.mute_s},
                )

    async def _alarm(self, muted: Sequence[Mute]) -> None:
        """Tell operators of senders nobody knows; of devices the fold tells."""
        if all(mute.device_no >= 0 for mute in muted):
            return
        text = (
            "so much comes from senders that are not enrolled that the rest is counted and not "
            "kept; kapelle dlq ls shows what was kept"
        )
        notice = Notice(at_ns=self._clock.now_ns(), code="strangers-muted", text=text)
        # What was not kept is counted all the same: lost, the notice costs nobody a reading.
        with suppress(JournalFull):
            await self._journal.append(PLANT, [notice], writer=WRITER)


class _Inbox:
    """Batches between the link and the next commit, bounded by rows."""

    def __init__(self, rows_max: int) -> None:
        self.rows = 0
        self.closed = False
        self._rows_max = rows_max
        self._batches: list[Batch] = []
        self._filled = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()

    async def put(self, batch: Batch) -> None:
        """Add a batch; waits while there is enough for a commit already."""
        await self._roomy.wait()
        self._batches.append(batch)
        self.rows += _rows(batch)
        self._filled.set()
        if self.rows >= self._rows_max:
            self._roomy.clear()

    def close(self) -> None:
        """Say that nothing more will come."""
        self.closed = True
        self._filled.set()

    async def wait_filled(self) -> bool:
        """Wait for something to take; False when nothing will come any more."""
        await self._filled.wait()
        return bool(self._batches)

    def take(self) -> list[Batch]:
        """Return everything that waits."""
        batches, self._batches, self.rows = self._batches, [], 0
        if not self.closed:
            self._filled.clear()
        self._roomy.set()
        return batches


async def _gather(link: Link, inbox: _Inbox) -> None:
    async for batch in link.receive():
        await inbox.put(batch)
    inbox.close()


def _rows(batch: Batch) -> int:
    blocks = (batch.readings, batch.unreadable, batch.acks, batch.sessions)
    # At least one, so that empty batches are bounded too.
    return max(1, sum(len(block) for block in blocks if block is not None))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    cause = group.exceptions[0]
    return _first(cause) if isinstance(cause, BaseExceptionGroup) else cause
