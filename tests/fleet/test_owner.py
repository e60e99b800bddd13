"""The owner of a partition: it alone decides, only live, and no crash makes it forget."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from fleet_worlds import T0, acks, block, commands, enrolled, phases, power, s, sessions

from kapelle.errors import JournalConflict, JournalDamaged, JournalFailed, JournalFull
from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.plant import PlantView, apply_plant, total
from kapelle.fleet.service import PartitionOwner
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.snapshots import digest
from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import Body, Kind
from kapelle.model.enums import Freshness, Phase, SessionEvent
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.plant import Tick
from kapelle.model.signals import Signal

QUICK = FleetSettings(lease_ttl_s=3.0, lease_wait_s=10.0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._jumped_s = 0.0
        select = self._selector.select

        def jump(timeout: float | None = None) -> list:
            self._jumped_s += timeout or 0.0
            return select(0)

        self._selector.select = jump

    def time(self) -> float:
        return self._jumped_s


class JumpingClock:
    def __init__(self) -> None:
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return T0 + self.ahead_ns + round(asyncio.get_running_loop().time() * NS_PER_S)

    def not_before(self, utc_ns: int) -> None:
        self.ahead_ns += max(0, utc_ns - self.now_ns())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Plant:
    """A journal, a clock, and owners that come and go."""

    def __init__(self, partitions: int = 1) -> None:
        self.clock = JumpingClock()
        self.journal = MemoryJournal(self.clock)
        self.partitions = partitions
        self.decided: list[tuple[int, int, int]] = []
        """Epoch, position and tick of each decision."""
        self.answers: list[list[Body]] = []

    def owner(self, holder: str = "one", settings: FleetSettings = QUICK, partition: int = 0):
        return PartitionOwner(
            partition=partition,
            partitions=self.partitions,
            journal=self.journal,
            clock=self.clock,
            settings=settings,
            decide=self._decide,
            holder=holder,
        )

    def _decide(self, fleet: Fleet, epoch: int) -> list[Body]:
        self.decided.append((epoch, fleet.position, fleet.now_ns))
        return self.answers.pop(0) if self.answers else []

    async def say(self, *bodies: Body, writer: str = "ingest") -> int:
        return await self.journal.append("p/0", bodies, writer=writer)

    async def entries(self, topic: str = "p/0", kind: Kind | None = None) -> list:
        kinds = None if kind is None else {kind}
        return await self.journal.read(topic, 0, 1_000_000, kinds)


def play(story: Callable[[Plant], Awaitable[None]], partitions: int = 1) -> Plant:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        plant = Plant(partitions)
        runner.run(story(plant))
        return plant


async def run_for(seconds: float, *owners: PartitionOwner) -> None:
    """Run owners side by side, then stop them as the supervisor would."""
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for owner in owners:
                group.create_task(owner.run())
    except TimeoutError:
        pass


def test_each_second_is_a_tick_and_a_summary_at_the_same_instant_everywhere() -> None:
    async def story(plant: Plant) -> None:
        owners = [plant.owner(partition=k) for k in range(2)]
        await run_for(10.5, *owners)
        for topic in ("p/0", "p/1"):
            ticks = [e.body.now_ns for e in await plant.entries(topic, Kind.TICK)]
            assert ticks == [s(second) for second in range(1, 11)]
        view = PlantView(2)
        for entry in await plant.entries(PLANT):
            apply_plant(view, entry)
        assert total(view).tick_ns == s(10)
        assert total(view).complete

    play(story, partitions=2)


def test_restart_resumes_from_snapshot_and_replay() -> None:
    async def story(plant: Plant) -> None:
        await plant.say(enrolled(range(4)), writer="registry")
        first = plant.owner()
        await run_for(5.5, first)
        await plant.say(block([power(1, 5.0, 800.0)]), sessions((1, SessionEvent.UP, 1)))
        second = plant.owner("two")
        await run_for(5.5, second)
        assert second.epoch > first.epoch
        assert second.fleet.estimate_w[1] == 800.0
        replayed = Fleet.empty()
        for entry in await plant.entries():
            apply_entry(replayed, entry, QUICK)
        assert digest(second.fleet) == digest(replayed)

    play(story)


def test_a_killed_owner_leaves_nothing_undone() -> None:
    """Killed, it neither saves a snapshot nor gives the lease back."""

    async def story(plant: Plant) -> None:
        await plant.say(enrolled(range(4)), writer="registry")
        killed = plant.owner("one")
        killed._stop = _nothing
        await run_for(5.5, killed)
        assert await plant.journal.load_snapshot("p/0") is None
        after = plant.owner("two")
        await run_for(8.5, after)
        assert after.epoch > killed.epoch
        assert after.fleet.now_ns >= s(12)
        assert after.fleet.active[:4].all()

    play(story)


async def _nothing(*_: object) -> None: ...


def test_decisions_are_made_live_only_once_per_tick_and_signal() -> None:
    async def story(plant: Plant) -> None:
        await plant.say(enrolled(range(4)), writer="registry")
        await run_for(5.5, plant.owner())
        before = await plant.journal.last("p/0")
        lived = len(plant.decided)
        assert 3 <= lived <= 5
        await run_for(1.5, plant.owner("two"), _Speaks(plant, Signal("all", 1, 1.0, 1.0, 1, s(99))))
        assert len(plant.decided) > lived
        assert all(position > before for _, position, _ in plant.decided[lived:])
        assert len({epoch for epoch, _, _ in plant.decided}) == 2

    play(story)


class _Speaks:
    """Stands in for an owner: says something after the first tick."""

    def __init__(self, plant: Plant, *bodies: Body) -> None:
        self.plant, self.bodies = plant, bodies

    async def run(self) -> None:
        await asyncio.sleep(1.1)
        await self.plant.say(*self.bodies, writer="dispatch")


def test_no_decision_before_its_first_tick_has_fenced_the_owner_before() -> None:
    async def story(plant: Plant) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(run_for(3.5, plant.owner()))
            await asyncio.sleep(0.5)
            await plant.say(Signal("all", 1, 1.0, 1.0, 1, s(99)), writer="dispatch")
        first_tick = (await plant.entries(kind=Kind.TICK))[0].position
        assert plant.decided
        assert min(position for _, position, _ in plant.decided) >= first_tick

    play(story)


def test_an_entry_of_somebody_else_in_its_line_makes_it_stand_down() -> None:
    async def story(plant: Plant) -> None:
        async with asyncio.TaskGroup() as group:
            owner = plant.owner()
            group.create_task(owner.run(), name="owner")
            await asyncio.sleep(2.5)
            await plant.journal.append("p/0", [Tick(s(99))], writer="owner", epoch=owner.epoch)

    with pytest.raises(ExceptionGroup) as errors:
        play(story)
    assert isinstance(errors.value.exceptions[0], JournalConflict)


def test_a_decision_sees_the_one_before_it_applied() -> None:
    async def story(plant: Plant) -> None:
        await plant.say(enrolled(range(4)), writer="registry")
        plant.answers = [[commands([1], 1000.0, revision)] for revision in (1, 2, 3)]
        owner = plant.owner()
        signals = [Signal("all", 1, float(level), 1.0, 1, s(99)) for level in range(20)]
        await run_for(4.5, owner, _Speaks(plant, *signals))
        written = [e.position for e in await plant.entries(kind=Kind.COMMANDS)]
        assert len(written) == 3
        for (_, decided_at, _), (_, next_at, _), command_at in zip(
            plant.decided, plant.decided[1:], written, strict=False
        ):
            assert decided_at < command_at <= next_at
        assert owner.fleet.revision[1] == 3

    play(story)


def test_commands_and_phases_it_said_are_replayed_not_said_again() -> None:
    async def story(plant: Plant) -> None:
        await plant.say(enrolled(range(4)), writer="registry")
        plant.answers = [[commands([0, 1], 1000.0), phases([0, 1], Phase.SENT)]]
        await run_for(4.5, plant.owner())
        await plant.say(acks([0]))
        again = plant.owner("two")
        await run_for(3.5, again)
        assert again.fleet.phase[:2].tolist() == [Phase.APPLIED, Phase.SENT]
        assert len(await plant.entries(kind=Kind.COMMANDS)) == 1

    play(story)


def test_the_stale_owner_stands_down() -> None:
    async def story(plant: Plant) -> None:
        stale = plant.owner("stale", FleetSettings(lease_ttl_s=3.0))
        stale._journal = _RenewsNothing(plant.journal)
        outcome = []

        async def stands_down() -> None:
            try:
                await stale.run()
            except JournalConflict as conflict:
                outcome.append(conflict)

        async with asyncio.TaskGroup() as group:
            group.create_task(stands_down())
            await asyncio.sleep(3.5)
            await run_for(3.5, plant.owner("heir"))
        assert len(outcome) == 1
        writers = {(e.writer, e.epoch) for e in await plant.entries()}
        assert len(writers) == 2
        assert {writer for writer, _ in writers} == {"owner"}
        epochs = [e.epoch for e in await plant.entries()]
        assert epochs == sorted(epochs)

    play(story)


class _RenewsNothing:
    """A journal whose holder was cut off from the lease without noticing."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)

    async def renew(self, *_: object) -> None: ...


def test_a_lease_that_is_kept_keeps_others_out() -> None:
    async def story(plant: Plant) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(run_for(30.0, plant.owner("one")))
            await asyncio.sleep(1)
            with pytest.raises(JournalConflict, match="one"):
                await plant.owner("two").run()

    play(story)


def test_snapshots_are_regular_and_old_entries_go() -> None:
    async def story(plant: Plant) -> None:
        sparing = FleetSettings(snapshot_every_s=10.0, retain_s=30.0)
        await run_for(100.5, plant.owner(settings=sparing))
        first = await plant.journal.first("p/0")
        assert 50 <= first <= 80
        await run_for(2.5, again := plant.owner("two", sparing))
        assert again.fleet.now_ns >= s(102)

    play(story)


def test_full_journal_stops_the_time_and_space_starts_it_again() -> None:
    async def story(plant: Plant) -> None:
        owner = plant.owner()

        async def fills_up() -> None:
            await asyncio.sleep(3.5)
            plant.journal.refusing = JournalFull("no space")
            await asyncio.sleep(4)
            plant.journal.refusing = None

        async with asyncio.TaskGroup() as group:
            group.create_task(run_for(12.5, owner))
            group.create_task(fills_up())
        ticks = [e.body.now_ns for e in await plant.entries(kind=Kind.TICK)]
        assert ticks == [s(x) for x in (1, 2, 3, 8, 9, 10, 11, 12)]

    play(story)


def test_failed_disk_is_the_one_error_that_leaves() -> None:
    async def story(plant: Plant) -> None:
        async def fails() -> None:
            await asyncio.sleep(2.5)
            plant.journal.refusing = JournalFailed("fsync: EIO")

        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            with pytest.raises(JournalFailed):
                await plant.owner().run()

    play(story)


def test_time_goes_on_from_the_last_tick_when_the_clock_was_set_back_an_hour() -> None:
    async def story(plant: Plant) -> None:
        await plant.say(enrolled(range(4)), writer="registry")
        await run_for(5.5, plant.owner())
        plant.clock.ahead_ns = -3600 * NS_PER_S
        owner = plant.owner("two")

        async def reports() -> None:
            for _ in range(20):
                await asyncio.sleep(1)
                # A device whose clock is right; what it says is dated by ours.
                at_s = (plant.clock.now_ns() - T0) / NS_PER_S
                await plant.say(block([power(1, at_s, 800.0)]))

        async with asyncio.TaskGroup() as group:
            group.create_task(run_for(20.5, owner))
            group.create_task(reports())
        ticks = [e.body.now_ns for e in await plant.entries(kind=Kind.TICK)]
        assert ticks == [s(second) for second in range(1, 26)]
        assert owner.fleet.freshness[1] == Freshness.LIVE

    play(story)


def test_ready_is_said_after_the_replay() -> None:
    async def story(plant: Plant) -> None:
        await plant.say(enrolled(range(4)), Tick(s(0)), writer="registry")
        owner = plant.owner()
        assert not owner.ready.is_set()
        async with asyncio.TaskGroup() as group:
            group.create_task(run_for(3.0, owner))
            await owner.ready.wait()
            assert owner.fleet.size == 4
        assert not owner.ready.is_set()

    play(story)


class StallingJournal(MemoryJournal):
    """Takes an hour over every entry of one writer."""

    stalls = ""

    async def append(self, topic: str, bodies: Sequence[Body], **line: Any) -> int:
        position = await super().append(topic, bodies, **line)
        if line["writer"] == self.stalls:
            await asyncio.sleep(3600)
        return position


@pytest.mark.parametrize("writer", ["owner", "owner/0"])
def test_a_disk_that_stalls_has_failed_and_is_named(writer: str) -> None:
    async def story(plant: Plant) -> None:
        plant.journal = StallingJournal(plant.clock)
        plant.journal.stalls = writer
        with pytest.raises(JournalFailed, match=r"the journal has not taken .* 120 s; check"):
            await plant.owner().run()

    play(story)


def test_it_does_not_start_from_the_middle_of_its_topic() -> None:
    async def story(plant: Plant) -> None:
        await plant.say(enrolled(range(4)), writer="registry")
        await run_for(5.5, plant.owner())
        whole = await plant.journal.load_snapshot("p/0")
        assert whole is not None
        await plant.journal.trim("p/0", whole.position)
        await run_for(2.5, plant.owner("with its snapshot"))
        plant.journal._topics["p/0"].snapshots.clear()
        with pytest.raises(JournalDamaged, match=r"p/0: entries up to \d+ .* restore"):
            await plant.owner("without").run()

    play(story)
