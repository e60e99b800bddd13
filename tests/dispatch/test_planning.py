"""Orders whose target changes: planned ahead by how long stores last, checked before use (R-23)."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dispatch.planning_worlds import Plant, drawn, feasible_w

from kapelle.dispatch.memory import ControlState
from kapelle.dispatch.planning.groups import Groups, Window, groups, way_of, window
from kapelle.dispatch.planning.lookahead import Ahead, Unplanned, look_ahead
from kapelle.dispatch.planning.physics import violation
from kapelle.fleet.curve import rations
from kapelle.fleet.profiles import Part
from kapelle.fleet.stores import stores
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.signals import Signal

LENGTH_S = 900.0
JUST = 0.95
"""Of what a linear program over every single device says is possible."""
MET = 0.97


def shape_of(seed: int, *, both: bool = False) -> np.ndarray:
    rng = np.random.default_rng(1000 + seed)
    shape = rng.uniform(0.1, 1.0, 4)
    return shape * np.where(rng.random(4) < 0.4, -1.0, 1.0) if both else shape


def ordered(seed: int, *, both: bool = False, just: float = JUST) -> tuple[Plant, np.ndarray]:
    batteries, shape = drawn(seed), shape_of(seed, both=both)
    targets_w = just * feasible_w(batteries, shape, LENGTH_S / 3600.0) * shape
    return Plant(batteries), targets_w


def greedy(there: Groups, left: Window) -> Ahead | Unplanned:
    """Plan well and let everybody do as he likes: what it is without look-ahead."""
    found = look_ahead(there, left)
    return found if isinstance(found, Unplanned) else replace(found, most=np.ones(len(there)))


@pytest.mark.parametrize("seed", range(3))
def test_real_devices_deliver_what_a_solver_that_knows_each_of_them_says_is_possible(
    seed: int,
) -> None:
    plant, targets_w = ordered(seed)
    share = plant.delivered(targets_w, LENGTH_S) / targets_w
    assert [step.committed_w for step in plant.plan.profile] == pytest.approx(targets_w.tolist())
    assert share.min() >= MET, share
    assert share.max() <= 1.02, share


def test_what_is_taken_first_is_given_later() -> None:
    plant, targets_w = ordered(0, both=True)
    assert targets_w.min() < 0 < targets_w.max()
    share = plant.delivered(targets_w, LENGTH_S) / targets_w
    assert share.min() >= MET, share


def test_without_look_ahead_the_last_interval_pays_for_the_first() -> None:
    shape = np.array([0.8, 0.4, 0.3, 1.0])
    batteries = drawn(6)
    targets_w = JUST * feasible_w(batteries, shape, LENGTH_S / 3600.0) * shape
    with_it = Plant(batteries).delivered(targets_w, LENGTH_S) / targets_w
    without = Plant(batteries)
    without.solve_with(greedy)
    share = without.delivered(targets_w, LENGTH_S) / targets_w
    assert with_it.min() >= MET, with_it
    assert share[0] >= MET
    assert share[-1] < 0.95, share


def test_a_new_dispatcher_goes_on_where_the_old_one_was() -> None:
    plant, targets_w = ordered(1)
    plant.order(targets_w, LENGTH_S)
    powers_w = []
    for second in range(120):
        if second == 60:
            plant.state = ControlState()
        plant.cycle()
        plant.run(1.0)
        powers_w.append(plant.setpoint_w.sum())
    after = np.array(powers_w[58:]) / targets_w[0]
    assert np.abs(after - 1.0).max() < 0.03


def test_plans_change_hands_without_a_jump() -> None:
    plant, targets_w = ordered(2)
    plant.order(targets_w, 60.0)
    for second in range(239):
        plant.cycle()
        plant.run(1.0)
        wanted_w = targets_w[second // 60]
        before_w = targets_w[max(second - 2, 0) // 60]
        assert plant.setpoint_w.sum() <= max(wanted_w, before_w) * 1.02, second


def test_what_cannot_be_is_promised_in_part_and_said_by_interval() -> None:
    plant, targets_w = ordered(3, just=1.5)
    plant.order(targets_w, LENGTH_S)
    plant.cycle()
    plant.run(1.0)
    plant.cycle()
    promised_w = np.array([step.committed_w for step in plant.plan.profile])
    assert (promised_w <= targets_w + 1.0).all()
    # Nobody gets less than the same part, and what is left goes to whom it helps.
    assert (promised_w / targets_w).min() == pytest.approx(1.0 / 1.5, rel=0.03)
    assert "interval" in plant.plan.reason


@given(st.integers(0, 10_000), st.sampled_from(["up", "down", "both"]))
@settings(max_examples=40, deadline=None)
def test_what_is_told_at_the_knots_is_no_more_than_there_is(seed: int, way: str) -> None:
    """Power and energy are kept in sum, and nobody is made to last longer than he does."""
    batteries = drawn(seed, 9)
    plant = Plant(batteries)
    ends_ns = plant.now_ns + 3600 * NS_PER_S
    signal = Signal(ALL, 1, 0.0, 0.0, 1, ends_ns, stores=way)  # type: ignore[arg-type]  # one of three
    told = stores(plant.fleet, np.arange(9, dtype=np.int32), signal)
    sums = np.sum(list(told.values()), axis=0)
    assert sums[0] == pytest.approx(batteries.power_w.sum())
    lasts_h = rations.KNOTS_S[-1] / 3600.0
    if way != "down":
        assert sums[2] == pytest.approx(
            np.minimum(batteries.give_wh, batteries.power_w * lasts_h).sum()
        )
        for hours in (0.1, 0.5, 2.0):
            held_wh = sum(
                min(power_w * hours, energy_wh) for power_w, _, energy_wh, _ in told.values()
            )
            could_wh = np.minimum(batteries.power_w * hours, batteries.give_wh).sum()
            assert held_wh <= could_wh + 1e-6
            # A quarter of an octave between knots costs no more than this.
            assert held_wh >= 0.97 * could_wh - 1e-6


def planned() -> tuple[Ahead, Groups, Window]:
    """Two stores and a load, three intervals, of which the last takes; a plan that is good."""
    told = {
        "30/30": [5_000.0, 5_000.0, 3_000.0, 3_000.0],
        "40/20": [4_000.0, 4_000.0, 9_000.0, 600.0],
        "free": [1_000.0, 500.0, 0.0, 0.0],
    }
    parts = [Part(0, 900, 6_000.0), Part(900, 1_800, 8_000.0), Part(1_800, 2_700, -3_000.0)]
    stretches = [Part(p[0] * NS_PER_S, p[1] * NS_PER_S, p[2]) for p in parts]
    left = window(stretches, 0)
    there = groups([told], 1e6, way_of(p.target_w for p in parts), 3)
    found = look_ahead(there, left)
    assert isinstance(found, Ahead)
    return found, there, left


def test_a_good_plan_passes() -> None:
    assert violation(*planned()) == ""


def _with_nan(plan: Ahead) -> Ahead:
    power_w = plan.power_w.copy()
    power_w[1, 0] = np.nan
    return replace(plan, power_w=power_w)


def _drained(plan: Ahead) -> Ahead:
    """A store down to -247 %, the others idle: the sums are right."""
    power_w = np.zeros_like(plan.power_w)
    power_w[:2, 0] = [6_000.0, 8_000.0]
    return replace(plan, power_w=power_w)


BAD = {
    "not a number": _with_nan,
    "beyond what a group has": _drained,
    "while devices could give": lambda plan: replace(
        plan, power_w=plan.power_w * 0.0, short_w=np.array([6_000.0, 8_000.0, 3_000.0])
    ),
    "off the target": lambda plan: replace(plan, power_w=plan.power_w * 0.5),
    "not within 0 and 1": lambda plan: replace(plan, most=plan.most + 1.0),
    "ration is not a number": lambda plan: replace(plan, most=plan.most * np.nan),
    "smaller than what the plan needs": lambda plan: replace(plan, most=plan.most * 0.0),
    "another shape": lambda plan: replace(plan, power_w=plan.power_w[:1]),
    "not between nothing": lambda plan: replace(plan, short_w=plan.short_w - 9_000.0),
}


@pytest.mark.parametrize("said", BAD)
def test_a_plan_that_cannot_be_is_named_by_what_it_violates(said: str) -> None:
    plan, there, left = planned()
    assert said in violation(BAD[said](plan), there, left)


def test_energy_is_kept_between_reserve_and_full_over_the_whole_window() -> None:
    plan, there, left = planned()
    energy_wh = np.where(np.isfinite(there.energy_wh), there.energy_wh, 1e12)
    short = replace(there, energy_wh=energy_wh * np.array([0.2, 1.0]))
    assert "energy falls to −" in violation(plan, short, left)
    full = replace(there, energy_wh=energy_wh * np.array([1.0, 0.0]), power_w=there.power_w * 4.0)
    plan = replace(plan, most=np.ones(len(there)))
    taking = replace(left, want_w=-left.want_w)
    assert "beyond full" in violation(plan, full, taking)


@pytest.mark.parametrize("said", [*BAD, "the solver ended"])
def test_a_rejected_plan_leaves_the_last_good_one_in_force_and_is_told_once(said: str) -> None:
    plant, targets_w = ordered(4)
    plant.order(targets_w, LENGTH_S)
    for _ in range(10):
        plant.cycle()
        plant.run(1.0)
    good = plant.rationing
    assert good is not None

    def bad(there: Groups, left: Window) -> Ahead | Unplanned:
        found = look_ahead(there, left)
        if said == "the solver ended":
            return Unplanned("the solver ended with 'Infeasible'")
        assert isinstance(found, Ahead)
        if said == "beyond what a group has":
            return replace(found, power_w=found.power_w * 0.0 + 1e9)
        if said == "while devices could give":
            return replace(found, power_w=found.power_w * 0.0, short_w=np.abs(left.want_w))
        return BAD[said](found)

    plant.solve_with(bad)
    for _ in range(60):
        plant.cycle()
        plant.run(1.0)
    told = [notice for notice in plant.said if notice.code == "plan-rejected"]
    assert len(told) == 1
    assert said in told[0].text
    assert "the last plan stays" in told[0].text
    assert plant.rationing == good
    assert plant.setpoint_w.sum() == pytest.approx(targets_w[0], rel=0.05)
    plant.solve_with(look_ahead)
    for _ in range(10):
        plant.cycle()
        plant.run(1.0)
    assert plant.said[-1].code == "plan-accepted"


def test_without_any_good_plan_everything_is_held_to_the_end() -> None:
    plant, targets_w = ordered(4, just=0.3)
    plant.solve_with(lambda *_: Unplanned("the solver ended with 'Time limit reached'"))
    plant.order(targets_w, LENGTH_S)
    for _ in range(10):
        plant.cycle()
        plant.run(1.0)
    assert plant.rationing is None
    assert "no look-ahead" in next(n.text for n in plant.said if n.code == "plan-rejected")
    assert plant.setpoint_w.sum() == pytest.approx(targets_w[0], rel=0.02)
