"""What is promised of an order when it starts or is amended, or why it is declined."""

from math import isclose, nan

from msgspec.structs import replace

from kapelle.dispatch.beside import all_know, is_ending, is_followed, release, same_resource
from kapelle.dispatch.firm.orders import UNKNOWN, assurance, at_risk
from kapelle.dispatch.memory import ControlState, Cycle, Running
from kapelle.dispatch.planning.horizon import Horizon
from kapelle.dispatch.planning.promising import binds, of_largest_w, promise
from kapelle.dispatch.promise import binding, parts_of, room_of
from kapelle.dispatch.reserve import reserve_of, share_of
from kapelle.dispatch.rollout import begin
from kapelle.dispatch.steering import drive, signal
from kapelle.fleet.curve.limits import HOLD_S
from kapelle.fleet.plant import OrderState, total
from kapelle.fleet.profiles import is_for
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Order, Plan

_PATIENCE_NS = 4 * NS_PER_S
"""A partition that does not tell its energy by then is not waited for."""
_SAME_W = 1e-3
"""Sums of floats differ by less; nobody amends by so little. [W]"""


def start(state: ControlState, cycle: Cycle, order: OrderState) -> None:
    """Promise what can be held, or decline and say why."""
    asked, now_ns = order.order, cycle.now_ns
    started = [plan.order_no for plan in cycle.out.plans if plan.status == OrderStatus.ACTIVE]
    in_the_way = same_resource(cycle.view, asked, started)
    if in_the_way is not None:
        if not is_ending(in_the_way, now_ns):
            number = in_the_way.order.order_no
            decline(cycle, asked, f"order {number} on {asked.resource!r} is running: amend it")
        return
    known = total(cycle.view, asked.resource, now_ns)
    if not known.complete or not known.age_s <= cycle.settings.summary_age_s_max:
        if known.complete and not known.devices:
            decline(cycle, asked, f"resource {asked.resource!r} has no devices")
        return
    running = state.running.setdefault(asked.order_no, Running())
    if running.signal is None:
        # It claims devices from its first signal on: whoever was promised them meanwhile has them.
        running.rank = now_ns
    is_long = asked.ends_at_ns - now_ns > HOLD_S * NS_PER_S
    if (is_long or asked.profile) and known.tick_ns <= _announced_ns(running):
        # The published curves are for a shorter window than this order's: have them made for it,
        # and of everybody, though each begins at his own moment.
        signal(running, cycle, replace(asked, randomise_s=0.0), 0.0, 0.0)
        return
    if not all_know(state, cycle, asked):
        return
    sure = assurance(cycle.view, cycle.settings, asked, now_ns)
    if sure is None:
        return
    parts = parts_of(cycle.view, asked.resource)
    room = room_of(parts)
    reserve = reserve_of(cycle.settings, asked.resource, room)
    committed_w = sure.bounded_w(reserve.bounded_w(asked.target_w))
    kept = share_of(cycle.settings, asked.resource)
    steps = promise(asked, parts, now_ns, bounded=sure.bounded_w, kept=kept)
    if steps:
        committed_w = of_largest_w(steps, asked.target_w)
    is_none = committed_w * asked.target_w <= 0.0 and asked.target_w != 0.0
    if is_none and not any(step.committed_w for step in steps):
        reason = sure.reason(asked.target_w, 0.0) or reserve.reason(asked.target_w, 0.0)
        decline(cycle, asked, reason or binding(known, asked.target_w, 0.0, parts))
        return
    plan = Plan(
        order_no=asked.order_no,
        at_ns=now_ns,
        epoch=cycle.epoch,
        status=OrderStatus.ACTIVE,
        baseline_w=known.net_w,
        committed_w=committed_w,
        declined_w=asked.target_w - committed_w,
        reason=sure.reason(asked.target_w, committed_w)
        or reserve.reason(asked.target_w, committed_w)
        or (binds(steps) if steps else binding(known, asked.target_w, committed_w, parts)),
        firm_w=sure.firm_w,
        rank=running.rank,
        profile=steps,
    )
    cycle.out.plans.append(plan)
    cycle.out.notices += at_risk(asked, plan)
    drive(state, cycle, asked, plan)
    begin(state, cycle, asked, plan)


def is_amended(state: ControlState, asked: Order, plan: Plan) -> bool:
    """Tell whether a plan was made for something else than what is asked now.

    Told from the plan and not from times: those of a plan and of an amendment are two clocks'. For
    which end it was made only memory says; after a restart the order just runs to its present end.
    """
    if not isclose(plan.committed_w + plan.declined_w, asked.target_w, abs_tol=_SAME_W):
        return True
    if not is_for(plan, asked):
        return True
    running = state.running.get(asked.order_no)
    return running is not None and running.ends_at_ns not in (0, asked.ends_at_ns)


def _announced_ns(running: Running) -> int:
    return running.signalled_at_ns if running.signal is not None else (1 << 62)


def promise_anew(state: ControlState, cycle: Cycle, order: OrderState, was: Plan) -> None:
    """Take up an amended order: the baseline stays, the promise follows the new target."""
    asked = order.order
    known = total(cycle.view, asked.resource, cycle.now_ns)
    if not known.devices:
        # Of nobody nothing can be promised: it is as soon as somebody is there again.
        drive(state, cycle, asked, was)
        return
    if (asked.profile or was.profile) and _asks_energy(state, cycle, asked, known.tick_ns):
        return
    parts = parts_of(cycle.view, asked.resource)
    room = room_of(parts)
    beyond_w = known.unmoved_w - was.baseline_w
    reserve = reserve_of(cycle.settings, asked.resource, room)
    # Where they are by now without the order, as seen from where they were.
    drift_w = room.own_w + beyond_w
    committed_w = drift_w + reserve.bounded_w(asked.target_w - drift_w)
    sure = assurance(cycle.view, cycle.settings, asked, cycle.now_ns) or UNKNOWN
    committed_w = sure.bounded_w(committed_w)
    besides_w = -(beyond_w + room.own_w)
    kept = share_of(cycle.settings, asked.resource)
    steps = promise(asked, parts, cycle.now_ns, besides_w, was.profile, sure.bounded_w, kept)
    if steps:
        committed_w = of_largest_w(steps, asked.target_w)
    plan = Plan(
        order_no=asked.order_no,
        at_ns=cycle.now_ns,
        epoch=cycle.epoch,
        status=OrderStatus.ACTIVE,
        baseline_w=was.baseline_w,
        committed_w=committed_w,
        declined_w=asked.target_w - committed_w,
        reason=sure.reason(asked.target_w, committed_w)
        or reserve.reason(asked.target_w - drift_w, committed_w - drift_w)
        or (binds(steps) if steps else binding(known, asked.target_w, committed_w, parts)),
        firm_w=sure.firm_w,
        rank=was.rank,
        profile=steps,
        rollout=was.rollout,
    )
    cycle.out.plans.append(plan)
    cycle.out.notices += at_risk(asked, plan)
    drive(state, cycle, asked, plan)


def _asks_energy(state: ControlState, cycle: Cycle, asked: Order, tick_ns: int) -> bool:
    """Tell whether to wait: what an amendment needs to know may not have been asked for yet.

    Who was asked for what can be given has not told what can be taken; and without a profile all
    has to be held to the end again.
    """
    running = state.running.get(asked.order_no)
    if running is None or running.signal is None:
        return False
    horizon = running.horizon
    was = running.signal
    if not horizon.asked_at_ns:
        # Plans were for what is no longer asked: another is made at once.
        kept = horizon.rations if asked.profile else None
        running.horizon = horizon = Horizon(rations=kept, solve=horizon.solve)
        signal(running, cycle, asked, running.level, running.block_level, running.near.prices)
        latest = running.signal
        if (was.stores, was.ends_at_ns) == (latest.stores, latest.ends_at_ns):
            return False
        horizon.asked_at_ns = cycle.now_ns
    waited_ns = cycle.now_ns - horizon.asked_at_ns
    if tick_ns <= horizon.asked_at_ns and waited_ns < _PATIENCE_NS:
        return True
    horizon.asked_at_ns = 0
    return False


def decline(cycle: Cycle, asked: Order, reason: str) -> None:
    """Say that nothing of an order is promised, and why."""
    if is_followed(cycle.view, asked.order_no):
        # It was announced, and has claimed devices since.
        cycle.out.signals.append(release(cycle, asked))
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
