"""R-17 and R-18: whoever is silent may still act, and is replaced in time all the same."""

from dataclasses import replace

import numpy as np
import pytest

from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan, GroupLoss
from kapelle.sim.invariants import broken
from kapelle.sim.overshoot import beyond_w, budget_w
from kapelle.sim.run import perform
from kapelle.sim.scenario import OrderPlan, Scenario

# Timers of 40 s: those of a lost vendor end, all at nearly the same time, while it is gone.
FLEET = FleetPlan(devices=80, partitions=1, revert_s=40.0)
ORDER = OrderPlan(at_s=25, duration_s=105, fraction=0.5)
LOSSY = FaultPlan(command_loss=0.05, ack_loss=0.05, telemetry_loss=0.02, command_latency_s=0.5)
BOLT = GroupLoss("vendor", "bolt", at_s=40, return_s=80)
DAYS = {
    "a tenth is dead": (4.0, replace(LOSSY, dead_fraction=0.1)),
    "a fifth is dead": (1.0, replace(LOSSY, dead_fraction=0.2)),
    "a vendor is lost and returns": (4.0, replace(LOSSY, group_loss=[BOLT])),
    "links come and go": (10.0, replace(LOSSY, mtbf_s=120, mttr_s=20)),
    "a tenth hears nothing": (4.0, replace(LOSSY, one_way_fraction=0.1)),
    "answers are slow": (2.0, replace(LOSSY, command_latency_s=1.5, telemetry_delay_s=1.0)),
}
NOT_SEEN = 0.01
"""What moves between two reports of everybody and is in no total yet, as a part of the promise."""
UNKNOWN_S = 5.0


@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("seed", [1])
def test_they_are_replaced_in_time_and_should_they_act_all_the_same_within_the_budget(
    day: str, seed: int
) -> None:
    """At every step: what every device would do if it obeyed all that it may still obey."""
    period_s, faults = DAYS[day]
    fleet = replace(FLEET, telemetry_period_s=period_s)
    done = perform(Scenario(132, fleet, faults, (ORDER,)), seed)
    assert broken(done) == []
    (order,), (result,) = done.play.orders, done.result.orders
    plan = done.play.view.orders[order.order_no].plan
    assert plan is not None
    over_w = beyond_w(done.play, order, plan)
    allowed_w = budget_w(done.play, plan) + NOT_SEEN * abs(plan.committed_w)
    at_s = done.play.at_s[int(np.nanargmax(over_w))] - result.starts_s
    assert np.nanmax(over_w) <= allowed_w, f"{at_s:.1f} s into the order"
    assert result.delivered_mean is not None
    assert result.delivered_mean > 0.95
    took = done.result.redispatch
    assert took.devices > 0
    assert took.p95_s is not None
    assert took.p95_s <= 2 * period_s + UNKNOWN_S
