"""The dispatcher: one active per plant; listens to summaries and orders, answers with levels."""

import asyncio
import logging
from collections.abc import Sequence

from kapelle.dispatch.control import step
from kapelle.dispatch.memory import ControlState, Outcome
from kapelle.dispatch.settings import DispatchSettings
from kapelle.errors import JournalConflict, JournalFull
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.recall import recall
from kapelle.fleet.retention import Generations
from kapelle.fleet.snapshots import view_from_snapshot, view_to_snapshot
from kapelle.model.entries import Body
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import PLANT, partition_topic
from kapelle.model.summaries import Summary
from kapelle.ports import Clock, Journal, Lease

_WRITER = "dispatch"
_LEASE = "dispatch"
_LEASE_RETRY_S = 0.5
_APPEND_TIMEOUT_S = 10.0
_SAVE_TIMEOUT_S = 60.0
_IDLE_S = 2.0
"""Without news orders still start and end this often. [s]"""

log = logging.getLogger(__name__)


class Dispatcher:
    """Drives every order, as long as it holds the lease."""

    def __init__(
        self,
        *,
        journal: Journal,
        clock: Clock,
        settings: DispatchSettings,
        partitions: int,
        holder: str,
    ) -> None:
        self.view = PlantView(partitions)
        """The plant as dispatch sees it; readers must not write."""
        self.epoch = 0
        """Fencing token of the present lease; 0 before the first."""
        self._state = ControlState()
        self._partitions = partitions
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._holder = holder
        self._news = asyncio.Event()
        self._stepped_ns = 0
        """Newest tick that a cycle has taken up."""
        self._lines: dict[str, int] = {}
        """Last position of our line in each topic we have written to."""
        self._full = False
        self._generations = Generations(settings.retain_s)

    async def run(self) -> None:
        """Dispatch until cancelled.

        Raises:
            JournalConflict: Another dispatcher took over.
            JournalFailed: The disk failed.
            JournalDamaged: Orders and holds are gone that no snapshot makes up for.
        """
        lease = await self._acquire()
        self.epoch = lease.epoch
        self._state = ControlState()
        self._lines = {}
        await self._replay()
        try:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._keep_lease(lease))
                    group.create_task(self._follow())
                    group.create_task(self._cycles())
                    group.create_task(self._keep_snapshots())
            except ExceptionGroup as errors:
                # The first error cancels the other tasks: to the outside it is the one reason.
                raise errors.exceptions[0] from errors
        except asyncio.CancelledError:
            await self._give_back(lease)
            raise

    async def _acquire(self) -> Lease:
        waiting = False
        while True:
            try:
                return await self._journal.acquire(_LEASE, self._holder, self._settings.lease_s)
            except (JournalConflict, JournalFull) as reason:
                # A second dispatcher stands by for as long as the first lives; a full disk may
                # have space again at any time.
                if not waiting:
                    log.info("standing by", extra={"reason": str(reason)})
                waiting = True
            await self._clock.sleep(_LEASE_RETRY_S)

    async def _keep_lease(self, lease: Lease) -> None:
        pause_s = self._settings.lease_s / 3
        while True:
            await self._clock.sleep(pause_s)
            try:
                async with asyncio.timeout(pause_s):
                    await self._journal.renew(lease, self._settings.lease_s)
            except (JournalFull, TimeoutError):
                # The epoch fences us; a lease that lapses costs nothing until another takes it.
                log.warning("lease not renewed")

    async def _give_back(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(_APPEND_TIMEOUT_S):
                await self._save()
                await self._journal.release(lease)
        except (TimeoutError, JournalConflict):
            log.warning("stopped without giving the lease back")

    async def _replay(self) -> None:
        """Take up orders, plans and holds of the past."""
        self.view = await recall(self._journal, self._partitions)
        saved = await self._journal.load_snapshot(PLANT)
        if saved is not None:
            self._state.before = view_from_snapshot(saved, self._partitions).summaries
        self._state.before |= self.view.summaries
        # Levels rest on what the partitions say from now on.
        self.view.summaries = {}
        self._generations.note(saved.position if saved is not None else 0)

    async def _keep_snapshots(self) -> None:
        while True:
            await self._clock.sleep(self._settings.snapshot_every_s)
            try:
                async with asyncio.timeout(_SAVE_TIMEOUT_S):
                    await self._save()
            except TimeoutError:
                log.warning("plant not saved", extra={"reason": "the disk is slow"})

    async def _save(self) -> None:
        """Write a snapshot of the plant and forget the entries nobody needs any more.

        Everyone who reads the plant's topic starts from it, so orders and holds outlive entries.
        """
        snapshot = view_to_snapshot(self.view)
        if snapshot.position <= self._generations.newest:
            return
        now_ns = self._clock.now_ns()
        try:
            await self._journal.save_snapshot(PLANT, snapshot)
            self._generations.note(snapshot.position)
            through = await self._generations.through(self._journal, PLANT, now_ns)
            if through:
                await self._journal.trim(PLANT, through)
        except JournalFull as full:
            log.warning("plant not saved", extra={"reason": str(full)})

    async def _follow(self) -> None:
        async for entries in self._journal.follow(PLANT, self.view.position):
            for entry in entries:
                apply_plant(self.view, entry)
                if isinstance(entry.body, Summary) and entry.body.tick_ns > self._stepped_ns:
                    self._news.set()

    async def _cycles(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_IDLE_S):
                    await self._news.wait()
                await self._wait_complete()
            except TimeoutError:
                pass
            self._news.clear()
            ticks = [summary.tick_ns for summary in self.view.summaries.values()]
            self._stepped_ns = max(ticks, default=0)
            outcome = step(self._state, self.view, self._clock.now_ns(), self.epoch, self._settings)
            try:
                async with asyncio.timeout(_APPEND_TIMEOUT_S):
                    await self._say(outcome)
            except JournalFull as reason:
                self._say_again(str(reason))
            except TimeoutError:
                self._say_again(f"the journal took longer than {_APPEND_TIMEOUT_S:g} s")

    async def _wait_complete(self) -> None:
        """Wait for the slower partitions' summaries, a little."""
        try:
            async with asyncio.timeout(self._settings.cycle_wait_s):
                while not self._is_complete():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass

    def _is_complete(self) -> bool:
        ticks = [summary.tick_ns for summary in self.view.summaries.values()]
        return len(ticks) >= self._partitions and min(ticks) == max(ticks)

    async def _say(self, outcome: Outcome) -> None:
        """Append, in an order that survives a crash between any two.

        A promise is written before it is acted on: its baseline must not be measured again once
        devices move. An end is written after the release: until then it is tried again.
        """
        promises = [p for p in outcome.plans if p.status == OrderStatus.ACTIVE]
        others = [p for p in outcome.plans if p.status != OrderStatus.ACTIVE]
        if promises:
            await self._append(PLANT, promises)
        if outcome.signals:
            try:
                async with asyncio.TaskGroup() as group:
                    for partition in range(self._partitions):
                        group.create_task(self._append(partition_topic(partition), outcome.signals))
            except ExceptionGroup as errors:
                # A full journal is answered by name, also where several appends met it.
                raise errors.exceptions[0] from errors
        rest: list[Body] = [*others, *outcome.cancels, *outcome.notices]
        if rest:
            await self._append(PLANT, rest)
        if outcome.prospects:
            # By themselves: on a full disk what the others say may still be written.
            await self._append(PLANT, outcome.prospects)
        self._full = False

    async def _append(self, topic: str, bodies: Sequence[Body]) -> None:
        self._lines[topic] = await self._journal.append(
            topic,
            bodies,
            writer=_WRITER,
            epoch=self.epoch,
            expected=self._lines.get(topic),
        )

    def _say_again(self, reason: str) -> None:
        """Repeat every level in the next cycle; plans follow from the view, which has not moved."""
        if not self._full:
            log.error("levels could not be written", extra={"reason": reason})
        self._full = True
        # What was given up on may yet be written: where our lines end is not known any more. The
        # epoch still keeps a dispatcher that was replaced out.
        self._lines = {}
        for running in self._state.running.values():
            running.signalled_at_ns = 0
