"""What those who do not answer may add is kept within the budget (R-17)."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dispatch.control_worlds import Plant, s

from kapelle.dispatch.doubt import held_back_w
from kapelle.dispatch.promise import parts_of
from kapelle.model.summaries import ResourceSummary

BUDGET = 0.02


def part(up_w: float, down_w: float, most_w: float) -> ResourceSummary:
    (said, _) = Plant().summary(0, 0.0).resources
    return msgspec.structs.replace(said, doubt_up_w=up_w, doubt_down_w=down_w, doubt_most_w=most_w)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=3),
    st.floats(-1e6, 1e6).filter(bool),
)
def test_whatever_they_do_the_promise_is_exceeded_by_no_more_than_the_budget(
    doubts: list[tuple[float, float]], committed_w: float
) -> None:
    parts = [part(up_w, down_w, max(up_w, down_w) / 4) for up_w, down_w in doubts]
    held_w = held_back_w(parts, committed_w, BUDGET)
    most_w = max(each.doubt_most_w for each in parts)
    budget_w = max(BUDGET * abs(committed_w), most_w)
    sign = 1.0 if committed_w > 0 else -1.0
    worst_w = sum(up_w if sign > 0 else down_w for up_w, down_w in doubts)
    assert sign * held_w <= 0.0
    assert sign * held_w + worst_w <= budget_w + 1e-6
    # And no more is held back than it takes.
    assert held_w == 0.0 or sign * held_w + worst_w >= budget_w - 1e-6


def test_a_replacement_waits_until_the_replaced_cannot_act_any_more() -> None:
    plant = Plant()
    plant.order(8_000.0)
    (signal,) = plant.step(0).signals
    assert signal.level == pytest.approx(0.4)
    # Half of those asked are not counted on any more, and may still do all of it.
    plant.own_w, plant.up_w, plant.doubt_up_w, plant.doubt_most_w = 0.0, 5_000.0, 4_000.0, 40.0
    (waiting,) = plant.step(1).signals
    assert waiting.level * 10_000.0 == pytest.approx(8_000.0 - 4_000.0 + 160.0)
    plant.doubt_up_w = 0.0
    (replaced,) = plant.step(2).signals
    assert replaced.level * 10_000.0 == pytest.approx(8_000.0)


def test_one_device_is_replaced_at_once() -> None:
    plant = Plant()
    plant.order(8_000.0)
    plant.step(0)
    plant.doubt_up_w = plant.doubt_most_w = 900.0
    assert plant.step(1).signals == []


def test_what_waits_is_not_taken_up_by_the_trim() -> None:
    plant = Plant()
    plant.order(8_000.0)
    plant.step(0)
    plant.power_w = 8_000.0
    for at_s in range(1, 30):
        plant.step(at_s)
    before_w = plant.state.running[1].trim_w
    plant.doubt_up_w, plant.power_w = 4_000.0, 4_160.0
    for at_s in range(30, 60):
        plant.step(at_s)
    assert plant.state.running[1].trim_w == pytest.approx(before_w, abs=1.0)
    assert parts_of(plant.view, "all")[0].doubt_up_w == 2_000.0
    assert plant.view.orders[1].order.ends_at_ns == s(600.0)
