"""Several orders at once: no device has two of them, no watt is promised twice, none disturbs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kapelle.dispatch.memory import ControlState
from kapelle.fleet.claims import by_rank, owners
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, limits, trust
from kapelle.fleet.plant import total
from kapelle.model.blocks import Commands
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import ALL, NS_PER_S, PLANT, partition_topic
from kapelle.model.orders import Amend, Cancel, Order, Plan
from kapelle.model.plant import Members
from kapelle.model.signals import Signal

DEVICES = 24
NAMES = ("north", "south", "storage", ALL)
_INTERVAL_S = 60.0
"""Parts of a profile may be so short, and stores do more for a moment than for a quarter hour."""


def rows_of(fleet: Fleet, resource: str) -> Sequence[int]:
    """Return the rows of a resource."""
    every = range(fleet.size)
    return every if resource == ALL else fleet.members.get(resource, np.zeros(0, int)).tolist()


def obvious_owner(fleet: Fleet, row: int) -> int:
    """Return whom a device follows, by going through everything that is in force."""
    claims = [
        (signal.rank, signal.order_no)
        for signal in fleet.signals.values()
        if signal.order_no
        and signal.ends_at_ns > fleet.now_ns
        and row in rows_of(fleet, signal.resource)
    ]
    return min(claims)[1] if claims and fleet.active[row] else 0


def members(box: Any, resource: str, device_nos: Sequence[int]) -> None:
    for p in range(box.partitions):
        mine = [no for no in device_nos if no % box.partitions == p]
        box.say(partition_topic(p), Members(resource, mine))


class Watched:
    """A plant of which every cycle is held against what the plant promises."""

    def __init__(self, box: Any) -> None:
        self.box = box
        self.ranks: dict[int, int] = {}
        tell = box.say

        def say(topic: str, body: Any, writer: str = "test") -> None:
            if isinstance(body, Commands):
                self.check_commands(box.fleets[int(topic[2:])], body)
            # An amended promise counts from where things stood long ago.
            if isinstance(body, Plan) and box.view.orders[body.order_no].plan is None:
                self.check_promise(body)
            tell(topic, body, writer)

        box.say = say

    def check_commands(self, fleet: Fleet, commands: Commands) -> None:
        rows = fleet.rows(commands.device_no)
        for row, order_no in zip(rows.tolist(), commands.order_no.tolist(), strict=True):
            assert order_no in (0, obvious_owner(fleet, row))

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.box.run(self.box.now_s + 1.0)
            self.check()

    def check(self) -> None:
        for fleet in self.box.fleets:
            found = owners(fleet)
            expected = [obvious_owner(fleet, row) for row in range(fleet.size)]
            assert (found is None and not any(expected)) or found.tolist() == expected
            for signal in fleet.signals.values():
                state = self.box.view.orders.get(signal.order_no)
                if state is not None and state.status == OrderStatus.ACTIVE:
                    assert signal.rank == self.ranks.setdefault(signal.order_no, signal.rank)

    def check_promise(self, plan: Plan) -> None:
        """What is promised is there, in devices that were promised to nobody before."""
        view = self.box.view
        earlier = [
            state.order.resource
            for number, state in view.orders.items()
            if state.status == OrderStatus.ACTIVE
            and not state.cancelled_at_ns
            and state.order.ends_at_ns > self.box.now_ns
            # One that was announced has claimed its devices before it is promised any of them.
            and (state.plan.rank, number) < (plan.rank, plan.order_no)
        ]
        order, room_w = view.orders[plan.order_no].order, 0.0
        for fleet in self.box.fleets:
            mine = set(rows_of(fleet, order.resource))
            mine -= {row for resource in earlier for row in rows_of(fleet, resource)}
            rows = np.array(sorted(mine), np.int32)
            horizon_s = _INTERVAL_S if order.profile else limits.HOLD_S
            part = division.shares(fleet, rows[trust.controllable(fleet, rows)], horizon_s)
            room_w += float((part.up_w if plan.committed_w > 0 else part.down_w).sum())
        assert abs(plan.committed_w) <= room_w + 1.0


sizes = st.sampled_from([-1.5, -1.0, -0.6, 0.6, 1.0, 1.5])
moves = st.one_of(
    st.tuples(st.just("order"), st.sampled_from(NAMES), sizes, st.integers(8, 25)),
    st.tuples(st.just("order"), st.sampled_from(NAMES), sizes, st.integers(8, 25)),
    st.tuples(st.just("amend"), st.integers(0, 5), sizes, st.integers(1, 20)),
    st.tuples(st.just("cancel"), st.integers(0, 5), st.just(0.0), st.just(0)),
    st.tuples(st.just("restart"), st.just(0), st.just(0.0), st.just(0)),
)


# The fixture is a class: every example makes a plant of its own. Shrinking takes minutes.
@settings(
    max_examples=15,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    partitions=st.integers(1, 3),
    seed=st.integers(0, 1000),
    play=st.lists(st.tuples(moves, st.integers(0, 3)), min_size=4, max_size=10),
)
def test_no_device_has_two_orders_and_no_watt_is_promised_twice(
    make_box: Any, partitions: int, seed: int, play: list[Any]
) -> None:
    box = make_box(devices=DEVICES, partitions=partitions, cadence_s=1.0)
    box.faults.command_latency_s = 0.3
    draw = np.random.default_rng(seed)
    for name in NAMES[:-1]:
        members(box, name, np.flatnonzero(draw.random(DEVICES) < 0.6).tolist())
    watched = Watched(box)
    watched.run(4)
    given = 0
    for (act, which, part, for_s), pause_s in play:
        numbers = sorted(box.view.orders)
        if act == "order":
            given += 1
            known = total(box.view, which)
            size_w = max(known.headroom_up_w, known.headroom_down_w, 1000.0)
            # The later number may well be the first to begin.
            box.order(part * size_w, for_s, which, 100 - given)
        elif act == "restart":
            box.control = ControlState()
        elif numbers:
            number = numbers[which % len(numbers)]
            was = box.view.orders[number].order
            ends_ns = box.now_ns + for_s * NS_PER_S
            if act == "amend":
                box.say(PLANT, Amend(number, part * abs(was.target_w), ends_ns, box.now_ns))
            else:
                box.say(PLANT, Cancel(number, box.now_ns))
        watched.run(pause_s)
    watched.run(5)


def test_equal_ranks_go_by_number_and_no_rank_goes_first() -> None:
    def signal(order_no: int, rank: int) -> Signal:
        return Signal("north", order_no, 0.0, 0.0, 1, 1, rank=rank)

    told = [signal(4, 9), signal(3, 9), signal(8, 0), signal(1, 12)]
    assert [each.order_no for each in by_rank(told)] == [8, 3, 4, 1]


def delivered(box: Any, order_no: int) -> float:
    """Return the part of its promise an order delivers now, as the plant publishes it."""
    state = box.view.orders[order_no]
    known = total(box.view, state.order.resource)
    return float((known.net_w - state.baseline_w) / state.committed_w)


@pytest.mark.parametrize("part", [0.5, -0.5])
def test_orders_that_share_devices_do_not_disturb_each_other(make_box: Any, part: float) -> None:
    """The second begins and takes what is left; the first ends and its devices go over to it."""
    box = make_box(devices=240, partitions=2, seed=3)
    members(box, "north", range(140))
    members(box, "south", range(100, 240))
    box.run(30)
    box.order(0.5 * total(box.view, "north").headroom_up_w, 60, "north", 1)
    box.run(50)
    known = total(box.view, "south")
    assert known.claimed == {1: 40}
    room_w = known.headroom_up_w if part > 0 else known.headroom_down_w
    box.order(part * room_w, 70, "south", 2)
    told: dict[int, list[float]] = {1: [], 2: []}
    while box.now_s < 118:
        box.run(box.now_s + 1)
        if box.now_s < 90:
            told[1].append(delivered(box, 1))
        if box.now_s > 65:
            told[2].append(delivered(box, 2))
    assert {plan.status for plan in box.plans} == {OrderStatus.ACTIVE, OrderStatus.COMPLETED}
    for shares in told.values():
        assert np.mean(shares) == pytest.approx(1.0, abs=0.01)
        assert min(shares) > 0.9
        assert max(shares) < 1.1


def test_a_device_goes_from_one_order_to_the_next_without_a_release(make_box: Any) -> None:
    box = make_box(devices=60, partitions=2, seed=3, mix=(1.0, 0, 0, 0, 0, 0))
    members(box, "north", range(30))
    box.run(20)
    box.order(0.5 * total(box.view, "north").headroom_up_w, 30, "north", 1)
    box.run(30)
    box.order(0.5 * total(box.view).headroom_up_w, 60, ALL, 2)
    box.run(48)
    asked: list[tuple[int, int]] = []
    tell = box.say

    def say(topic: str, body: Any, writer: str = "test") -> None:
        if isinstance(body, Commands):
            asked.extend(zip(body.device_no.tolist(), body.order_no.tolist(), strict=True))
        tell(topic, body, writer)

    box.say = say
    box.run(58)
    north = [order_no for device_no, order_no in asked if device_no < 30 and order_no != 1]
    assert set(north) == {2}
    # Each once, and a few again: a command was lost, or the level moved on.
    assert len(north) <= 30 * 1.5


def test_a_second_order_on_a_resource_is_declined_and_told_what_to_do(make_box: Any) -> None:
    box = make_box(devices=24)
    members(box, "north", range(12))
    box.run(10)
    box.order(2_000.0, 30, "north", 1)
    box.order(2_000.0, 30, "north", 2)
    box.run(13)
    second = box.view.orders[2]
    assert second.status == OrderStatus.DECLINED
    assert second.plan.reason == "order 1 on 'north' is running: amend it"


def test_of_two_long_orders_at_once_the_one_that_is_declined_takes_nothing_along(
    make_box: Any,
) -> None:
    """Both are announced before either is promised; the second's end is not the first's."""
    box = make_box(devices=24)
    members(box, "north", range(12))
    box.run(10)
    box.order(2_000.0, 2_000, "north", 1)
    box.order(2_000.0, 2_000, "north", 2)
    while box.view.orders[2].status != OrderStatus.DECLINED:
        box.run(box.now_s + 1)
    assert box.view.orders[1].status == OrderStatus.ACTIVE
    for _ in range(12):
        box.run(box.now_s + 1)
        assert [fleet.signals["north"].order_no for fleet in box.fleets] == [1, 1]


def test_an_order_that_follows_another_on_its_resource_is_not_in_its_way(make_box: Any) -> None:
    box = make_box(devices=24)
    box.run(10)
    first = box.order(2_000.0, 10, ALL, 1)
    ends_ns = first.ends_at_ns
    box.say(PLANT, Order(2, ALL, -2_000.0, ends_ns, ends_ns + 20 * NS_PER_S, box.now_ns))
    box.run(25)
    second = box.view.orders[2]
    assert second.status == OrderStatus.ACTIVE
    # What devices still did for the first is no part of the second's baseline.
    assert second.baseline_w == pytest.approx(box.view.orders[1].baseline_w, abs=200.0)


def test_who_was_announced_and_then_declined_claims_nothing(make_box: Any) -> None:
    box = make_box(devices=24)
    members(box, "north", range(12))
    box.run(10)
    box.order(2_000.0, 30, ALL, 1)
    box.run(14)
    # Longer than curves are usually made for: it is announced first.
    box.order(2_000.0, 2_000, "north", 2)
    box.run(18)
    assert 2 in {signal.order_no for signal in box.signals}
    declined = box.view.orders[2]
    assert declined.status == OrderStatus.DECLINED
    assert "12 follow order 1" in declined.plan.reason
    assert [fleet.signals["north"].order_no for fleet in box.fleets] == [0, 0]
    box.run(45)
    assert total(box.view, "north").claimed == {}
