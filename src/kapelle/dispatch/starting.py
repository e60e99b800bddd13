"""What is promised of an order when it starts or is amended, or why it is declined."""

from math import isclose, nan

from kapelle.dispatch.memory import ControlState, Cycle, Running
from kapelle.dispatch.promise import binding, clash, parts_of, room_of
from kapelle.dispatch.steering import drive, signal
from kapelle.fleet.curve.limits import HOLD_S
from kapelle.fleet.plant import OrderState, total
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.plant import Order, Plan

_SAME_W = 1e-3
"""Sums of floats differ by less; nobody amends by so little. [W]"""


def start(state: ControlState, cycle: Cycle, order: OrderState) -> None:
    """Promise what can be held, or decline and say why."""
    asked, now_ns = order.order, cycle.now_ns
    in_the_way = clash(cycle.view, asked.order_no, asked.resource)
    for plan in cycle.out.plans:
        # Started in this very cycle: the view does not know yet.
        started = cycle.view.orders[plan.order_no]
        same = ALL in (asked.resource, started.order.resource)
        if plan.status == OrderStatus.ACTIVE and (same or asked.resource == started.order.resource):
            in_the_way = started
    if in_the_way is not None:
        reason = f"order {in_the_way.order.order_no} on {in_the_way.order.resource!r} is running"
        decline(cycle, asked, reason)
        return
    known = total(cycle.view, asked.resource, now_ns)
    if not known.complete or not known.age_s <= cycle.settings.summary_age_s_max:
        if known.complete and not known.devices:
            decline(cycle, asked, f"resource {asked.resource!r} has no devices")
        return
    running = state.running.setdefault(asked.order_no, Running())
    if asked.ends_at_ns - now_ns > HOLD_S * NS_PER_S and known.tick_ns <= _announced_ns(running):
        # The published curves are for a shorter window than this order's: have them made for it.
        signal(running, cycle, asked, 0.0, 0.0)
        return
    parts = parts_of(cycle.view, asked.resource)
    committed_w = room_of(parts).committed_w(asked.target_w)
    if committed_w * asked.target_w <= 0.0 and asked.target_w != 0.0:
        decline(cycle, asked, binding(known, asked.target_w, 0.0))
        return
    plan = Plan(
        order_no=asked.order_no,
        at_ns=now_ns,
        epoch=cycle.epoch,
        status=OrderStatus.ACTIVE,
        baseline_w=known.power_w,
        committed_w=committed_w,
        declined_w=asked.target_w - committed_w,
        reason=binding(known, asked.target_w, committed_w),
    )
    cycle.out.plans.append(plan)
    drive(state, cycle, asked, plan)


def is_amended(state: ControlState, asked: Order, plan: Plan) -> bool:
    """Tell whether a plan was made for something else than what is asked now.

    Told from the plan and not from times: those of a plan and of an amendment are two clocks'. For
    which end it was made only memory says; after a restart the order just runs to its present end.
    """
    if not isclose(plan.committed_w + plan.declined_w, asked.target_w, abs_tol=_SAME_W):
        return True
    running = state.running.get(asked.order_no)
    return running is not None and running.ends_at_ns not in (0, asked.ends_at_ns)


def _announced_ns(running: Running) -> int:
    return running.signalled_at_ns if running.signal is not None else (1 << 62)


def promise_anew(state: ControlState, cycle: Cycle, order: OrderState, was: Plan) -> None:
    """Take up an amended order: the baseline stays, the promise follows the new target."""
    asked = order.order
    known = total(cycle.view, asked.resource, cycle.now_ns)
    room = room_of(parts_of(cycle.view, asked.resource))
    lowest_w = room.lowest_w + known.uncontrolled_w - was.baseline_w
    highest_w = room.highest_w + known.uncontrolled_w - was.baseline_w
    committed_w = min(max(asked.target_w, lowest_w), highest_w)
    plan = Plan(
        order_no=asked.order_no,
        at_ns=cycle.now_ns,
        epoch=cycle.epoch,
        status=OrderStatus.ACTIVE,
        baseline_w=was.baseline_w,
        committed_w=committed_w,
        declined_w=asked.target_w - committed_w,
        reason=binding(known, asked.target_w, committed_w),
    )
    cycle.out.plans.append(plan)
    drive(state, cycle, asked, plan)


def decline(cycle: Cycle, asked: Order, reason: str) -> None:
    """Say that nothing of an order is promised, and why."""
    cycle.out.plans.append(
        Plan(
            order_no=asked.order_no,
            at_ns=cycle.now_ns,
            epoch=cycle.epoch,
            status=OrderStatus.DECLINED,
            baseline_w=nan,
            committed_w=0.0,
            declined_w=asked.target_w,
            reason=reason,
        )
    )
