"""What an order with a profile asks, and what a plan promises of it, at any moment."""

import pytest

from kapelle.fleet.profiles import is_for, largest_w, parts, present, promised, target_w
from kapelle.model.orders import Interval, Order, Plan, Promised

STEPS = (Interval(100, 5.0), Interval(200, -9.0), Interval(300, 0.0))
ORDER = Order(1, "all", -9.0, 100, 400, 0, profile=STEPS)
PLAN = Plan(
    order_no=1,
    at_ns=120,
    epoch=1,
    status=1,
    baseline_w=0.0,
    committed_w=-8.0,
    declined_w=-1.0,
    reason="",
    profile=(Promised(100, 5.0, 4.0), Promised(200, -9.0, -8.0), Promised(300, 0.0, 0.0)),
)


@pytest.mark.parametrize(
    ("at_ns", "asked_w"), [(0, 5.0), (100, 5.0), (199, 5.0), (200, -9.0), (300, 0.0), (999, 0.0)]
)
def test_each_interval_lasts_until_the_next(at_ns: int, asked_w: float) -> None:
    assert target_w(ORDER, at_ns) == asked_w


def test_the_last_ends_with_the_order_and_the_largest_names_it() -> None:
    assert parts(ORDER) == [(100, 200, 5.0), (200, 300, -9.0), (300, 400, 0.0)]
    assert largest_w(STEPS) == ORDER.target_w


def test_an_order_without_a_profile_is_one_part() -> None:
    plain = Order(1, "all", 7.0, 100, 400, 0)
    assert parts(plain) == [(100, 400, 7.0)]
    assert target_w(plain, 350) == 7.0


def test_a_step_counts_as_promised_when_it_begins() -> None:
    first, second = present(PLAN, 150), present(PLAN, 250)
    assert (first.at_ns, first.committed_w, first.declined_w) == (120, 4.0, 1.0)
    assert (second.at_ns, second.committed_w, second.declined_w) == (200, -8.0, -1.0)
    assert promised(PLAN, 400) == [(100, 200, 4.0), (200, 300, -8.0), (300, 400, 0.0)]


def test_a_plan_is_for_the_intervals_it_was_made_for() -> None:
    assert is_for(PLAN, ORDER)
    assert not is_for(PLAN, Order(1, "all", -9.0, 100, 400, 0, profile=STEPS[:2]))
    assert not is_for(PLAN, Order(1, "all", -9.0, 100, 400, 0))
