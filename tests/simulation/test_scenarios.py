"""Whole plants in virtual time: what is promised is delivered, whatever goes wrong on the way."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from kapelle.fleet.settings import FleetSettings
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan, GroupLoss, Restart
from kapelle.sim.invariants import broken
from kapelle.sim.play import Play
from kapelle.sim.run import Performance, perform, run_scenario
from kapelle.sim.scenario import OrderPlan, Scenario
from kapelle.sim.stage import Stage

FLEET = FleetPlan(devices=200, partitions=2)
MILD = FaultPlan(
    dead_fraction=0.1,
    command_loss=0.02,
    ack_loss=0.02,
    command_latency_s=0.5,
    telemetry_delay_s=0.3,
    telemetry_loss=0.01,
    duplicate=0.01,
)
ORDER = OrderPlan(at_s=20, duration_s=90, fraction=0.5)


def play(faults: FaultPlan, seed: int = 3, **changes: object) -> Performance:
    scenario = Scenario(120, FLEET, faults, (ORDER,))
    done = perform(replace(scenario, **changes), seed)
    assert broken(done) == []
    return done


def test_a_tenth_falls_silent_and_the_others_make_up_for_it() -> None:
    result = play(MILD).result
    (order,) = result.orders
    assert result.devices["dead"] == 20
    assert order.delivered_mean == pytest.approx(1.0, abs=0.02)
    assert order.settle_5pct_s is not None
    assert order.settle_5pct_s < 20
    assert result.readings["accepted"] > 4000
    assert result.aggregate.error_p95_pct is not None
    assert result.aggregate.error_p95_pct < 2.0


def test_the_same_file_and_seed_give_the_same_result_byte_for_byte() -> None:
    scenario = Scenario(60, FLEET, MILD, (replace(ORDER, duration_s=30),))

    def bytes_of(seed: int) -> bytes:
        result = run_scenario(scenario, seed)
        result.wall_s = 0.0
        return result.to_json()

    once = bytes_of(11)
    assert once == bytes_of(11)
    assert once != bytes_of(12)
    told = msgspec.json.decode(once)
    assert {"seed", "virtual_s", "orders", "aggregate", "firm", "commands"} <= set(told)
    assert set(told["firm"]) == {"p50_w", "p90_w", "p95_w", "p99_w"}
    assert {"completed", "unknown", "expired"} <= set(told["commands"])


def test_a_vendor_is_lost_and_replaced_and_returns() -> None:
    loss = GroupLoss("vendor", "bolt", at_s=50, return_s=80)
    (order,) = play(replace(FaultPlan(), group_loss=[loss])).result.orders
    assert len(order.recover_2pct_s) == 1
    assert order.delivered_mean == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("role", ["all", "gateway", "fleet", "dispatch"])
def test_a_role_dies_in_the_middle_of_an_order(role: str) -> None:
    faults = FaultPlan(restart=[Restart(role, at_s=40, down_s=3)])  # type: ignore[arg-type]  # one of ROLES
    result = play(faults).result
    assert result.restarts >= 1
    (order,) = result.orders
    assert order.delivered_mean == pytest.approx(1.0, abs=0.05)


def test_a_partition_that_comes_back_late_is_not_replaced_by_the_others() -> None:
    """Its devices go on delivering: who asks the others for their part overshoots by as much."""
    scenario = Scenario(70, FLEET, FaultPlan(), (replace(ORDER, duration_s=45),))

    async def act(stage_play: Play, stage: Stage) -> None:
        await stage_play.wait_until(38)
        stage.kill()
        await stage_play.wait_until(40)
        # Another holds its lease a little longer than those of the rest.
        await stage_play.journal.acquire("p/1", "another", 2.5)
        stage.start()
        await stage_play.wait_until(69)

    done = perform(scenario, 3, act=act, fleet=FleetSettings(lease_ttl_s=1.0))
    assert broken(done) == []
    (order,) = done.result.orders
    at_s, power_w = np.array(done.play.at_s), np.array(done.play.power_w)
    since = (at_s > 38) & (at_s < order.ends_s)
    share = (power_w[since] - order.baseline_w) / order.committed_w
    assert share.max() < 1.03
    assert share.min() > 0.97


def test_wrong_clocks_frozen_meters_and_late_data_lose_nothing() -> None:
    faults = FaultPlan(skew_s=30, frozen_fraction=0.1, late_fraction=0.2, late_s=20, duplicate=0.2)
    result = play(faults).result
    assert result.readings["lost_after_accept"] == 0
    assert result.readings["applied_twice"] == 0


def test_towards_consumption() -> None:
    order = replace(ORDER, direction="down", fraction=0.4)
    (told,) = play(MILD, orders=(order,)).result.orders
    assert told.committed_w < 0
    assert told.delivered_mean == pytest.approx(1.0, abs=0.05)


def test_what_cannot_be_done_is_declined_at_once() -> None:
    order = OrderPlan(at_s=20, duration_s=60, target_w=1e9)
    (told,) = play(FaultPlan(), orders=(order,)).result.orders
    assert 0 < told.committed_w < 1e7
    assert told.committed_w + told.declined_w == pytest.approx(1e9)
    assert told.delivered_mean is not None
    assert told.delivered_mean > 0.9


def test_devices_go_home_when_the_plant_dies() -> None:
    """R-20: nobody refreshes the timers, so every device returns to its own schedule."""
    fleet = replace(FLEET, revert_s=30.0)
    scenario = Scenario(100, fleet, FaultPlan(), (replace(ORDER, duration_s=75),))
    following: list[int] = []

    async def act(stage_play: Play, stage: Stage) -> None:
        await stage_play.wait_until(40)
        following.append(int(stage_play.world.agents.commanded().sum()))
        stage.kill()
        stage.close()

    done = perform(scenario, 1, act=act)
    assert following[0] > 100
    assert not done.play.world.agents.commanded().any()
    own_w = done.play.world.physics.own_w.sum()
    np.testing.assert_allclose(done.play.world.sum_w(), own_w, rtol=0.05, atol=5e3)
