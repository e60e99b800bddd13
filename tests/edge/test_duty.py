"""Commands at the edge, in virtual time: once, in time, the newest only, and over restarts."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kapelle.adapters.sunspec.link import Declined
from kapelle.adapters.sunspec.unit import Said
from kapelle.edge.buffer import Buffer
from kapelle.edge.duty import Duty
from kapelle.edge.ledger import Ledger, Told
from kapelle.edge.settings import BufferSettings
from kapelle.edge.wire import Command
from kapelle.errors import LinkLost
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.background import background
from kapelle.sim.clock import VirtualClock
from kapelle.sim.loop import run_virtual

APPLIED, REJECTED, EXPIRED = AckStatus.APPLIED, AckStatus.REJECTED, AckStatus.EXPIRED


@dataclass
class Acting:
    """A device that notes what it is told."""

    may_have_written: bool = False
    given: list[float] = field(default_factory=list)
    trouble: Exception | None = None
    says: Said = field(default_factory=lambda: Said(APPLIED))
    takes_s: float = 0.1
    breaks_after_writing: bool = False

    async def tell(self, setpoint_w: float, revert_s: float, deadline_ns: int) -> Said:
        self.may_have_written = False
        await asyncio.sleep(self.takes_s)
        if self.breaks_after_writing:
            self.may_have_written = True
            self.given.append(setpoint_w)
            raise LinkLost("test", "cut")
        if self.trouble is not None:
            raise self.trouble
        self.may_have_written = True
        self.given.append(setpoint_w)
        return self.says


@dataclass
class Scene:
    duty: Duty
    unit: Acting
    clock: VirtualClock
    answers: list[Told]

    def offer(
        self, revision: int, setpoint_w: float = 100.0, *, epoch: int = 1, ttl_s: float = 30.0
    ) -> None:
        deadline_ns = self.clock.now_ns() + int(ttl_s * NS_PER_S)
        self.duty.offer(Command(revision, epoch, setpoint_w, 120.0, deadline_ns))

    def told(self) -> list[tuple[int, int]]:
        return [(told.revision, told.status) for told in self.answers]


@asynccontextmanager
async def scene(
    path: Path, clock: VirtualClock, *, takes_back: bool = False, at_work: bool = True
) -> AsyncIterator[Scene]:
    buffer = Buffer(BufferSettings(path / "edge.db"), clock.now_ns())
    answers: list[Told] = []
    unit = Acting()
    duty = Duty(
        "a",
        unit,
        asyncio.Lock(),
        buffer.ledger,
        clock,
        answer=answers.append,
        takes_back=takes_back,
    )
    try:
        async with background() as beside:
            if at_work:
                beside.start(duty.obey(), "obey")
            yield Scene(duty, unit, clock, answers)
    finally:
        buffer.close(clock.now_ns())


def play(act: Callable[[VirtualClock], Awaitable[None]]) -> None:
    async def run() -> None:
        await act(VirtualClock())

    run_virtual(run)


def test_a_command_is_carried_out_once_and_answered_as_often_as_it_comes(tmp_path: Path) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            for _ in range(3):
                at.offer(1)
                await clock.sleep(1.0)
            assert at.unit.given == [100.0]
            assert at.told() == [(1, APPLIED)] * 3
        # And so after a restart: it is remembered.
        async with scene(tmp_path, clock) as at:
            at.offer(1)
            await clock.sleep(1.0)
            assert at.unit.given == []
            assert at.told() == [(1, APPLIED)]

    play(run)


def test_an_older_epoch_is_fenced_and_an_older_revision_is_nothing(tmp_path: Path) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            at.offer(5, epoch=3)
            await clock.sleep(1.0)
            at.offer(9, 7_777.0, epoch=2)
            at.offer(4, 8_888.0, epoch=3)
            await clock.sleep(1.0)
            assert at.unit.given == [100.0]
            assert at.told() == [(5, APPLIED), (9, REJECTED)]
            assert at.answers[-1].reason == "stale epoch"
            # A newer epoch may begin with a lower revision: a journal was restored.
            at.offer(1, 50.0, epoch=4)
            await clock.sleep(1.0)
            assert at.unit.given == [100.0, 50.0]

    play(run)


def test_of_several_that_wait_the_newest_is_carried_out(tmp_path: Path) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            at.unit.takes_s = 2.0
            for revision in (1, 2, 3, 4):
                at.offer(revision, float(revision))
                await clock.sleep(0.1)
            await clock.sleep(10.0)
            assert at.unit.given == [1.0, 4.0]

    play(run)


def test_a_device_that_comes_back_in_time_is_told_and_too_late_is_not(tmp_path: Path) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            at.unit.trouble = Declined(6)
            at.offer(1, ttl_s=30.0)
            await clock.sleep(20.0)
            assert at.told() == []
            at.unit.trouble = None
            await clock.sleep(5.0)
            assert at.told() == [(1, APPLIED)]
            at.unit.trouble = LinkLost("test", "gone")
            at.offer(2, 200.0, ttl_s=30.0)
            await clock.sleep(40.0)
            at.unit.trouble = None
            await clock.sleep(40.0)
            assert at.unit.given == [100.0]
            assert at.told()[-1] == (2, EXPIRED)
            assert "gone" in at.answers[-1].reason
            # What was in force before still is.
            assert at.duty.told.setpoint_w == 100.0

    play(run)


def test_what_expired_on_its_way_is_never_begun(tmp_path: Path) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            at.offer(1, ttl_s=-1.0)
            await clock.sleep(5.0)
            assert at.unit.given == []
            assert at.told() == [(1, EXPIRED)]

    play(run)


def test_a_newer_command_ends_the_trying_of_an_older(tmp_path: Path) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            at.unit.trouble = LinkLost("test", "gone")
            at.offer(1, 1.0, ttl_s=300.0)
            await clock.sleep(10.0)
            at.offer(2, 2.0, ttl_s=300.0)
            await clock.sleep(10.0)
            at.unit.trouble = None
            await clock.sleep(5.0)
            assert at.unit.given == [2.0]
            assert at.told() == [(2, APPLIED)]

    play(run)


def test_an_agent_that_dies_half_way_does_it_again_when_asked_and_not_when_it_is_late(
    tmp_path: Path,
) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            at.unit.takes_s = 5.0
            at.offer(1)
            await clock.sleep(1.0)
        async with scene(tmp_path, clock) as at:
            assert at.duty.told.rank == (1, 1)
            assert at.duty.told.status == 0
            await clock.sleep(10.0)
            assert at.unit.given == []
            at.offer(1)
            await clock.sleep(1.0)
            assert at.unit.given == [100.0]
            assert at.told() == [(1, APPLIED)]

    play(run)


def test_a_line_that_broke_while_writing_is_tried_again_and_never_called_expired(
    tmp_path: Path,
) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            at.unit.breaks_after_writing = True
            at.offer(1, ttl_s=10.0)
            await clock.sleep(30.0)
            assert len(at.unit.given) > 1
            # Nobody knows what the device holds: the plant hears nothing, and its timer decides.
            assert at.told() == []
            at.unit.breaks_after_writing = False
            at.offer(1, ttl_s=10.0)
            await clock.sleep(5.0)
            assert at.told() == [(1, APPLIED)]

    play(run)


def test_what_a_device_refuses_is_no_setpoint_of_ours(tmp_path: Path) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            at.unit.says = Said(REJECTED, "no")
            at.offer(1)
            await clock.sleep(1.0)
            assert at.told() == [(1, REJECTED)]
            assert math.isnan(at.duty.ours_w())
            assert at.duty.is_free()

    play(run)


def test_time_is_free_when_nothing_is_in_force(tmp_path: Path) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            assert at.duty.is_free()
            at.offer(1)
            assert not at.duty.is_free()
            await clock.sleep(1.0)
            assert at.duty.ours_w() == 100.0
            assert not at.duty.is_free()
            await clock.sleep(121.0)
            assert at.duty.is_free()
            assert math.isnan(at.duty.ours_w())

    play(run)


@pytest.mark.parametrize("takes_back", [True, False])
def test_the_agent_takes_back_what_a_device_without_a_timer_holds(
    tmp_path: Path, takes_back: bool
) -> None:
    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            at.offer(1)
            await clock.sleep(1.0)
        # It died, and came back after the setpoint was over.
        await clock.sleep(200.0)
        async with scene(tmp_path, clock, takes_back=takes_back) as at:
            await at.duty.take_back()
            await at.duty.take_back()
            assert [math.isnan(w) for w in at.unit.given] == ([True] if takes_back else [])

    play(run)


def test_what_cannot_be_remembered_is_not_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_ledger: Ledger, device: str, told: Told) -> None:
        raise OSError("no space")

    async def run(clock: VirtualClock) -> None:
        async with scene(tmp_path, clock) as at:
            with monkeypatch.context() as patched:
                patched.setattr(Ledger, "remember", full)
                at.offer(1)
                await clock.sleep(5.0)
            assert at.unit.given == []
            assert at.told() == []
            at.offer(1)
            await clock.sleep(5.0)
            assert at.unit.given == [100.0]

    play(run)
