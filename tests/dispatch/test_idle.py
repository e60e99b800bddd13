"""A host clock that was set is followed only while nothing depends on the time (ADR 0009)."""

import pytest

from kapelle.dispatch.idle import depends_on_time
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.model.entries import Entry, Kind
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import ALL, NS_PER_S, PLANT
from kapelle.model.orders import Cancel, Order, Plan

STARTS_S, ENDS_S = 10_000, 13_600


def ordered(status: OrderStatus | None, cancelled_s: int = 0) -> PlantView:
    """Return a plant with one order, as dispatch last spoke of it."""
    order = Order(
        order_no=1, resource=ALL, target_w=1.0, starts_at_ns=STARTS_S * NS_PER_S,
        ends_at_ns=ENDS_S * NS_PER_S, issued_at_ns=0, issued_by="test",
    )  # fmt: skip
    bodies: list[tuple[Kind, Order | Cancel | Plan]] = [(Kind.ORDER, order)]
    if cancelled_s:
        bodies.append((Kind.CANCEL, Cancel(1, cancelled_s * NS_PER_S)))
    if status is not None:
        bodies.append((Kind.PLAN, Plan(1, 0, 1, int(status), 0.0, 1.0, 0.0, "")))
    view = PlantView(1)
    for position, (kind, body) in enumerate(bodies, 1):
        apply_plant(view, Entry(PLANT, position, kind, "test", 0, 0, body))
    return view


@pytest.mark.parametrize(
    ("status", "cancelled_s", "from_s", "to_s"),
    [
        (None, 0, STARTS_S - 300, None),
        (OrderStatus.ACTIVE, 0, STARTS_S - 300, None),
        (OrderStatus.COMPLETED, 0, STARTS_S - 300, ENDS_S + 300),
        (OrderStatus.CANCELLED, 12_000, STARTS_S - 300, 12_300),
        (OrderStatus.DECLINED, 0, None, None),
    ],
)
def test_the_time_is_needed_from_before_an_order_until_its_commands_have_run_out(
    status: OrderStatus | None, cancelled_s: int, from_s: int | None, to_s: int | None
) -> None:
    view = ordered(status, cancelled_s)
    for at_s in (0, STARTS_S - 301, STARTS_S - 299, 11_000, 12_299, 12_301, ENDS_S + 299, 99_999):
        needed = from_s is not None and from_s < at_s and (to_s is None or at_s < to_s)
        assert depends_on_time(view, at_s * NS_PER_S) is needed, at_s


def test_nothing_depends_on_the_time_of_a_new_plant() -> None:
    assert not depends_on_time(PlantView(1), 0)
