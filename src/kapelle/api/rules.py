"""What an order has to be before it is written; each rule refuses with a problem of its own."""

import hashlib

from kapelle.adapters.http.problems import Fault, Refused
from kapelle.api.shapes import AmendAsked, OrderAsked
from kapelle.api.times import to_ns
from kapelle.fleet.plant import OrderState, PlantView
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.orders import Order
from kapelle.words import power

_KEY_LENGTH_MAX = 200


def etag(state: OrderState) -> str:
    """Return the version of an order: it changes with every change an operator makes."""
    return f'"{state.order.order_no}-{state.amended_at_ns}-{state.cancelled_at_ns}"'


def check_match(state: OrderState, if_match: str | None) -> None:
    """Refuse a change to what has changed since the caller read it."""
    if if_match not in (None, "*", etag(state)):
        raise Refused(
            409,
            "order-changed",
            f"order {state.order.order_no} has changed since it was read; read it again",
        )


def check_key(key: str) -> None:
    """Refuse an idempotency key that cannot be stored as it came."""
    if len(key) > _KEY_LENGTH_MAX or not key.isprintable() or "#" in key:
        raise Refused(
            422,
            "key-unusable",
            f"Idempotency-Key has at most {_KEY_LENGTH_MAX} printable characters and no #",
        )


def check_target(target_w: float) -> None:
    """Refuse a change of nothing."""
    if target_w == 0:
        raise Refused(
            422,
            "target-zero",
            "a target of 0 W changes nothing; cancel the order instead",
            faults=[Fault("/target_w", "give a change in W, positive towards the grid")],
        )


def check_randomised(asked: OrderAsked, length_s: float) -> None:
    """Refuse an order that would never be whole, or that would begin in two ways at once."""
    if 2.0 * asked.randomise_s > length_s:
        raise Refused(
            422,
            "order-randomised",
            f"devices begin and end within {asked.randomise_s:g} s: it would never be whole",
            faults=[Fault("/randomise_s", f"at most half of its {length_s:g} s")],
        )
    if asked.profile is not None and (asked.staged or asked.randomise_s):
        raise Refused(
            422,
            "order-randomised",
            "an order with a profile begins with all its devices at once",
            faults=[Fault("/profile", "leave out staged and randomise_s, or give target_w")],
        )
    if asked.staged and asked.randomise_s:
        raise Refused(
            422,
            "order-randomised",
            "an order begins in stages or at random",
            faults=[Fault("/randomise_s", "leave it out, or staged")],
        )


def check_stages(order: Order, target_w: float, stage_above_w: float) -> None:
    """Refuse to make a large order of a small one that did not begin in stages."""
    is_large = abs(target_w) > max(stage_above_w, abs(order.target_w))
    if is_large and not order.staged and abs(order.target_w) <= stage_above_w:
        raise Refused(
            409,
            "order-unstaged",
            f"more than {power(stage_above_w)} begin in stages, which order {order.order_no} did"
            " not; cancel it and give a new one",
        )


def check_profile(order: Order, stage_above_w: float, state: OrderState | None = None) -> None:
    """Refuse a profile that would have to begin in stages or at random.

    Its intervals are planned for all its devices. An order that has gone to all of them may become
    a profile.

    Args:
        order: The order, as it is asked for or amended.
        stage_above_w: Larger ones begin in stages. [W]
        state: What became of it so far; None: it is new.
    """
    if not order.profile:
        return
    if order.randomise_s:
        raise Refused(
            422,
            "order-randomised",
            f"each device of order {order.order_no} begins and ends at its own moment, which the"
            " intervals of a profile do not",
            faults=[Fault("/profile", "give target_w; or cancel the order and give a new one")],
        )
    plan = state.plan if state is not None else None
    if plan is not None and (plan.rollout is None or plan.rollout.complete_at_ns):
        return
    if order.staged or abs(order.target_w) > stage_above_w:
        why = "this one asks to" if order.staged else f"more than {power(stage_above_w)} have to"
        raise Refused(
            409 if state is not None else 422,
            "order-unstaged",
            f"a profile does not begin in stages, and {why}",
            faults=[
                Fault(
                    "/profile",
                    "give target_w first, and amend the order with the profile once it has gone to"
                    " all its devices (complete_at)",
                )
            ],
        )


def check_turn(state: OrderState, target_w: float) -> None:
    """Refuse to turn an order round that is still being rolled out the other way."""
    plan = state.plan
    is_open = plan is not None and plan.rollout is not None and not plan.rollout.complete_at_ns
    if is_open and target_w * state.order.target_w < 0.0:
        raise Refused(
            409,
            "order-unstaged",
            f"order {state.order.order_no} has not gone to all its devices yet, and the other way"
            " begins with the first few again; cancel it and give a new one",
        )


def check_resource(view: PlantView, resource: str) -> None:
    """Refuse a resource that no partition has spoken of."""
    known = view.resources()
    if resource != ALL and resource not in known:
        raise Refused(
            422,
            "resource-unknown",
            f"there is no resource {resource!r}",
            faults=[Fault("/resource", f"one of: {', '.join(known[:20]) or ALL}")],
        )


def check_overlap(
    view: PlantView, resource: str, starts_at_ns: int, ends_at_ns: int, besides: int = 0
) -> None:
    """Refuse two targets for the same resource at once: neither could be told from the other.

    Resources that merely share devices go together: a device follows one of the orders.
    """
    for state in view.orders.values():
        other = state.order
        if other.order_no == besides:
            continue
        is_same = other.resource == resource
        meets = other.starts_at_ns < ends_at_ns and starts_at_ns < other.ends_at_ns
        if is_same and meets and not state.is_over and not state.cancelled_at_ns:
            raise Refused(
                422,
                "order-overlaps",
                f"order {other.order_no} has {other.resource!r} in that time; "
                "amend it, or cancel it first",
                more={"order_no": other.order_no},
            )


def end_of(asked: OrderAsked | AmendAsked, from_ns: int, otherwise_ns: int) -> int:
    """Return the end that was asked for, else `otherwise_ns`."""
    if asked.ends_at is not None and asked.duration_s is not None:
        raise Refused(
            422,
            "order-window",
            "duration_s and ends_at say the same twice",
            faults=[Fault("/duration_s", "give one of duration_s and ends_at")],
        )
    if asked.ends_at is not None:
        return to_ns(asked.ends_at)
    if asked.duration_s is not None:
        # Three years are beyond any order, and keep the sum within 64 bit.
        return from_ns + int(min(asked.duration_s, 1e8) * NS_PER_S)
    return otherwise_ns


def by_key(view: PlantView, key: str) -> OrderState | None:
    """Return the order that this idempotency key made, if any."""
    prefix = key + "#"
    return next((s for s in view.orders.values() if s.order.key.startswith(prefix)), None)


def check_same(known: OrderState, mark: str) -> OrderState:
    """Return the order, or refuse where another body made it."""
    if known.order.key != mark:
        raise Refused(
            409,
            "key-reused",
            "this Idempotency-Key was used for another request",
            more={
                "order_no": known.order.order_no,
                "first_request_sha256": known.order.key.rpartition("#")[2],
            },
        )
    return known


def digest(asked: OrderAsked) -> str:
    """Return what tells one request's body from another."""
    return hashlib.sha256(asked.model_dump_json().encode()).hexdigest()[:32]
