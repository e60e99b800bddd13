"""Orders that come, change and go in any order, while devices and dispatch do so, too."""

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from tests.dispatch.test_claims import NAMES, Watched, members

from kapelle.dispatch.memory import ControlState
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.desired import in_force
from kapelle.fleet.plant import OrderState, total
from kapelle.fleet.profiles import largest_w
from kapelle.fleet.snapshots import from_snapshot, to_snapshot
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import ALL, NS_PER_S, PLANT
from kapelle.model.orders import Amend, Cancel, Hold, Interval, Order

DEVICES = 24
REVERT_S = 20.0
RESOURCES = (*NAMES, "nobody")
MOVES = ("order",) * 4 + ("profile", "amend", "amend", "amend", "cancel")
UPSETS = ("hold", "restart dispatch", "restart fleet", "members", "again", "silent")


class Operator:
    """Whoever gives orders, as the API would let them through, and upsets the plant."""

    def __init__(self, box: Any, seed: int) -> None:
        self.box, self.draw = box, Random(seed)
        self.given = 0
        for name in NAMES[:-1]:
            self.enrol(name, 0.6)

    def move(self) -> None:
        """Do any one thing."""
        match self.draw.choice(MOVES * 2 + UPSETS):
            case "order":
                self.order()
            case "profile":
                self.order(intervals=3)
            case "amend":
                self.amend()
            case "cancel" if self.box.view.orders:
                self.box.say(PLANT, Cancel(self.any_order().order.order_no, self.box.now_ns))
            case "again" if self.box.view.orders:
                self.box.say(PLANT, self.any_order().order)
            case "hold":
                self.box.say(PLANT, Hold(not self.box.view.held, self.box.now_ns))
            case "restart dispatch":
                self.box.control = ControlState()
            case "restart fleet":
                self.box.fleets = [from_snapshot(to_snapshot(each)) for each in self.box.fleets]
            case "members":
                self.enrol(self.draw.choice(NAMES[:-1]), self.draw.choice([0.0, 0.3, 0.7]))
            case "silent":
                self.box.silent[:] = [self.draw.random() < 0.2 for _ in range(DEVICES)]

    def order(self, intervals: int = 1) -> None:
        now_ns, resource = self.box.now_ns, self.draw.choice(RESOURCES)
        starts_ns = now_ns + self.draw.choice([0, 0, 3]) * NS_PER_S
        length_ns = self.draw.choice([2, 6, 15, 40, 1200]) * NS_PER_S
        if not self.is_free(resource, starts_ns, starts_ns + length_ns):
            return
        known = total(self.box.view, resource)
        size_w = max(known.headroom_up_w, known.headroom_down_w, 1000.0)
        parts = [self.draw.choice([-0.8, -0.4, 0.0, 0.3, 0.6, 1.3]) for _ in range(intervals)]
        steps = tuple(
            Interval(starts_ns + length_ns * place // intervals, part * size_w)
            for place, part in enumerate(parts)
        )
        self.given += 1
        self.box.say(
            PLANT,
            Order(
                self.given,
                resource,
                largest_w(steps),
                starts_ns,
                starts_ns + length_ns,
                now_ns,
                profile=steps if intervals > 1 else (),
                staged=intervals == 1 and self.draw.random() < 0.1,
            ),
        )

    def amend(self) -> None:
        if not self.box.view.orders:
            return
        was, now_ns = self.any_order(), self.box.now_ns
        order = was.order
        ends_ns = self.draw.choice(
            [order.ends_at_ns, now_ns + 2 * NS_PER_S, now_ns + 30 * NS_PER_S]
        )
        is_open = not (was.is_over or was.cancelled_at_ns) and order.ends_at_ns > now_ns
        is_free = self.is_free(order.resource, order.starts_at_ns, ends_ns, order.order_no)
        if is_open and is_free and ends_ns > max(now_ns, order.starts_at_ns):
            target_w = order.target_w * self.draw.choice([-1.0, 0.0, 0.5, 1.0, 1.5])
            self.box.say(PLANT, Amend(order.order_no, target_w, ends_ns, now_ns))

    def any_order(self) -> OrderState:
        orders = self.box.view.orders
        found: OrderState = orders[self.draw.choice(sorted(orders))]
        return found

    def is_free(self, resource: str, starts_ns: int, ends_ns: int, besides: int = 0) -> bool:
        return not any(
            each.order.resource == resource
            and each.order.order_no != besides
            and not (each.is_over or each.cancelled_at_ns)
            and each.order.starts_at_ns < ends_ns
            and starts_ns < each.order.ends_at_ns
            for each in self.box.view.orders.values()
        )

    def enrol(self, resource: str, part: float) -> None:
        members(self.box, resource, [no for no in range(DEVICES) if self.draw.random() < part])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_when_all_orders_are_over_nothing_of_them_is_left(make_box: Any, seed: int) -> None:
    """And before that no device follows two, nor goes to one that was promised later."""
    box = make_box(
        devices=DEVICES, partitions=1 + seed % 3, seed=seed, cadence_s=1.0, revert_s=REVERT_S
    )
    box.faults.command_latency_s = 0.3
    box.faults.command_loss = 0.02
    watched, operator = Watched(box), Operator(box, seed)
    watched.run(3)
    while box.now_s < 50:
        operator.move()
        watched.run(operator.draw.choice([1, 1, 2, 4]))
    assert operator.given > 3
    box.say(PLANT, Hold(False, box.now_ns))
    box.silent[:] = False
    watched.run(8)
    waiting = [state.order for state in box.view.orders.values() if not state.is_over]
    assert {box.view.orders[order.order_no].status for order in waiting} <= {OrderStatus.ACTIVE}
    for order in waiting:
        box.say(PLANT, Cancel(order.order_no, box.now_ns))
    watched.run(round(REVERT_S) + 8)
    assert all(state.is_over for state in box.view.orders.values())
    assert np.isnan(box.setpoint_w).all()
    for fleet in box.fleets:
        assert not fleet.order_no[: fleet.size].any()
        assert not in_force(fleet)
    for resource in box.view.resources():
        known = total(box.view, resource)
        assert (known.claimed, known.others_w) == ({}, 0.0)
    assert not box.control.running
    assert not box.control.watch.shortfalls


def test_who_waits_longer_before_it_is_promised_takes_nothing_from_who_did_not(
    make_box: Any,
) -> None:
    box = make_box(
        devices=DEVICES,
        cadence_s=1.0,
        mix=(1.0, 0, 0, 0, 0, 0),
        settings=replace(DispatchSettings(), promise="p90"),
    )
    members(box, "south", range(8, 24))
    box.run(70)
    # What a promise rests on is not known of a resource this young: its order waits.
    members(box, "north", range(16))
    box.run(72)
    box.order(2_000.0, 200, "north", 1)
    box.run(73)
    box.order(2_000.0, 200, "south", 2)
    box.run(76)
    assert [box.view.orders[number].status for number in (1, 2)] == [
        OrderStatus.PENDING,
        OrderStatus.ACTIVE,
    ]
    while box.view.orders[1].plan is None and box.now_s < 200:
        box.run(box.now_s + 1)
    box.run(box.now_s + 2)
    assert box.view.orders[1].status == OrderStatus.ACTIVE
    assert total(box.view, "north").claimed == {2: 8}
    assert total(box.view, "south").claimed == {}


def test_an_order_that_lost_all_its_devices_says_so_and_keeps_nobody_from_beginning(
    make_box: Any,
) -> None:
    box = make_box(devices=DEVICES, cadence_s=1.0)
    members(box, "north", range(12))
    box.run(5)
    box.order(3_000.0, 10, "north", 1)
    box.run(10)
    members(box, "north", [])
    box.run(12)
    box.say(PLANT, Amend(1, 3_500.0, box.now_ns + 60 * NS_PER_S, box.now_ns))
    box.run(20)
    assert [notice.text for notice in box.notices] == [
        "order 1 misses 3.0 kW of 3.0 kW: its resource has no devices"
    ]
    box.order(2_000.0, 60, ALL, 2)
    box.run(26)
    assert box.view.orders[2].status == OrderStatus.ACTIVE
    members(box, "north", range(12))
    box.run(45)
    # What was asked meanwhile is promised once there is somebody to do it.
    assert box.view.orders[1].plan.committed_w == pytest.approx(3_500.0)
    known = total(box.view, "north")
    assert known.net_w - box.view.orders[1].baseline_w == pytest.approx(3_500.0, rel=0.05)
