"""Whole plants in virtual time with orders whose target changes, on stores that just suffice."""

import numpy as np
import pytest
from tests.dispatch.planning_worlds import Stores, feasible_w

from kapelle.fleet.profiles import largest_w
from kapelle.model.ids import ALL, NS_PER_S, PLANT
from kapelle.model.orders import Interval, Order
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan, Restart
from kapelle.sim.invariants import broken
from kapelle.sim.play import Play
from kapelle.sim.result import OrderResult
from kapelle.sim.run import perform
from kapelle.sim.scenario import Scenario
from kapelle.sim.stage import Stage

SHAPE = np.array([0.9, 0.3, 0.2, 1.0])
"""Who gives too much of a short store in the first intervals has nothing left for the last."""
LENGTH_S = 90.0
STARTS_S = 20.0
JUST = 0.75
"""Of what a solver says is possible that knows who lives and how full he is at every moment: where
an interval is a minute and a half, the seconds in which the dead are found out count."""
FLEET = FleetPlan(
    devices=30, partitions=1, telemetry_period_s=4, mix={"battery": 1.0}, battery_h=(0.08, 0.18)
)


def ordered(faults: FaultPlan, seed: int) -> OrderResult:
    """Order a profile for which the energy of those who live just suffices."""
    ends_s = STARTS_S + LENGTH_S * len(SHAPE)

    async def act(play: Play, stage: Stage) -> None:
        await play.wait_until(STARTS_S)
        play.world.faults.kill()
        physics, enrolled = play.world.physics, play.devices.enrolled
        alive = ~play.world.faults.dead
        own_wh = np.maximum(physics.own_w, 0.0) * (ends_s - STARTS_S) / 3600.0
        soc = physics.soc - own_wh / enrolled.energy_wh
        stores = Stores(
            (enrolled.nameplate_up_w - physics.own_w)[alive], enrolled.energy_wh[alive], soc[alive]
        )
        targets_w = JUST * feasible_w(stores, SHAPE, LENGTH_S / 3600.0) * SHAPE
        now_ns = play.clock.now_ns()
        starts_ns = now_ns + (np.arange(len(SHAPE) + 1) * LENGTH_S * NS_PER_S).astype(np.int64)
        profile = tuple(
            Interval(int(at), float(w)) for at, w in zip(starts_ns, targets_w, strict=False)
        )
        order = Order(
            1, ALL, largest_w(profile), now_ns, int(starts_ns[-1]), now_ns, profile=profile
        )
        await play.journal.append(PLANT, [order], writer="api")
        play.orders.append(order)
        await play.wait_until(ends_s + 5)

    done = perform(Scenario(ends_s + 10, FLEET, faults), seed, act=act)
    assert broken(done) == []
    (result,) = done.result.orders
    return result


@pytest.mark.parametrize("seed", range(5))
def test_the_last_interval_is_met_as_well_as_the_first(seed: int) -> None:
    result = ordered(FaultPlan(dead_fraction=0.1), seed)
    assert [each.committed_w for each in result.intervals] == pytest.approx(
        [each.target_w for each in result.intervals]
    )
    delivered = [each.delivered_mean for each in result.intervals]
    assert min(share for share in delivered if share is not None) >= 0.97, delivered


def test_a_dispatcher_that_dies_in_the_middle_goes_on_with_the_plan() -> None:
    result = ordered(FaultPlan(restart=[Restart("dispatch", at_s=130, down_s=3)]), 3)
    delivered = [each.delivered_mean for each in result.intervals]
    assert min(share for share in delivered if share is not None) >= 0.97, delivered
