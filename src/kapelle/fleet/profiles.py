"""Orders whose target changes: which part is when, and what is asked and promised of it."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from kapelle.model.orders import Interval, Order, Plan, Promised


class Asks(Protocol):
    """An order, or whatever has its targets."""

    @property
    def starts_at_ns(self) -> int:
        """When it begins."""

    @property
    def ends_at_ns(self) -> int:
        """When it is over."""

    @property
    def target_w(self) -> float:
        """As of an `Order`. [W]"""

    @property
    def profile(self) -> tuple[Interval, ...]:
        """As of an `Order`."""


class Part(NamedTuple):
    """One stretch of an order with one target: [starts_at_ns, ends_at_ns)."""

    starts_at_ns: int
    ends_at_ns: int
    target_w: float


def parts(order: Asks) -> list[Part]:
    """Return the stretches of an order in their order; of one without a profile, one."""
    steps = order.profile or (Interval(order.starts_at_ns, order.target_w),)
    ends_ns = [*(step.starts_at_ns for step in steps[1:]), order.ends_at_ns]
    return [
        Part(step.starts_at_ns, end_ns, step.target_w)
        for step, end_ns in zip(steps, ends_ns, strict=True)
    ]


def size_w(order: Asks) -> float:
    """Return the most an order asks for at any time, either way. [W]"""
    return max(abs(order.target_w), *(abs(step.target_w) for step in order.profile), 0.0)


def is_less(was: Asks, to: Asks, from_ns: int) -> bool:
    """Tell whether an amended order asks at no moment, from one on, for more or the other way."""
    return all(
        was_w * to_w >= 0.0 and abs(to_w) <= abs(was_w) for was_w, to_w in _both(was, to, from_ns)
    )


def change_w(was: Asks, to: Asks, from_ns: int) -> float:
    """Return by how much an amendment changes what is asked at any moment, from one on. [W]"""
    return max((abs(to_w - was_w) for was_w, to_w in _both(was, to, from_ns)), default=0.0)


def target_w(order: Order, at_ns: int) -> float:
    """Return what an order asks at a moment; before its first interval what that asks. [W]"""
    if not order.profile:
        return order.target_w
    return order.profile[_place(order.profile, at_ns)].target_w


def largest_w(profile: Sequence[Interval]) -> float:
    """Return the target that is largest in size, the first of equals. [W]"""
    return max((step.target_w for step in profile), key=abs)


def present(plan: Plan, at_ns: int) -> Plan:
    """Return a plan as it is at a moment: with the promise of the interval that runs then.

    It counts as made when that interval began, so that a step between two is met like an amendment.
    """
    if not plan.profile:
        return plan
    now = plan.profile[_place(plan.profile, at_ns)]
    return msgspec.structs.replace(
        plan,
        at_ns=max(plan.at_ns, now.starts_at_ns),
        committed_w=now.committed_w,
        declined_w=now.target_w - now.committed_w,
    )


def promised(plan: Plan, ends_at_ns: int) -> list[Part]:
    """Return the stretches of a plan with what is promised of each."""
    ends_ns = [*(step.starts_at_ns for step in plan.profile[1:]), ends_at_ns]
    return [
        Part(step.starts_at_ns, end_ns, step.committed_w)
        for step, end_ns in zip(plan.profile, ends_ns, strict=True)
    ]


def is_for(plan: Plan, order: Order) -> bool:
    """Tell whether the intervals of a plan are those of an order."""
    planned = [(step.starts_at_ns, step.target_w) for step in plan.profile]
    return planned == [(step.starts_at_ns, step.target_w) for step in order.profile]


def _both(was: Asks, to: Asks, from_ns: int) -> list[tuple[float, float]]:
    """Return what two orders ask in each stretch from a moment on. [W]"""
    stretches = parts(was), parts(to)
    begins_ns = {max(part.starts_at_ns, from_ns) for each in stretches for part in each}
    # Where one of them is over, the other may go on.
    begins_ns |= {max(each.ends_at_ns, from_ns) for each in (was, to)}
    return [(_asked_w(stretches[0], at), _asked_w(stretches[1], at)) for at in sorted(begins_ns)]


def _asked_w(stretches: Sequence[Part], at_ns: int) -> float:
    during = (part for part in stretches if part.starts_at_ns <= at_ns < part.ends_at_ns)
    return next((part.target_w for part in during), 0.0)


def _place(steps: Sequence[Interval] | Sequence[Promised], at_ns: int) -> int:
    return max(bisect_right([step.starts_at_ns for step in steps], at_ns) - 1, 0)
