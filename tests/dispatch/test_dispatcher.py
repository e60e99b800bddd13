"""The dispatcher over a journal: cycles, succession, and what a full disk does."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from kapelle.dispatch.service import Dispatcher
from kapelle.dispatch.settings import DispatchSettings
from kapelle.errors import JournalConflict, JournalDamaged, JournalFull
from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import Body, Entry, Kind
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.orders import Cancel, Hold, Order, Plan, Prospect
from kapelle.model.plant import Notice
from kapelle.model.summaries import Curve, ResourceSummary, Room, Summary
from kapelle.runtime.clock import SystemClock

SETTINGS = DispatchSettings(lease_s=0.6, cycle_wait_s=0.1)


def summary(partition: int, tick_ns: int) -> Summary:
    part = ResourceSummary(
        resource="all",
        devices=10,
        power_w=0.0,
        variance_w2=1.0,
        shared_std_w={},
        measured_w=0.0,
        freshness=[0, 10, 0, 0, 0],
        oldest_age_s=1.0,
        nameplate_w=10_000.0,
        uncontrolled_w=0.0,
        headroom_up_w=10_000.0,
        headroom_down_w=10_000.0,
        commanded_w=0.0,
        continuous=Curve([-1024.0, -1.0, 0.0, 1.0, 1024.0], [-1e4, -1e4, 0.0, 1e4, 1e4]),
        blocks=Curve([-1024.0, 0.0, 1024.0], [0.0, 0.0, 0.0]),
        phases=[0] * 18,
        excluded={},
        by_kind_w={},
        vendors={},
        measured_nameplate_w=10_000.0,
    )
    return Summary(partition, tick_ns, 1, [part])


class SlowJournal(MemoryJournal):
    """A disk that writes everything, and may take long to say so."""

    takes_s = 0.0

    async def append(self, topic: str, bodies: Sequence[Body], **line: Any) -> int:
        position = await super().append(topic, bodies, **line)
        if line["writer"] == "dispatch":
            await asyncio.sleep(self.takes_s)
        return position


class Stage:
    """A journal, two partitions that speak when asked, and dispatchers."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.journal = SlowJournal(self.clock)

    def dispatcher(self, holder: str = "one", settings: DispatchSettings = SETTINGS) -> Dispatcher:
        return Dispatcher(
            journal=self.journal,
            clock=self.clock,
            settings=settings,
            partitions=2,
            holder=holder,
        )

    async def speak(self, *partitions: int) -> None:
        tick_ns = self.clock.now_ns()
        for partition in partitions:
            body = summary(partition, tick_ns)
            await self.journal.append(PLANT, [body], writer=f"owner/{partition}")

    async def order(self, number: int, for_s: float = 60.0) -> None:
        now_ns = self.clock.now_ns()
        ends_ns = now_ns + int(for_s * NS_PER_S)
        order = Order(number, "all", 5_000.0, now_ns, ends_ns, now_ns)
        await self.journal.append(PLANT, [order], writer="api")

    async def bodies(self, topic: str, kind: Kind) -> list[Body]:
        entries = await self.journal.read(topic, 0, 1000, {kind})
        return [entry.body for entry in entries]

    async def drive(self, number: int) -> None:
        """Give an order, and wait until a partition has been told its level."""
        await self.order(number)
        await asyncio.sleep(0.05)
        await self.speak(0, 1)

        async def told() -> bool:
            return bool(await self.bodies("p/0", Kind.SIGNAL))

        await self.wait(told)

    async def wait(self, found: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(500):
            if await found():
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it never happened")


async def beside(dispatcher: Dispatcher, act: Awaitable[None]) -> None:
    """Run something beside a dispatcher, and end both."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(dispatcher.run())
        await act
        running.cancel()


def test_an_order_becomes_a_promise_and_a_level_in_every_partition() -> None:
    async def play() -> None:
        stage = Stage()
        dispatcher = stage.dispatcher()

        async def act() -> None:
            await stage.order(1)
            await asyncio.sleep(0.05)
            await stage.speak(0, 1)

            async def told() -> bool:
                return bool(await stage.bodies("p/1", Kind.SIGNAL))

            await stage.wait(told)
            plans = await stage.bodies(PLANT, Kind.PLAN)
            assert [plan.status for plan in plans] == [OrderStatus.ACTIVE]
            assert await stage.bodies("p/0", Kind.SIGNAL) == await stage.bodies("p/1", Kind.SIGNAL)
            await stage.journal.append(PLANT, [Cancel(1, stage.clock.now_ns())], writer="api")
            await stage.speak(0, 1)

            async def over() -> bool:
                return len(await stage.bodies(PLANT, Kind.PLAN)) == 2

            await stage.wait(over)
            plans = await stage.bodies(PLANT, Kind.PLAN)
            assert plans[-1].status == OrderStatus.CANCELLED
            assert (await stage.bodies("p/0", Kind.SIGNAL))[-1].order_no == 0

        await beside(dispatcher, act())

    asyncio.run(play())


def test_a_silent_partition_does_not_stop_an_order_that_runs() -> None:
    async def play() -> None:
        stage = Stage()

        async def act() -> None:
            await stage.order(1, for_s=1.0)
            await asyncio.sleep(0.05)
            await stage.speak(0, 1)

            async def over() -> bool:
                await stage.speak(0)
                plans = await stage.bodies(PLANT, Kind.PLAN)
                return bool(plans) and plans[-1].status == OrderStatus.COMPLETED

            await stage.wait(over)

        await beside(stage.dispatcher(), act())

    asyncio.run(play())


def test_a_successor_goes_on_with_the_promise_of_the_one_before() -> None:
    async def play() -> None:
        stage = Stage()

        async def first() -> None:
            await stage.drive(1)

        async def second() -> None:
            async def told_again() -> bool:
                await stage.speak(0, 1)
                return len(await stage.bodies("p/0", Kind.SIGNAL)) >= 2

            await stage.wait(told_again)
            signals = await stage.bodies("p/0", Kind.SIGNAL)
            assert signals[1].epoch > signals[0].epoch
            assert len(await stage.bodies(PLANT, Kind.PLAN)) == 1

        await beside(stage.dispatcher("one"), first())
        await beside(stage.dispatcher("two"), second())

    asyncio.run(play())


def test_the_deposed_stands_down() -> None:
    async def play() -> None:
        stage = Stage()
        old = stage.dispatcher("old")

        async def act() -> None:
            await asyncio.sleep(0.05)
            # Whoever bears the name of the holder may take its lease over, with the next epoch.
            lease = await stage.journal.acquire("dispatch", "old", 10.0)
            assert lease.epoch > old.epoch
            await asyncio.sleep(5.0)

        with pytest.raises(ExceptionGroup) as raised:
            await beside(old, act())
        assert raised.group_contains(JournalConflict)

    asyncio.run(play())


def test_a_full_journal_is_tried_again() -> None:
    async def play() -> None:
        stage = Stage()

        async def act() -> None:
            await stage.drive(1)
            before = len(await stage.bodies("p/0", Kind.SIGNAL))
            stage.journal.refusing = JournalFull("full")
            await asyncio.sleep(0.3)
            stage.journal.refusing = None

            async def told_again() -> bool:
                await stage.speak(0, 1)
                return bool(await stage.bodies("p/0", Kind.SIGNAL)) and before >= 1

            await stage.wait(told_again)

        await beside(stage.dispatcher(), act())

    asyncio.run(play())


def test_a_slow_disk_is_no_other_dispatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given up on lands all the same; our own entries must not look like a successor's."""
    monkeypatch.setattr("kapelle.dispatch.service._APPEND_TIMEOUT_S", 0.1)

    async def play() -> None:
        stage = Stage()

        async def act() -> None:
            async def told() -> bool:
                await stage.speak(0, 1)
                return bool(await stage.bodies("p/0", Kind.SIGNAL))

            await stage.order(1)
            await stage.wait(told)
            before = len(await stage.bodies("p/0", Kind.SIGNAL))
            stage.journal.takes_s = 0.3
            await stage.journal.append(PLANT, [Cancel(1, stage.clock.now_ns())], writer="api")

            async def landed() -> bool:
                await stage.speak(0, 1)
                return len(await stage.bodies("p/0", Kind.SIGNAL)) >= before + 2

            await stage.wait(landed)
            stage.journal.takes_s = 0.0

            async def over() -> bool:
                await stage.speak(0, 1)
                plans = await stage.bodies(PLANT, Kind.PLAN)
                return plans[-1].status == OrderStatus.CANCELLED

            await stage.wait(over)

        await beside(stage.dispatcher(), act())

    asyncio.run(play())


FORGETFUL = replace(SETTINGS, snapshot_every_s=0.1, retain_s=0.0)


async def forget(stage: Stage) -> None:
    """Wait until everything said so far is gone from the plant's topic."""
    said = await stage.journal.last(PLANT)

    async def gone() -> bool:
        await stage.speak(0, 1)
        return await stage.journal.first(PLANT) > said

    await stage.wait(gone)


def test_what_was_forgotten_is_still_known_to_whoever_starts() -> None:
    async def play() -> None:
        stage = Stage()

        async def first() -> None:
            await stage.order(1)

            async def told() -> bool:
                await stage.speak(0, 1)
                return bool(await stage.bodies("p/0", Kind.SIGNAL))

            await stage.wait(told)
            notice = Notice(1, "storm", "it blows")
            hold = Hold(True, 2, "drill")
            await stage.journal.append(PLANT, [notice, hold], writer="api")
            await forget(stage)

        first_one = stage.dispatcher("one", FORGETFUL)
        await beside(first_one, first())
        promise = first_one.view.orders[1].plan
        assert promise is not None
        before = len(await stage.bodies("p/0", Kind.SIGNAL))

        async def second() -> None:
            # Held, no level leaves; an order that runs rests.
            await stage.speak(0, 1)
            await asyncio.sleep(0.3)
            assert second_one.view.held
            assert second_one.view.hold_reason == "drill"
            assert [notice.text for notice in second_one.view.notices] == ["it blows"]
            await stage.journal.append(PLANT, [Hold(False, 3)], writer="api")

            async def told_again() -> bool:
                await stage.speak(0, 1)
                signals = (await stage.bodies("p/0", Kind.SIGNAL))[before:]
                return any(s.epoch == second_one.epoch and s.level > 0 for s in signals)

            await stage.wait(told_again)
            # It goes on with the promise that was made; nothing is promised anew.
            assert second_one.view.orders[1].plan == promise
            assert await stage.bodies(PLANT, Kind.PLAN) == []

        second_one = stage.dispatcher("two", FORGETFUL)
        await beside(second_one, second())

    asyncio.run(play())


def test_a_stop_leaves_a_snapshot_and_a_start_reads_nothing_before_it() -> None:
    async def play() -> None:
        stage = Stage()
        await stage.order(1)
        await beside(stage.dispatcher("one"), asyncio.sleep(0.1))
        snapshot = await stage.journal.load_snapshot(PLANT)
        assert snapshot is not None
        assert snapshot.position == await stage.journal.last(PLANT)
        read = stage.journal.read
        after: list[int] = []

        async def watched(topic: str, since: int, *rest: Any) -> list[Entry]:
            if rest[0] > 1:  # One alone is asked only for its age, before it is forgotten.
                after.append(since)
            return await read(topic, since, *rest)

        stage.journal.read = watched  # type: ignore[method-assign]  # to see what is asked for
        await stage.speak(0, 1)
        again = stage.dispatcher("two")
        await beside(again, asyncio.sleep(0.1))
        assert list(again.view.orders) == [1]
        assert min(after) >= snapshot.position

    asyncio.run(play())


def test_it_does_not_dispatch_from_the_middle_of_what_was_ordered() -> None:
    async def play() -> None:
        stage = Stage()
        await stage.order(1)
        await stage.journal.trim(PLANT, 1)
        with pytest.raises(JournalDamaged, match=r"plant: entries up to 1 .* restore"):
            await stage.dispatcher().run()

    asyncio.run(play())


class WatchedJournal(SlowJournal):
    """Keeps what dispatch wrote at once."""

    def __init__(self, clock: SystemClock) -> None:
        super().__init__(clock)
        self.at_once: list[list[Body]] = []

    async def append(self, topic: str, bodies: Sequence[Body], **line: Any) -> int:
        if line["writer"] == "dispatch":
            self.at_once.append(list(bodies))
        return await super().append(topic, bodies, **line)


def test_what_could_be_promised_is_written_by_itself() -> None:
    """A full disk takes plans and notices still, and only where nothing else is among them."""
    way = [1e4, 1e4, 0.0, 1e7]
    room = Room(600.0, {"0/acme": [10.0, *way, *way]}, {"acme": {0: [1e4, 1e4]}})

    async def play() -> list[list[Body]]:
        stage = Stage()
        stage.journal = watched = WatchedJournal(stage.clock)

        async def speak() -> None:
            for partition in range(2):
                body = summary(partition, stage.clock.now_ns())
                parts = [msgspec.structs.replace(part, room=room) for part in body.resources]
                body = msgspec.structs.replace(body, resources=parts)
                await stage.journal.append(PLANT, [body], writer=f"owner/{partition}")

        async def act() -> None:
            for number, kind in ((1, Kind.PLAN), (2, Kind.PROSPECT)):
                # The second is declined, in the cycle that tells of the first one's window.
                await stage.order(number, for_s=600.0)
                await asyncio.sleep(0.05)
                await speak()

                async def said(kind: Kind = kind) -> bool:
                    return bool(await stage.bodies(PLANT, kind))

                await stage.wait(said)

        await beside(stage.dispatcher(), act())
        return watched.at_once

    at_once = asyncio.run(play())
    assert sum(isinstance(body, Plan) for bodies in at_once for body in bodies) == 2
    for bodies in at_once:
        assert len({isinstance(body, Prospect) for body in bodies}) == 1
