"""No command passes outside its limits, whoever wrote it; each refusal names its rule."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.model.blocks import Commands
from kapelle.model.entries import KIND_OF, Entry
from kapelle.model.enums import Phase
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.orders import Amend, Cancel, Order
from kapelle.ports import Places
from kapelle.safety import gate
from kapelle.safety.authority import OrderBook
from kapelle.safety.gate import PHASE_OF, RULES, check
from kapelle.safety.settings import SafetySettings
from kapelle.safety.state import GateState, Known

NOW_NS = 1_000 * NS_PER_S
SETTINGS = SafetySettings()


def commands(count: int = 1, **changed: object) -> Commands:
    made = Commands(
        device_no=np.arange(count, dtype=np.int32) * 2,
        order_no=np.ones(count, np.int32),
        revision=np.ones(count, np.int64),
        epoch=np.full(count, 5, np.int64),
        attempt=np.ones(count, np.int32),
        setpoint_w=np.full(count, 3000.0),
        issued_at_ns=np.full(count, NOW_NS, np.int64),
        not_after_ns=np.full(count, NOW_NS + 10 * NS_PER_S, np.int64),
        ttl_s=np.full(count, 10.0),
        revert_s=np.full(count, 120.0),
    )
    return replace(made, **{name: np.full(count, value) for name, value in changed.items()})


def rules(
    state: GateState,
    asked: Commands,
    up_w: float = 5000.0,
    down_w: float = 4000.0,
    at_s: float = 0.0,
    settings: SafetySettings = SETTINGS,
) -> list[str]:
    known = Known(
        (np.full(len(asked), up_w), np.full(len(asked), down_w)),
        Places(*np.zeros((3, len(asked)), np.int64), np.zeros(len(asked), np.bool_)),
    )
    now_ns = NOW_NS + int(at_s * NS_PER_S)
    state.orders.apply(Order(1, "all", 1e6, 0, NOW_NS + 10_000 * NS_PER_S, 0))
    return [RULES[place] for place in check(state, asked, known, now_ns, 2, settings)]


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({}, ""),
        ({"setpoint_w": 5000.0}, ""),
        ({"setpoint_w": -4000.0}, ""),
        ({"setpoint_w": 5100.0}, gate.NAMEPLATE),
        ({"setpoint_w": -4100.0}, gate.NAMEPLATE),
        ({"setpoint_w": np.inf}, gate.NAMEPLATE),
        ({"setpoint_w": np.nan}, ""),
        ({"setpoint_w": np.nan, "revert_s": 0.0}, ""),
        ({"not_after_ns": NOW_NS - 1}, gate.EXPIRED),
        ({"revert_s": 0.0}, gate.NO_REVERT),
        ({"revert_s": -1.0}, gate.NO_REVERT),
        ({"revert_s": 86_400.0}, gate.NO_REVERT),
        ({"revert_s": np.nan}, ""),
        ({"not_after_ns": NOW_NS + 3600 * NS_PER_S}, gate.OUTLIVES),
        ({"ttl_s": 3600.0}, gate.OUTLIVES),
        ({"ttl_s": np.nan}, gate.OUTLIVES),
        ({"order_no": 0}, gate.NO_ORDER),
        ({"order_no": 2}, gate.NO_ORDER),
        ({"order_no": 0, "setpoint_w": np.nan}, ""),
        ({"device_no": 4}, ""),
    ],
)
def test_a_command_breaks(changed: dict[str, float], rule: str) -> None:
    assert rules(GateState(), commands(**changed)) == [rule]


def test_devices_without_a_timer_can_be_shut_out() -> None:
    strict = SafetySettings(allow_no_failsafe=False)
    asked = commands(revert_s=np.nan)
    assert rules(GateState(), asked, settings=strict) == [gate.NO_REVERT]


def test_a_device_nobody_enrolled_gets_nothing() -> None:
    assert rules(GateState(), commands(), up_w=np.nan) == [gate.UNKNOWN]


def test_a_hold_stops_everything_releases_too() -> None:
    held = GateState(held=True)
    assert rules(held, commands(2)) == [gate.HOLD] * 2
    assert rules(held, commands(setpoint_w=np.nan)) == [gate.HOLD]


def test_an_owner_of_the_past_is_not_heard() -> None:
    state = GateState()
    assert rules(state, commands(epoch=5)) == [""]
    assert rules(state, commands(epoch=4)) == [gate.EPOCH]
    # Another partition has another owner.
    odd = replace(commands(epoch=4), device_no=np.array([1], np.int32))
    assert rules(state, odd) == [""]


def test_a_command_to_nobody_makes_no_owner() -> None:
    state = GateState()
    assert rules(state, commands(epoch=5)) == [""]
    assert rules(state, commands(epoch=1 << 40), up_w=np.nan) == [gate.UNKNOWN]
    assert rules(state, commands(epoch=5)) == [""]


def test_an_amendment_revives_no_cancelled_order() -> None:
    orders, later_ns = OrderBook(), NOW_NS + 3600 * NS_PER_S
    orders.apply(Order(1, "all", 1e4, 0, later_ns, 0))
    number = np.array([1], np.int32)
    assert orders.in_force(number, NOW_NS).all()
    orders.apply(Cancel(1, NOW_NS - 60 * NS_PER_S))
    orders.apply(Amend(1, 2e4, later_ns, NOW_NS))
    assert not orders.in_force(number, NOW_NS).any()


def test_a_device_is_not_asked_more_often_than_it_may_be() -> None:
    settings = SafetySettings(commands_per_minute=12.0, commands_burst=3.0)
    state = GateState()
    said = [rules(state, commands(), at_s=0.1 * n, settings=settings)[0] for n in range(5)]
    assert said == ["", "", "", gate.RATE, gate.RATE]
    assert rules(state, commands(), at_s=6.0, settings=settings) == [""]
    assert rules(state, commands(), at_s=6.1, settings=settings) == [gate.RATE]


def test_a_limit_of_ours_counts_against_no_device() -> None:
    assert PHASE_OF[gate.RATE] == PHASE_OF[gate.HOLD] == Phase.CANCELLED
    assert PHASE_OF[gate.NAMEPLATE] == Phase.REJECTED


@pytest.mark.parametrize(
    ("target_w", "operated_by", "amended_w", "rule"),
    [
        (900.0, "", 0.0, ""),
        (-1100.0, "", 0.0, gate.NOT_AGREED),
        (-1100.0, "alice", 0.0, gate.NOT_AGREED),
        (-1100.0, "bob", 0.0, ""),
        (1100.0, "bob", 1050.0, ""),
        (1100.0, "bob", -1050.0, gate.NOT_AGREED),
        (1100.0, "bob", -900.0, gate.NOT_AGREED),
        (900.0, "", -50.0, ""),
        (900.0, "", -150.0, gate.NOT_AGREED),
        (1100.0, "bob", 1200.0, gate.NOT_AGREED),
        (900.0, "", 1100.0, gate.NOT_AGREED),
    ],
)
def test_a_large_order_takes_two_persons_whoever_wrote_it(
    target_w: float, operated_by: str, amended_w: float, rule: str
) -> None:
    state, end_ns = GateState(), NOW_NS + 10_000 * NS_PER_S
    order = Order(1, "all", target_w, 0, end_ns, 0, issued_by="alice", operated_by=operated_by)
    state.orders.apply(order)
    if amended_w:
        state.orders.apply(Amend(1, amended_w, end_ns, 1, "alice"))
    assert rules(state, commands(), settings=SafetySettings(operate_above_w=1000.0)) == [rule]
    assert rules(state, commands(setpoint_w=np.nan), at_s=1.0) == [""]


def test_what_two_agreed_to_shrinks_with_the_order_as_a_restart_would_find_it() -> None:
    view, book, end_ns = PlantView(1), OrderBook(), NOW_NS + 10_000 * NS_PER_S
    order = Order(1, "all", 5e3, 0, end_ns, 0, issued_by="alice", operated_by="bob")
    amends = [Amend(1, 2e3, end_ns, 1, "alice"), Amend(1, 4e3, end_ns, 2, "alice")]
    for place, body in enumerate((order, *amends)):
        book.apply(body)
        apply_plant(view, Entry(PLANT, place + 1, KIND_OF[type(body)], "api", 0, 0, body))
        anew = OrderBook()
        anew.apply(view.orders[1].order)
        number = np.array([1], np.int32)
        assert book.is_agreed(number, 1e3).all() == anew.is_agreed(number, 1e3).all()
    assert not book.is_agreed(number, 1e3).any()


def test_what_two_agreed_to_lasts_no_longer_than_they_agreed_to() -> None:
    view, book, end_ns = PlantView(1), OrderBook(), NOW_NS + 60 * NS_PER_S
    order = Order(1, "all", 5e3, 0, end_ns, 0, issued_by="alice", operated_by="bob")
    longer = Amend(1, 5e3, end_ns + NS_PER_S, 1, "alice")
    for place, body in enumerate((order, longer)):
        book.apply(body)
        apply_plant(view, Entry(PLANT, place + 1, KIND_OF[type(body)], "api", 0, 0, body))
    anew = OrderBook()
    anew.apply(view.orders[1].order)
    number = np.array([1], np.int32)
    assert not book.is_agreed(number, 1e3).any()
    assert not anew.is_agreed(number, 1e3).any()


def test_what_an_order_says_of_its_time_makes_no_other_forgotten() -> None:
    book, number = OrderBook(), np.array([1], np.int32)
    book.apply(Order(1, "all", 1e4, 0, NOW_NS + 3600 * NS_PER_S, 0))
    book.apply(Order(2, "all", 1e4, 0, 1 << 61, 1 << 60))
    assert book.in_force(number, NOW_NS).all()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 6),
            st.floats(-1e5, 1e5) | st.just(np.nan),
            st.floats(-10, 200) | st.just(np.nan),
            st.integers(-5, 5),
        ),
        max_size=12,
        unique_by=lambda row: row[0],
    ),
    st.booleans(),
)
def test_whatever_passes_is_inside_every_limit(
    drawn: list[tuple[int, float, float, int]], held: bool
) -> None:
    count = len(drawn)
    asked = replace(
        commands(count),
        device_no=np.array([row[0] for row in drawn], np.int32),
        setpoint_w=np.array([row[1] for row in drawn]),
        revert_s=np.array([row[2] for row in drawn]),
        not_after_ns=np.array([NOW_NS + row[3] for row in drawn], np.int64),
    )
    for (_, setpoint_w, revert_s, left_ns), rule in zip(
        drawn, rules(GateState(held=held), asked), strict=True
    ):
        if rule == "":
            assert not held
            assert left_ns >= 0
            assert np.isnan(setpoint_w) or -4006 <= setpoint_w <= 5006
            assert np.isnan(setpoint_w) or np.isnan(revert_s) or revert_s > 0
