"""S-22 in the whole plant: what is wrong with a fleet is found at the first few of its devices."""

from dataclasses import replace

import numpy as np
import pytest

from kapelle.model.enums import OrderStatus
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan
from kapelle.sim.invariants import broken
from kapelle.sim.run import perform
from kapelle.sim.scenario import OrderPlan, Scenario

FLEET = FleetPlan(devices=100, partitions=1)
ORDER = OrderPlan(at_s=25, duration_s=95, fraction=0.4, staged=True)
LOSSY = FaultPlan(command_loss=0.02)
DAYS = {
    "meters have the wrong sign": replace(LOSSY, sign_turned_fraction=1.0),
    "owners refuse": replace(LOSSY, opt_out=0.9),
    "devices are deaf": replace(LOSSY, one_way_fraction=0.9),
}


@pytest.mark.parametrize("day", DAYS)
def test_it_is_stopped_at_the_first_devices(day: str) -> None:
    done = perform(Scenario(120, FLEET, DAYS[day], (ORDER,)), seed=5)
    assert broken(done) == []
    (order,) = done.play.orders
    state = done.play.view.orders[order.order_no]
    assert state.status == OrderStatus.CANCELLED
    assert state.plan is not None
    assert state.plan.rollout is not None
    assert state.plan.rollout.stages[-1].share <= 0.12
    assert any(notice.code == "rollout-aborted" for notice in done.play.view.notices)
    ordered = np.array(done.play.at_s) >= ORDER.at_s
    power_w = np.array(done.play.power_w)[ordered]
    assert np.abs(power_w - power_w[0]).max() < 0.25 * abs(state.plan.committed_w)
