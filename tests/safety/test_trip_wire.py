"""S-25: commands that keep every limit and make no sense hold the plant, with the reason."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Commands
from kapelle.model.entries import Kind
from kapelle.model.ids import NS_PER_S, PLANT, Flags
from kapelle.model.orders import Amend, Hold, Order
from kapelle.model.plant import Notice
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock
from kapelle.safety.gate import HOLD, RULES, check
from kapelle.safety.service import LastHop
from kapelle.safety.settings import SafetySettings
from kapelle.safety.state import GateState, know, rearm

DEVICES = 200
T0_S = 1_000
FEW = SafetySettings(reversals_max=20.0)
SIGMAS = SafetySettings(unexplained_sigmas=6.0)


def directory() -> Directory:
    return Directory.build(1, [Bearer(n, f"d{n}", True, 5e3, 5e3) for n in range(DEVICES)])


class Plant:
    """A gate, and an order of 100 kW."""

    def __init__(self, settings: SafetySettings) -> None:
        self.state = GateState.of(settings)
        self.settings = settings
        self.directory = directory()
        self.state.orders.apply(Order(1, "all", 1e5, 0, 1 << 61, 0))

    def tell(self, at_s: float, setpoint_w: float, devices: int = DEVICES) -> set[str]:
        """Tell devices a setpoint; return what became of it."""
        commands = block(round((T0_S + at_s) * NS_PER_S), setpoint_w, devices)
        known = know(self.state, self.directory, commands.device_no)
        now_ns = int(commands.issued_at_ns[0])
        return {RULES[n] for n in check(self.state, commands, known, now_ns, 1, self.settings)}


def block(now_ns: int, setpoint_w: float, devices: int) -> Commands:
    return Commands(
        device_no=np.arange(devices, dtype=np.int32),
        order_no=np.full(devices, 0 if np.isnan(setpoint_w) else 1, np.int32),
        revision=np.full(devices, now_ns, np.int64),
        epoch=np.ones(devices, np.int64),
        attempt=np.ones(devices, np.int32),
        setpoint_w=np.full(devices, setpoint_w),
        issued_at_ns=np.full(devices, now_ns, np.int64),
        not_after_ns=np.full(devices, now_ns + 10 * NS_PER_S, np.int64),
        ttl_s=np.full(devices, 10.0),
        revert_s=np.full(devices, 300.0),
    )


def test_devices_sent_one_way_and_back_within_a_minute_hold_the_plant() -> None:
    plant = Plant(FEW)
    assert plant.tell(0, -4000.0) == {""}
    assert plant.tell(10, 4000.0) == {""}, "one way is no reversal"
    assert plant.tell(20, -4000.0) == {HOLD}
    assert "200 devices were sent one way and back" in plant.state.hold_reason


@pytest.mark.parametrize(
    ("second", "third", "devices"),
    [
        ((10, 4000.0), (90, -4000.0), 200),
        ((10, 4000.0), (20, -4000.0), 20),
        ((10, 500), (20, -500), 200),
    ],
    ids=["slowly", "few", "slightly"],
)
def test_what_real_services_do_holds_nothing(
    second: tuple[float, float], third: tuple[float, float], devices: int
) -> None:
    plant = Plant(FEW)
    assert plant.tell(0, -4000.0 if devices == 20 or second[1] > 500 else -500.0, devices) == {""}
    assert plant.tell(*second, devices) == {""}
    assert plant.tell(*third, devices) == {""}


def test_more_power_than_orders_and_chance_explain_holds_the_plant() -> None:
    plant = Plant(SIGMAS)
    assert plant.tell(0, 0.0) == {""}
    # 100 kW are ordered, 200 kW come of chance (6 sigmas), 1 MW of nothing.
    assert plant.tell(10, 5000.0) == {HOLD}
    assert "moved +1.00 MW within 60 s, where orders explain 100.0 kW" in plant.state.hold_reason
    assert plant.tell(20, np.nan) == {HOLD}


def test_what_was_seen_is_not_held_against_the_plant_again() -> None:
    plant = Plant(SIGMAS)
    plant.tell(0, 0.0)
    assert plant.tell(10, 5000.0) == {HOLD}
    rearm(plant.state)
    assert plant.tell(11, 5000.0) == {""}


@pytest.mark.parametrize(
    ("target_w", "steps"),
    [
        (1e5, [0.0, 500.0, 700.0, 400.0]),
        (9e5, [0.0, 4500.0, 4800.0]),
        (1e5, [0.0, np.nan, 5000.0]),
    ],
    ids=["the order and its trim", "a large order", "from where nobody knows"],
)
def test_what_orders_explain_holds_nothing(target_w: float, steps: list[float]) -> None:
    plant = Plant(SIGMAS)
    plant.state.orders.apply(Amend(1, target_w, 1 << 61, T0_S * NS_PER_S))
    for number, setpoint_w in enumerate(steps):
        assert plant.tell(10.0 * number, setpoint_w) == {""}


def test_an_order_that_was_turned_explains_both_ways() -> None:
    plant = Plant(replace(SIGMAS, unexplained_sigmas=0.5))
    plant.state.orders.apply(Amend(1, 8e5, 1 << 61, T0_S * NS_PER_S))
    assert plant.tell(0, 4000.0) == {""}
    plant.state.orders.apply(Amend(1, -8e5, 1 << 61, (T0_S + 80) * NS_PER_S))
    assert plant.tell(80, -4000.0) == {""}


class Wire:
    async def send(self, commands: Commands) -> Flags:
        return np.ones(len(commands), np.bool_)


def test_a_trip_is_in_the_journal_with_its_reason() -> None:
    async def main() -> None:
        clock = SystemClock()
        journal = MemoryJournal(clock)
        hop = LastHop(
            journal=journal, directory=directory(), clock=clock, settings=SIGMAS, partitions=1
        )
        hop.links.append(Wire())  # type: ignore[arg-type]  # only send is used
        now_ns = clock.now_ns()
        order = Order(1, "all", 1e5, now_ns, now_ns + 3600 * NS_PER_S, now_ns)
        await journal.append(PLANT, [order], writer="api")
        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            running = group.create_task(hop.run())
            await asyncio.sleep(0.05)
            for setpoint_w in (0.0, 5000.0):
                told = block(clock.now_ns(), setpoint_w, DEVICES)
                await journal.append("p/0", [told], writer="owner")
            seen: list[Callable[[], object] | Hold | Notice] = []
            async for entries in journal.follow(PLANT, 0, {Kind.HOLD, Kind.NOTICE}):
                seen += [e.body for e in entries if isinstance(e.body, Hold | Notice)]
                if len(seen) == 2:
                    break
            running.cancel()
        hold, notice = seen
        assert isinstance(hold, Hold)
        assert isinstance(notice, Notice)
        assert (hold.held, hold.issued_by) == (True, "trip-wire")
        assert notice.code == "implausible-commands"
        assert hold.reason in notice.text
        assert hop.refused[HOLD] == DEVICES

    asyncio.run(main())
