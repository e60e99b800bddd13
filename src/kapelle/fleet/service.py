"""The owner of one partition: replays, follows, keeps the time, decides and sums up."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from kapelle.errors import JournalConflict, JournalFailed, JournalFull
from kapelle.fleet.columns import Fleet
from kapelle.fleet.envelopes import StandingCap
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.joined import joined
from kapelle.fleet.retention import Generations, check_whole
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.snapshots import from_snapshot, to_snapshot
from kapelle.fleet.summary import summarise
from kapelle.fleet.timings import Timings
from kapelle.model.entries import Body, Entry, Kind
from kapelle.model.ids import NS_PER_S, PLANT, partition_topic
from kapelle.model.plant import Notice, Tick
from kapelle.model.signals import Signal
from kapelle.model.summaries import Summary
from kapelle.ports import Clock, Journal, Lease
from kapelle.runtime.limits import give_back_memory

Decide = Callable[[Fleet, int], Sequence[Body]]
"""What to say in answer to the fleet as it stands, with the owner's epoch: commands, phases."""

_WRITER = "owner"
_LEASE_RETRY_S = 0.5
_LARGE = 10_000
"""Devices from which on it is worth giving memory back after a restore."""
_NOTICES_MAX = 1000
"""More than these wait only while the journal has no space; the oldest are let go."""
_BEATS_MISSED_MAX = 10
"""A tick of ours that never came back (a damaged entry) stops the time for at most this long."""

log = logging.getLogger(__name__)


class PartitionOwner:
    """Keeps one partition's fleet and speaks for it, as long as it holds the lease."""

    def __init__(
        self,
        *,
        partition: int,
        partitions: int,
        journal: Journal,
        clock: Clock,
        settings: FleetSettings,
        decide: Decide,
        holder: str,
        timings: Timings | None = None,
        caps: Sequence[StandingCap] = (),
        vendor_share_max: float = 1.0,
    ) -> None:
        self.fleet = Fleet.empty(partition, partitions)
        """The live picture; readers must not write, nor keep it across a wait."""
        self.epoch = 0
        """Fencing token of the present lease; 0 before the first."""
        self.ready = asyncio.Event()
        """Set once everything written before the start has been applied."""
        self._partition = partition
        self._topic = partition_topic(partition)
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._decide = decide
        self._holder = holder
        self._timings = timings if timings is not None else Timings()
        self._caps = tuple(caps)
        self._vendor_share_max = vendor_share_max
        self._line_lock = asyncio.Lock()
        self._line: int | None = None
        """Last position of our line of entries; None until we have written."""
        self._live_from = 0
        """Position of our first tick: decisions start there."""
        self._decided_at = 0
        """Position of the last entry we decided on; the next decision sees it applied first."""
        self._due = False
        self._tick_ns = 0
        self._beats_missed = 0
        self._full = False
        self._saving = False
        self._generations = Generations(settings.retain_s)
        self._plant_writer = f"{_WRITER}/{partition}"
        self._notices: list[Notice] = []
        """Found, and not yet written to the plant's topic."""

    async def run(self) -> None:
        """Own the partition until cancelled.

        Raises:
            JournalConflict: Somebody else owns the partition, now or since.
            JournalFailed: The disk failed, or takes so long that it must have.
            JournalDamaged: Entries are gone that no snapshot makes up for.
        """
        lease = await self._acquire()
        self.epoch = lease.epoch
        try:
            await self._replay()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._keep_lease(lease))
                    group.create_task(self._keep_time())
                    group.create_task(self._follow(group))
            except ExceptionGroup as errors:
                # The first error cancels the other tasks: to the outside it is the one reason.
                raise errors.exceptions[0] from errors
        except asyncio.CancelledError:
            await self._stop(lease)
            raise
        finally:
            self.ready.clear()

    async def _acquire(self) -> Lease:
        waited_s = 0.0
        while True:
            try:
                return await self._journal.acquire(
                    self._topic, self._holder, self._settings.lease_ttl_s
                )
            except JournalFull as full:
                self._note_full(full)
            except JournalConflict as conflict:
                if waited_s >= self._settings.lease_wait_s:
                    raise
                if not waited_s:
                    log.info("waiting for a lease", extra={"reason": str(conflict)})
            await self._clock.sleep(_LEASE_RETRY_S)
            waited_s += _LEASE_RETRY_S

    async def _replay(self) -> None:
        """Restore the newest snapshot and apply everything written since."""
        snapshot = await self._journal.load_snapshot(self._topic)
        if snapshot is not None:
            self.fleet = from_snapshot(snapshot)
            self._generations.note(self.fleet.position)
        else:
            self.fleet = Fleet.empty(self._partition, self.fleet.partitions)
        self.fleet.envelopes.standing = self._caps
        self.fleet.envelopes.vendor_share_max = self._vendor_share_max
        restored = self.fleet.position
        # What reading it took besides the fleet itself.
        del snapshot
        if self.fleet.size >= _LARGE:
            give_back_memory()
        check_whole(self._topic, restored, await self._journal.first(self._topic))
        while entries := await self._journal.read(
            self._topic, self.fleet.position, self._settings.read_limit
        ):
            for entry in joined(entries):
                apply_entry(self.fleet, entry, self._settings)
                self._note_notices(entry)
        if self._notices:
            # Each sum went out together with what its tick and those before had to tell.
            told_ns = await self._summed_up_ns()
            self._notices = [notice for notice in self._notices if notice.at_ns > told_ns]
        log.info(
            "partition restored",
            extra={
                "topic": self._topic,
                "snapshot": restored,
                "position": self.fleet.position,
                "devices": self.fleet.size,
                "epoch": self.epoch,
            },
        )
        self.ready.set()

    async def _keep_lease(self, lease: Lease) -> None:
        while True:
            await self._clock.sleep(self._settings.lease_ttl_s / 3)
            try:
                async with asyncio.timeout(self._settings.lease_ttl_s / 3):
                    await self._journal.renew(lease, self._settings.lease_ttl_s)
            except (JournalFull, TimeoutError):
                # The epoch fences us; a lease that lapses costs nothing until another takes it.
                log.warning("lease not renewed", extra={"topic": self._topic})

    async def _keep_time(self) -> None:
        """Write a tick at every multiple of `tick_s`, at most one ahead of the fold.

        Time goes on from the last tick, also where the clock was set back before we started: all
        who share it go on from there, or every device would seem silent for as long.
        """
        period_ns = round(self._settings.tick_s * NS_PER_S)
        self._clock.not_before(self.fleet.now_ns)
        while True:
            now_ns = self._clock.now_ns()
            await self._clock.sleep((period_ns - now_ns % period_ns) / NS_PER_S)
            # The same instant in every partition, so that their sums belong together.
            tick_ns = self._clock.now_ns() // period_ns * period_ns
            if tick_ns <= max(self._tick_ns, self.fleet.now_ns):
                continue
            behind = self._tick_ns > self.fleet.now_ns
            if behind and self._beats_missed < _BEATS_MISSED_MAX:
                self._beats_missed += 1
                continue
            self._beats_missed = 0
            position = await self._say([Tick(tick_ns)])
            if position:
                self._tick_ns = tick_ns
                self._live_from = self._live_from or position

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        since_ns = self.fleet.now_ns
        since = self.fleet.position
        async for entries in self._journal.follow(self._topic, self.fleet.position):
            for entry in joined(entries):
                await self._apply(entry)
            fleet, settings = self.fleet, self._settings
            if since_ns == 0:
                since_ns = fleet.now_ns
            if self._saving:
                continue
            if (
                fleet.position - since >= settings.snapshot_every_entries
                or fleet.now_ns - since_ns >= settings.snapshot_every_s * NS_PER_S
            ):
                since_ns, since = fleet.now_ns, fleet.position
                self._saving, free = True, asyncio.Event()
                tasks.create_task(self._save_aside(free))
                await free.wait()

    async def _apply(self, entry: Entry) -> None:
        if self._live_from and entry.position >= self._live_from:
            self._timings.note(self.fleet, entry.body)
        apply_entry(self.fleet, entry, self._settings)
        self._note_notices(entry)
        if not self._live_from or entry.position < self._live_from:
            return
        is_tick = isinstance(entry.body, Tick)
        self._due = self._due or is_tick or isinstance(entry.body, Signal)
        # What we said last must be part of the picture, or we would say it twice.
        if self._due and self.fleet.position >= self._decided_at:
            self._due = False
            bodies = self._decide(self.fleet, self.epoch)
            if bodies:
                self._decided_at = await self._say(bodies) or self._decided_at
        if is_tick:
            await self._sum_up()

    async def _sum_up(self) -> None:
        summary = summarise(self.fleet, self._settings)
        bodies: list[Body] = [summary, *self._notices]
        try:
            async with asyncio.timeout(self._settings.append_timeout_s):
                await self._journal.append(
                    PLANT, bodies, writer=self._plant_writer, epoch=self.epoch
                )
        except JournalFull as full:
            self._note_full(full)
        except TimeoutError as error:
            raise self._stalled(PLANT) from error
        else:
            self._notices.clear()

    def _note_notices(self, entry: Entry) -> None:
        if isinstance(entry.body, Tick) and self.fleet.notices:
            self._notices += self.fleet.notices
            del self._notices[:-_NOTICES_MAX]

    async def _summed_up_ns(self) -> int:
        """Return the tick of our newest sum in the plant's topic; 0 where none is found."""
        last = await self._journal.last(PLANT, self._plant_writer)
        # A sum and the notices that went out with it lie side by side.
        since = max(last - _NOTICES_MAX - 1, 0)
        sums = await self._journal.read(PLANT, since, _NOTICES_MAX + 1, (Kind.SUMMARY,))
        return max(
            (
                entry.body.tick_ns
                for entry in sums
                if isinstance(entry.body, Summary) and entry.body.partition == self._partition
            ),
            default=0,
        )

    async def _say(self, bodies: Sequence[Body]) -> int:
        """Append to our line and return the last position; 0 where the journal has no space."""
        try:
            async with self._line_lock, asyncio.timeout(self._settings.append_timeout_s):
                # The first entry of an epoch fences the owner before us, whose last entry we
                # cannot know; from then on nobody else may write this line.
                self._line = await self._journal.append(
                    self._topic,
                    bodies,
                    writer=_WRITER,
                    epoch=self.epoch,
                    expected=self._line,
                )
        except JournalFull as full:
            self._note_full(full)
            return 0
        except TimeoutError as error:
            raise self._stalled(self._topic) from error
        self._full = False
        return self._line

    def _stalled(self, topic: str) -> JournalFailed:
        # What was asked for may be written or not, so nothing can be decided any more.
        return JournalFailed(
            f"{topic}: the journal has not taken an entry within "
            f"{self._settings.append_timeout_s:g} s; check the disk and the system log, then "
            "start again"
        )

    def _note_full(self, full: JournalFull) -> None:
        if not self._full:
            log.error("journal is full", extra={"topic": self._topic, "reason": str(full)})
        self._full = True

    async def _save_aside(self, free: asyncio.Event) -> None:
        """Write a snapshot. The fold stands still until `free`, not until the disk has it."""
        try:
            await self._save(free.set)
        finally:
            self._saving = False
            free.set()

    async def _save(self, released: Callable[[], None] | None = None) -> None:
        """Write a snapshot and forget the entries nobody needs."""
        snapshot = to_snapshot(self.fleet, self._settings)
        try:
            await self._journal.save_snapshot(self._topic, snapshot, released=released)
        except JournalFull as full:
            self._note_full(full)
            return
        self._generations.note(snapshot.position)
        del snapshot
        through = await self._generations.through(self._journal, self._topic, self.fleet.now_ns)
        if through:
            await self._journal.trim(self._topic, through)

    async def _stop(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(self._settings.stop_timeout_s):
                if self.fleet.position > self._generations.newest:
                    await self._save()
                await self._journal.release(lease)
        except (TimeoutError, JournalConflict):
            log.warning("stopped without a snapshot", extra={"topic": self._topic})
