"""One number in, every setpoint out; and the sum of the setpoints as a curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, limits, sums, trust
from kapelle.fleet.desired import NEVER_NS
from kapelle.model.enums import DeviceKind, Exclusion, Freshness, Metric
from kapelle.model.ids import NS_PER_S
from kapelle.model.signals import Signal
from kapelle.model.summaries import Curve
from kapelle.sim.physics import EFFICIENCY as PHYSICAL

LEVELS = st.floats(-1100, 1100) | st.floats(-3, 3)


def make_fleet(seed: int, size: int, partitions: int = 1) -> Fleet:
    """Return devices of every kind, with gaps, some silent, some without a known charge."""
    draw = np.random.default_rng(seed)
    fleet = Fleet.empty(0, partitions, size)
    fleet.reserve(size)
    fleet.active[:] = draw.random(size) < 0.95
    fleet.kind[:] = draw.integers(0, len(DeviceKind), size)
    gives = np.isin(fleet.kind, (DeviceKind.BATTERY, DeviceKind.PV, DeviceKind.GENERATOR))
    fleet.nameplate_up_w[:] = gives * draw.choice([3000.0, 5000.0, 9000.0], size)
    fleet.nameplate_down_w[:] = (fleet.kind != DeviceKind.PV) * draw.uniform(1000, 9000, size)
    stores = np.isin(fleet.kind, (DeviceKind.BATTERY, DeviceKind.EV))
    fleet.energy_wh[stores] = draw.uniform(500, 20_000, int(stores.sum()))
    fleet.reserve_soc[:] = 0.1
    fleet.value[Metric.SOC] = np.where(draw.random(size) < 0.9, draw.random(size), np.nan)
    fleet.value[Metric.MIN_W] = np.where(draw.random(size) < 0.5, -4000.0, np.nan)
    fleet.value[Metric.MAX_W] = np.where(draw.random(size) < 0.5, 4500.0, np.nan)
    fleet.own_w[:] = draw.uniform(-3000, 3000, size)
    fleet.freshness[:] = draw.choice([Freshness.LIVE, Freshness.LATE, Freshness.STALE], size)
    fleet.connected[:] = draw.random(size) < 0.9
    fleet.excluded[:] = draw.choice([0, 0, 0, 0, Exclusion.DIVERGED], size)
    fleet.revert_s[:] = np.where(draw.random(size) < 0.8, 120.0, np.nan)
    fleet.responses[:] = draw.uniform(0, 9, size)
    fleet.refusals[:] = draw.uniform(0.1, 3, size)
    return fleet


def rows_of(fleet: Fleet) -> np.ndarray:
    return np.arange(fleet.size, dtype=np.int32)


def power_w(fleet: Fleet, level: float, block_level: float, horizon: float = 900.0) -> float:
    """Sum the setpoints, slowly and obviously."""
    total_w = 0.0
    for row in rows_of(fleet)[trust.controllable(fleet, rows_of(fleet))]:
        one = np.array([row], np.int32)
        setpoint_w = division.setpoints(fleet, one, level, block_level, horizon)[0]
        own_w = division.shares(fleet, one, horizon).own_w[0]
        total_w += own_w if np.isnan(setpoint_w) else setpoint_w
    return total_w


def at(line: Curve, level: float) -> float:
    return float(np.interp(level, line.level, line.power_w))


def at_stairs(stairs: Curve, level: float) -> float:
    corners = np.asarray(stairs.level)
    if level >= 0:
        return stairs.power_w[int(np.searchsorted(corners, level, side="right")) - 1]
    return stairs.power_w[int(np.searchsorted(corners, level, side="left"))]


@given(st.integers(0, 50), st.integers(1, 40), LEVELS, LEVELS)
def test_setpoints_stay_within_bounds_and_nameplate(
    seed: int, size: int, level: float, block_level: float
) -> None:
    fleet = make_fleet(seed, size)
    setpoint_w = division.setpoints(fleet, rows_of(fleet), level, block_level)
    lower_w, upper_w = limits.bounds(fleet, rows_of(fleet))
    told = ~np.isnan(setpoint_w)
    assert (setpoint_w[told] >= lower_w[told] - 1e-6).all()
    assert (setpoint_w[told] <= upper_w[told] + 1e-6).all()
    assert (upper_w <= fleet.nameplate_up_w).all()
    assert (lower_w >= -fleet.nameplate_down_w).all()


@given(st.integers(0, 50), st.integers(1, 40), LEVELS, LEVELS)
def test_more_level_never_means_less_power(seed: int, size: int, a: float, b: float) -> None:
    fleet = make_fleet(seed, size)
    low, high = min(a, b), max(a, b)
    assert power_w(fleet, low, low) <= power_w(fleet, high, high) + 1e-6


@given(st.integers(0, 50), st.integers(1, 40), LEVELS, LEVELS)
def test_the_curve_of_a_small_fleet_is_the_sum_of_its_setpoints(
    seed: int, size: int, level: float, block_level: float
) -> None:
    fleet = make_fleet(seed, size)
    line, stairs = sums.summed(fleet, rows_of(fleet))
    expected_w = power_w(fleet, level, block_level)
    assert at(line, level) + at_stairs(stairs, block_level) == np.float64(expected_w).round(
        6
    ) or np.isclose(at(line, level) + at_stairs(stairs, block_level), expected_w, atol=1e-3)


@given(st.integers(0, 20), st.sampled_from([300, 5000, 70_000]), st.floats(-2, 2))
def test_knots_are_few_ascending_and_exact(seed: int, size: int, near: float) -> None:
    fleet = make_fleet(seed, size)
    rows = rows_of(fleet)
    rows = rows[trust.controllable(fleet, rows)]
    line, stairs = sums.summed(fleet, rows_of(fleet), near, near)
    for each in (line, stairs):
        assert len(each.level) <= 256
        assert (np.diff(each.level) > 0).all()
        assert (np.diff(each.power_w) >= -1e-6).all()
        assert each.level[0] == -division.TIER
        assert each.level[-1] == division.TIER
    part = division.shares(fleet, rows)
    for knot in (0, len(line.level) // 3, len(line.level) // 2, -2):
        level = line.level[knot]
        setpoint_w = division.setpoints(fleet, rows, level, 0.0)
        exact_w = np.where(np.isnan(setpoint_w), part.own_w, setpoint_w)[~part.switched].sum()
        assert np.isclose(line.power_w[knot], exact_w, rtol=1e-9, atol=1e-2)


def test_solving_again_and_again_ends_on_the_exact_sum() -> None:
    fleet = make_fleet(3, 20_000)
    rows = rows_of(fleet)[trust.controllable(fleet, rows_of(fleet))]
    part = division.shares(fleet, rows)
    target_w, level = float(part.own_w[~part.switched].sum() + 0.6 * part.up_w.sum()), 0.0
    for _ in range(4):
        line, _ = sums.summed(fleet, rows, level)
        level = float(np.interp(target_w, line.power_w, line.level))
    setpoint_w = division.setpoints(fleet, rows, level, 0.0)
    exact_w = np.where(np.isnan(setpoint_w), part.own_w, setpoint_w)[~part.switched].sum()
    assert abs(exact_w - target_w) < 1e-5 * abs(target_w)


def test_shares_follow_what_each_can_hold_and_is_likely_to_deliver() -> None:
    fleet = make_fleet(1, 3)
    fleet.active[:] = fleet.connected[:] = True
    fleet.kind[:] = DeviceKind.BATTERY
    fleet.nameplate_up_w[:] = 5000.0
    fleet.energy_wh[:] = (4000.0, 4000.0, 40_000.0)
    fleet.reserve_soc[:] = 0.0
    fleet.value[Metric.SOC] = (0.25, 0.25, 0.5)
    fleet.value[Metric.MAX_W] = np.nan
    fleet.own_w[:] = 0.0
    fleet.revert_s[:] = 120.0
    fleet.responses[:], fleet.refusals[:] = (9, 4.5, 9), (1, 5.5, 1)
    setpoint_w = division.setpoints(fleet, rows_of(fleet), 0.5, 0.0, horizon=3600.0)
    # 1 kWh over an hour is 1 kW, less 5 % on the way; half the probability, half the share; the
    # nameplate binds the third.
    np.testing.assert_allclose(setpoint_w, [0.45 * 950, 0.225 * 950, 0.45 * 5000], rtol=1e-6)


@given(
    soc=st.floats(0.0, 1.0),
    reserve=st.floats(0.0, 0.5),
    hours=st.floats(0.01, 8.0),
)
def test_what_a_store_can_hold_it_holds_to_the_end_and_no_longer(
    soc: float, reserve: float, hours: float
) -> None:
    """As batteries lose on the way in and out, in simulation as well."""
    fleet = make_fleet(1, 1)
    fleet.kind[:] = DeviceKind.BATTERY
    fleet.value[Metric.MAX_W] = fleet.value[Metric.MIN_W] = np.nan
    fleet.nameplate_up_w[:] = fleet.nameplate_down_w[:] = 1e9
    fleet.energy_wh[:], fleet.reserve_soc[:] = 10_000.0, reserve
    fleet.value[Metric.SOC] = soc
    lower_w, upper_w = limits.bounds(fleet, rows_of(fleet), 3600.0 * hours)
    given_wh, taken_wh = float(upper_w[0]) * hours, -float(lower_w[0]) * hours
    left = soc - given_wh / PHYSICAL / 10_000.0
    assert left == pytest.approx(min(soc, float(fleet.reserve_soc[0])), abs=1e-5)
    assert soc + taken_wh * PHYSICAL / 10_000.0 == pytest.approx(1.0, abs=1e-5)


def test_unknown_charge_is_neither_full_nor_empty() -> None:
    fleet = make_fleet(1, 1)
    fleet.kind[:] = DeviceKind.BATTERY
    fleet.energy_wh[:] = 10_000.0
    fleet.value[Metric.SOC] = np.nan
    lower_w, upper_w = limits.bounds(fleet, rows_of(fleet))
    assert lower_w[0] <= 0.0 <= upper_w[0]
    assert upper_w[0] - lower_w[0] == 0.0


def test_a_signal_in_force_sets_the_horizon() -> None:
    fleet = make_fleet(1, 1)
    fleet.now_ns = NS_PER_S
    assert division.horizon_s(fleet, "all") == limits.HOLD_S
    fleet.signals["all"] = Signal("all", 7, 0.5, 0.5, 1, 3601 * NS_PER_S)
    assert division.horizon_s(fleet, "all") == 3600.0
    fleet.now_ns = 3600 * NS_PER_S
    assert division.horizon_s(fleet, "all") == limits.HOLD_S_MIN
    fleet.now_ns = 3601 * NS_PER_S
    assert division.horizon_s(fleet, "all") == limits.HOLD_S


@pytest.mark.parametrize(
    ("answer_s", "ahead_w"),
    [(0.1, [5000.0, 5000.0]), (0.5, [0.0, 5000.0]), (1.5, [0.0, 0.0]), (99.0, [0.0, 0.0])],
)
def test_a_revert_is_replaced_as_far_ahead_of_it_as_answers_take(
    answer_s: float, ahead_w: list[float]
) -> None:
    fleet = make_fleet(1, 4)
    fleet.now_ns = 100 * NS_PER_S
    fleet.freshness[:] = Freshness.STALE
    fleet.freshness[3] = Freshness.LIVE
    fleet.reverts_at_ns[:] = (np.array([101.2, 102.2, 150, 101.2]) * NS_PER_S).astype(np.int64)
    fleet.planned_at_ns[:2] = 50 * NS_PER_S
    fleet.applied_at_ns[:2] = 50 * NS_PER_S + int(answer_s * NS_PER_S)
    fleet.own_w[:] = 0.0
    left_w = trust.left_alone_w(fleet, rows_of(fleet), np.full(4, 5000.0))
    assert left_w.tolist() == [*ahead_w, 5000.0, 5000.0]


def by_vendor(*groups: list[int]) -> dict[str, np.ndarray]:
    """Return the states of vendors of whom so many are late, of so many devices."""
    states = np.zeros((len(groups), len(Freshness)), np.intp)
    for code, (late, devices) in enumerate(groups):
        states[code, Freshness.LATE], states[code, Freshness.LIVE] = late, devices - late
    return {"vendor": states}


def test_a_timer_that_never_ends_does_not_fade() -> None:
    fleet = make_fleet(1, 1)
    fleet.active[:], fleet.freshness[:] = True, Freshness.STALE
    fleet.own_w[:], fleet.estimate_w[:] = 0.0, 4000.0
    fleet.reverts_at_ns[:] = NEVER_NS
    assert trust.fading(fleet, rows_of(fleet), by_vendor([1, 1])) == (0.0, 0.0, 0.0)


def test_what_a_silent_vendor_holds_is_known_to_fade() -> None:
    fleet = make_fleet(1, 20)
    fleet.now_ns = 100 * NS_PER_S
    fleet.active[:] = fleet.connected[:] = True
    fleet.excluded[:] = 0
    fleet.kind[:] = DeviceKind.GENERATOR
    fleet.nameplate_up_w[:], fleet.nameplate_down_w[:] = 5000.0, 0.0
    fleet.value[Metric.MAX_W] = fleet.value[Metric.MIN_W] = np.nan
    fleet.energy_wh[:] = np.nan
    fleet.own_w[:], fleet.estimate_w[:] = 1000.0, 4000.0
    fleet.reverts_at_ns[:] = 150 * NS_PER_S
    fleet.vendor[:] = np.repeat([0, 1], 10)
    fleet.freshness[:] = Freshness.LIVE
    fleet.freshness[[0, 10, 11, 12, 13, 14, 15]] = Freshness.LATE
    fleet.freshness[[16, 17]] = Freshness.STALE
    fleet.reverts_at_ns[17] = 90 * NS_PER_S
    found = trust.fading(fleet, rows_of(fleet), by_vendor([1, 10], [8, 10]))
    assert found == (3000.0, 6 * 4000.0, 6 * 1000.0)
    few = by_vendor([1, 10], [2, 10])
    assert trust.fading(fleet, rows_of(fleet), few) == (3000.0, 0.0, 0.0)
    # The two that are not late yet should have been heard by now: they are gone with the others.
    fleet.cadence_s[:] = 4.0
    fleet.heard_at_ns[:] = (100 - 6) * NS_PER_S
    found = trust.fading(fleet, rows_of(fleet), by_vendor([1, 10], [8, 10]))
    assert found == (3000.0, 8 * 4000.0, 8 * 1000.0)
    # One of them was heard just now: whoever is heard is counted on.
    fleet.heard_at_ns[18] = 99 * NS_PER_S
    found = trust.fading(fleet, rows_of(fleet), by_vendor([1, 10], [8, 10]))
    assert found == (3000.0, 6 * 4000.0, 6 * 1000.0)


def test_a_load_is_curtailed_as_far_as_it_says_and_no_further() -> None:
    fleet = make_fleet(1, 2)
    fleet.kind[:] = DeviceKind.LOAD
    fleet.nameplate_up_w[:], fleet.nameplate_down_w[:] = 0.0, 5000.0
    fleet.energy_wh[:] = np.nan
    fleet.own_w[:] = -2000.0
    fleet.value[Metric.MAX_W] = (-400.0, np.nan)
    fleet.value[Metric.MIN_W] = np.nan
    lower_w, upper_w = limits.bounds(fleet, rows_of(fleet))
    assert upper_w.tolist() == [-400.0, 0.0]
    assert lower_w.tolist() == [-2000.0, -2000.0]
