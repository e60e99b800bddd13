"""Profiles amended, held or left by their dispatcher: what is asked now counts at once."""

import numpy as np
import pytest
from tests.dispatch.planning_worlds import Plant, Stores

from kapelle.dispatch.memory import ControlState
from kapelle.dispatch.planning.groups import groups, way_of, window
from kapelle.dispatch.planning.lookahead import Ahead, Unplanned, look_ahead
from kapelle.dispatch.planning.physics import violation
from kapelle.fleet.curve import rations
from kapelle.fleet.profiles import Part, largest_w
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Amend, Hold, Interval

PLENTY = Stores(np.full(12, 5_000.0), np.full(12, 10_000.0), np.full(12, 0.6))
"""60 kW either way for more than half an hour."""


def seconds(plant: Plant, count: int) -> list[float]:
    """Let time go by; return what devices did each second. [kW]"""
    found = []
    for _ in range(count):
        plant.cycle()
        plant.run(1.0)
        found.append(float(plant.setpoint_w.sum()) / 1e3)
    return found


def amend(plant: Plant, targets_w: list[float], length_s: int) -> None:
    now_ns = plant.now_ns
    past = [step for step in plant.view.orders[1].order.profile if step.starts_at_ns < now_ns]
    rest = [Interval(now_ns + n * length_s * NS_PER_S, w) for n, w in enumerate(targets_w)]
    ends_ns = now_ns + len(targets_w) * length_s * NS_PER_S
    profile = (*past, *rest)
    plant.say(Amend(1, largest_w(profile), ends_ns, now_ns, profile=profile))


def test_a_dispatcher_that_was_away_while_the_sign_changed_turns_devices_round_at_once() -> None:
    plant = Plant(PLENTY)
    plant.order(np.array([40e3, -40e3]), 60.0)
    seconds(plant, 57)
    plant.now_ns += 6 * NS_PER_S
    plant.state = ControlState()
    assert seconds(plant, 20)[1:] == pytest.approx([-40.0] * 19, rel=0.02)


def test_an_amended_profile_that_turns_round_is_promised_what_devices_can_take() -> None:
    plant = Plant(PLENTY)
    plant.order(np.array([40e3, 20e3]), 60.0)
    seconds(plant, 30)
    amend(plant, [-40e3, -20e3], 120)
    done = seconds(plant, 20)
    assert [step.committed_w for step in plant.plan.profile[1:]] == [-40e3, -20e3]
    assert done[4:] == pytest.approx([-40.0] * 16, rel=0.02)


def test_a_plan_for_what_is_no_longer_asked_is_not_followed() -> None:
    """Rations of the first profile leave little to its first interval."""
    plant = Plant(Stores(np.full(12, 5_000.0), np.full(12, 1_500.0), np.full(12, 0.6)))
    plant.order(np.array([8e3, 30e3, 30e3]), 600.0)
    seconds(plant, 40)
    amend(plant, [50e3, 1e3], 60)
    assert seconds(plant, 20)[5:] == pytest.approx([50.0] * 15, rel=0.02)


def test_without_its_profile_an_order_is_held_to_the_end_again() -> None:
    plant = Plant(PLENTY)
    plant.order(np.array([40e3, -40e3]), 60.0)
    seconds(plant, 30)
    order = plant.view.orders[1].order
    # 58 kWh above the reserve, in ten hours and a half.
    plant.say(Amend(1, 20e3, plant.now_ns + 37_800 * NS_PER_S, plant.now_ns))
    assert order.profile
    seconds(plant, 10)
    assert plant.rationing is None
    assert plant.plan.committed_w == pytest.approx(5.4e3, rel=0.05)


def test_what_was_announced_before_a_hold_does_not_come_into_force_after_it() -> None:
    plant = Plant(PLENTY)
    plant.order(np.array([40e3, -40e3]), 60.0)
    seconds(plant, 58)
    plant.say(Hold(True, plant.now_ns))
    assert seconds(plant, 20)[1:] == [0.0] * 19
    plant.say(Hold(False, plant.now_ns))
    assert seconds(plant, 10) == pytest.approx([-40.0] * 10, rel=0.02)


def test_what_is_taken_after_giving_is_planned_though_more_giving_would_make_room_for_more() -> (
    None
):
    # A full store that gives 1 kWh has not room for 2.
    told = {"40/40": [10_000.0, 10_000.0, 10_000.0, 0.0]}
    parts = [Part(0, 3_600 * NS_PER_S, 1_000.0), Part(3_600 * NS_PER_S, 7_200 * NS_PER_S, -2_000.0)]
    left = window(parts, 0)
    there = groups([told], left.lasts_s, "both", 2)
    found = look_ahead(there, left)
    assert isinstance(found, Ahead), found
    assert violation(found, there, left) == ""
    assert found.short_w == pytest.approx([0.0, 1_000.0], abs=1.0)


@pytest.mark.parametrize("intervals", [1, 2, 4, 12, 48, 96])
def test_a_plan_has_few_groups_however_many_durations_there_are(intervals: int) -> None:
    """Each is a program of its own, and dispatch waits for all of them."""
    told = {
        f"{up}/{down}": [1e3, 1e3, *(1e3 * rations.KNOTS_S[[up, down]] / 3600.0)]
        for up in range(rations.KNOTS)
        for down in range(rations.KNOTS)
    }
    assert len(groups([told], 1e6, way_of([1.0, -1.0]), intervals)) <= 50


def test_a_solver_that_raises_is_one_that_found_nothing() -> None:
    plant = Plant(PLENTY)

    def fails(*_: object) -> Ahead:
        raise RuntimeError("no memory")

    plant.solve_with(fails)
    plant.order(np.array([20e3, 10e3]), 60.0)
    assert seconds(plant, 10)[5:] == pytest.approx([20.0] * 5, rel=0.02)
    assert "no memory" in next(n.text for n in plant.said if n.code == "plan-rejected")


def test_energy_that_is_not_a_number_is_not_taken_for_endless() -> None:
    left = window([Part(0, 3_600 * NS_PER_S, 1_000.0)], 0)
    there = groups([{"30/0": [1e3, 0.0, np.nan, 0.0]}], left.lasts_s * 10, "up")
    assert isinstance(look_ahead(there, left), Unplanned)
