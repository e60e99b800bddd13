"""What an order is promised, from when to when it is driven, and what ends it."""

import math
from dataclasses import replace

import msgspec
import pytest
from tests.dispatch.control_worlds import EPOCH, SETTINGS, Plant, only, s

from kapelle.dispatch.preview import preview
from kapelle.model.enums import OrderStatus
from kapelle.model.orders import Amend, Cancel, Hold, Order
from kapelle.model.signals import Signal


def test_an_order_is_promised_and_driven_at_once() -> None:
    plant = Plant()
    plant.power_w = plant.uncontrolled_w = 300.0
    plant.order(10_000.0)
    out = plant.step(1)
    plan = only(out.plans)
    assert plan.status == OrderStatus.ACTIVE
    assert (plan.baseline_w, plan.committed_w, plan.declined_w) == (300.0, 10_000.0, 0.0)
    assert plan.reason == ""
    assert out.signals == [Signal("all", 1, 0.5, 0.0, EPOCH, s(600), rank=s(1))]
    assert plant.step(2).signals == []


def test_what_cannot_be_held_is_declined_with_the_reason() -> None:
    plant = Plant()
    plant.excluded = {"unknown": 3}
    plant.order(-9_000.0)
    plan = only(plant.step(1).plans)
    assert plan.committed_w == -8_000.0
    assert plan.declined_w == -1_000.0
    assert plan.reason.startswith("headroom down")
    assert "6 unknown" in plan.reason


def test_nothing_at_all_is_declined_whole() -> None:
    plant = Plant()
    plant.up_w = 0.0
    plant.order(5_000.0)
    assert only(plant.step(1).plans).status == OrderStatus.DECLINED
    plant.order(5_000.0, 2, "nowhere")
    declined = only(plant.step(2).plans)
    assert "no devices" in declined.reason


def test_without_fresh_summaries_nothing_starts() -> None:
    plant = Plant()
    plant.order(5_000.0)
    assert plant.step(1, summaries=False).plans == []
    plant.say(plant.summary(0, 1))
    assert plant.step(1, summaries=False).plans == []
    plant.say(plant.summary(1, 1))
    assert plant.step(30, summaries=False).plans == []
    assert only(plant.step(31).plans).status == OrderStatus.ACTIVE


def test_an_order_that_never_could_start_is_declined_at_its_end() -> None:
    plant = Plant()
    plant.order(5_000.0, ends_s=10.0)
    assert only(plant.step(10, summaries=False).plans).status == OrderStatus.DECLINED


def test_a_long_order_is_promised_on_what_holds_to_its_end() -> None:
    plant = Plant()
    plant.order(10_000.0, ends_s=7200.0)
    first = plant.step(1)
    assert first.plans == []
    assert first.signals == [Signal("all", 1, 0.0, 0.0, EPOCH, s(7200), rank=s(1))]
    # The partitions now publish what they can hold for two hours.
    plant.up_w = 2_000.0
    plan = only(plant.step(2).plans)
    assert plan.committed_w == 4_000.0


def test_orders_wait_for_their_start_and_release_at_their_end() -> None:
    plant = Plant()
    plant.order(5_000.0, starts_s=10.0, ends_s=20.0)
    assert plant.step(9).plans == []
    assert only(plant.step(10).plans).status == OrderStatus.ACTIVE
    out = plant.step(20)
    assert only(out.plans).status == OrderStatus.COMPLETED
    assert [signal.order_no for signal in out.signals] == [0]
    after = plant.step(21)
    assert not after.plans
    assert not after.signals


def test_a_cancelled_order_releases() -> None:
    plant = Plant()
    plant.order(5_000.0)
    plant.step(1)
    plant.say(Cancel(1, s(2)))
    out = plant.step(2)
    assert only(out.plans).status == OrderStatus.CANCELLED
    assert only(out.plans).committed_w == 5_000.0
    assert [signal.order_no for signal in out.signals] == [0]
    plant.order(5_000.0, 2)
    plant.say(Cancel(2, s(3)))
    out = plant.step(3)
    assert only(out.plans).status == OrderStatus.CANCELLED
    assert out.signals == []


def test_an_amended_order_keeps_its_baseline() -> None:
    plant = Plant()
    plant.order(5_000.0)
    plant.step(1)
    plant.power_w = 5_000.0
    plant.say(Amend(1, -2_000.0, s(900), s(5)))
    out = plant.step(5)
    plan = only(out.plans)
    assert (plan.baseline_w, plan.committed_w) == (0.0, -2_000.0)
    assert out.signals[0].level == pytest.approx(-0.25)
    assert out.signals[0].ends_at_ns == s(900)


@pytest.mark.parametrize("at_s", [-600.0, 5.0, 600.0])
@pytest.mark.parametrize(
    ("target_w", "ends_s"), [(7_000.0, 600.0), (5_000.0, 900.0), (40_000.0, 600.0)]
)
def test_an_amendment_counts_whatever_the_clock_of_its_writer_says(
    at_s: float, target_w: float, ends_s: float
) -> None:
    plant = Plant()
    plant.order(5_000.0)
    plant.step(1)
    plant.say(Amend(1, target_w, s(ends_s), s(at_s)))
    plan = only(plant.step(5).plans)
    assert plan.committed_w == min(target_w, 20_000.0)
    # Once, and not over and over.
    assert all(plant.step(second).plans == [] for second in range(6, 12))


@pytest.mark.parametrize(
    ("first", "second", "runs"),
    [
        ("all", "all", False),
        ("north", "north", False),
        ("north", "n2", True),
    ],
)
def test_one_order_at_a_time_has_a_resource(first: str, second: str, runs: bool) -> None:
    plant = Plant()
    plant.order(5_000.0, 1, first)
    plant.order(5_000.0, 2, second)
    out = plant.step(1)
    statuses = {plan.order_no: plan for plan in out.plans}
    if runs:
        assert "no devices" in statuses[2].reason
    else:
        assert statuses[1].status == OrderStatus.ACTIVE
        assert statuses[2].status == OrderStatus.DECLINED
        assert f"order 1 on {first!r}" in statuses[2].reason


def test_a_hold_releases_and_ends_without_a_new_promise() -> None:
    plant = Plant()
    plant.order(5_000.0)
    plant.step(1)
    plant.say(Hold(True, s(2), "drill"))
    out = plant.step(2)
    assert [signal.order_no for signal in out.signals] == [0]
    assert plant.step(3).signals == []
    plant.say(Hold(False, s(4)))
    out = plant.step(4)
    assert out.plans == []
    assert out.signals == [Signal("all", 1, 0.25, 0.0, EPOCH, s(600), rank=s(1))]


def test_a_preview_says_what_would_be_promised() -> None:
    plant = Plant()
    plant.step(1)
    order = Order(9, "all", 25_000.0, s(2), s(600), s(2))
    found = preview(plant.view, order)
    assert not found.feasible
    assert (found.committed_w, found.declined_w) == (20_000.0, 5_000.0)
    assert "headroom up" in found.binding
    assert (found.headroom_up_w, found.headroom_down_w) == (20_000.0, 8_000.0)
    small = preview(plant.view, msgspec.structs.replace(order, target_w=-8_000.0))
    assert small.feasible
    assert small.declined_w == 0.0
    unknown = preview(plant.view, msgspec.structs.replace(order, resource="nowhere"))
    assert "no devices" in unknown.binding
    plant.order(5_000.0, 1)
    plant.step(2)
    taken = preview(plant.view, order)
    assert (taken.committed_w, taken.feasible) == (0.0, False)
    assert "order 1" in taken.binding
    assert not math.isnan(taken.baseline_w)
    assert replace(SETTINGS) == SETTINGS
