"""Shares in proportion until limits bind, exact to the watt, and the nearest feasible target."""

import json
from pathlib import Path

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.dispatch.allocation import (
    allocate,
    joined,
    joined_stairs,
    power_at,
    power_at_stairs,
    solve,
    solve_with_blocks,
)
from kapelle.model.plant import Curve

WATTS = st.integers(0, 9000).map(float)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return weight, lower, upper and own power of a handful of devices."""
    size = draw(st.integers(1, 8))
    own_w = np.array(draw(st.lists(st.integers(-3000, 3000), min_size=size, max_size=size)), float)
    up_w = np.array(draw(st.lists(WATTS, min_size=size, max_size=size)))
    down_w = np.array(draw(st.lists(WATTS, min_size=size, max_size=size)))
    weights = st.sampled_from([0.0, 100.0, 450.0, 900.0, 1000.0, 5000.0])
    weight = np.array(draw(st.lists(weights, min_size=size, max_size=size)))
    return weight, own_w - down_w, own_w + up_w, own_w


def least_squares_shares(target_w: float, weight: np.ndarray, head_w: np.ndarray) -> np.ndarray:
    """Return what HiGHS finds for: least sum of share² / weight that meets the target."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("primal_feasibility_tolerance", 1e-9)
    solver.setOptionValue("dual_feasibility_tolerance", 1e-9)
    count = len(weight)
    for head in head_w:
        solver.addVar(0.0, float(head))
    solver.addRow(target_w, target_w, count, np.arange(count), np.ones(count))
    hessian = highspy.HighsHessian()
    hessian.dim_ = count
    hessian.format_ = highspy.HessianFormat.kTriangular
    hessian.start_ = np.arange(count + 1)
    hessian.index_ = np.arange(count)
    hessian.value_ = 1000.0 / weight
    solver.passHessian(hessian)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return np.array(solver.getSolution().col_value)


@settings(deadline=None, max_examples=150)
@given(fleets(), st.floats(-1.1, 1.1))
def test_water_filling_is_the_fairest_division_there_is(
    fleet: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], part: float
) -> None:
    weight, lower_w, upper_w, own_w = fleet
    head_w = np.where(weight > 0, upper_w - own_w if part >= 0 else own_w - lower_w, 0.0)
    target_w = part * float(head_w.sum())
    found = allocate(target_w, weight, lower_w, upper_w, own_w)
    share_w = (found.setpoints_w - own_w) * (1 if part >= 0 else -1)

    assert (found.setpoints_w >= lower_w).all()
    assert (found.setpoints_w <= upper_w).all()
    assert abs(float(found.setpoints_w.sum() - own_w.sum()) + found.remainder_w - target_w) < 1e-6
    assert bool(found.binding) == (abs(found.remainder_w) > 0)
    if abs(part) <= 1.0:
        assert abs(found.remainder_w) < 1.0
        able = head_w > 0
        if able.any() and target_w:
            expected_w = least_squares_shares(abs(target_w), weight[able], head_w[able])
            np.testing.assert_allclose(share_w[able], expected_w, atol=1.0)


def test_published_cases(shared: Path) -> None:
    golden = json.loads((shared / "goldens" / "allocation.json").read_text())
    for case in golden["cases"]:
        capacity = np.array(case["capacity_kwh"], float)
        available = np.array(case["soc_pct"], float) - case["soc_lower_pct"]
        limit_w = np.array(case["limit_w"], float)
        zero = np.zeros(len(limit_w))
        found = allocate(case["power_w"], capacity * available, -limit_w, limit_w, zero)
        np.testing.assert_allclose(found.setpoints_w, case["share_w"], atol=golden["tolerance_w"])
        assert found.remainder_w == pytest.approx(case["remainder_w"], abs=golden["tolerance_w"])


def test_what_cannot_be_met_is_said() -> None:
    own_w, up_w = np.zeros(3), np.array([1000.0, 500.0, 0.0])
    found = allocate(2000.0, np.ones(3), -up_w, up_w, own_w)
    assert found.remainder_w == 500.0
    assert found.binding == "all 2 devices are at their upper limit"
    assert found.setpoints_w.tolist() == up_w.tolist()


def test_a_hundred_thousand_devices_are_exact_to_the_watt() -> None:
    draw = np.random.default_rng(1)
    head_w = draw.uniform(0, 10_000, 100_000)
    weight = head_w * draw.uniform(0.01, 1, 100_000)
    zero = np.zeros(100_000)
    for part in (0.01, 0.5, 0.9, 0.999):
        target_w = part * float(head_w.sum())
        found = allocate(target_w, weight, zero, head_w, zero)
        assert abs(float(found.setpoints_w.sum()) - target_w) < 1.0


LINE_A = Curve(
    [-1024.0, -1.0, 0.0, 1.0, 2.0, 1024.0], [-500.0, -500.0, 0.0, 1000.0, 1500.0, 1500.0]
)
LINE_B = Curve([-1024.0, -2.0, 0.0, 0.5, 1024.0], [-300.0, -300.0, 100.0, 400.0, 400.0])
STAIRS = Curve(
    [-1024.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1024.0],
    [-7000.0, -7000.0, -6000.0, -4000.0, -2000.0, 0.0, 0.0],
)


@given(st.floats(-900, 2000))
def test_solving_meets_the_target_or_the_nearest_end(target_w: float) -> None:
    level = solve([LINE_A, LINE_B], target_w)
    reached_w = power_at(LINE_A, level) + power_at(LINE_B, level)
    assert reached_w == pytest.approx(min(max(target_w, -800.0), 1900.0), abs=1e-6)


def test_of_equal_levels_the_one_nearest_to_rest_is_taken() -> None:
    assert solve([LINE_A, LINE_B], 5000.0) == 2.0
    assert solve([LINE_A, LINE_B], -5000.0) == -2.0
    assert solve([], 0.0) == 0.0


@given(st.floats(-9000, 2000), st.floats(-1, 1))
def test_blocks_are_whole_and_the_rest_is_exact(target_w: float, block_level: float) -> None:
    found = solve_with_blocks([LINE_A, LINE_B], [STAIRS], target_w, block_level)
    lines_w = power_at(LINE_A, found.level) + power_at(LINE_B, found.level)
    stairs_w = power_at_stairs(STAIRS, found.block_level)
    assert stairs_w in STAIRS.power_w
    assert lines_w + stairs_w == pytest.approx(found.reached_w, abs=1e-6)
    # Blocks of 2 kW (1 kW downwards) and lines that move 2.7 kW leave no gap between them.
    assert found.reached_w == pytest.approx(
        min(max(target_w, found.lowest_w), found.highest_w), abs=1e-6
    )


def test_blocks_alone_come_as_near_as_whole_blocks_can() -> None:
    found = solve_with_blocks([], [STAIRS], -3100.0)
    assert found.reached_w == -4000.0
    assert found.block_level == 0.25
    found = solve_with_blocks([], [STAIRS], -2900.0)
    assert found.reached_w == -2000.0


def test_blocks_stay_while_the_rest_can_be_made_good() -> None:
    first = solve_with_blocks([LINE_A], [STAIRS], -3000.0)
    again = solve_with_blocks([LINE_A], [STAIRS], -2900.0, first.block_level)
    assert again.block_level == first.block_level
    assert again.reached_w == pytest.approx(-2900.0)


def test_sums_of_curves_are_sums_at_every_level() -> None:
    level, power_w = joined([LINE_A, LINE_B])
    for at, total_w in zip(level, power_w, strict=True):
        assert total_w == pytest.approx(power_at(LINE_A, at) + power_at(LINE_B, at))
    level, power_w = joined_stairs([STAIRS, STAIRS])
    for at, total_w in zip(level, power_w, strict=True):
        assert total_w == pytest.approx(2 * power_at_stairs(STAIRS, at))
