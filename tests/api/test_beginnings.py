"""How an order may begin: in stages, each device at its own moment, or with all at once."""

import pytest
from msgspec.structs import replace

from kapelle.adapters.http.problems import Refused
from kapelle.api import rules
from kapelle.api.shapes import OrderAsked
from kapelle.fleet.plant import OrderState
from kapelle.model.enums import OrderStatus
from kapelle.model.orders import Interval, Order, Plan, RollOut
from kapelle.model.signals import Signal


def order(target_w: float, *, staged: bool = False) -> Order:
    return Order(1, "all", target_w, 0, 600, 0, staged=staged)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"staged": True}, ""),
        ({"randomise_s": 300.0}, ""),
        ({"randomise_s": 301.0}, "never be whole"),
        ({"staged": True, "randomise_s": 60.0}, "in stages or at random"),
    ],
)
def test_an_order_begins_in_one_way_and_is_whole_for_a_while(
    more: dict[str, float], said: str
) -> None:
    asked = OrderAsked(target_w=1.0, duration_s=600.0, **more)
    if not said:
        rules.check_randomised(asked, 600.0)
        return
    with pytest.raises(Refused, match=said) as refused:
        rules.check_randomised(asked, 600.0)
    assert refused.value.status == 422
    assert refused.value.faults[0].pointer == "/randomise_s"


@pytest.mark.parametrize(
    ("was", "target_w", "is_refused"),
    [
        (order(100.0), 1000.0, False),
        (order(100.0), -1001.0, True),
        (order(100.0, staged=True), 2000.0, False),
        (order(1500.0), 2000.0, False),
        (order(1500.0), 500.0, False),
    ],
)
def test_no_amendment_goes_round_the_stages(was: Order, target_w: float, is_refused: bool) -> None:
    if not is_refused:
        rules.check_stages(was, target_w, 1000.0)
        return
    with pytest.raises(Refused, match="begin in stages"):
        rules.check_stages(was, target_w, 1000.0)


def test_no_amendment_turns_round_what_has_not_gone_to_all_yet() -> None:
    state = OrderState(order(1000.0, staged=True))
    rules.check_turn(state, -500.0)
    held = Signal("all", 1, 1.0, 0.0, 1, 600, stage=0.04)
    for complete_at_ns, is_refused in ((0, True), (5, False)):
        rollout = RollOut(held, complete_at_ns=complete_at_ns)
        state.plan = Plan(1, 0, 1, OrderStatus.ACTIVE, 0.0, 1000.0, 0.0, "", rollout=rollout)
        rules.check_turn(state, 500.0)
        if not is_refused:
            rules.check_turn(state, -500.0)
            continue
        with pytest.raises(Refused, match="the other way"):
            rules.check_turn(state, -500.0)


PROFILE = (Interval(0, 500.0), Interval(300, -2000.0))


def begun(complete_at_ns: int | None) -> OrderState:
    """Return an order that runs, and when it had gone to all its devices; None: at once."""
    signal = Signal("all", 1, 0.5, 0.0, 1, 600)
    rollout = None if complete_at_ns is None else RollOut(signal, complete_at_ns=complete_at_ns)
    plan = Plan(1, 0, 1, OrderStatus.ACTIVE, 0.0, 500.0, 0.0, "", rollout=rollout)
    return OrderState(order(500.0), plan=plan)


@pytest.mark.parametrize(
    ("changes", "state", "expected"),
    [
        ({}, None, (422, "order-unstaged")),
        ({"target_w": -1000.0}, None, None),
        ({"target_w": -1000.0, "staged": True}, None, (422, "order-unstaged")),
        ({"target_w": -1000.0, "randomise_s": 1.0}, None, (422, "order-randomised")),
        ({"profile": ()}, None, None),
        ({}, OrderState(order(500.0)), (409, "order-unstaged")),
        ({"staged": True}, begun(0), (409, "order-unstaged")),
        ({"staged": True}, begun(300), None),
        ({"staged": True}, begun(None), None),
        ({"randomise_s": 1.0}, begun(300), (422, "order-randomised")),
    ],
)
def test_a_profile_never_begins_as_if_it_needed_no_stages(
    changes: dict[str, object], state: OrderState | None, expected: tuple[int, str] | None
) -> None:
    asked = replace(order(-2000.0), **{"profile": PROFILE, **changes})
    if expected is None:
        rules.check_profile(asked, 1000.0, state)
        return
    with pytest.raises(Refused) as refused:
        rules.check_profile(asked, 1000.0, state)
    assert (refused.value.status, refused.value.code) == expected
    assert refused.value.faults[0].pointer == "/profile"
