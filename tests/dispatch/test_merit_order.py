"""Tiers are used up in order, weights count, limits of every sort hold: against a solver, by seed.

Each case goes the way every target takes: the partitions' curves, one pair of levels, a setpoint
for each device.
"""

from dataclasses import dataclass, replace

import highspy
import numpy as np
import pytest
from tests.dispatch.merit_worlds import NOW_S, divided, enrolled, fleet_of, rows_of

from kapelle.dispatch.allocation import solve_with_blocks
from kapelle.dispatch.delivery import decide
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, sums
from kapelle.fleet.curve.corners import LATER, TIER
from kapelle.fleet.curve.ramps import SOON_S
from kapelle.fleet.desired import apply_commands
from kapelle.fleet.enrol import apply_enrolled
from kapelle.fleet.traits import AHEAD_S
from kapelle.model.blocks import Commands
from kapelle.model.enums import DeviceKind, Metric, Phase
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.signals import Signal

CASES = 1_000


@dataclass
class Case:
    """A handful of devices in one or two partitions, with something particular about most."""

    fleets: list[Fleet]
    tier: np.ndarray
    weight: np.ndarray
    own_w: np.ndarray
    up_w: np.ndarray
    down_w: np.ndarray
    seed: int

    def head_w(self, sign: int) -> np.ndarray:
        return self.up_w if sign > 0 else self.down_w


def draw_case(seed: int, *, with_steps: bool = False) -> Case:
    draw = np.random.default_rng(seed)
    size, partitions = int(draw.integers(1, 9)), int(draw.integers(1, 3))
    up_w = draw.choice([0.0, 2000.0, 5000.0, 9000.0], size)
    down_w = np.where(up_w == 0.0, 4000.0, draw.choice([0.0, 3000.0, 6000.0], size))
    own_w = np.round(draw.uniform(-down_w, up_w))
    priority = draw.choice([np.nan, 0.25, 1.0, 2.0, 10.0], size)
    tier = draw.integers(0, 16, size) if seed % 3 else draw.integers(0, 2, size)
    must_run = (draw.random(size) < 0.2).astype(np.uint8)
    steps = np.where(draw.random(size) < 0.5, draw.integers(1, 6, size), 0) * with_steps
    kind = np.where(up_w == 0.0, DeviceKind.BATTERY, DeviceKind.GENERATOR)
    block = enrolled(
        size,
        kind=kind.astype(np.uint8),
        nameplate_up_w=up_w,
        nameplate_down_w=down_w,
        priority=priority,
        tier=tier.astype(np.uint8),
        must_run=must_run,
        steps=steps.astype(np.uint8),
    )
    head_up_w, head_down_w = up_w - own_w, own_w + down_w
    # Less than a fiftieth of nameplate is noise, and who must run goes one way only.
    least_w = 0.02 * np.maximum(up_w, down_w)
    head_up_w[(head_up_w <= least_w) | ((must_run == 1) & (up_w == 0.0))] = 0.0
    head_down_w[(head_down_w <= least_w) | ((must_run == 1) & (up_w > 0.0))] = 0.0
    fleets = [fleet_of(block, own_w, partition, partitions) for partition in range(partitions)]
    weight = np.where(np.isnan(priority), 1.0, priority)
    return Case(fleets, tier, weight, own_w, head_up_w, head_down_w, seed)


def fairest(
    target_w: float,
    weight: np.ndarray,
    least_w: np.ndarray,
    most_w: np.ndarray,
    tier: np.ndarray,
) -> np.ndarray:
    """Return the moves HiGHS finds: least sum of move² / weight, any lower tier before a higher."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("primal_feasibility_tolerance", 1e-9)
    solver.setOptionValue("dual_feasibility_tolerance", 1e-9)
    count = len(weight)
    # In kilowatts, and tiers no further apart than they must be: the solver is exact to the watt.
    cost = 8.0 * np.unique(tier, return_inverse=True)[1]
    for place in range(count):
        solver.addVar(float(least_w[place]) / 1e3, float(most_w[place]) / 1e3)
        solver.changeColCost(place, float(cost[place]))
    solver.addRow(target_w / 1e3, target_w / 1e3, count, np.arange(count), np.ones(count))
    hessian = highspy.HighsHessian()
    hessian.dim_ = count
    hessian.format_ = highspy.HessianFormat.kTriangular
    hessian.start_ = np.arange(count + 1)
    hessian.index_ = np.arange(count)
    hessian.value_ = 1e3 / weight
    solver.passHessian(hessian)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return 1e3 * np.array(solver.getSolution().col_value)


def test_lower_tiers_are_used_up_first_and_weights_share_within_each() -> None:
    for seed in range(CASES):
        case = draw_case(seed)
        part = np.random.default_rng(seed).uniform(-1.1, 1.1)
        sign = 1 if part >= 0 else -1
        head_w = case.head_w(sign)
        own_w, room_w = float(case.own_w.sum()), float(head_w.sum())
        made_w, found = divided(case.fleets, own_w + part * room_w)
        moved_w = sign * (made_w - case.own_w)
        expected_w = min(abs(part), 1.0) * room_w
        assert abs(float(moved_w.sum()) - expected_w) < 1.0, seed
        assert abs(found.reached_w - own_w - sign * expected_w) < 1.0, seed
        assert (moved_w >= -1e-6).all(), seed
        assert (moved_w <= head_w + 1e-6).all(), seed
        able = head_w > 0.0
        used = np.array([moved_w[case.tier == tier].sum() for tier in range(16)])
        full = np.array([head_w[case.tier == tier].sum() for tier in range(16)])
        last = np.flatnonzero(used > 1.0)[-1] if (used > 1.0).any() else 0
        np.testing.assert_allclose(used[:last], full[:last], atol=1.0, err_msg=f"seed {seed}")
        if able.any() and 1.0 < expected_w < room_w - 1.0:
            weight, zero_w = case.weight[able] * head_w[able], np.zeros(int(able.sum()))
            best_w = fairest(expected_w, weight, zero_w, head_w[able], case.tier[able])
            np.testing.assert_allclose(moved_w[able], best_w, atol=1.0, err_msg=f"seed {seed}")


def test_steps_come_near_and_those_without_make_good_the_rest() -> None:
    for seed in range(CASES):
        case = draw_case(seed, with_steps=True)
        part = np.random.default_rng(seed).uniform(-1.0, 1.0)
        sign = 1 if part >= 0 else -1
        curves = [sums.summed(fleet, rows_of(fleet)) for fleet in case.fleets]
        lines = [line for line, _ in curves]
        stairs = [each for _, each in curves]
        line_low_w, line_high_w = (sum(line.power_w[end] for line in lines) for end in (0, -1))
        low_w, high_w = (sum(each.power_w[end] for each in (*lines, *stairs)) for end in (0, -1))
        own_w = float(case.own_w.sum())
        target_w = own_w + abs(part) * ((high_w if sign > 0 else low_w) - own_w)
        made_w, found = divided(case.fleets, target_w)
        total_w = float(made_w.sum())
        assert abs(total_w - found.reached_w) < 1.0, seed
        steps_w = [0.0]
        for fleet in case.fleets:
            stepped = np.flatnonzero(fleet.steps[: fleet.size])
            for row in stepped:
                made = float(made_w[fleet.device_nos(np.array([row], np.int32))[0]])
                levels_w = admissible_w(fleet, int(row))
                steps_w.append(float(np.diff(np.sort(levels_w)).max(initial=0.0)))
                assert min(abs(made - level) for level in levels_w) < 1e-6, seed
        # As near as one step; to the watt where others can make good a whole one.
        assert abs(total_w - target_w) <= max(steps_w) + 1.0, seed
        if line_high_w - line_low_w > 2 * sum(steps_w) and abs(part) < 0.5:
            reach_w = min(high_w - target_w, target_w - low_w)
            if reach_w > 2 * sum(steps_w):
                assert abs(total_w - target_w) < 1.0, seed


def admissible_w(fleet: Fleet, row: int) -> list[float]:
    """Return every power a stepped device may have, plainly."""
    steps, own_w = int(fleet.steps[row]), float(fleet.own_w[row])
    up_w, down_w = float(fleet.nameplate_up_w[row]), float(fleet.nameplate_down_w[row])
    grid = [up_w * k / steps for k in range(steps + 1)] + [
        -down_w * k / steps for k in range(1, steps + 1)
    ]
    if steps == 1:
        grid = [up_w, -down_w]
    if fleet.must_run[row]:
        grid = [each for each in grid if (each <= own_w if up_w == 0.0 else each >= own_w)]
    return [*grid, own_w]


def test_the_staircase_of_many_follows_the_line_of_as_many_without_steps() -> None:
    size = 3_000
    draw = np.random.default_rng(4)
    down_w = draw.choice([3000.0, 6000.0, 9000.0], size)
    given = {"nameplate_down_w": down_w, "kind": np.full(size, DeviceKind.WATER_HEATER, np.uint8)}
    block = enrolled(size, steps=draw.integers(1, 5, size).astype(np.uint8), **given)
    fleet = fleet_of(block, -down_w, 0, 1)
    rows = rows_of(fleet)
    _, stairs = sums.summed(fleet, rows)
    for level in (0.1, 0.35, 0.5, 0.8, 1.0):
        setpoint_w = division.setpoints(fleet, rows, 0.0, level)
        moved_w = np.where(np.isnan(setpoint_w), 0.0, setpoint_w + down_w)
        assert moved_w.sum() == pytest.approx(level * down_w.sum(), abs=0.01 * down_w.sum())
        passed = int(np.searchsorted(stairs.level, level, side="right")) - 1
        assert stairs.power_w[passed] + down_w.sum() <= moved_w.sum() + 1e-6


def slow_case(seed: int) -> tuple[Case, np.ndarray, np.ndarray]:
    """Return devices on their way somewhere, and the lowest and highest power each gets to soon."""
    case = draw_case(seed)
    draw = np.random.default_rng(seed + 10**6)
    size = len(case.own_w)
    ramp = draw.choice([np.nan, 10.0, 100.0, 400.0], size)
    now_w = case.own_w + np.where(
        draw.random(size) < 0.5, 0.0, draw.uniform(-case.down_w, case.up_w)
    )
    lowest_w, highest_w = case.own_w - case.down_w, case.own_w + case.up_w
    for fleet in case.fleets:
        numbers = fleet.device_nos(rows_of(fleet))
        fleet.ramp_w_per_s[:] = ramp[numbers]
        fleet.value[Metric.POWER_W] = now_w[numbers]
        nameplate_w = np.maximum(fleet.nameplate_up_w, fleet.nameplate_down_w)
        slow = ramp[numbers] * AHEAD_S < nameplate_w
        fleet.traits[:] |= (slow * 64).astype(np.uint8)
        far_w = ramp[numbers] * SOON_S
        near = numbers[slow]
        lowest_w[near] = np.clip(now_w[near] - far_w[slow], lowest_w[near], highest_w[near])
        highest_w[near] = np.clip(
            now_w[near] + far_w[slow],
            case.own_w[near] - case.down_w[near],
            case.own_w[near] + case.up_w[near],
        )
    return case, lowest_w, highest_w


def test_slow_devices_are_asked_for_what_they_reach_and_others_take_the_rest() -> None:
    for seed in range(CASES):
        case, lowest_w, highest_w = slow_case(seed)
        base_w = np.clip(case.own_w, lowest_w, highest_w)
        able = (case.up_w > 0.0) & (highest_w > base_w)
        room_w = float((highest_w - base_w)[able].sum())
        lines = [sums.summed(fleet, rows_of(fleet))[0] for fleet in case.fleets]
        resting_w = sum(float(np.interp(0.0, line.level, line.power_w)) for line in lines)
        assert resting_w == pytest.approx(float(base_w.sum()), abs=1e-3), seed
        # The ends of a curve say what can be held, however long it takes to get there.
        ends_w = sum(line.power_w[-1] for line in lines)
        gone_w = np.where(case.up_w > 0.0, case.own_w + case.up_w, base_w)
        assert ends_w == pytest.approx(float(gone_w.sum()), abs=1e-3), seed
        part = np.random.default_rng(seed).uniform(0.05, 0.95)
        if room_w < 10.0:
            continue
        target_w = float(base_w.sum()) + part * room_w
        made_w, _ = divided(case.fleets, target_w, base_w)
        weight = case.weight * case.up_w
        # Told to go on a little further, they get no further before others answer.
        made_w = np.where(able, np.clip(made_w, lowest_w, highest_w), base_w)
        best_w = fairest(
            target_w - float(base_w[~able].sum()) - float(case.own_w[able].sum()),
            weight[able],
            (base_w - case.own_w)[able],
            (highest_w - case.own_w)[able],
            case.tier[able],
        )
        np.testing.assert_allclose(
            (made_w - case.own_w)[able], best_w, atol=1.0, err_msg=f"seed {seed}"
        )


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("part", [-0.9, 0.02, 0.5, 0.97])
def test_twenty_thousand_devices_of_every_sort_end_exact(part: float, partitions: int) -> None:
    """Curves of many are counted into cells and thinned; the next ones are finer where it counts.

    What can be there in a moment is asked for to the watt, and the ends say what can be held.
    """
    draw, size = np.random.default_rng(3), 20_000
    rating_w = draw.choice([3000.0, 5000.0, 11_000.0], size)
    block = enrolled(
        size,
        nameplate_up_w=rating_w,
        nameplate_down_w=rating_w,
        tier=draw.integers(0, 16, size).astype(np.uint8),
        priority=draw.uniform(0.2, 5.0, size),
        ramp_w_per_s=np.where(draw.random(size) < 0.2, 20.0, np.nan),
        steps=np.where(draw.random(size) < 0.2, 3, 0).astype(np.uint8),
    )
    own_w = draw.uniform(-1000, 1000, size)
    fleets = [fleet_of(block, own_w, partition, partitions) for partition in range(partitions)]
    slow = (block.ramp_w_per_s == 20.0) & (block.steps == 0)
    # Half of the slow are on their way already, or back.
    now_w = np.where(slow & (draw.random(size) < 0.5), draw.uniform(-1, 1, size) * rating_w, own_w)
    for fleet in fleets:
        fleet.value[Metric.POWER_W] = now_w[fleet.device_nos(rows_of(fleet))]
    curves = [sums.summed(fleet, rows_of(fleet)) for fleet in fleets]
    reach_w = np.where(slow, 20.0 * SOON_S, np.inf)
    lowest_w = np.clip(now_w - reach_w, -rating_w, rating_w)
    highest_w = np.clip(now_w + reach_w, -rating_w, rating_w)
    end_w = np.where(part > 0, rating_w, -rating_w)
    held_w = sum(each.power_w[-1 if part > 0 else 0] for pair in curves for each in pair)
    assert held_w == pytest.approx(float(end_w.sum()), abs=1.0)
    resting_w = float(np.clip(own_w, lowest_w, highest_w).sum())
    soon_w = float(np.clip(end_w, lowest_w, highest_w).sum())
    target_w = resting_w + abs(part) * (soon_w - resting_w)
    level = block_level = 0.0
    for _ in range(5):
        curves = [sums.summed(fleet, rows_of(fleet), level, block_level) for fleet in fleets]
        for line, stairs in curves:
            for each in (line, stairs):
                assert len(each.level) <= 256
                assert (np.diff(each.level) > 0.0).all()
                assert (np.diff(each.power_w) >= -1e-6).all()
        lines, stairs = zip(*curves, strict=True)
        found = solve_with_blocks(lines, stairs, target_w, block_level)
        level, block_level = found.level, found.block_level
    made_w = np.zeros(size)
    for fleet in fleets:
        setpoint_w = division.setpoints(fleet, rows_of(fleet), level, block_level)
        numbers = fleet.device_nos(rows_of(fleet))
        made_w[numbers] = np.where(np.isnan(setpoint_w), fleet.own_w, setpoint_w)
    made_w = np.clip(made_w, lowest_w, highest_w)
    assert abs(float(made_w.sum()) - target_w) < 5.0
    # Nobody is before his turn: of those without steps, tiers below are full, those above rest.
    plain = (block.steps == 0) & ~slow
    used_w = np.abs(made_w - own_w)
    last = int(abs(level) // TIER)
    full_w = np.abs(end_w - own_w)
    np.testing.assert_allclose(
        used_w[plain & (block.tier < last)], full_w[plain & (block.tier < last)]
    )
    assert not used_w[plain & (block.tier > last)].any()


def test_what_slow_devices_cannot_reach_yet_is_asked_when_nothing_else_is_left() -> None:
    block = enrolled(2, nameplate_up_w=np.full(2, 10_000.0), ramp_w_per_s=np.array([100.0, np.nan]))
    fleet = fleet_of(block, np.zeros(2), 0, 1)
    made_w, found = divided([fleet], 8_000.0)
    # In a moment it is at 250 W; told to go to 500, it still moves when it is asked again.
    np.testing.assert_allclose(made_w, [500.0, 7_750.0], atol=1.0)
    assert found.level < TIER
    made_w, found = divided([fleet], 15_000.0)
    np.testing.assert_allclose(made_w, [5_000.0, 10_000.0], atol=1.0)
    assert found.level > LATER * TIER
    assert found.highest_w == 20_000.0
    # As it arrives, it takes over what it will give in the end.
    for now_w in np.arange(500.0, 4_500.0, 500.0):
        fleet.value[Metric.POWER_W, 0] = now_w
        made_w, _ = divided([fleet], 8_000.0)
    np.testing.assert_allclose(made_w, [4_000.0, 4_000.0], atol=1.0)


def test_who_has_to_stay_keeps_his_setpoint_and_others_move() -> None:
    kind = np.full(3, DeviceKind.HEAT_PUMP, np.uint8)
    kind[2] = DeviceKind.BATTERY
    block = enrolled(
        3,
        kind=kind,
        nameplate_up_w=np.array([0.0, 0.0, 5000.0]),
        nameplate_down_w=np.full(3, 3000.0),
        min_off_s=np.array([600.0, 600.0, np.nan]),
    )
    fleet = fleet_of(block, np.array([-3000.0, -3000.0, 0.0]), 0, 1)
    # The first was switched off by us a minute ago, the second runs as it likes.
    fleet.value[Metric.POWER_W, 0], fleet.desired_w[0], fleet.phase[0] = 0.0, 0.0, Phase.VERIFIED
    fleet.switched_at_s[:2], fleet.is_on[:2] = (NOW_S - 60, 0), (False, True)
    for target_w in (-5_500.0, -3_000.0, 2_000.0):
        made_w, _ = divided([fleet], target_w)
        assert made_w[0] == 0.0
        assert made_w.sum() == pytest.approx(target_w, abs=1.0)
    setpoint_w = division.setpoints(fleet, rows_of(fleet), 0.0, 0.0)
    assert setpoint_w[0] == 0.0
    assert np.isnan(setpoint_w[1])
    fleet.now_ns += 600 * NS_PER_S
    assert np.isnan(division.setpoints(fleet, rows_of(fleet), 0.0, 0.0)[0])


def test_who_opts_out_is_released_at_once_and_replaced() -> None:
    block = enrolled(2, nameplate_up_w=np.full(2, 5_000.0))
    fleet = fleet_of(block, np.zeros(2), 0, 1)
    say_level(fleet, 0.5)
    told = commands_of(fleet)
    assert told.setpoint_w.tolist() == [2_500.0, 2_500.0]
    follow(fleet, told)
    until_ns = np.array([fleet.now_ns + 60 * NS_PER_S, 0])
    apply_enrolled(fleet, replace(block, opted_out_until_ns=until_ns))
    line, _ = sums.summed(fleet, rows_of(fleet))
    assert line.power_w[-1] == 5_000.0
    told = commands_of(fleet)
    assert told.device_no.tolist() == [0]
    assert told.order_no.tolist() == [0]
    assert np.isnan(told.setpoint_w).all()


def test_nobody_is_told_anything_before_his_tier_is_reached() -> None:
    tier = np.array([0, 3], np.uint8)
    fleet = fleet_of(enrolled(2, nameplate_up_w=np.full(2, 5_000.0), tier=tier), np.zeros(2), 0, 1)
    say_level(fleet, 0.5)
    assert commands_of(fleet).device_no.tolist() == [0]
    say_level(fleet, 3 * TIER + 0.5)
    told = commands_of(fleet)
    assert told.setpoint_w.tolist() == [5_000.0, 2_500.0]
    follow(fleet, told)
    # A target that falls back to just the lower tier does not release and ask them in turns …
    say_level(fleet, 2 * TIER + 0.5)
    assert commands_of(fleet).setpoint_w.tolist() == [0.0]
    # … but one that falls further does.
    say_level(fleet, 0.5)
    assert np.isnan(commands_of(fleet).setpoint_w[1])


def follow(fleet: Fleet, told: Commands) -> None:
    """Have every device do what it was told."""
    apply_commands(fleet, told)
    fleet.phase[:] = Phase.APPLIED
    fleet.reverts_at_ns[:] = fleet.now_ns + 120 * NS_PER_S


def say_level(fleet: Fleet, level: float) -> None:
    ends_ns = fleet.now_ns + 900 * NS_PER_S
    fleet.signals[ALL] = Signal(ALL, 1, level, level, 1, ends_ns)


def commands_of(fleet: Fleet) -> Commands:
    (told,) = [body for body in decide(fleet, DispatchSettings(), 1) if isinstance(body, Commands)]
    return told
