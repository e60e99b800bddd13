"""Orders that share devices: each delivers while the others come and go, in the real rooms."""

import pytest

from kapelle.model.enums import OrderStatus
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan, Restart
from kapelle.sim.invariants import broken
from kapelle.sim.resources import ResourcePlan
from kapelle.sim.run import perform
from kapelle.sim.scenario import OrderPlan, Scenario

PLAY = Scenario(
    180,
    FleetPlan(devices=160, partitions=2, mix={"battery": 0.8, "ev": 0.2}),
    FaultPlan(
        command_loss=0.02,
        command_latency_s=0.5,
        telemetry_delay_s=0.3,
        restart=[Restart("dispatch", at_s=65, down_s=2), Restart("dispatch", at_s=112, down_s=2)],
    ),
    (
        OrderPlan(at_s=20, duration_s=80, fraction=0.5, resource="west"),
        OrderPlan(at_s=45, duration_s=120, fraction=0.5, resource="east"),
        OrderPlan(at_s=75, duration_s=80, fraction=0.6, direction="down"),
    ),
    resources={
        "west": ResourcePlan(vendor=("bolt", "core")),
        "east": ResourcePlan(vendor=("acme", "bolt")),
    },
)


@pytest.mark.parametrize("seed", [3])
def test_each_of_several_orders_delivers_while_others_begin_end_and_dispatch_restarts(
    seed: int,
) -> None:
    done = perform(PLAY, seed)
    assert broken(done) == []
    assert done.result.restarts == 2
    states = done.play.view.orders
    assert {state.status for state in states.values()} == {OrderStatus.COMPLETED}
    for order in done.result.orders:
        assert abs(order.committed_w) > 50_000.0
        assert order.delivered_mean is not None
        assert order.delivered_mean >= 0.99
        assert order.delivered_mean <= 1.02
    # Who began first has the devices they share: in every plan, whoever wrote it.
    ranks = [state.plan.rank for _, state in sorted(states.items()) if state.plan is not None]
    assert ranks == sorted(set(ranks))
    assert ranks[0] >= done.play.start_ns
