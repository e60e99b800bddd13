"""The plant's sum: what is known of it, how well, and what becomes of orders."""

from math import isnan, sqrt

import msgspec
import numpy as np
import pytest
from fleet_worlds import (
    SETTINGS,
    T0,
    block,
    enrolled,
    entry,
    fleet_of,
    power,
    s,
    say,
    sessions,
    tick,
)

from kapelle.errors import JournalDamaged
from kapelle.fleet.plant import OrderState, PlantView, apply_plant, total
from kapelle.fleet.snapshots import view_from_snapshot, view_to_snapshot
from kapelle.fleet.summary import summarise
from kapelle.model.entries import Body
from kapelle.model.enums import Exclusion, Freshness, Metric, OrderStatus, Phase, SessionEvent
from kapelle.model.orders import Amend, Cancel, Hold, Order, Plan
from kapelle.model.plant import Members, Notice
from kapelle.model.signals import Signal
from kapelle.model.summaries import Summary
from kapelle.ports import Snapshot


def view_of(*bodies: Body, partitions: int = 1) -> PlantView:
    view = PlantView(partitions)
    for position, body in enumerate(bodies, 1):
        apply_plant(view, entry(position, body))
    return view


def order(order_no: int = 1, target_w: float = 3e6) -> Order:
    return Order(order_no, "all", target_w, s(0), s(600), s(0))


def plan(status: OrderStatus, order_no: int = 1) -> Plan:
    return Plan(order_no, s(1), 1, status, 1e5, 2.5e6, 0.5e6, "headroom")


def test_summary_counts_what_is_measured_estimated_and_unknown() -> None:
    fleet = fleet_of(6)
    say(fleet, sessions(*((no, SessionEvent.UP, 1) for no in range(6))))
    say(fleet, Members("pair", [0, 4, 5]), enrolled([4], active=0))
    for second in range(5, 101, 5):
        # 0 and 1 go on, 2 and 3 fall silent at 50 s, 5 is never heard.
        heard = range(4) if second <= 50 else range(2)
        say(fleet, block([power(no, second, 100.0 * (no + 1)) for no in heard]))
        tick(fleet, second)
    everything, pair = summarise(fleet, SETTINGS).resources
    assert (everything.resource, pair.resource) == ("all", "pair")
    assert everything.devices == 5
    assert everything.power_w == 1000.0
    assert everything.measured_w == 300.0
    assert everything.freshness == [1, 2, 0, 2, 0]
    assert everything.nameplate_w == 25_000.0
    assert everything.measured_nameplate_w == 10_000.0
    assert everything.oldest_age_s == pytest.approx(0.0, abs=0.2)
    assert everything.uncontrolled_w == 700.0
    assert everything.excluded == {"silent": 3}
    assert everything.by_kind_w == {"battery": 1000.0}
    assert everything.vendors == {"maker-0": [2, 1], "maker-1": [1, 1], "maker-2": [2, 0]}
    silent = everything.evidence.silent
    assert [(cell, sums[:2]) for cell, sums in silent.items()] == [(5, [2.0, 10_000.0])]
    assert everything.evidence.silent_groups == {"0/maker-0": 5000.0, "0/maker-2": 5000.0}
    assert (pair.devices, pair.power_w, pair.freshness[Freshness.NEVER]) == (2, 100.0, 1)


def test_shared_errors_add_over_partitions_and_independent_ones_as_variances() -> None:
    fleet = fleet_of(1)
    tick(fleet, 1)
    part = summarise(fleet, SETTINGS).resources[0]
    parts = [
        _with(part, variance_w2=9.0, shared_std_w={"a": 3.0, "b": 1.0}, steady_variance_w2=5.0),
        _with(part, variance_w2=16.0, shared_std_w={"a": 4.0}, steady_std_w=10.0),
    ]
    view = view_of(*(Summary(k, s(1), 1, [p]) for k, p in enumerate(parts)), partitions=2)
    common_w = 10.0 * SETTINGS.live_common_share
    std_w = sqrt(25 + 7.0**2 + 1.0 + 5.0 + common_w**2)
    whole = total(view)
    assert whole.std_w == pytest.approx(std_w)
    assert whole.high_w - whole.low_w == pytest.approx(2 * 1.96 * std_w, rel=1e-4)


def _with(part, **changed):
    fields = {name: getattr(part, name) for name in part.__struct_fields__}
    return type(part)(**(fields | changed))


def test_total_says_how_old_it_is_and_whether_all_have_spoken() -> None:
    fleet = fleet_of(2)
    tick(fleet, 10)
    summary = summarise(fleet, SETTINGS)
    view = view_of(summary, partitions=2)
    whole = total(view, now_ns=s(12))
    assert (whole.age_s, whole.complete, whole.devices) == (2.0, False, 2)
    nothing = total(view, "no such resource")
    assert (nothing.devices, nothing.power_w, nothing.std_w) == (0, 0.0, 0.0)
    assert isnan(nothing.age_s)
    assert isnan(nothing.measured_share)
    assert isnan(nothing.oldest_age_s)


def test_an_older_summary_does_not_replace_a_newer_one() -> None:
    fleet = fleet_of(1)
    tick(fleet, 10)
    old = summarise(fleet, SETTINGS)
    tick(fleet, 11)
    new = summarise(fleet, SETTINGS)
    assert view_of(new, old).summaries[0] is new
    assert view_of(old, new).summaries[0] is new


def test_order_with_its_amendments_plan_and_end() -> None:
    view = view_of(order(), order(target_w=9.0), Amend(1, 2e6, s(900), s(5)))
    state = view.orders[1]
    assert (state.order.target_w, state.order.ends_at_ns) == (2e6, s(900))
    assert (state.order.starts_at_ns, state.order.issued_at_ns) == (s(0), s(0))
    assert (state.status, state.committed_w, state.is_over) == (OrderStatus.PENDING, 0.0, False)
    assert isnan(state.baseline_w)

    view = view_of(order(), plan(OrderStatus.ACTIVE), Cancel(1, s(7)), Cancel(1, s(8)))
    state = view.orders[1]
    assert (state.baseline_w, state.committed_w) == (1e5, 2.5e6)
    assert (state.status, state.cancelled_at_ns) == (OrderStatus.ACTIVE, s(7))

    view = view_of(order(), plan(OrderStatus.COMPLETED), Amend(1, 9e6, s(900), s(5)))
    assert view.orders[1].is_over
    assert view.orders[1].order.target_w == 3e6


def test_an_amendment_keeps_the_second_person_only_for_what_he_agreed_to() -> None:
    agreed = msgspec.structs.replace(order(), issued_by="alice", operated_by="bob")
    for target_w, by in ((3e6, "bob"), (2e6, "bob"), (3.1e6, ""), (-3e6, ""), (-1.0, "")):
        view = view_of(agreed, Amend(1, target_w, s(600), s(1), "alice"))
        assert view.orders[1].order.operated_by == by


def test_entries_about_unknown_orders_and_repeated_entries_change_nothing() -> None:
    view = view_of(Amend(5, 1.0, s(1), s(1)), Cancel(5, s(1)), plan(OrderStatus.ACTIVE, 5))
    assert view.orders == {}
    apply_plant(view, entry(2, order()))
    assert view.orders == {}
    assert view.position == 3


def test_hold_and_notices() -> None:
    view = view_of(Hold(True, T0, "test"), *(Notice(s(i), "x", "y") for i in range(400)))
    assert view.held
    assert view.hold_reason == "test"
    assert len(view.notices) == 256
    apply_plant(view, entry(1000, Hold(True, T0 + 5, "again")))
    assert view.held_at_ns == T0, "since when it is held"
    apply_plant(view, entry(1001, Hold(False, T0 + 6)))
    assert (view.held, view.held_at_ns) == (False, 0)
    apply_plant(view, entry(1002, Hold(True, T0 + 7)))
    assert view.held_at_ns == T0 + 7


def test_excluded_and_commanded_devices_are_told_apart() -> None:
    fleet = fleet_of(4, report_every_s=5.0)
    say(fleet, sessions(*((no, SessionEvent.UP, 1) for no in (0, 1, 2))))
    say(fleet, block([power(no, 1.0, 100.0) for no in range(4)]))
    fleet.desired_w[:2] = 700.0
    fleet.phase[:2] = [Phase.SENT, Phase.UNKNOWN]
    fleet.excluded[1] = Exclusion.UNKNOWN
    fleet.excluded_until_ns[1] = s(1000)
    fleet.order_no[:2] = 1
    tick(fleet, 2)
    part = summarise(fleet, SETTINGS).resources[0]
    assert part.excluded == {"unknown": 1, "unreachable": 1}
    assert part.commanded_w == 1400.0
    assert part.phases[Phase.SENT] == part.phases[Phase.UNKNOWN] == 1
    assert sum(part.phases) == 2
    assert part.uncontrolled_w == 200.0
    assert np.isfinite(part.headroom_up_w)


def test_headroom_is_said_for_15_minutes_whatever_order_is_in_force() -> None:
    fleet = fleet_of(8, report_every_s=5.0)
    say(fleet, sessions(*((no, SessionEvent.UP, 1) for no in range(8))))
    reports = [power(no, 1.0, 100.0 * no) for no in range(7)]
    say(fleet, block([r._replace(values=r.values | {Metric.SOC: 0.2}) for r in reports]))
    tick(fleet, 2)
    before = summarise(fleet, SETTINGS).resources[0]
    say(fleet, Signal("all", 1, 0.5, 0.5, 1, s(100)))
    during = summarise(fleet, SETTINGS).resources[0]
    assert during.continuous.power_w[-1] > before.continuous.power_w[-1]
    assert during.headroom_up_w == pytest.approx(before.headroom_up_w)
    assert during.headroom_down_w == pytest.approx(before.headroom_down_w)
    assert 0 < before.headroom_up_w < 7 * 5000


def test_view_survives_its_snapshot() -> None:
    fleet = fleet_of(2)
    tick(fleet, 10)
    view = view_of(
        order(),
        Amend(1, 2e6, s(900), s(5)),
        plan(OrderStatus.ACTIVE),
        order(2),
        Cancel(2, s(7)),
        Hold(True, T0, "storm"),
        Notice(s(8), "shortfall", "too little"),
        summarise(fleet, SETTINGS),
    )
    again = view_from_snapshot(view_to_snapshot(view), 1)
    assert again.position == view.position
    assert [vars_of(state) for state in again.orders.values()] == [
        vars_of(state) for state in view.orders.values()
    ]
    assert (again.held, again.hold_reason, again.held_at_ns) == (True, "storm", view.held_at_ns)
    assert list(again.notices) == list(view.notices)
    assert repr(total(again)) == repr(total(view))
    for each in (view, again):
        apply_plant(each, entry(99, plan(OrderStatus.COMPLETED, 2)))
    assert again.orders[2].status == view.orders[2].status == OrderStatus.COMPLETED
    with pytest.raises(JournalDamaged, match="plant"):
        view_from_snapshot(Snapshot(1, {}, b"\xc1"), 1)


def vars_of(state: OrderState) -> tuple[object, ...]:
    return tuple(getattr(state, name) for name in OrderState.__slots__)


def test_orders_long_over_are_forgotten_and_running_ones_never() -> None:
    view = view_of(order(1), *(b for no in range(2, 1200) for b in (order(no), ended(no))))
    assert len(view.orders) == 1000
    assert 1 in view.orders
    assert 1199 in view.orders
    assert 2 not in view.orders


def ended(order_no: int) -> Plan:
    return plan(OrderStatus.COMPLETED, order_no)
