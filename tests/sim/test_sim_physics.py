"""Devices obey physics: limits, energy balance, own schedules, comfort before orders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S
from kapelle.sim.clock import NOON_NS
from kapelle.sim.devices import Devices, FleetPlan, make_fleet
from kapelle.sim.physics import EFFICIENCY, Physics

ALL_KINDS = {kind.name.lower(): 1 / len(DeviceKind) for kind in DeviceKind}


def fleet(devices: int = 70, mix: dict[str, float] | None = None, seed: int = 1) -> Devices:
    plan = FleetPlan(devices=devices, partitions=3, mix=mix or ALL_KINDS)
    return make_fleet(plan, np.random.default_rng(seed))


def physics(devices: Devices, seed: int = 1, at_ns: int = NOON_NS) -> Physics:
    return Physics(devices, np.random.default_rng(seed), at_ns)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    hour=st.integers(0, 23),
    steps=st.lists(st.tuples(st.floats(0.1, 1.0), st.floats(-1.2, 1.2)), min_size=1, max_size=40),
)
def test_no_device_leaves_its_limits_and_energy_adds_up(
    seed: int, hour: int, steps: list[tuple[float, float]]
) -> None:
    devices = fleet(21, seed=seed)
    world = physics(devices, seed, NOON_NS + hour * 3600 * NS_PER_S)
    block = devices.enrolled
    rated_w = np.maximum(block.nameplate_up_w, block.nameplate_down_w)
    net_wh = world.export_wh - world.import_wh
    booked_wh = np.zeros(len(devices))
    now_ns = world.now_ns
    for dt_s, share in steps:
        world.setpoint_w = np.where(np.arange(len(devices)) % 3 == 0, np.nan, share * rated_w)
        now_ns += round(dt_s * NS_PER_S)
        before_ns = world.now_ns
        world.step(now_ns)
        booked_wh += world.power_w * ((now_ns - before_ns) / NS_PER_S / 3600)
        assert (world.power_w <= block.nameplate_up_w + 1e-9).all()
        assert (world.power_w >= -block.nameplate_down_w - 1e-9).all()
        assert (world.min_w <= world.max_w).all()
        charge = world.soc[~np.isnan(world.soc)]
        assert ((charge >= 0) & (charge <= 1)).all()
    moved_wh = world.export_wh - world.import_wh - net_wh
    np.testing.assert_allclose(moved_wh, booked_wh, atol=1e-6)


def test_a_battery_loses_a_tenth_on_the_way_round() -> None:
    world = physics(fleet(10, {"battery": 1.0}))
    world.soc[:] = 0.5
    energy_wh = fleet(10, {"battery": 1.0}).enrolled.energy_wh
    for now_s, setpoint_w in ((600, -1000.0), (1200, 1000.0)):
        for second in range(now_s - 600, now_s):
            world.setpoint_w[:] = setpoint_w
            world.step(NOON_NS + (second + 1) * NS_PER_S)
    lost_wh = (0.5 - world.soc) * energy_wh
    moved_wh = 1000 / 6
    expected_wh = moved_wh / EFFICIENCY - moved_wh * EFFICIENCY
    np.testing.assert_allclose(lost_wh, expected_wh, rtol=0.1)


def test_an_empty_battery_gives_nothing_and_keeps_its_reserve() -> None:
    world = physics(fleet(20, {"battery": 1.0}))
    world.soc[:] = 0.11
    for second in range(1, 1200):
        world.setpoint_w[:] = 1e6
        world.step(NOON_NS + second * NS_PER_S)
    assert (world.soc > 0.09).all()
    np.testing.assert_allclose(world.power_w, 0.0, atol=1e-6)


def test_a_setpoint_is_reached_within_the_ramp_and_left_again() -> None:
    devices = fleet(50, {"battery": 1.0})
    world = physics(devices)
    target_w = 0.5 * devices.enrolled.nameplate_up_w
    world.setpoint_w = target_w.copy()
    before_w = world.power_w.copy()
    world.step(NOON_NS + NS_PER_S)
    assert (np.abs(world.power_w - before_w) <= devices.enrolled.ramp_w_per_s + 1e-6).all()
    for second in range(2, 20):
        world.step(NOON_NS + second * NS_PER_S)
    np.testing.assert_allclose(world.power_w, target_w, rtol=0.01)
    world.setpoint_w[:] = np.nan
    for second in range(20, 40):
        world.step(NOON_NS + second * NS_PER_S)
    np.testing.assert_allclose(world.power_w, world.own_w, atol=20)


@pytest.mark.parametrize("kind", ["heat_pump", "water_heater"])
def test_comfort_goes_before_any_order(kind: str) -> None:
    devices = fleet(30, {kind: 1.0})
    world = physics(devices)
    world.setpoint_w[:] = 0.0
    for minute in range(1, 6 * 60):
        for part in range(12):
            world.step(NOON_NS + (minute * 60 + part * 5) * NS_PER_S)
    assert (world.warmth_k > -4.0).all()
    assert (world.power_w < 0).any()
    on_w = world.power_w[world.power_w < 0]
    assert np.isin(on_w, -devices.enrolled.nameplate_down_w).all()


def test_cars_come_charge_and_leave() -> None:
    devices = fleet(60, {"ev": 1.0})
    world = physics(devices)
    seen = np.zeros(len(devices), np.bool_)
    idle = np.zeros(len(devices), np.bool_)
    for minute in range(1, 16 * 60):
        plugged = world.plugged()
        world.step(NOON_NS + minute * 60 * NS_PER_S)
        seen |= world.power_w < 0
        idle |= world.power_w == 0
        assert (world.power_w <= 0).all()
        assert (world.power_w[~plugged & ~world.plugged()] == 0).all()
    assert seen.mean() > 0.8
    assert idle.all()


def test_a_charger_pauses_below_its_floor() -> None:
    plan = FleetPlan(devices=40, mix={"ev": 1.0}, ev_min_w=1380.0)
    world = physics(make_fleet(plan, np.random.default_rng(2)))
    world.setpoint_w[:] = -1000.0
    for second in range(1, 30):
        world.step(NOON_NS + second * NS_PER_S)
    # What is left is the tail of a first-order lag towards zero.
    np.testing.assert_allclose(world.power_w, 0.0, atol=1.0)


def test_the_sun_sets() -> None:
    noon, night = (
        physics(fleet(20, {"pv": 1.0}), at_ns=NOON_NS + hours * 3600 * NS_PER_S)
        for hours in (0, 11)
    )
    assert (noon.power_w > 0).all()
    assert (night.power_w == 0).all()


def test_the_same_seed_gives_the_same_fleet_and_weather() -> None:
    def trace(seed: int) -> list[float]:
        world = physics(fleet(50, seed=seed), seed)
        powers: list[float] = []
        for second in range(1, 60):
            world.step(NOON_NS + second * NS_PER_S)
            powers.append(float(world.power_w.sum()))
        return powers

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)
