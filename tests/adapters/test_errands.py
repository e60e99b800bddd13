"""Each device is told its newest command, one at a time, and nobody waits for another."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from kapelle.adapters.errands import Command, Errands, Said
from kapelle.adapters.inbox import Inbox, InboxSettings
from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

CLOCK = SystemClock()


def commands(
    rows: Sequence[tuple[int, int]], *, epoch: int = 1, ttl_s: float = 60.0, setpoint_w: float = 5.0
) -> Commands:
    """Return commands of (device, revision)."""
    filled = {name: np.zeros(len(rows), kind) for name, kind in Commands.COLUMNS.items()}
    filled["device_no"] = np.array([device for device, _ in rows], np.int32)
    filled["revision"] = np.array([revision for _, revision in rows], np.int64)
    filled["epoch"] += epoch
    filled["setpoint_w"] += setpoint_w
    filled["not_after_ns"] += CLOCK.now_ns() + int(ttl_s * NS_PER_S)
    return Commands(**filled)


class Plant:
    """Devices that take their time, and what was heard of them."""

    def __init__(self) -> None:
        self.inbox = Inbox("test", clock=CLOCK, settings=InboxSettings(linger_s=0.0))
        self.told: list[tuple[int, int]] = []
        self.speaking: set[int] = set()
        self.deaf: set[int] = set()
        self.gone: set[int] = set()
        self.wait_s = 0.0
        self.errands: Errands

    async def carry_out(self, command: Command) -> Said | None:
        number = command.device_no
        assert number not in self.speaking, "two conversations with one device"
        self.speaking.add(number)
        try:
            if number in self.gone:
                raise ConnectionResetError("gone")
            if number in self.deaf:
                await asyncio.sleep(3_600)
            await asyncio.sleep(self.wait_s)
            self.told.append((number, command.revision))
            return Said(AckStatus.ACCEPTED, "yes")
        finally:
            self.speaking.discard(number)

    async def answers(self, count: int) -> list[tuple[int, int, AckStatus]]:
        """Return that many answers."""
        found: list[tuple[int, int, AckStatus]] = []
        async with asyncio.timeout(5):
            async for batch in self.inbox.receive():
                assert batch.acks is not None
                a = batch.acks
                columns = (a.device_no.tolist(), a.revision.tolist(), map(AckStatus, a.status))
                found += zip(*columns, strict=True)
                self.inbox.confirm(batch, {})
                if len(found) >= count:
                    break
        return found


@asynccontextmanager
async def opened(*, answer_s: float = 5.0, at_once: int = 100) -> AsyncIterator[Plant]:
    plant = Plant()
    async with background() as beside:
        plant.errands = Errands(
            plant.inbox,
            beside,
            clock=CLOCK,
            carry_out=plant.carry_out,
            answer_s=answer_s,
            at_once=at_once,
        )
        yield plant


def test_one_that_does_not_answer_holds_up_nobody() -> None:
    async def run() -> None:
        async with opened(answer_s=0.2) as plant:
            plant.deaf, plant.gone = {0}, {1}
            taken = plant.errands.offer(commands([(n, 1) for n in range(6)]), range(5))
            assert taken.tolist() == [True] * 5 + [False]
            assert sorted(await plant.answers(3)) == [(n, 1, AckStatus.ACCEPTED) for n in (2, 3, 4)]
            async with asyncio.timeout(5):
                while plant.errands.counters.unanswered < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            # It is asked again as if nothing had been.
            plant.deaf.clear()
            plant.errands.offer(commands([(0, 1)]), range(5))
            assert await plant.answers(1) == [(0, 1, AckStatus.ACCEPTED)]

    asyncio.run(run())


def test_who_is_busy_is_told_the_newest_only() -> None:
    async def run() -> None:
        async with opened() as plant:
            plant.wait_s = 0.05
            for revision in (1, 2, 3, 4):
                plant.errands.offer(commands([(7, revision)]), {7})
                await asyncio.sleep(0.01)
            assert await plant.answers(2) == [
                (7, 1, AckStatus.ACCEPTED),
                (7, 4, AckStatus.ACCEPTED),
            ]
            assert plant.told == [(7, 1), (7, 4)]
            assert plant.errands.counters.overtaken == 2

    asyncio.run(run())


def test_what_is_older_than_what_was_told_is_not_told() -> None:
    async def run() -> None:
        async with opened() as plant:
            plant.errands.offer(commands([(7, 5)], epoch=2), {7})
            await plant.answers(1)
            plant.errands.offer(commands([(7, 4)], epoch=2), {7})
            plant.errands.offer(commands([(7, 9)], epoch=1), {7})
            assert await plant.answers(1) == [(7, 9, AckStatus.REJECTED)]
            # A retry repeats the revision, and is told again.
            plant.errands.offer(commands([(7, 5)], epoch=2), {7})
            await plant.answers(1)
            assert plant.told == [(7, 5), (7, 5)]

    asyncio.run(run())


def test_what_has_expired_is_not_told() -> None:
    async def run() -> None:
        async with opened() as plant:
            plant.errands.offer(commands([(7, 5)], ttl_s=-1.0), {7})
            assert await plant.answers(1) == [(7, 5, AckStatus.EXPIRED)]
            assert plant.told == []

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(5))
def test_in_the_end_everybody_was_told_the_newest(seed: int) -> None:
    async def run() -> None:
        draw = random.Random(seed)
        async with opened(at_once=3) as plant:
            newest: dict[int, int] = {}
            for revision in range(1, 60):
                device = draw.randrange(6)
                plant.wait_s = draw.choice([0.0, 0.001])
                plant.errands.offer(commands([(device, revision)]), range(6))
                newest[device] = revision
                if draw.random() < 0.3:
                    await asyncio.sleep(0.001)
            async with asyncio.timeout(5):
                while not set(newest.items()) <= set(plant.told):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            for device in newest:
                revisions = [r for d, r in plant.told if d == device]
                assert revisions == sorted(revisions)

    asyncio.run(run())


def test_what_still_runs_ends_with_the_link() -> None:
    async def run() -> None:
        async with opened() as plant:
            plant.deaf = {0}
            plant.errands.offer(commands([(0, 1)]), {0})
            await asyncio.sleep(0.01)
            assert plant.speaking == {0}
        assert plant.speaking == set()

    asyncio.run(run())
