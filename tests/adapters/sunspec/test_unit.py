"""One device behind a line, in virtual time: reboots, refusals, and setpoints that do not take."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.sunspec.inverter import BATTERY, Inverter

from kapelle.adapters.sunspec.link import Declined
from kapelle.adapters.sunspec.models import MODELS
from kapelle.adapters.sunspec.settings import DeviceSettings
from kapelle.adapters.sunspec.survey import NotSunSpec
from kapelle.adapters.sunspec.unit import Said, Unit
from kapelle.errors import LinkLost
from kapelle.model.enums import AckStatus, DeviceMode, Metric
from kapelle.sim.clock import VirtualClock
from kapelle.sim.loop import run_virtual

T = TypeVar("T")
FAR_NS = 1 << 62
ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY = 2, 3, 6


@dataclass
class Memory:
    """Registers without a network."""

    inverter: Inverter
    connection: int = 1
    lost: bool = False
    delay_s: float = 0.0
    stubborn: dict[str, int] = field(default_factory=dict)
    """Points of model 704 the device sets back to a value of its own."""

    async def read(self, unit: int, address: int, count: int) -> bytes:
        await self._touch(3, address, count, None)
        at = address - self.inverter.base
        if at < 0 or at + count > len(self.inverter.registers):
            raise Declined(ILLEGAL_ADDRESS)
        words = self.inverter.registers[at : at + count]
        return b"".join(word.to_bytes(2, "big") for word in words)

    async def write(self, unit: int, address: int, raw: bytes, *, on: int) -> None:
        if on != self.connection:
            raise LinkLost("test", "another connection")
        words = [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]
        await self._touch(16, address, len(words), words)
        at = address - self.inverter.base
        self.inverter.registers[at : at + len(words)] = words
        for name, value in self.stubborn.items():
            self.inverter.put(704, name, value)

    async def _touch(
        self, function: int, address: int, count: int, words: list[int] | None
    ) -> None:
        await asyncio.sleep(self.delay_s)
        if self.lost:
            raise LinkLost("test", "gone")
        registers = self.inverter.registers
        code = await self.inverter.touch(
            function, self.inverter.base, address, count, registers, words
        )
        if code is not None:
            raise Declined(int(code))


def battery(**device: object) -> tuple[Memory, Unit, VirtualClock]:
    clock = VirtualClock()
    memory = Memory(Inverter(now=asyncio.get_running_loop().time))
    given_ = DeviceSettings("dev-0", "nowhere", **device)  # type: ignore[arg-type]
    return memory, Unit(memory, given_, clock), clock


def play(act: Callable[[], Awaitable[T]]) -> T:
    return run_virtual(act)


def test_models_that_moved_are_found_again() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        await unit.poll(math.nan)
        assert unit.found is not None
        before = unit.found.places[701]
        # A firmware update puts a model before the others; the connection outlives it.
        memory.inverter.models.insert(1, {"ID": 703, "ES": 1})
        memory.inverter.lay_out(40_000)
        memory.inverter.put(701, "W", 777)
        values, _ = await unit.poll(math.nan)
        assert values[Metric.POWER_W] == 777.0
        assert unit.found.places[701] != before

    play(run)


def test_a_map_that_begins_elsewhere_after_a_reboot_is_found() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        await unit.poll(math.nan)
        memory.inverter.lay_out(50_000)
        values, _ = await unit.poll(math.nan)
        assert values[Metric.POWER_W] == -2000.0
        # And a new connection alone is reason enough to look again.
        memory.inverter.lay_out(0)
        memory.connection += 1
        await unit.poll(math.nan)
        assert unit.found is not None
        assert unit.found.places[1][0] == 2

    play(run)


def test_a_device_that_is_busy_is_not_taken_for_another() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        memory.inverter.decline = lambda function, address, writes: BUSY
        for _ in range(3):
            with pytest.raises(Declined, match="busy"):
                await unit.poll(math.nan)
        memory.inverter.decline = lambda function, address, writes: 0
        assert (await unit.poll(math.nan))[0]

    play(run)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda inverter: inverter.registers.clear(), "no SunSpec map"),
        (lambda inverter: inverter.registers.__setitem__(0, 0), "no SunSpec map"),
        (lambda inverter: inverter.registers.__setitem__(2, 65_000), "lacks model 1"),
        # The common model says that it is as long as the address space.
        (lambda inverter: inverter.registers.__setitem__(3, 0xFFFE), "leaves the address space"),
    ],
)
def test_what_is_not_sunspec_is_named(spoil: Callable[[Inverter], None], why: str) -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        spoil(memory.inverter)
        with pytest.raises(NotSunSpec, match=why):
            await unit.poll(math.nan)

    play(run)


def test_a_chain_of_models_without_end_is_given_up() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        memory.inverter.registers[:] = [0x5375, 0x6E53, *([9, 0] * 200)]
        with pytest.raises(NotSunSpec, match="more than 64"):
            await unit.poll(math.nan)
        assert memory.inverter.asked < 80

    play(run)


def test_an_end_marker_without_a_length_is_an_end() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        del memory.inverter.registers[-1]
        assert (await unit.poll(math.nan))[0]

    play(run)


def test_another_serial_number_is_neither_read_nor_commanded() -> None:
    async def run() -> None:
        memory, unit, _ = battery(serial="sn-1")
        with pytest.raises(NotSunSpec, match="sn-123456789"):
            await unit.poll(math.nan)
        with pytest.raises(NotSunSpec):
            await unit.tell(100.0, 60.0, FAR_NS)
        assert memory.inverter.writes == []

    play(run)


def test_a_setpoint_ends_by_the_device_s_own_timer() -> None:
    async def run() -> None:
        memory, unit, clock = battery()
        assert await unit.tell(-1_500.0, 120.0, FAR_NS) == Said(AckStatus.APPLIED)
        values, _ = await unit.poll(-1_500.0)
        assert values[Metric.SETPOINT_W] == -1_500.0
        assert values[Metric.MODE] == DeviceMode.COMMAND
        # Nobody says anything more: the plant is gone, or the agent.
        await clock.sleep(121.0)
        memory.inverter.tick()
        values, _ = await unit.poll(math.nan)
        assert Metric.SETPOINT_W not in values
        assert values[Metric.MODE] == DeviceMode.OWN

    play(run)


def test_every_setpoint_winds_the_timer_anew() -> None:
    async def run() -> None:
        memory, unit, clock = battery()
        for _ in range(5):
            assert await unit.tell(-1_500.0, 120.0, FAR_NS) == Said(AckStatus.APPLIED)
            await clock.sleep(100.0)
        assert memory.inverter.get(704, "WSetEna") == 1

    play(run)


def test_a_setpoint_of_somebody_else_is_local_control() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        memory.inverter.put(704, "WSet", 900)
        memory.inverter.put(704, "WSetEna", 1)
        values, _ = await unit.poll(math.nan)
        assert values[Metric.MODE] == DeviceMode.LOCAL
        assert values[Metric.SETPOINT_W] == 900.0

    play(run)


def test_a_device_that_takes_another_value_is_released_and_says_no() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        memory.stubborn = {"WSet": 5_000}
        said = await unit.tell(6_000.0, 60.0, FAR_NS)
        assert said == Said(AckStatus.REJECTED, "WSet reads back 5000, not 6000")
        assert memory.inverter.get(704, "WSetEna") == 0

    play(run)


def test_a_device_that_accepts_and_ignores_is_found_out() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        memory.stubborn = {"WSetEna": 0}
        said = await unit.tell(1_000.0, 60.0, FAR_NS)
        assert said == Said(AckStatus.REJECTED, "WSetEna reads back 0, not 1")

    play(run)


def test_a_setpoint_whose_timer_does_not_run_is_taken_back() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        memory.inverter._wind = lambda *_: None  # type: ignore[method-assign]
        said = await unit.tell(1_000.0, 60.0, FAR_NS)
        assert said.status == AckStatus.REJECTED
        assert "timer does not run" in said.reason
        assert memory.inverter.get(704, "WSetEna") == 0

    play(run)


@pytest.mark.parametrize("agent_reverts", [False, True])
def test_a_device_without_a_timer_takes_setpoints_only_where_that_was_said(
    agent_reverts: bool,
) -> None:
    async def run() -> None:
        memory, unit, _ = battery(agent_reverts=agent_reverts)
        memory.inverter.changed = {
            **BATTERY,
            704: {**BATTERY[704], "WSetRvrtTms": None, "WSetRvrtRem": None},
        }
        memory.inverter.lay_out(40_000)
        said = await unit.tell(1_000.0, 60.0, FAR_NS)
        assert (said.status == AckStatus.APPLIED) == agent_reverts
        assert bool(memory.inverter.writes) == agent_reverts
        # To be released nobody needs a timer.
        assert (await unit.tell(math.nan, math.nan, FAR_NS)).status == AckStatus.APPLIED

    play(run)


def test_a_device_that_forbids_a_write_is_released_and_says_so() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        await unit.poll(math.nan)
        mode = unit.found.places[704][0] + 23 if unit.found else 0

        def decline(function: int, address: int, writes: bool) -> int:
            return ILLEGAL_VALUE if writes and address == mode else 0

        memory.inverter.decline = decline
        said = await unit.tell(1_000.0, 60.0, FAR_NS)
        assert said == Said(AckStatus.REJECTED, "Modbus exception 3 (illegal value)")
        assert memory.inverter.writes[-1][1] == [0]

    play(run)


def test_a_slow_device_is_not_written_when_the_command_has_expired_meanwhile() -> None:
    async def run() -> None:
        memory, unit, clock = battery()
        await unit.poll(math.nan)
        memory.delay_s = 1.0
        said = await unit.tell(1_000.0, 60.0, clock.now_ns() + 2_000_000_000)
        assert said.status == AckStatus.EXPIRED
        assert memory.inverter.writes == []
        assert not unit.may_have_written

    play(run)


def test_a_line_that_breaks_while_writing_leaves_nobody_the_wiser() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        await unit.poll(math.nan)

        def decline(function: int, address: int, writes: bool) -> int:
            memory.lost = writes
            return 0

        memory.inverter.decline = decline
        with pytest.raises(LinkLost):
            await unit.tell(1_000.0, 60.0, FAR_NS)
        assert unit.may_have_written

    play(run)


def test_a_device_that_takes_no_setpoints_says_so() -> None:
    async def run() -> None:
        _, unit, _ = battery(control="none")
        said = await unit.tell(1_000.0, 60.0, FAR_NS)
        assert said.status == AckStatus.REJECTED

    play(run)


def test_a_device_that_starts_anew_while_it_is_told_is_trouble_and_not_the_end() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        await unit.poll(math.nan)

        def decline(function: int, address: int, writes: bool) -> int:
            if writes and len(memory.inverter.writes) == 2:
                memory.inverter.models.insert(1, {"ID": 703, "ES": 1})
                memory.inverter.lay_out(40_000)
            return 0

        memory.inverter.decline = decline
        with pytest.raises(NotSunSpec, match="no longer at"):
            await unit.tell(1_000.0, 60.0, FAR_NS)
        assert unit.may_have_written
        memory.inverter.decline = lambda function, address, writes: 0
        assert await unit.tell(1_000.0, 60.0, FAR_NS) == Said(AckStatus.APPLIED)

    play(run)


def test_a_device_that_moves_while_it_is_surveyed_is_trouble_and_not_the_end() -> None:
    async def run() -> None:
        memory, unit, _ = battery()

        def decline(function: int, address: int, writes: bool) -> int:
            # The heads of all models were read; now the first is read as a whole.
            if memory.inverter.asked == 17:
                memory.inverter.registers[2] = 3
            return 0

        memory.inverter.decline = decline
        with pytest.raises(NotSunSpec):
            await unit.poll(math.nan)

    play(run)


def test_nothing_is_written_on_another_connection_than_the_addresses_are_from() -> None:
    async def run() -> None:
        memory, unit, _ = battery()
        await unit.poll(math.nan)
        before = memory.inverter.asked

        def decline(function: int, address: int, writes: bool) -> int:
            # The line breaks, and is made anew, between the reading and the writing.
            memory.connection += memory.inverter.asked == before + 4
            return 0

        memory.inverter.decline = decline
        with pytest.raises(LinkLost):
            await unit.tell(1_000.0, 60.0, FAR_NS)
        assert memory.inverter.writes == []
        assert await unit.tell(1_000.0, 60.0, FAR_NS) == Said(AckStatus.APPLIED)

    play(run)


words = st.lists(st.integers(0, 0xFFFF), max_size=160)
models = st.sampled_from([*MODELS, 63_001, 0])


@given(
    st.lists(st.tuples(models, words), max_size=8),
    st.sampled_from(["inverter", "meter import", "storage"]),
    st.sampled_from([100.0, -100.0, math.nan]),
)
@settings(deadline=None)
def test_whatever_a_device_holds_it_is_read_or_it_is_trouble(
    chain: list[tuple[int, list[int]]], measure: str, setpoint_w: float
) -> None:
    async def run() -> None:
        memory, unit, _ = battery(measure=measure)
        common = memory.inverter.registers[2:70]
        laid = [word for model, body in chain for word in (model, len(body), *body)]
        memory.inverter.registers[:] = [0x5375, 0x6E53, *common, *laid, 0xFFFF, 0]
        # The clockwork is for one device only.
        memory.inverter.touch = nothing  # type: ignore[method-assign]
        with suppress(NotSunSpec, Declined):
            values, _ = await unit.poll(math.nan)
            assert all(math.isfinite(value) for value in values.values())
        with suppress(NotSunSpec, Declined):
            await unit.tell(setpoint_w, 60.0, FAR_NS)

    play(run)


async def nothing(*_: object) -> None:
    return None
