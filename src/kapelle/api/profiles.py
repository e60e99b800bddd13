"""Orders whose target changes, as they are asked: lengths and targets become intervals."""

from kapelle.adapters.http.problems import Fault, Refused
from kapelle.api.shapes import AmendAsked, IntervalAsked, OrderAsked
from kapelle.fleet.profiles import largest_w
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Interval, Order

INTERVALS_MAX = 96


def asked_w(asked: OrderAsked | AmendAsked) -> float:
    """Return the one target of an order, or the largest in size of its profile. [W]

    Raises:
        Refused: It has neither, or both.
    """
    if (asked.target_w is None) == (asked.profile is None):
        text = "an order has a target_w or a profile, and not both"
        place = "/target_w" if asked.profile is None else "/profile"
        raise Refused(422, "request-invalid", text, faults=[Fault(place, "give one of the two")])
    if asked.profile is None:
        return asked.target_w or 0.0
    return max((interval.target_w for interval in asked.profile), key=abs)


def check_end(asked: OrderAsked | AmendAsked) -> None:
    """Refuse an end beside a profile, whose intervals say how long it is."""
    if asked.profile is None:
        return
    for name in ("duration_s", "ends_at"):
        if getattr(asked, name) is not None:
            raise Refused(
                422,
                "order-window",
                "a profile's intervals say when it ends",
                faults=[Fault(f"/{name}", "leave it out")],
            )


def laid_out(profile: list[IntervalAsked] | None, from_ns: int) -> tuple[tuple[Interval, ...], int]:
    """Return the intervals one after another, and the end of the last; none without a profile."""
    made, at_ns = [], from_ns
    for interval in profile or ():
        made.append(Interval(at_ns, interval.target_w))
        # As for an order: a hundred million seconds are beyond any, and keep the sum in 64 bit.
        at_ns += int(min(interval.duration_s, 1e8) * NS_PER_S)
    return tuple(made), at_ns


def amended(
    order: Order, asked: AmendAsked, now_ns: int, ends_at_ns: int
) -> tuple[float, int, tuple[Interval, ...]]:
    """Return target, end and the whole profile of an order as an amendment leaves it.

    A new profile replaces what is not over yet; a new target alone all of it; a new end alone cuts
    the profile off, or has its last interval last.
    """
    if asked.profile is not None:
        from_ns = max(now_ns, order.starts_at_ns)
        rest, ends_at_ns = laid_out(asked.profile, from_ns)
        past = _before(order, from_ns)
        if len(past) + len(rest) > INTERVALS_MAX:
            text = f"with the {len(past)} intervals that have begun there are more than"
            raise Refused(
                422,
                "order-profile",
                f"{text} {INTERVALS_MAX}",
                faults=[Fault("/profile", f"give at most {INTERVALS_MAX - len(past)} intervals")],
            )
        return largest_w((*past, *rest)), ends_at_ns, (*past, *rest)
    if asked.target_w is not None or not order.profile:
        target_w = order.target_w if asked.target_w is None else asked.target_w
        return target_w, ends_at_ns, ()
    kept = tuple(step for step in order.profile if step.starts_at_ns < ends_at_ns)
    return largest_w(kept or order.profile), ends_at_ns, kept


def _before(order: Order, at_ns: int) -> tuple[Interval, ...]:
    steps = order.profile or (Interval(order.starts_at_ns, order.target_w),)
    return tuple(step for step in steps if step.starts_at_ns < at_ns)
