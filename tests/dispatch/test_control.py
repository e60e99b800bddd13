"""Orders start, are driven, end; and what an operator is told meanwhile."""

import math
from dataclasses import replace

import msgspec
import pytest

from kapelle.dispatch.control import ControlState, Outcome, step
from kapelle.dispatch.preview import preview
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.model.entries import KIND_OF, Entry
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.plant import (
    Amend,
    Cancel,
    Curve,
    Hold,
    Order,
    Plan,
    ResourceSummary,
    Signal,
    Small,
    Summary,
)

SETTINGS = DispatchSettings()
EPOCH = 3


def s(seconds: float) -> int:
    return 1_000 * NS_PER_S + int(seconds * NS_PER_S)


class Plant:
    """Two partitions; each could go from 0 to 10 kW up and 4 kW down on `all` and `north`."""

    def __init__(self) -> None:
        self.view = PlantView(2)
        self.state = ControlState()
        self.position = 0
        self.up_w, self.down_w = 10_000.0, 4_000.0
        self.power_w, self.uncontrolled_w, self.own_w = 0.0, 0.0, 0.0
        self.vendors = {"acme": [40, 40], "bolt": [20, 20]}
        self.excluded: dict[str, int] = {}
        self.fading_w = self.fading_up_w = 0.0

    def say(self, body: Small) -> None:
        self.position += 1
        apply_plant(
            self.view,
            Entry(PLANT, self.position, KIND_OF[type(body)], "test", 0, 0, body),
        )

    def summary(self, partition: int, at_s: float) -> Summary:
        part = ResourceSummary(
            resource="all",
            devices=30,
            power_w=self.power_w / 2,
            variance_w2=100.0,
            shared_std_w={},
            measured_w=self.power_w / 2,
            freshness=[0, 30, 0, 0, 0],
            oldest_age_s=2.0,
            nameplate_w=30_000.0,
            uncontrolled_w=self.uncontrolled_w / 2,
            headroom_up_w=self.up_w,
            headroom_down_w=self.down_w,
            commanded_w=0.0,
            continuous=Curve(
                [-1024.0, -1.0, 0.0, 1.0, 1024.0],
                [
                    self.own_w - self.down_w,
                    self.own_w - self.down_w,
                    self.own_w,
                    self.own_w + self.up_w,
                    self.own_w + self.up_w,
                ],
            ),
            blocks=Curve([-1024.0, 0.0, 1024.0], [0.0, 0.0, 0.0]),
            phases=[0] * 18,
            excluded=self.excluded,
            by_kind_w={},
            vendors={name: [n // 2, m // 2] for name, (n, m) in self.vendors.items()},
            measured_nameplate_w=30_000.0,
            fading_w=self.fading_w / 2,
            fading_up_w=self.fading_up_w / 2,
        )
        north = msgspec.structs.replace(part, resource="north")
        return Summary(partition, s(at_s), 1, [part, north])

    def step(self, at_s: float, summaries: bool = True) -> Outcome:
        if summaries:
            for partition in range(2):
                self.say(self.summary(partition, at_s))
        out = step(self.state, self.view, s(at_s), EPOCH, SETTINGS)
        for body in [*out.plans, *out.notices]:
            self.say(body)
        return out

    def order(self, target_w: float, no: int = 1, resource: str = "all", **other: float) -> None:
        starts_s, ends_s = other.get("starts_s", 0.0), other.get("ends_s", 600.0)
        self.say(Order(no, resource, target_w, s(starts_s), s(ends_s), s(0)))


def only(plans: list[Plan]) -> Plan:
    (plan,) = plans
    return plan


def test_an_order_is_promised_and_driven_at_once() -> None:
    plant = Plant()
    plant.power_w = plant.uncontrolled_w = 300.0
    plant.order(10_000.0)
    out = plant.step(1)
    plan = only(out.plans)
    assert plan.status == OrderStatus.ACTIVE
    assert (plan.baseline_w, plan.committed_w, plan.declined_w) == (300.0, 10_000.0, 0.0)
    assert plan.reason == ""
    assert out.signals == [Signal("all", 1, 0.5, 0.0, EPOCH, s(600))]
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
    assert first.signals == [Signal("all", 1, 0.0, 0.0, EPOCH, s(7200))]
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
        ("all", "north", False),
        ("north", "all", False),
        ("all", "all", False),
        ("north", "n2", True),
    ],
)
def test_one_order_at_a_time_has_a_device(first: str, second: str, runs: bool) -> None:
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


def test_the_loop_feeds_forward_what_drops_out() -> None:
    plant = Plant()
    plant.order(10_000.0)
    plant.step(1)
    # A third of the plant falls back to its own schedule: the rest makes up for it at once.
    plant.up_w = 20_000.0 / 3
    out = plant.step(2)
    assert out.signals[0].level == pytest.approx(0.75)
    # They still act: nothing to make up for.
    plant.uncontrolled_w = 3_000.0
    assert plant.step(3).signals[0].level == pytest.approx(7_000 / (40_000 / 3))


def test_a_lasting_error_is_trimmed_but_not_while_the_plan_moves() -> None:
    plant = Plant()
    plant.order(10_000.0)
    levels = []
    for at_s in range(1, 60):
        out = plant.step(at_s)
        levels += [signal.level for signal in out.signals]
        plant.power_w = 9_500.0
        if at_s < SETTINGS.settle_s:
            assert set(levels) == {0.5}
    assert max(levels) > 0.52
    most = (1 + SETTINGS.trim_max) * 0.5
    assert max(levels) <= most + 1e-9
    plant.power_w = 10_000.0
    for at_s in range(60, 600):
        plant.step(at_s)
    assert abs(plant.state.running[1].trim_w) < 10.0


def test_an_old_error_is_not_trimmed_again_and_again() -> None:
    """While nobody sums the fleet up the last error stays, and says nothing any more."""
    plant = Plant()
    plant.order(10_000.0)
    plant.step(1)
    plant.power_w = 9_000.0
    for at_s in range(2, 20):
        plant.step(at_s)
    before_w = plant.state.running[1].trim_w
    assert 0.0 < before_w < SETTINGS.trim_max * 10_000.0
    for at_s in range(20, 60):
        plant.step(at_s, summaries=False)
    assert plant.state.running[1].trim_w == before_w
    # One partition that speaks is not the whole.
    for at_s in range(60, 80):
        plant.say(plant.summary(0, at_s))
        plant.step(at_s, summaries=False)
    assert plant.state.running[1].trim_w == before_w
    # Neither are summaries of long ago, newer than the last as they may be.
    for at_s in range(80, 90):
        for partition in range(2):
            plant.say(plant.summary(partition, at_s - 40))
        plant.step(at_s, summaries=False)
    assert plant.state.running[1].trim_w == before_w
    plant.step(90)
    step_w = plant.state.running[1].trim_w - before_w
    assert 0.0 < step_w <= SETTINGS.trim_per_s * 5.0 * 1_000.0


def test_a_target_out_of_reach_is_announced_with_size_and_cause_and_so_is_its_end() -> None:
    plant = Plant()
    plant.order(18_000.0)
    plant.step(1)
    plant.vendors["bolt"] = [20, 0]
    plant.up_w = 5_000.0
    said = [notice for at_s in range(2, 12) for notice in plant.step(at_s).notices]
    assert [notice.code for notice in said] == ["group-lost", "shortfall"]
    shortfall = said[1]
    assert shortfall.order_no == 1
    assert shortfall.power_w == pytest.approx(8_000.0)
    assert "vendor bolt is lost" in shortfall.text
    assert (shortfall.at_ns - s(2)) / NS_PER_S <= 10.0
    plant.vendors["bolt"] = [20, 20]
    plant.up_w = 10_000.0
    said = [notice for at_s in range(12, 20) for notice in plant.step(at_s).notices]
    assert [notice.code for notice in said] == ["group-back", "shortfall-over"]


def test_a_shortfall_to_come_is_announced_before_it_is_there() -> None:
    plant = Plant()
    plant.order(18_000.0)
    plant.step(1)
    # A fifth is silent and holds its setpoints yet; a tenth is counted on and will not be there.
    plant.up_w, plant.uncontrolled_w = 8_000.0, 3_600.0
    plant.fading_w, plant.fading_up_w = 3_600.0, 2_000.0
    said = [notice for at_s in range(2, 6) for notice in plant.step(at_s).notices]
    assert [notice.code for notice in said] == ["shortfall"]
    assert said[0].power_w == pytest.approx(18_000.0 - 14_000.0)


def test_a_slow_decline_is_no_common_outage() -> None:
    plant = Plant()
    said = []
    for at_s in range(1, 400):
        plant.vendors["acme"] = [40, max(40 - at_s // 8, 0)]
        said += [n for n in plant.step(at_s).notices if "acme" in n.text and at_s < 100]
    assert said == []


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
    assert out.signals == [Signal("all", 1, 0.25, 0.0, EPOCH, s(600))]


def test_a_new_dispatcher_goes_on_from_the_plans() -> None:
    plant = Plant()
    plant.power_w = plant.uncontrolled_w = 500.0
    plant.order(5_000.0)
    plant.step(1)
    plant.power_w = 5_500.0
    plant.state = ControlState()
    out = plant.step(10)
    assert out.plans == []
    assert out.signals == [Signal("all", 1, 0.25, 0.0, EPOCH, s(600))]


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
