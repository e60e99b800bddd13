"""A dispatcher goes on from the plans, and waits a while for silent partitions."""

from collections.abc import Iterable

from tests.dispatch.control_worlds import EPOCH, SETTINGS, Plant, only, s

from kapelle.dispatch.memory import ControlState, Outcome
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Amend, Interval, Order
from kapelle.model.signals import Signal


def test_a_new_dispatcher_goes_on_from_the_plans() -> None:
    plant = Plant()
    plant.power_w = plant.uncontrolled_w = 500.0
    plant.order(5_000.0)
    plant.step(1)
    plant.power_w = 5_500.0
    plant.state = ControlState()
    out = plant.step(10)
    assert out.plans == []
    assert out.signals == [Signal("all", 1, 0.25, 0.0, EPOCH, s(600), rank=s(1))]


def _restarted(target_w: float = 10_000.0) -> Plant:
    """Return a plant in the middle of an order, whose dispatcher has just been started again."""
    plant = Plant()
    plant.order(target_w, ends_s=60.0)
    plant.step(1)
    plant.state = ControlState()
    plant.view.summaries.clear()
    return plant


def test_levels_stay_until_every_partition_has_spoken() -> None:
    """Half the plant is not all of it: it would be asked for what the other half delivers too."""
    plant = _restarted()
    plant.say(plant.summary(0, 5))
    assert plant.step(5, summaries=False) == Outcome()
    plant.say(plant.summary(1, 6))
    assert [signal.level for signal in plant.step(6, summaries=False).signals] == [0.5]


def test_a_promise_is_not_made_anew_on_half_of_the_plant() -> None:
    plant = _restarted()
    plant.say(Amend(1, 16_000.0, s(60), s(5)))
    plant.say(plant.summary(0, 5))
    assert plant.step(5, summaries=False) == Outcome()
    assert only(plant.step(6).plans).committed_w == 16_000.0


def test_an_order_ends_whoever_is_silent() -> None:
    plant = _restarted()
    plant.say(plant.summary(0, 60))
    out = plant.step(60, summaries=False)
    assert only(out.plans).status == OrderStatus.COMPLETED
    assert [signal.order_no for signal in out.signals] == [0]


def test_a_partition_that_stays_silent_is_named_and_so_is_its_return() -> None:
    plant = _restarted()
    said = []
    for at_s in range(5, 40):
        plant.say(plant.summary(0, at_s))
        said += plant.step(at_s, summaries=False).notices
    assert [notice.code for notice in said] == ["partitions-silent"]
    assert "[1]" in said[0].text
    assert (said[0].at_ns - s(5)) / NS_PER_S == SETTINGS.summary_age_s_max
    said = [notice for at_s in (40, 41) for notice in plant.step(at_s).notices]
    assert [notice.code for notice in said] == ["partitions-back"]


def _half_silent(at_s: Iterable[int]) -> list[tuple[float, float]]:
    """Return when levels were told and which, by a dispatcher that was restarted at 5 s, in the
    first of two intervals, and hears one of two partitions."""
    plant = Plant()
    steps = (Interval(s(0), 5_000.0), Interval(s(30), 10_000.0))
    plant.say(Order(1, "all", 10_000.0, s(0), s(120), s(0), profile=steps))
    for before_s in range(1, 5):
        plant.step(before_s)
    plant.state = ControlState(before=dict(plant.view.summaries))
    plant.view.summaries.clear()
    told = []
    for now_s in at_s:
        plant.say(plant.summary(0, now_s))
        out = plant.step(now_s, summaries=False)
        told += [(now_s, signal.level) for signal in out.signals]
    return told


def test_the_silent_count_as_last_heard_after_a_while_so_that_profiles_go_on() -> None:
    told = _half_silent(range(5, 60))
    assert min(at_s for at_s, _ in told) == 5 + SETTINGS.summary_age_s_max
    assert {level for at_s, level in told if at_s < 30} == {0.25}
    assert {level for at_s, level in told if at_s >= 31} == {0.5}
