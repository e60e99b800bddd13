"""Orders know what is sure of them: beside the promise, before it, and for every window of it."""

from dataclasses import replace
from itertools import pairwise

import pytest
from tests.dispatch.control_worlds import EPOCH, SETTINGS, Plant, only, s

from kapelle.dispatch.control import step
from kapelle.dispatch.firm.capacity import firm_capacity
from kapelle.dispatch.memory import Outcome
from kapelle.dispatch.preview import preview
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.capacity.kept import WINDOW_S
from kapelle.fleet.capacity.recalibration import LEVELS
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.orders import Amend, Hold, Order
from kapelle.model.plant import Direction
from kapelle.model.summaries import Room
from kapelle.words import power

P95 = LEVELS.index(0.95)


def plant_of(head_w: float = 20_000.0) -> Plant:
    """Return a plant whose partitions have told what 200 devices of two vendors can do."""
    plant = Plant()
    plant.down_w = plant.up_w
    for partition in range(2):
        share_w = head_w / 4
        way = [share_w, share_w, 0.0, share_w**2 / 50.0]
        room = Room(
            600.0,
            {f"0/{vendor}": [50.0, *way, *way] for vendor in ("acme", "bolt")},
            {vendor: {at: [share_w, share_w]} for at, vendor in ((3, "acme"), (40, "bolt"))},
        )
        plant.view.rooms[partition] = {ALL: {600.0: room, 3600.0: room}}
    return plant


def cycle(plant: Plant, at_s: float, settings: DispatchSettings = SETTINGS) -> Outcome:
    """Let a second pass: what is decided is heard, prospects as well."""
    for partition in range(2):
        plant.say(plant.summary(partition, at_s))
    out = step(plant.state, plant.view, s(at_s), EPOCH, settings)
    for body in [*out.plans, *out.notices, *out.prospects]:
        plant.say(body)
    return out


def sure_w(plant: Plant, direction: Direction = "up") -> float:
    return firm_capacity(plant.view, ALL, direction, 599.0).promise_w[P95]


@pytest.mark.parametrize(("target_w", "way"), [(5_000.0, "up"), (-5_000.0, "down")])
def test_a_plan_says_what_is_sure(target_w: float, way: Direction) -> None:
    plant = plant_of()
    plant.order(target_w)
    out = cycle(plant, 1)
    plan = only(out.plans)
    assert plan.committed_w == target_w
    assert plan.firm_w is not None
    assert abs(plan.firm_w) == pytest.approx(sure_w(plant, way))
    assert plan.firm_w * target_w > 0
    assert out.notices == []
    cycle(plant, 600)
    assert plant.view.orders[1].plan is not None
    assert plant.view.orders[1].plan.firm_w == plan.firm_w, "the last word says it too"


def test_more_than_is_sure_is_promised_with_a_warning() -> None:
    plant = plant_of()
    plant.order(19_000.0)
    out = cycle(plant, 1)
    plan = only(out.plans)
    assert plan.committed_w == 19_000.0
    (notice,) = out.notices
    assert notice.code == "at-risk"
    assert f"19.0 kW are committed, {power(sure_w(plant))} are 95 % sure" in notice.text
    assert notice.power_w == pytest.approx(19_000.0 - sure_w(plant))


def test_where_promises_are_bound_no_more_than_is_sure_is_promised() -> None:
    plant, bound = plant_of(), replace(SETTINGS, promise="p95")
    plant.order(19_000.0)
    out = cycle(plant, 1, bound)
    plan = only(out.plans)
    assert plan.committed_w == pytest.approx(sure_w(plant))
    assert plan.declined_w == pytest.approx(19_000.0 - plan.committed_w)
    assert plan.reason == f"promise: of 19.0 kW asked {power(sure_w(plant))} are 95 % sure"
    assert out.notices == []
    plant.say(Amend(1, 5_000.0, s(600), s(2)))
    assert only(cycle(plant, 3, bound).plans).reason == ""


def test_a_dry_run_tells_the_same() -> None:
    for settings in (SETTINGS, replace(SETTINGS, promise="p95")):
        plant = plant_of()
        cycle(plant, 1)
        asked = Order(1, ALL, 19_000.0, s(1), s(600), s(1))
        shown = preview(plant.view, asked, settings)
        plant.say(asked)
        plan = only(cycle(plant, 1, settings).plans)
        assert (shown.committed_w, shown.firm_w) == (plan.committed_w, plan.firm_w)
        assert shown.binding == plan.reason


def test_what_follows_another_order_is_not_sure() -> None:
    plant = plant_of()
    plant.up_w = 1_000.0
    plant.order(5_000.0)
    assert only(cycle(plant, 1).plans).firm_w == 2_000.0


def test_where_headroom_binds_first_it_is_named() -> None:
    plant, bound = plant_of(80_000.0), replace(SETTINGS, promise="p95")
    plant.order(60_000.0)
    plan = only(cycle(plant, 1, bound).plans)
    assert plan.committed_w == 20_000.0
    assert plan.reason.startswith("headroom up")


def test_nothing_sure_is_declined() -> None:
    plant, bound = plant_of(0.0), replace(SETTINGS, promise="p99")
    plant.order(5_000.0)
    plan = only(cycle(plant, 1, bound).plans)
    assert plan.status == OrderStatus.DECLINED
    assert "99 % sure" in plan.reason


def test_until_partitions_have_told_bound_promises_wait_and_others_do_not() -> None:
    for settings, plans in ((SETTINGS, 1), (replace(SETTINGS, promise="p90"), 0)):
        plant = Plant()
        plant.order(5_000.0)
        out = cycle(plant, 1, settings)
        assert len(out.plans) == plans
        assert all(plan.firm_w is None for plan in out.plans)
        assert out.prospects == []


def test_every_window_of_a_delivery_is_told_of_as_it_begins() -> None:
    plant = plant_of()
    plant.order(5_000.0, ends_s=2.5 * WINDOW_S)
    # First the partitions' curves are made for the length of the order.
    told = [
        each for at_s in range(1, int(2.6 * WINDOW_S), 10) for each in cycle(plant, at_s).prospects
    ]
    assert len(told) == 3
    for before, after in pairwise(told):
        assert 0 <= after.at_ns - before.ends_at_ns <= 20 * NS_PER_S
    assert told[-1].ends_at_ns == s(2.5 * WINDOW_S)
    for each in told:
        assert each.asked_w == pytest.approx(5_000.0 * 0.98), "within its tolerance it is kept"
        assert each.promise_w == sorted(each.promise_w, reverse=True)
        assert all(
            0.0 <= odds <= 1.0 - level for odds, level in zip(each.odds, LEVELS, strict=True)
        )


def test_nothing_is_told_while_commands_are_held() -> None:
    plant = plant_of()
    plant.order(5_000.0)
    cycle(plant, 1)
    plant.say(Hold(True, s(2)))
    assert cycle(plant, 3).prospects == []
