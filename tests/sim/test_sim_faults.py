"""Faults come as asked, the same for the same seed; telemetry keeps its cadence and its numbers."""

import numpy as np

from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S
from kapelle.sim.clock import NOON_NS
from kapelle.sim.devices import Devices, FleetPlan, make_fleet
from kapelle.sim.faults import FaultPlan, Faults, GroupLoss
from kapelle.sim.world import World


def fleet(n: int = 200) -> Devices:
    return make_fleet(FleetPlan(devices=n), np.random.default_rng(1))


def faults(plan: FaultPlan, n: int = 200, seed: int = 1) -> Faults:
    return Faults(plan, fleet(n), np.random.default_rng(seed), NOON_NS)


def at(seconds: float) -> int:
    return NOON_NS + round(seconds * NS_PER_S)


def test_the_doomed_live_until_the_order() -> None:
    some = faults(FaultPlan(dead_fraction=0.1))
    some.step(at(1))
    assert some.reachable.all()
    some.kill()
    lost, _ = some.step(at(2))
    assert len(lost) == 20
    assert (~some.reachable).sum() == 20


def test_a_group_vanishes_together_is_noticed_later_and_returns_one_by_one() -> None:
    devices = fleet()
    loss = GroupLoss("vendor", "bolt", at_s=10, return_s=100)
    some = Faults(FaultPlan(group_loss=[loss]), devices, np.random.default_rng(1), NOON_NS)
    members = np.array(devices.groups("vendor")) == "bolt"
    some.step(at(9))
    assert some.reachable.all()
    some.step(at(10))
    np.testing.assert_array_equal(some.reachable, ~members)
    assert not some.noticed(at(19)).any()
    np.testing.assert_array_equal(some.noticed(at(41)), members)
    some.step(at(103))
    assert 0 < (some.reachable & members).sum() < members.sum()
    some.step(at(111))
    assert some.reachable.all()


def test_random_outages_have_the_means_they_were_given() -> None:
    some = faults(FaultPlan(mtbf_s=900, mttr_s=100), 500)
    down = []
    for second in range(0, 4000, 5):
        some.step(at(second))
        down.append((~some.reachable).mean())
    assert 0.06 < np.mean(down[200:]) < 0.14


def test_the_fate_of_messages_follows_the_plan_and_the_seed() -> None:
    plan = FaultPlan(duplicate=0.2, late_fraction=0.1, late_s=600, skew_s=30)
    one, same, other = faults(plan), faults(plan), faults(plan, seed=2)
    assert (one.skew_ns == same.skew_ns).all()
    assert (one.skew_ns != other.skew_ns).any()
    assert 20 < np.std(one.skew_ns) / NS_PER_S < 40
    assert 0.15 < one.doubled(5000).mean() < 0.25
    held_s = one.held_back_ns(5000) / NS_PER_S
    assert 0.07 < (held_s > 0).mean() < 0.13
    assert held_s.max() <= 900
    assert 0.4 < one.delivered(0.5, 5000).mean() < 0.6
    assert one.delivered(0.0, 50).all()


def test_reports_come_once_a_period_numbered_and_nearly_true() -> None:
    devices = fleet()
    world = World(devices, FaultPlan(frozen_fraction=0.1), np.random.default_rng(1), NOON_NS)
    seen: dict[int, list[int]] = {}
    for step in range(1, 241):
        world.step(at(step / 2))
        reports = world.reports(at(step / 2))
        for row, seq in zip(reports.rows.tolist(), reports.seq.tolist(), strict=True):
            seen.setdefault(row, []).append(seq)
        true_w = world.true_power_w()[reports.rows]
        told_w = reports.values[Metric.POWER_W]
        good = ~world.faults.frozen[reports.rows]
        assert (np.abs(told_w - true_w)[good] <= 0.03 * np.abs(true_w)[good] + 15).all()
    assert all(numbers == list(range(1, 31)) for numbers in seen.values())
    assert len(seen) == 200


def test_frozen_meters_repeat_themselves() -> None:
    world = World(fleet(), FaultPlan(frozen_fraction=1.0), np.random.default_rng(1), NOON_NS)
    told: dict[int, set[float]] = {}
    for second in range(1, 60):
        world.step(at(second))
        reports = world.reports(at(second))
        for row, power_w in zip(reports.rows, reports.values[Metric.POWER_W], strict=True):
            told.setdefault(int(row), set()).add(float(power_w))
    assert all(len(values) == 1 for values in told.values())


def test_who_is_out_of_reach_says_nothing_but_lives_on() -> None:
    devices = fleet()
    plan = FaultPlan(group_loss=[GroupLoss("vendor", "acme", at_s=5)])
    world = World(devices, plan, np.random.default_rng(1), NOON_NS)
    gone = np.array(devices.groups("vendor")) == "acme"
    before_wh = world.physics.export_wh + world.physics.import_wh
    for second in range(1, 120):
        world.step(at(second))
        reports = world.reports(at(second))
        if second > 5:
            assert not gone[reports.rows].any()
    after_wh = world.physics.export_wh + world.physics.import_wh
    assert ((after_wh - before_wh)[gone] > 0).any()


def test_a_group_that_stops_lets_go_of_its_setpoints_at_once() -> None:
    loss = GroupLoss("vendor", "bolt", at_s=10, stops=True)
    world = World(fleet(), FaultPlan(group_loss=[loss]), np.random.default_rng(1), NOON_NS)
    members = np.array(world.devices.groups("vendor")) == "bolt"
    world.step(at(1))
    world.agents.setpoint_w[:] = 500.0
    world.agents.reverts_at_ns[:] = at(120)
    world.step(at(9))
    assert world.agents.commanded().all()
    world.step(at(10))
    np.testing.assert_array_equal(world.agents.commanded(), ~members)
    world.step(at(121))
    assert not world.agents.commanded().any()
