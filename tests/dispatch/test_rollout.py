"""S-22: an order in stages stops where meters show something else, and otherwise completes."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from kapelle.dispatch.memory import ControlState
from kapelle.dispatch.rollout import judge
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.plant import total
from kapelle.fleet.stages import place
from kapelle.model.blocks import Acks, Commands
from kapelle.model.enums import AckStatus, OrderStatus
from kapelle.model.ids import NS_PER_S, PLANT, partition_topic
from kapelle.model.orders import Amend, Hold, Stage
from kapelle.model.plant import Members

ORDERED_S = 30.0
COMPLETE_S = 150.0
"""A good fleet that reports every 4 s is through with 1, 4, 16, 64 and 100 % by then."""
SETTINGS = DispatchSettings()


@pytest.fixture
def make_world(make_box: Any, make_faults: Any) -> Any:
    """Return a maker of plants in which some devices turn round what they are told, or refuse."""

    class World(make_box):  # type: ignore[misc]  # the box comes from a fixture
        turned = refuses = np.zeros(0, np.bool_)

        def _physics(self, dt_s: float) -> None:
            told_w = self.setpoint_w.copy()
            if len(self.turned):
                self.setpoint_w[self.turned] = (2 * self.own_w - told_w)[self.turned]
            super()._physics(dt_s)
            over = np.isnan(self.setpoint_w)
            self.setpoint_w = np.where(over, np.nan, told_w)

        def _receive(self, p: int, commands: Commands, rows: np.ndarray) -> None:
            if len(self.refuses):
                no = commands.device_no[rows]
                setpoint = ~np.isnan(commands.setpoint_w[rows])
                refused = rows[self.refuses[no] & setpoint & ~self.silent[no]]
                rows = rows[~np.isin(rows, refused)]
                if len(refused):
                    self.say(
                        partition_topic(p),
                        Acks(
                            device_no=commands.device_no[refused],
                            revision=commands.revision[refused],
                            epoch=commands.epoch[refused],
                            status=np.full(len(refused), AckStatus.REJECTED, np.uint8),
                            at_ns=np.full(len(refused), self.now_ns, np.int64),
                            reason=(b"",) * len(refused),
                        ),
                    )
            if len(rows):
                super()._receive(p, commands, rows)

    def make(**more: Any) -> Any:
        faults = make_faults(command_loss=0.02, ack_loss=0.02, dead=0.1)
        return World(devices=400, partitions=1, seed=3, faults=faults, mix=(1.0,), **more)

    return make


def ordered(box: Any, part: float = 0.5, for_s: float = 600.0) -> Any:
    box.run(ORDERED_S)
    return box.order(part * total(box.view).headroom_up_w, for_s, staged=True)


def stage_of(box: Any, order: Any) -> Stage:
    """Return the stage an order is in."""
    stage: Stage = box.view.orders[order.order_no].plan.rollout.stages[-1]
    return stage


def moved_w(box: Any) -> np.ndarray:
    """Return how far the plant was from its own schedule, by second. [W]"""
    return np.array([power_w for _, power_w in box.truth]) - box.own_w.sum()


def stopped(box: Any, order: Any) -> tuple[float, str]:
    """Return when the order was stopped, after it was given, and what was said."""
    state = box.view.orders[order.order_no]
    assert state.status == OrderStatus.CANCELLED
    assert state.plan is not None
    notice = next(n for n in box.notices if n.code == "rollout-aborted")
    assert notice.devices > 0
    assert notice.text in state.plan.reason
    return (notice.at_ns - order.starts_at_ns) / NS_PER_S, notice.text


def test_a_fleet_whose_sign_is_turned_is_stopped_at_the_first_devices(make_world: Any) -> None:
    box = make_world()
    box.turned = np.ones(box.devices, np.bool_)
    order = ordered(box)
    box.run(ORDERED_S + 120.0)
    at_s, text = stopped(box, order)
    assert at_s < 60.0
    assert "diverged" in text
    canary = place(np.arange(box.devices, dtype=np.int32), 1) < 0.01
    span_w = float((box.up_w + box.down_w)[canary].sum())
    assert 0 < np.abs(moved_w(box)).max() <= span_w < 0.03 * order.target_w * 4
    box.run(ORDERED_S + 300.0)
    assert np.isnan(box.setpoint_w).all()


def test_a_vendor_that_refuses_stops_it_before_much_has_moved(make_world: Any) -> None:
    box = make_world()
    box.refuses = box.vendor == 0
    order = ordered(box)
    box.run(ORDERED_S + 200.0)
    _, text = stopped(box, order)
    assert "rejected" in text
    assert np.abs(moved_w(box)).max() <= 0.2 * order.target_w


def test_a_good_fleet_completes_in_time_and_then_keeps_its_promise(make_world: Any) -> None:
    box = make_world()
    order = ordered(box)
    box.run(ORDERED_S + COMPLETE_S + 90.0)
    plan = box.view.orders[order.order_no].plan
    assert plan is not None
    rollout = plan.rollout
    assert rollout is not None
    shares = [stage.share for stage in rollout.stages]
    assert shares == pytest.approx([0.01, 0.04, 0.16, 0.64, 1.0])
    assert all(stage.verified > 0 for stage in rollout.stages[:-1])
    assert 0 < rollout.complete_at_ns - order.starts_at_ns <= COMPLETE_S * NS_PER_S
    t, share = box.share()
    assert (share[t < ORDERED_S + 10] < 0.05).all()
    assert share[t >= ORDERED_S + COMPLETE_S + 30].min() >= 0.97
    assert share.max() <= 1.05
    assert [n.code for n in box.notices if n.code not in ("at-risk",)] == []


def test_a_dispatcher_that_restarts_goes_on_with_the_stage_it_finds(make_world: Any) -> None:
    box = make_world()
    order = ordered(box)
    for until_s in range(int(ORDERED_S) + 5, int(ORDERED_S + COMPLETE_S) + 60, 15):
        box.run(float(until_s))
        box.control = ControlState()
    plan = box.view.orders[order.order_no].plan
    assert plan is not None
    assert plan.rollout is not None
    assert plan.rollout.complete_at_ns > 0
    assert [stage.share for stage in plan.rollout.stages] == sorted(
        {stage.share for stage in plan.rollout.stages}
    )
    _, share = box.share()
    assert share.max() <= 1.05


@pytest.mark.parametrize("held_s", [60.0, 400.0])
def test_a_hold_proves_nothing_and_fails_nobody(make_world: Any, held_s: float) -> None:
    box = make_world()
    order = ordered(box, for_s=1_800.0)
    box.run(ORDERED_S + 2.0)
    box.say(PLANT, Hold(True, box.now_ns))
    box.run(ORDERED_S + held_s)
    box.say(PLANT, Hold(False, box.now_ns))
    box.run(ORDERED_S + held_s + COMPLETE_S + 30.0)
    state = box.view.orders[order.order_no]
    assert state.status == OrderStatus.ACTIVE
    stages = state.plan.rollout.stages
    assert [stage.share for stage in stages] == pytest.approx([0.01, 0.04, 0.16, 0.64, 1.0])
    assert all(stage.verified > 0 for stage in stages[:-1])


def test_less_counts_at_once_and_never_by_way_of_more(make_world: Any) -> None:
    box = make_world()
    order = ordered(box, for_s=1_800.0)
    grown_s = ORDERED_S
    while box.view.orders[order.order_no].plan is None or stage_of(box, order).share < 0.6:
        grown_s += 5.0
        box.run(grown_s)
    less_w = 0.3 * order.target_w
    box.say(PLANT, Amend(order.order_no, less_w, order.ends_at_ns, box.now_ns))
    box.run(grown_s + 15.0)
    assert 0.5 * less_w <= moved_w(box)[-1] <= 1.05 * less_w
    box.run(grown_s + 240.0)
    plan = box.view.orders[order.order_no].plan
    assert plan.rollout.complete_at_ns > 0
    assert plan.committed_w == pytest.approx(less_w)
    assert moved_w(box)[int(grown_s + 15.0) :].max() <= 1.1 * less_w
    assert moved_w(box)[-60:].mean() == pytest.approx(less_w, rel=0.05)


def test_less_that_is_asked_of_nobody_counts_when_somebody_is_back(make_world: Any) -> None:
    """Among nobody no level can be found: one of 0 would have stages prove nothing."""
    box = make_world()
    box.say(partition_topic(0), Members("north", range(300)))
    box.run(ORDERED_S)
    room_w = total(box.view, "north").headroom_up_w
    order = box.order(0.5 * room_w, 1_800.0, resource="north", staged=True)
    grown_s = ORDERED_S
    while box.view.orders[order.order_no].plan is None or stage_of(box, order).share < 0.1:
        grown_s += 5.0
        box.run(grown_s)
    share, less_w = stage_of(box, order).share, 0.6 * order.target_w
    box.say(partition_topic(0), Members("north", []))
    box.run(grown_s + 5.0)
    box.say(PLANT, Amend(order.order_no, less_w, order.ends_at_ns, box.now_ns))
    box.run(grown_s + 15.0)
    box.say(partition_topic(0), Members("north", range(300)))
    box.run(grown_s + 30.0)
    assert stage_of(box, order).share == share
    assert 0.7 * share * less_w <= moved_w(box)[-1] <= 1.3 * share * less_w
    box.run(grown_s + 90.0)
    assert moved_w(box)[-20:].mean() == pytest.approx(less_w, rel=0.05)


def test_less_counts_at_once_where_each_begins_at_its_own_moment(make_world: Any) -> None:
    box = make_world()
    box.run(ORDERED_S)
    order = box.order(0.5 * total(box.view).headroom_up_w, 1_800.0, randomise_s=300.0)
    box.run(ORDERED_S + 200.0)
    less_w = 0.3 * order.target_w
    assert moved_w(box)[-1] > 1.5 * less_w, "two thirds of it have begun"
    box.say(PLANT, Amend(order.order_no, less_w, order.ends_at_ns, box.now_ns))
    box.run(ORDERED_S + 215.0)
    assert moved_w(box)[-1] <= 0.9 * less_w
    box.run(ORDERED_S + 420.0)
    assert moved_w(box)[int(ORDERED_S + 215.0) :].max() <= 1.1 * less_w
    assert moved_w(box)[-60:].mean() == pytest.approx(less_w, rel=0.05)


def test_whoever_waits_is_told_nothing(make_world: Any) -> None:
    box = make_world(settings=DispatchSettings(stage_s_max=1e6))
    box.deaf[:] = True
    ordered(box)
    sent = box.commands_sent
    box.run(ORDERED_S + 4.0)
    assert 0 < box.commands_sent - sent < 0.05 * box.devices


def test_only_large_orders_are_staged_where_nobody_asks_for_it(make_world: Any) -> None:
    box = make_world(settings=DispatchSettings(stage_above_w=100e3))
    box.run(ORDERED_S)
    small = box.order(50e3, 60.0)
    box.run(ORDERED_S + 5.0)
    assert box.view.orders[small.order_no].plan.rollout is None
    box.run(ORDERED_S + 100.0)
    large = box.order(200e3, 60.0, order_no=2)
    box.run(ORDERED_S + 105.0)
    assert box.view.orders[large.order_no].plan.rollout is not None


@pytest.mark.parametrize(
    ("counts", "age_s", "verdict"),
    [
        ({}, 10.0, ""),
        ({}, 31.0, "proven"),
        ({"asked": 10, "verified": 8}, 10.0, ""),
        ({"asked": 10, "verified": 9}, 10.0, "proven"),
        ({"asked": 10, "verified": 9}, 1.0, ""),
        ({"asked": 10, "verified": 8, "rejected": 1}, 10.0, "proven"),
        ({"asked": 10, "rejected": 2, "diverged": 1}, 1.0, "failed"),
        ({"asked": 10, "rejected": 2}, 299.0, ""),
        ({"asked": 10, "verified": 8}, 300.0, "proven"),
        ({"asked": 10, "verified": 7}, 300.0, "failed"),
        ({"asked": 3, "unknown": 1}, 10.0, ""),
        ({"asked": 3, "unknown": 2}, 10.0, "failed"),
        ({"asked": 1, "opted_out": 1}, 10.0, "failed"),
    ],
)
def test_a_stage_is_judged_by_who_was_asked(
    counts: dict[str, int], age_s: float, verdict: str
) -> None:
    assert judge(Counter(counts), age_s, SETTINGS) == verdict
