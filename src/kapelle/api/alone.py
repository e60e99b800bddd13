"""S-23: what one person may order alone, as the last hop will see it too (`safety.authority`)."""

from math import inf

from kapelle.adapters.http.problems import Refused
from kapelle.fleet.plant import PlantView
from kapelle.fleet.profiles import change_w, is_less, size_w
from kapelle.model.orders import Order
from kapelle.words import power


def check_order(view: PlantView, order: Order, above_w: float) -> None:
    """Refuse (403) an order that takes a second person.

    Its size, and that of all orders the same person has in force or waiting at any time of it,
    stay within what one person may order.
    """
    _check(view, order, order.issued_by, above_w)


def check_amendment(
    view: PlantView, was: Order, to: Order, person: str, now_ns: int, above_w: float
) -> None:
    """Refuse (403) an amendment that takes a second person. Less than before never does.

    Where an order is turned round it counts by how much it changes, not by what is left.
    """
    if is_less(was, to, now_ns):
        return
    changed_w = change_w(was, to, now_ns)
    if changed_w > above_w:
        raise _second_person(f"a change of {power(changed_w)}", above_w)
    _check(view, to, person, above_w)


def _check(view: PlantView, order: Order, person: str, above_w: float) -> None:
    if above_w == inf:
        return
    own_w = size_w(order)
    if own_w > above_w:
        raise _second_person(power(own_w), above_w)
    others = [
        state.order
        for state in view.orders.values()
        if state.order.order_no != order.order_no
        and state.given_by == person
        and state.order.operated_by in ("", state.order.issued_by)
        and not (state.is_over or state.cancelled_at_ns)
        and state.order.starts_at_ns < order.ends_at_ns
        and order.starts_at_ns < state.order.ends_at_ns
    ]
    sum_w = own_w + sum(size_w(other) for other in others)
    if sum_w > above_w:
        numbers = ", ".join(str(other.order_no) for other in others)
        what = f"{power(own_w)} beside order {numbers} of {person!r}, {power(sum_w)} together,"
        raise _second_person(what, above_w)


def _second_person(what: str, above_w: float) -> Refused:
    return Refused(
        403,
        "second-person-needed",
        f"{what} takes two persons, being more than {power(above_w)}: one selects the order"
        " (POST /v1/selections), another operates it with a token of his own; or raise"
        " operate_above_w in [safety]",
    )
