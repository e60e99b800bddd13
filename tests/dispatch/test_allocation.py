"""Shares in proportion until limits bind, exact to the watt, and the nearest feasible target.

Held against a solver, published cases and plain arithmetic by the way every command takes: each
partition's curve, one level, each device's setpoint.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.dispatch.allocation import (
    Solution,
    joined,
    joined_stairs,
    power_at,
    power_at_stairs,
    solve,
    solve_with_blocks,
)
from kapelle.dispatch.delivery import decide
from kapelle.dispatch.promise import levels_for, parts_of
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet
from kapelle.fleet.plant import PlantView
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.summary import summarise
from kapelle.model.blocks import Commands
from kapelle.model.enums import DeviceKind, Freshness
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.signals import Signal
from kapelle.model.summaries import Curve


@dataclass(frozen=True)
class World:
    """Devices by what counts in a division: own schedule, room, and how readily they move."""

    own_w: np.ndarray
    up_w: np.ndarray
    down_w: np.ndarray
    readiness: np.ndarray
    kind: np.ndarray | int = DeviceKind.BATTERY

    def head_w(self, direction: float) -> np.ndarray:
        return self.up_w if direction >= 0 else self.down_w

    def fleets(self, partitions: int) -> list[Fleet]:
        """Return the partitions of a plant that has these devices."""
        count = len(self.own_w)
        every = np.arange(count)
        made = []
        for partition in range(partitions):
            mine = every[every % partitions == partition]
            fleet = Fleet.empty(partition, partitions, len(mine))
            fleet.reserve(len(mine))
            fleet.now_ns = 1_000 * NS_PER_S
            fleet.active[:] = fleet.connected[:] = True
            fleet.freshness[:] = Freshness.LIVE
            fleet.kind[:] = np.broadcast_to(self.kind, count)[mine]
            fleet.own_w[:] = self.own_w[mine]
            fleet.nameplate_up_w[:] = (self.own_w + self.up_w)[mine]
            fleet.nameplate_down_w[:] = (self.down_w - self.own_w)[mine]
            fleet.revert_s[:] = 120.0
            fleet.responses[:] = self.readiness[mine]
            fleet.refusals[:] = 1.0 - self.readiness[mine]
            made.append(fleet)
        return made


def divided(
    world: World, target_w: float, partitions: int, cycles: int = 1
) -> tuple[np.ndarray, Solution]:
    """Divide a change as the plant does: summaries, levels, and the commands of every owner."""
    fleets = world.fleets(partitions)
    setpoint_w = world.own_w.copy()
    target_w += float(world.own_w.sum())
    block_level = 0.0
    for _ in range(cycles):
        view = PlantView(partitions)
        for fleet in fleets:
            view.summaries[fleet.partition] = summarise(fleet, FleetSettings())
        found = levels_for(parts_of(view, ALL), target_w, block_level)
        block_level = found.block_level
        for fleet in fleets:
            ends_ns = fleet.now_ns + 900 * NS_PER_S
            fleet.signals[ALL] = Signal(ALL, 1, found.level, found.block_level, 1, ends_ns)
    for fleet in fleets:
        for body in decide(fleet, DispatchSettings(), 1):
            assert isinstance(body, Commands)
            setpoint_w[body.device_no] = body.setpoint_w
    return setpoint_w, found


def plainly(target_w: float, weight: np.ndarray, head_w: np.ndarray) -> np.ndarray:
    """Return shares in proportion to weights within limits: halve the interval until it fits."""
    low, high = 0.0, 1024.0
    for _ in range(200):
        level = 0.5 * (low + high)
        if float(np.minimum(head_w, weight * level).sum()) < target_w:
            low = level
        else:
            high = level
    return np.minimum(head_w, weight * high)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return a handful of devices; room below a fiftieth of a nameplate would not count."""
    size = draw(st.integers(1, 8))
    watts = st.just(0.0) | st.integers(500, 9000).map(float)
    own_w = np.array(draw(st.lists(st.integers(-3000, 3000), min_size=size, max_size=size)), float)
    up_w = np.array(draw(st.lists(watts, min_size=size, max_size=size)))
    down_w = np.array(draw(st.lists(watts, min_size=size, max_size=size)))
    ready = st.sampled_from([0.01, 0.1, 0.45, 0.9, 1.0])
    readiness = np.array(draw(st.lists(ready, min_size=size, max_size=size)))
    return World(own_w, up_w, down_w, readiness)


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
@given(worlds(), st.floats(-1.1, 1.1), st.sampled_from([1, 2, 4]))
def test_water_filling_is_the_fairest_division_there_is(
    world: World, part: float, partitions: int
) -> None:
    head_w = world.head_w(part)
    target_w = part * float(head_w.sum())
    setpoint_w, found = divided(world, target_w, partitions)
    share_w = (setpoint_w - world.own_w) * (1 if part >= 0 else -1)

    assert (share_w >= -1e-6).all()
    assert (share_w <= head_w + 1e-6).all()
    expected_w = float(world.own_w.sum()) + min(max(part, -1.0), 1.0) * float(head_w.sum())
    assert abs(float(setpoint_w.sum()) - expected_w) < 1.0
    assert abs(found.reached_w - expected_w) < 1.0
    able = head_w > 0
    if abs(part) <= 1.0 and able.any() and abs(target_w) > 1.0:
        weight = world.readiness * head_w
        fairest_w = least_squares_shares(abs(target_w), weight[able], head_w[able])
        np.testing.assert_allclose(share_w[able], fairest_w, atol=1.0)


@pytest.mark.parametrize("partitions", [1, 2, 4])
def test_published_cases(shared: Path, partitions: int) -> None:
    golden = json.loads((shared / "goldens" / "allocation.json").read_text())
    for case in golden["cases"]:
        capacity = np.array(case["capacity_kwh"], float)
        available = np.array(case["soc_pct"], float) - case["soc_lower_pct"]
        limit_w = np.array(case["limit_w"], float)
        # A device's weight is its readiness times how far it can go.
        readiness = capacity * available / limit_w
        world = World(np.zeros(len(limit_w)), limit_w, limit_w, readiness / readiness.max())
        setpoint_w, found = divided(world, case["power_w"], partitions)
        np.testing.assert_allclose(setpoint_w, case["share_w"], atol=golden["tolerance_w"])
        remainder_w = case["power_w"] - found.reached_w
        assert remainder_w == pytest.approx(case["remainder_w"], abs=golden["tolerance_w"])


@pytest.mark.parametrize("partitions", [1, 2, 4])
@pytest.mark.parametrize(
    # Corners of many devices are counted into cells, coarse where hardly anybody moves any more.
    ("part", "within_w"),
    [(-0.9, 1.0), (0.01, 1.0), (0.5, 1.0), (0.999, 3.0)],
)
def test_twenty_thousand_devices_end_exact_to_the_watt(
    part: float, within_w: float, partitions: int
) -> None:
    """The curves of many are thinned out, and the loop closes the rest within a few cycles."""
    draw = np.random.default_rng(1)
    count = 20_000
    up_w, down_w = draw.uniform(500, 10_000, count), draw.uniform(500, 10_000, count)
    own_w, readiness = draw.uniform(-500, 500, count), draw.uniform(0.05, 1.0, count)
    world = World(own_w, up_w, down_w, readiness)
    head_w = world.head_w(part)
    target_w = part * float(head_w.sum())
    setpoint_w, _ = divided(world, target_w, partitions, cycles=4)
    assert abs(float((setpoint_w - own_w).sum()) - target_w) < within_w
    expected_w = plainly(abs(target_w), readiness * head_w, head_w)
    np.testing.assert_allclose(np.abs(setpoint_w - own_w), expected_w, atol=1.0)


@pytest.mark.parametrize("partitions", [1, 2, 4])
def test_devices_that_are_on_or_off_change_whole_and_the_others_make_good(partitions: int) -> None:
    draw = np.random.default_rng(2)
    count = 900
    kind = draw.choice([DeviceKind.BATTERY, DeviceKind.HEAT_PUMP], count).astype(np.uint8)
    switched = kind == DeviceKind.HEAT_PUMP
    own_w = np.where(switched, -2000.0, 0.0)
    up_w = np.where(switched, 2000.0, 5000.0)
    down_w = np.where(switched, 0.0, 5000.0)
    world = World(own_w, up_w, down_w, np.ones(count), kind)
    for part in (0.2, 0.55, 0.9):
        target_w = part * float(up_w.sum())
        setpoint_w, _ = divided(world, target_w, partitions, cycles=2)
        assert abs(float((setpoint_w - own_w).sum()) - target_w) < 1.0
        assert np.isin(setpoint_w[switched], [-2000.0, 0.0]).all()
        moved = float((setpoint_w[switched] == 0.0).mean())
        assert abs(moved - part) < 0.05


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
