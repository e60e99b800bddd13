"""What is wrong with a device is recognised, named and over in time; healthy fleets raise nothing.

The worlds are simulated devices of every kind, with the physics and meters the simulator has.
"""

from collections.abc import Callable

import numpy as np
import pytest
from condition_worlds import Lie, Values, World, only
from fleet_worlds import (
    acks,
    block,
    commands,
    enrolled,
    fleet_of,
    phases,
    power,
    s,
    say,
    sessions,
    tick,
)

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import trust
from kapelle.fleet.reconciliation.conditions import DISTRUSTED, distrusted, mark, untrusted
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.summary import summarise
from kapelle.model.enums import AckStatus, Condition, DeviceKind, Metric, Phase, SessionEvent

W = Metric.POWER_W
UP, DOWN, TAKEN = SessionEvent.UP, SessionEvent.DOWN, SessionEvent.TAKEN
MOVING = (DeviceKind.PV, DeviceKind.LOAD)


def to_steps(step_w: float) -> Lie:
    def lie(rows: np.ndarray, values: Values) -> None:
        values[W] = np.round(values[W] / step_w) * step_w

    return lie


def constant(rows: np.ndarray, values: Values) -> None:
    """Everything that runs runs at a nominal value, and its register agrees as far as it can."""
    values[W] = np.where(np.abs(values[W]) > 100.0, np.sign(values[W]) * 1370.0, 0.0)
    for metric in (Metric.EXPORT_WH, Metric.IMPORT_WH):
        values.pop(metric)


def coarse_registers(rows: np.ndarray, values: Values) -> None:
    for metric in (Metric.EXPORT_WH, Metric.IMPORT_WH):
        values[metric] = np.floor(values[metric] / 1000.0) * 1000.0


def slow_registers() -> Lie:
    """Registers that move once a quarter of an hour, on meters that repeat a steady load."""
    held: dict[int, tuple[int, float, float]] = {}
    number = [0]

    def lie(rows: np.ndarray, values: Values) -> None:
        number[0] += 1
        values[W] = np.round(values[W], -2)
        for place, row in enumerate(rows.tolist()):
            at = number[0] // 30
            if row not in held or held[row][0] != at:
                held[row] = (at, values[Metric.EXPORT_WH][place], values[Metric.IMPORT_WH][place])
            _, values[Metric.EXPORT_WH][place], values[Metric.IMPORT_WH][place] = held[row]

    return lie


@pytest.mark.parametrize(
    ("lie", "period_s", "hours"),
    [
        (None, 60.0, 24.0),
        (None, 20.0, 2.0),
        (to_steps(10.0), 60.0, 8.0),
        (to_steps(500.0), 60.0, 8.0),
        (constant, 60.0, 8.0),
        (coarse_registers, 60.0, 8.0),
        (slow_registers(), 60.0, 8.0),
    ],
    ids=["day", "fast", "10 W", "500 W", "nominal", "kWh registers", "slow registers"],
)
def test_a_healthy_fleet_raises_nothing(lie: Lie | None, period_s: float, hours: float) -> None:
    world = World(
        devices=105,
        seed=5,
        period_s=period_s,
        step_s=min(period_s, 30.0 if lie else 60.0),
        starts_at_h=0.0 if hours == 24.0 else 7.0,
        lie=lie,
    )
    world.run(hours * 3600)
    assert not world.ever.any(), [bit.name for bit in Condition if world.ever_having(bit)]
    assert world.notices == []


def test_a_healthy_fleet_under_orders_raises_nothing() -> None:
    world = World(devices=140, period_s=4.0, step_s=2.0, starts_at_h=9.0)
    world.run(120)
    rows = world.of(DeviceKind.BATTERY)
    up_w = world.made.enrolled.nameplate_up_w[rows]
    for part in (0.5, -0.5, 0.0, 0.9, -0.9, 0.3):
        world.order(rows, part * up_w)
        world.run(60)
    assert not world.ever.any()


def turned(values: Values, which: np.ndarray) -> None:
    values[W][which] *= -1.0


def in_kw(values: Values, which: np.ndarray) -> None:
    values[W][which] = np.round(values[W][which] / 1000.0, 3)


@pytest.mark.parametrize(
    ("change", "bit", "kinds"),
    [
        (turned, Condition.SIGN_TURNED, MOVING),
        (in_kw, Condition.UNIT_WRONG, MOVING),
    ],
)
def test_registers_betray_a_meter_and_clear_it_again(
    change: Callable[[Values, np.ndarray], None], bit: Condition, kinds: tuple[DeviceKind, ...]
) -> None:
    world = World(devices=120, period_s=30.0, step_s=10.0, starts_at_h=9.0)
    victims = world.of(*kinds)[::3]
    world.lie = only(victims, change)
    world.run(40 * 60)
    assert world.having(bit) == set(victims.tolist())
    world.lie = None
    world.run(60 * 60)
    assert not world.having(bit)
    assert world.ever_having(bit) == set(victims.tolist())
    assert not world.ever[~np.isin(world.made.enrolled.device_no.argsort(), victims)].any()


@pytest.mark.parametrize(
    ("change", "bit"), [(turned, Condition.SIGN_TURNED), (in_kw, Condition.UNIT_WRONG)]
)
def test_commands_betray_a_meter_within_a_minute(
    change: Callable[[Values, np.ndarray], None], bit: Condition
) -> None:
    world = World(devices=100, period_s=4.0, step_s=2.0)
    rows = world.of(DeviceKind.BATTERY)
    victims = rows[::3]
    world.lie = only(victims, change)
    world.run(60)
    world.order(rows, 0.6 * world.made.enrolled.nameplate_up_w[rows])
    world.run(40)
    assert world.having(bit) == set(victims.tolist())


def test_batteries_that_do_not_obey_are_not_given_another_fault() -> None:
    world = World(devices=140, period_s=4.0, step_s=2.0)
    rows = world.of(DeviceKind.BATTERY)
    world.run(60)
    for part in (0.6, -0.6):
        world.order(rows, part * world.made.enrolled.nameplate_up_w[rows], obey=False)
        world.run(40)
    assert not world.ever.any()


def test_charge_betrays_a_turned_meter_with_its_register() -> None:
    """Where the register lies behind the same meter, only the battery itself knows."""

    def both(values: Values, which: np.ndarray) -> None:
        turned(values, which)
        exported, imported = values[Metric.EXPORT_WH], values[Metric.IMPORT_WH]
        exported[which], imported[which] = imported[which], exported[which]

    world = World(devices=60, period_s=20.0, step_s=10.0, mix={"battery": 1.0})
    rows = np.arange(60)
    world.lie = only(rows[::2], both)
    # Not as ordered: on their own schedule they discharge at a quarter of what they can.
    world.physics.setpoint_w[:] = 0.3 * world.made.enrolled.nameplate_up_w
    world.run(50 * 60)
    assert world.having(Condition.SIGN_TURNED) == set(rows[::2].tolist())


def test_frozen_meters_are_found_and_melt() -> None:
    world = World(devices=120, period_s=20.0, step_s=20.0, starts_at_h=8.0)
    world.run(600)
    pv = world.of(DeviceKind.PV)
    sunny = pv[world.physics.power_w[pv] > 0.1 * world.made.enrolled.nameplate_up_w[pv]]
    world.meters._frozen[sunny] = True
    world.run(3 * 3600)
    assert len(world.having(Condition.FROZEN)) >= 0.8 * len(sunny)
    assert world.ever_having(Condition.FROZEN) <= set(sunny.tolist())
    world.meters._frozen[:] = False
    world.run(60)
    assert not world.having(Condition.FROZEN)


def test_a_meter_that_stands_still_while_its_device_obeys_is_frozen() -> None:
    world = World(devices=100, period_s=4.0, step_s=2.0, starts_at_h=10.0)
    world.run(60)
    rows = world.of(DeviceKind.BATTERY)
    world.order(rows, 0.3712 * world.made.enrolled.nameplate_up_w[rows])
    world.run(40)
    world.meters._frozen[rows[::2]] = True
    world.run(20)
    assert not world.having(Condition.FROZEN)  # holding a setpoint is no fault
    world.order(rows, -0.6 * world.made.enrolled.nameplate_up_w[rows])
    world.run(40)
    assert world.having(Condition.FROZEN) <= set(rows[::2].tolist())
    assert len(world.having(Condition.FROZEN)) >= 0.8 * len(rows[::2])


@pytest.mark.parametrize("skew_s", [-90.0, 90.0])
def test_a_wrong_clock_is_found_and_set_right(skew_s: float) -> None:
    world = World(devices=40, period_s=20.0, step_s=20.0, skew_s=skew_s)
    world.run(1200)
    assert len(world.having(Condition.CLOCK_WRONG)) == 40
    assert not (world.fleet.condition[:40] & DISTRUSTED).any()
    world.meters._skew_ns[:] = 0
    world.run(900)
    assert not world.having(Condition.CLOCK_WRONG)


# Sessions.


def conditions(fleet: Fleet, row: int = 0) -> set[Condition]:
    return {bit for bit in Condition if int(fleet.condition[row]) & bit}


def test_three_losses_in_five_minutes_are_flapping_until_calm() -> None:
    fleet = fleet_of()
    for number in range(1, 4):
        say(fleet, sessions((0, UP, number), at_s=number * 90.0))
        say(fleet, sessions((0, DOWN, number), at_s=number * 90.0 + 60.0))
        tick(fleet, number * 90.0 + 61.0)
        assert conditions(fleet) == ({Condition.FLAPPING} if number == 3 else set())
    tick(fleet, 330.0 + 590.0)
    assert conditions(fleet) == {Condition.FLAPPING}
    tick(fleet, 330.0 + 601.0)
    assert conditions(fleet) == set()


def test_losses_far_apart_are_no_flapping() -> None:
    fleet = fleet_of()
    for number in range(1, 9):
        say(fleet, sessions((0, UP, number), (0, DOWN, number), at_s=number * 151.0))
        tick(fleet, number * 151.0 + 1.0)
        assert conditions(fleet) == set()


def test_three_takeovers_in_five_minutes_are_contested() -> None:
    """R-25: the newest session wins each time; the third time in five minutes is an alarm."""
    fleet = fleet_of()
    say(fleet, sessions((0, UP, 1), (1, UP, 1), (2, UP, 1)))
    for number in range(2, 5):
        # 1 says goodbye before it comes again; of 2 the endpoint says who ended it.
        say(fleet, sessions((0, UP, number), (1, DOWN, number - 1), (1, UP, number), at_s=number))
        say(fleet, sessions((2, TAKEN, number - 1), (2, UP, number), at_s=number))
        tick(fleet, number + 0.5)
        assert conditions(fleet) == ({Condition.CONTESTED} if number == 4 else set())
        assert conditions(fleet, 2) == conditions(fleet)
        assert fleet.connected[:3].all()
        assert fleet.session[0] == number
    assert conditions(fleet, 1) == {Condition.FLAPPING}
    assert distrusted(fleet, np.arange(2, dtype=np.int32)).tolist() == [True, False]


def test_sessions_told_again_or_in_another_order_count_once() -> None:
    rows = [(0, UP, 1), (0, UP, 2), (0, UP, 3), (0, DOWN, 3), (0, UP, 4)]
    fleet, other = fleet_of(), fleet_of()
    say(fleet, sessions(*rows, at_s=1.0))
    say(other, sessions(*reversed(rows), at_s=1.0), sessions(*rows, at_s=1.0))
    for each in (fleet, other):
        assert (each.taken_at_s[:, 0] > 0).tolist() == [True, True, False]
        assert (each.lost_at_s[:, 0] > 0).tolist() == [True, False, False]


# Commands.


def ask(fleet: Fleet, revision: int, at_s: float, *, connected: bool = True) -> None:
    """Ask device 0, let the time for an answer pass, and tell what was found."""
    say(fleet, block([power(0, at_s, 0.0)]))
    tick(fleet, at_s + 0.5)
    say(fleet, commands([0], 3000.0, revision, at_s=at_s), phases([0], Phase.SENT, revision))
    say(fleet, phases([0], Phase.UNKNOWN, revision, at_s + 6.0))
    say(fleet, phases([0], Phase.UNKNOWN, revision, at_s + 7.0))


@pytest.mark.parametrize("status", [AckStatus.REJECTED, AckStatus.ACCEPTED, AckStatus.EXPIRED])
def test_a_device_that_reports_and_never_answers_is_deaf_until_it_does(status: AckStatus) -> None:
    fleet = fleet_of()
    say(fleet, sessions((0, UP, 1)))
    for revision in range(1, 4):
        ask(fleet, revision, revision * 10.0)
        tick(fleet, revision * 10.0 + 8.0)
        assert conditions(fleet) == ({Condition.DEAF} if revision == 3 else set())
    say(fleet, acks([0], AckStatus.RECEIVED, 3, 40.0))
    tick(fleet, 41.0)
    assert conditions(fleet) == {Condition.DEAF}  # its transport is not the device
    say(fleet, acks([0], status, 2, 42.0))
    tick(fleet, 43.0)
    assert conditions(fleet) == set()


def test_silence_and_lost_sessions_are_not_deafness() -> None:
    fleet = fleet_of()
    for revision in range(1, 6):
        ask(fleet, revision, revision * 10.0)
        tick(fleet, revision * 10.0 + 8.0)
    assert conditions(fleet) == set()


# What follows from it.


def test_who_has_a_condition_is_not_counted_on_and_comes_back() -> None:
    fleet = fleet_of()
    every = np.arange(4, dtype=np.int32)
    say(fleet, sessions(*[(no, UP, 1) for no in range(4)]))
    say(fleet, block([power(no, 1.0, 500.0) for no in range(4)]))
    tick(fleet, 1.5)
    for bit in Condition:
        doubted = bool(np.uint16(bit) & DISTRUSTED)
        mark(fleet, np.array([1, 2]), bit, np.array([True, True]))
        part = summarise(fleet, FleetSettings()).resources[0]
        assert trust.controllable(fleet, every).tolist() == [True, not doubted, not doubted, True]
        assert part.conditions == {bit.name.lower(): 2}
        assert part.excluded == ({"condition": 2} if doubted else {})
        void = untrusted(fleet, every)
        assert part.measured_w == pytest.approx(2000.0 - 500.0 * void.sum())
        assert void[1] == (doubted and bit != Condition.DEAF)
        mark(fleet, np.array([1, 2]), bit, np.array([False, False]))
    assert trust.controllable(fleet, every).all()
    assert fleet.condition_at_s[1] == s(1.5) // 10**9


def test_enrolments_count_changes_alone() -> None:
    fleet = fleet_of()
    assert fleet.enrolments[:4].tolist() == [1, 1, 1, 1]
    say(fleet, enrolled([0, 1]))
    assert fleet.enrolments[:4].tolist() == [1, 1, 1, 1]
    say(fleet, enrolled([0, 1], vendor=(b"maker-0", b"other")))
    assert fleet.enrolments[:4].tolist() == [1, 2, 1, 1]
