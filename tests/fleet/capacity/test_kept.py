"""Promises are judged by what the plant's own orders deliver, and come true under drift."""

from math import sqrt
from statistics import NormalDist

import msgspec
import numpy as np
import pytest
from fleet_worlds import SETTINGS, fleet_of

from kapelle.dispatch.firm.capacity import promises
from kapelle.dispatch.firm.mixture import mix
from kapelle.dispatch.firm.portfolio import Portfolio, Response, vendor_of
from kapelle.fleet.capacity.kept import SETTLE_S
from kapelle.fleet.capacity.recalibration import LEVELS, Recalibration
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.snapshots import view_from_snapshot, view_to_snapshot
from kapelle.fleet.summary import summarise
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.orders import Hold, Order, Plan, Prospect
from kapelle.model.summaries import Summary

BASE_W = -500.0
ASKED_W = 1000.0
START_NS = 1_800_000_000 * NS_PER_S
P95 = LEVELS.index(0.95)
RESOURCE = summarise(fleet_of(1), SETTINGS).resources[0]


class Delivery:
    """One order's plant topic, as dispatch and one partition write it."""

    def __init__(self, asked_w: float = ASKED_W) -> None:
        self.view = PlantView(1)
        self.asked_w = asked_w
        self.now_ns = START_NS
        self.say(Order(1, ALL, asked_w, START_NS, START_NS + 10**18, START_NS))
        self.say(self.plan(OrderStatus.ACTIVE))

    def say(self, body: Body) -> None:
        entry = Entry("plant", self.view.position + 1, KIND_OF[type(body)], "", 0, 0, body)
        apply_plant(self.view, entry)

    def plan(self, status: OrderStatus) -> Plan:
        return Plan(1, self.now_ns, 1, status, BASE_W, self.asked_w, 0.0, "")

    def begin(self, promise_w: list[float], odds: list[float], window_s: int = 180) -> None:
        ends_ns = self.now_ns + window_s * NS_PER_S
        self.say(Prospect(1, self.now_ns, ends_ns, self.asked_w, promise_w, odds))

    def deliver(self, changes_w: list[float], every_s: int = 60) -> None:
        """Tell so much more than the baseline, once each so many seconds, from now on."""
        for changed_w in changes_w:
            part = msgspec.structs.replace(RESOURCE, power_w=BASE_W + changed_w)
            self.say(Summary(0, self.now_ns, 1, [part]))
            self.now_ns += every_s * NS_PER_S

    @property
    def learned(self) -> Recalibration:
        return self.view.firmness.kept.recalibration


SURE = [1200.0, 1100.0, 900.0, 800.0]
ODDS = [0.1, 0.05, 0.02, 0.01]


@pytest.mark.parametrize(
    ("least_w", "missed"),
    [
        (1000.0, [False] * 4),
        (950.0, [True, True, False, False]),
        (850.0, [True, True, True, False]),
    ],
)
def test_a_level_is_missed_where_less_came_than_promised_or_asked(
    least_w: float, missed: list[bool]
) -> None:
    world, expected = Delivery(), Recalibration()
    world.begin(SURE, ODDS)
    world.deliver([0.0, 1000.0, least_w, 1000.0, 1000.0])
    expected.step(ODDS, missed)
    assert world.learned == expected


def test_towards_consumption_less_is_less_as_well() -> None:
    world = Delivery(-ASKED_W)
    world.begin(SURE, ODDS)
    world.deliver([0.0, -1000.0, -850.0, -1000.0])
    assert world.learned.parts[P95] < 1.0


def test_what_is_replaced_within_a_minute_is_not_missed() -> None:
    world = Delivery()
    world.begin(SURE, ODDS)
    world.deliver([1000.0] * 12 + [700.0, 850.0] + [1050.0] * 4 + [1000.0] * 2, every_s=10)
    assert world.learned.windows == 1
    assert world.learned.parts[P95] > 1.0


def test_power_need_not_stand_at_once() -> None:
    world = Delivery()
    world.begin(SURE, ODDS)
    world.deliver([0.0] * int(SETTLE_S // 10) + [1000.0] * 13, every_s=10)
    assert world.learned.parts[P95] > 1.0


@pytest.mark.parametrize("how", ["hold", "amend", "cancel"])
def test_a_window_cut_short_says_nothing(how: str) -> None:
    world = Delivery()
    world.begin(SURE, ODDS)
    world.deliver([0.0, 0.0])
    world.say(
        {
            "hold": Hold(True, world.now_ns),
            "amend": world.plan(OrderStatus.ACTIVE),
            "cancel": world.plan(OrderStatus.CANCELLED),
        }[how]
    )
    world.deliver([0.0] * 4)
    assert world.learned == Recalibration()


def test_a_window_that_ends_with_its_order_counts() -> None:
    world = Delivery()
    world.begin(SURE, ODDS)
    world.deliver([1000.0, 1000.0, 850.0])
    world.say(world.plan(OrderStatus.COMPLETED))
    assert world.learned.parts[P95] < 1.0


def test_a_plant_that_was_away_for_most_of_it_judges_nothing() -> None:
    world = Delivery()
    world.begin(SURE, ODDS, window_s=900)
    world.deliver([0.0, 0.0, 0.0])
    world.now_ns += 3600 * NS_PER_S
    world.deliver([0.0])
    assert world.learned == Recalibration()


def test_a_restart_in_the_middle_forgets_nothing() -> None:
    through, restarted = Delivery(), Delivery()
    for world in (through, restarted):
        world.begin(SURE, ODDS)
        world.deliver([1000.0, 850.0])
    restarted.view = view_from_snapshot(view_to_snapshot(restarted.view), 1)
    for world in (through, restarted):
        world.deliver([1000.0, 1000.0, 1000.0])
    assert restarted.learned == through.learned
    assert restarted.learned.windows == 1


def test_under_drift_the_recalibrated_promise_is_kept_as_often_as_said_and_no_other() -> None:
    """Two weeks of quarter-hours in which ever fewer devices follow, and nobody says so.

    All of what is 95 % sure is called each time. The two answers are those of one portfolio; only
    that of the journal's fold follows what came of it.
    """
    windows, share, std = 1_500, 0.9, 0.03
    vendor = vendor_of("acme", [Response(1e6, 1e6**2 / 5_000, share, std)])
    mixture = mix(Portfolio([vendor], np.ones((1, 1)), ()))
    world, rng = Delivery(1e6), np.random.default_rng(8)
    nominal_w = promises(mixture, Recalibration())[P95]
    missed = missed_nominal = 0
    for window in range(windows):
        promise_w = promises(mixture, world.learned)
        world.begin(promise_w, mixture.short(np.array(promise_w)).tolist())
        now = share - 0.5 * std * window / windows
        weight = now * (1.0 - now) / std**2 - 1.0
        follows = rng.beta(now * weight, (1.0 - now) * weight)
        delivered_w = float(rng.binomial(5_000, follows)) * 1e6 / 5_000
        world.now_ns += 60 * NS_PER_S
        world.deliver([delivered_w], every_s=120)
        missed += delivered_w < promise_w[P95]
        missed_nominal += delivered_w < nominal_w
    spread = NormalDist().inv_cdf(0.975) * sqrt(windows * 0.05 * 0.95)
    assert world.learned.windows == windows - 1, "the last is still under way"
    assert abs(missed - windows * 0.05) <= spread
    assert missed_nominal > windows * 0.05 + spread
