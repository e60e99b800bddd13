"""The last hop over a journal: what passes is sent once, what does not is said, a hold holds."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np

from kapelle.errors import LinkLost
from kapelle.fleet.recall import recall
from kapelle.fleet.snapshots import view_to_snapshot
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Commands, Phases
from kapelle.model.entries import Kind
from kapelle.model.enums import Phase
from kapelle.model.ids import NS_PER_S, PLANT, Flags, Floats, Ints
from kapelle.model.orders import Hold, Order
from kapelle.ports import Places
from kapelle.runtime.clock import SystemClock
from kapelle.safety.gate import HOLD, NAMEPLATE
from kapelle.safety.service import LastHop
from kapelle.safety.settings import SafetySettings


class Book:
    """A directory of devices of 5 kW."""

    partitions = 2
    version = 1

    def nameplate(self, device_no: Ints) -> tuple[Floats, Floats]:
        return np.full(len(device_no), 5000.0), np.full(len(device_no), 5000.0)

    def places(self, device_no: Ints) -> Places:
        nowhere = np.zeros((3, len(device_no)), np.int64)
        return Places(*nowhere, np.zeros(len(device_no), np.bool_))


class Wire:
    """A link that has some devices and remembers what it was given."""

    def __init__(self, has: set[int], lost: bool = False) -> None:
        self.has, self.lost = has, lost
        self.sent: list[tuple[int, int]] = []

    async def send(self, commands: Commands) -> Flags:
        if self.lost:
            raise LinkLost("wire", "cut")
        took = np.array([int(no) in self.has for no in commands.device_no])
        rows = zip(commands.device_no[took].tolist(), commands.attempt[took].tolist(), strict=True)
        self.sent += list(rows)
        return took


class Stage:
    def __init__(self) -> None:
        self.clock = SystemClock()
        self.journal = MemoryJournal(self.clock)
        self.hop = LastHop(
            journal=self.journal,
            directory=Book(),  # type: ignore[arg-type]  # only nameplates are asked for
            clock=self.clock,
            settings=SafetySettings(),
            partitions=2,
        )

    def commands(self, *device_no: int, setpoint_w: float = 3000.0) -> Commands:
        count, now_ns = len(device_no), self.clock.now_ns()
        return Commands(
            device_no=np.array(device_no, np.int32),
            order_no=np.ones(count, np.int32),
            revision=np.ones(count, np.int64),
            epoch=np.ones(count, np.int64),
            attempt=np.ones(count, np.int32),
            setpoint_w=np.full(count, setpoint_w),
            issued_at_ns=np.full(count, now_ns, np.int64),
            not_after_ns=np.full(count, now_ns + 10 * NS_PER_S, np.int64),
            ttl_s=np.full(count, 10.0),
            revert_s=np.full(count, 120.0),
        )

    async def phases(self, topic: str) -> dict[int, int]:
        entries = await self.journal.read(topic, 0, 100, {Kind.PHASES})
        found: dict[int, int] = {}
        for entry in entries:
            assert isinstance(entry.body, Phases)
            assert entry.writer == "last-hop"
            found |= dict(
                zip(entry.body.device_no.tolist(), entry.body.phase.tolist(), strict=True)
            )
        return found

    async def wait(self, found: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(500):
            if await found():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it never happened")


async def beside(stage: Stage, act: Awaitable[None]) -> None:
    """Act while the last hop runs and order 1 is in force."""
    now_ns = stage.clock.now_ns()
    order = Order(1, "all", 1e6, now_ns, now_ns + 3600 * NS_PER_S, now_ns)
    await stage.journal.append(PLANT, [order], writer="api")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(stage.hop.run())
        await asyncio.sleep(0.02)
        await act
        running.cancel()


def test_commands_reach_the_link_that_has_the_device_and_sent_is_said() -> None:
    async def play() -> None:
        stage = Stage()
        broken, near, far = Wire(set(), lost=True), Wire({0, 2}), Wire({2, 4})
        stage.hop.links += [broken, near, far]  # type: ignore[list-item]  # only send is used
        await stage.journal.append("p/0", [stage.commands(8)], writer="owner")

        async def act() -> None:
            await stage.journal.append("p/0", [stage.commands(0, 2, 4, 6)], writer="owner")

            async def said() -> bool:
                return bool(await stage.phases("p/0"))

            await stage.wait(said)
            # What was written before the start is the owner's to send again.
            assert near.sent == [(0, 1), (2, 1)]
            assert far.sent == [(4, 1)]
            assert await stage.phases("p/0") == dict.fromkeys((0, 2, 4), Phase.SENT)
            assert stage.hop.sent == 3

        await beside(stage, act())

    asyncio.run(play())


def test_what_does_not_pass_is_rejected_and_counted_by_rule() -> None:
    async def play() -> None:
        stage = Stage()
        wire = Wire({0, 1})
        stage.hop.links.append(wire)  # type: ignore[arg-type]  # only send is used

        async def act() -> None:
            far = stage.commands(1, setpoint_w=9000.0)
            await stage.journal.append("p/1", [far], writer="owner")

            async def said() -> bool:
                return bool(await stage.phases("p/1"))

            await stage.wait(said)
            assert await stage.phases("p/1") == {1: Phase.REJECTED}
            assert wire.sent == []
            assert stage.hop.refused == {NAMEPLATE: 1}

        await beside(stage, act())

    asyncio.run(play())


def test_a_hold_in_the_journal_stops_commands_and_survives_a_restart() -> None:
    async def play() -> None:
        stage = Stage()
        wire = Wire({0})
        stage.hop.links.append(wire)  # type: ignore[arg-type]  # only send is used
        await stage.journal.append(PLANT, [Hold(True, 1, "drill")], writer="api")

        async def act() -> None:
            await stage.journal.append("p/0", [stage.commands(0)], writer="owner")

            async def said() -> bool:
                return bool(await stage.phases("p/0"))

            await stage.wait(said)
            assert wire.sent == []
            assert stage.hop.refused == {HOLD: 1}
            assert await stage.phases("p/0") == {0: Phase.CANCELLED}
            await stage.journal.append(PLANT, [Hold(False, 2)], writer="api")
            await asyncio.sleep(0.05)
            again = replace(stage.commands(0), attempt=np.array([2], np.int32))
            await stage.journal.append("p/0", [again], writer="owner")

            async def sent() -> bool:
                return wire.sent == [(0, 2)]

            await stage.wait(sent)

        await beside(stage, act())

    asyncio.run(play())


def test_a_hold_comes_between_two_hand_overs() -> None:
    async def play() -> None:
        stage = Stage()

        class Holding(Wire):
            async def send(self, commands: Commands) -> Flags:
                took = await super().send(commands)
                stage.hop.hold(True, "in the midst")
                return took

        wire = Holding(set(range(0, 6000, 2)))
        stage.hop.links.append(wire)  # type: ignore[arg-type]  # only send is used

        async def act() -> None:
            many = stage.commands(*range(0, 6000, 2))
            await stage.journal.append("p/0", [many], writer="owner")

            async def said() -> bool:
                return len(await stage.phases("p/0")) == 3000

            await stage.wait(said)
            assert len(wire.sent) == SafetySettings().send_at_once
            assert stage.hop.refused[HOLD] == 2000

        await beside(stage, act())

    asyncio.run(play())


def test_a_hold_outlives_the_entry_that_told_it() -> None:
    async def play() -> None:
        stage = Stage()
        wire = Wire({0})
        stage.hop.links.append(wire)  # type: ignore[arg-type]  # only send is used
        await stage.journal.append(PLANT, [Hold(True, 1, "drill")], writer="api")
        view = await recall(stage.journal, 2)
        await stage.journal.save_snapshot(PLANT, view_to_snapshot(view))
        await stage.journal.trim(PLANT, view.position)

        async def act() -> None:
            await stage.journal.append("p/0", [stage.commands(0)], writer="owner")

            async def refused() -> bool:
                return stage.hop.refused[HOLD] == 1

            await stage.wait(refused)
            await stage.journal.append(PLANT, [Hold(False, 2)], writer="api")
            await asyncio.sleep(0.05)
            await stage.journal.append("p/0", [stage.commands(0)], writer="owner")

            async def sent() -> bool:
                return wire.sent == [(0, 1)]

            await stage.wait(sent)

        await beside(stage, act())

    asyncio.run(play())
