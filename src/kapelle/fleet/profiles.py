"""Orders whose target changes: which part is when, and what is asked and promised of it."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from kapelle.model.orders import Interval, Order, Plan, Promised


class Part(NamedTuple):
    """One stretch of an order with one target: [starts_at_ns, ends_at_ns)."""

    starts_at_ns: int
    ends_at_ns: int
    target_w: float


def parts(order: Order) -> list[Part]:
    """Return the stretches of an order in their order; of one without a profile, one."""
    steps = order.profile or (Interval(order.starts_at_ns, order.target_w),)
    ends_ns = [*(step.starts_at_ns for step in steps[1:]), order.ends_at_ns]
    return [
        Part(step.starts_at_ns, end_ns, step.target_w)
        for step, end_ns in zip(steps, ends_ns, strict=True)
    ]


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


def _place(steps: Sequence[Interval] | Sequence[Promised], at_ns: int) -> int:
    return max(bisect_right([step.starts_at_ns for step in steps], at_ns) - 1, 0)
