"""A part of headroom is never promised: it replaces who drops out while an order runs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dispatch.control_worlds import EPOCH, SETTINGS, Plant, only, s

from kapelle.config import parse
from kapelle.dispatch import control
from kapelle.dispatch.preview import preview
from kapelle.dispatch.promise import Room
from kapelle.dispatch.reserve import reserve_of
from kapelle.dispatch.settings import DispatchSettings
from kapelle.errors import Invalid
from kapelle.model.enums import OrderStatus
from kapelle.model.orders import Amend

KEPT = replace(SETTINGS, reserve_share=0.25, reserve={"north": 0.5})
powers = st.floats(0.0, 1e6)


@given(up_w=powers, down_w=powers, share=st.floats(0, 1), target_w=st.floats(-2e6, 2e6))
def test_no_promise_reaches_into_the_reserve(
    up_w: float, down_w: float, share: float, target_w: float
) -> None:
    room = Room(0.0, -down_w, up_w)
    reserve = reserve_of(DispatchSettings(reserve_share=share), "all", room)
    promised_w = reserve.bounded_w(target_w)
    assert -(1 - share) * down_w - 1e-6 <= promised_w <= (1 - share) * up_w + 1e-6
    assert abs(promised_w) <= abs(target_w) + 1e-6
    # The reserve is named only where it is what binds.
    assert bool(reserve.reason(target_w, promised_w)) == (
        abs(promised_w) < abs(room.committed_w(target_w))
    )


def step(plant: Plant, at_s: float, resource: str) -> control.Outcome:
    for partition in range(2):
        plant.say(plant.summary(partition, at_s))
    out = control.step(plant.state, plant.view, s(at_s), EPOCH, KEPT)
    for plan in out.plans:
        plant.say(plan)
    return out


@pytest.mark.parametrize(("resource", "promised_w"), [("all", 15_000.0), ("north", 10_000.0)])
def test_an_order_gets_what_the_reserve_leaves(resource: str, promised_w: float) -> None:
    plant = Plant()
    plant.order(18_000.0, resource=resource)
    shown = preview(plant.view, plant.view.orders[1].order, KEPT)
    plan = only(step(plant, 1, resource).plans)
    assert (plan.status, plan.committed_w) == (OrderStatus.ACTIVE, promised_w)
    kept = "5.0 kW" if resource == "all" else "10.0 kW"
    assert plan.reason.startswith("reserve: of 18.0 kW asked")
    assert kept in plan.reason
    assert shown.committed_w == 0.0, "nothing is known yet"
    again = preview(plant.view, plant.view.orders[1].order, KEPT)
    assert again.headroom_up_w == promised_w


def test_the_reserve_stands_while_an_order_is_amended_and_is_there_to_replace() -> None:
    plant = Plant()
    plant.order(10_000.0)
    step(plant, 1, "all")
    plant.say(Amend(1, 20_000.0, s(600), s(2)))
    plan = only(step(plant, 2, "all").plans)
    assert plan.committed_w == 15_000.0
    # A quarter of the devices is gone: the others do all of it, from the reserve.
    plant.up_w = 7_500.0
    out = step(plant, 3, "all")
    assert [signal.level for signal in out.signals] == [1.0]
    assert out.notices == []


@pytest.mark.parametrize("text", ["reserve_share = 1.5", "reserve = {north = -0.1}"])
def test_a_share_is_a_share(text: str) -> None:
    with pytest.raises(Invalid, match="cannot be used") as refused:
        parse(f"[dispatch]\n{text}\n", {})
    assert "lies between 0 and 1" in str(refused.value.problems)


def test_shares_are_read_by_resource() -> None:
    text = "[dispatch]\nreserve_share = 0.1\n[dispatch.reserve]\nnorth = 0.2\n"
    found = parse(text, {}).config.dispatch
    assert (found.reserve_share, dict(found.reserve)) == (0.1, {"north": 0.2})
