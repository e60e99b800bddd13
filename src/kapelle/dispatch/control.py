"""From orders and summaries to one level per resource: commit, feed forward, trim, say what binds.

`step` writes only into the state given first. What must survive a restart is in the plans; the rest
of the state starts anew.
"""

from dataclasses import dataclass, field
from math import exp, isclose, isnan, nan

from kapelle.dispatch.allocation import Solution
from kapelle.dispatch.promise import binding, clash, levels_for, parts_of, room_of
from kapelle.dispatch.settings import DispatchSettings
from kapelle.dispatch.watch import Watch, cause_of, step_groups, step_partitions, step_shortfall
from kapelle.fleet.limits import HOLD_S
from kapelle.fleet.plant import Aggregate, OrderState, PlantView, total
from kapelle.model.enums import OrderStatus, Phase
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.plant import Notice, Order, Plan, Signal

_SAME_W = 1e-3
"""Sums of floats differ by less; nobody amends by so little. [W]"""
_WAITING = (Phase.PLANNED, Phase.SENT, Phase.RECEIVED)


@dataclass(slots=True)
class Running:
    """What the loop remembers of one order."""

    level: float = 0.0
    block_level: float = 0.0
    trim_w: float = 0.0
    reached_w: float = nan
    """What the solution asked of the controllable devices when it last moved. [W]"""
    uncounted: int = -1
    """Devices not counted on at the last step; -1 before the first."""
    settled_at_ns: int = 0
    """From here on measurements tell about the present plan."""
    trimmed_ns: int = 0
    """The oldest tick in the aggregate that the trim last followed."""
    signal: Signal | None = None
    signalled_at_ns: int = 0
    ends_at_ns: int = 0
    """The end of the order as last driven; 0 before."""
    promised_at_ns: int = 0
    """Time of the plan the loop works on."""


@dataclass(slots=True)
class ControlState:
    """What dispatch remembers between cycles; a restart goes on without it."""

    running: dict[int, Running] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)


@dataclass(slots=True)
class Outcome:
    """What a cycle has to say: signals to every partition, the rest to the plant."""

    signals: list[Signal] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Cycle:
    """What every order of a cycle has in common."""

    view: PlantView
    now_ns: int
    epoch: int
    settings: DispatchSettings
    out: Outcome


def step(
    state: ControlState, view: PlantView, now_ns: int, epoch: int, settings: DispatchSettings
) -> Outcome:
    """Take one cycle: start, drive and end orders; say what an operator should know."""
    cycle = _Cycle(view, now_ns, epoch, settings, Outcome())
    cycle.out.notices += step_groups(state.watch, total(view, ALL, now_ns), now_ns, settings)
    silent = [number for number in range(view.partitions) if number not in view.summaries]
    waits = False
    for order_no, order in sorted(view.orders.items()):
        if order.is_over:
            state.running.pop(order_no, None)
        elif order.cancelled_at_ns or now_ns >= order.order.ends_at_ns:
            _end(state, cycle, order)
        elif view.held:
            _rest(state, cycle, order)
        elif order.status == OrderStatus.ACTIVE and order.plan is not None:
            if silent:
                # After a restart partitions come back one by one. What the others deliver would
                # seem missing and be asked of the first once more: levels stay as they are.
                waits = True
            elif _is_amended(state, order.order, order.plan):
                _promise_anew(state, cycle, order, order.plan)
            else:
                _drive(state, cycle, order.order, order.plan)
        elif now_ns >= order.order.starts_at_ns:
            _start(state, cycle, order)
    cycle.out.notices += step_partitions(state.watch, silent, waits, now_ns, settings)
    return cycle.out


def _start(state: ControlState, cycle: _Cycle, order: OrderState) -> None:
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
        _decline(cycle, asked, reason)
        return
    known = total(cycle.view, asked.resource, now_ns)
    if not known.complete or not known.age_s <= cycle.settings.summary_age_s_max:
        if known.complete and not known.devices:
            _decline(cycle, asked, f"resource {asked.resource!r} has no devices")
        return
    running = state.running.setdefault(asked.order_no, Running())
    if asked.ends_at_ns - now_ns > HOLD_S * NS_PER_S and known.tick_ns <= _announced_ns(running):
        # The published curves are for a shorter window than this order's: have them made for it.
        _signal(running, cycle, asked, 0.0, 0.0)
        return
    parts = parts_of(cycle.view, asked.resource)
    committed_w = room_of(parts).committed_w(asked.target_w)
    if committed_w * asked.target_w <= 0.0 and asked.target_w != 0.0:
        _decline(cycle, asked, binding(known, asked.target_w, 0.0))
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
    _drive(state, cycle, asked, plan)


def _is_amended(state: ControlState, asked: Order, plan: Plan) -> bool:
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


def _promise_anew(state: ControlState, cycle: _Cycle, order: OrderState, was: Plan) -> None:
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
    _drive(state, cycle, asked, plan)


def _drive(state: ControlState, cycle: _Cycle, asked: Order, plan: Plan) -> None:
    """Solve for the levels that bring the resource to its target, and say so."""
    settings, now_ns = cycle.settings, cycle.now_ns
    running = state.running.setdefault(asked.order_no, Running())
    running.ends_at_ns = asked.ends_at_ns
    known = total(cycle.view, asked.resource, now_ns)
    parts = parts_of(cycle.view, asked.resource)
    if not parts:
        return
    if running.promised_at_ns != plan.at_ns:
        running.promised_at_ns, running.trim_w = plan.at_ns, 0.0
        running.settled_at_ns = now_ns + int(settings.settle_s * NS_PER_S)

    target_w = plan.baseline_w + plan.committed_w
    controlled_w = target_w - known.uncontrolled_w
    _trim(running, cycle, known, plan, target_w)
    found = levels_for(parts, controlled_w + running.trim_w, running.block_level)
    _note_moves(running, cycle, known, plan, found)
    running.level, running.block_level = found.level, found.block_level
    _signal(running, cycle, asked, found.level, found.block_level)

    short_w = _beyond_w(controlled_w, found.lowest_w, found.highest_w)
    if abs(short_w) <= 1.0:
        # What silent devices still hold is certain to end with their timers: said beforehand.
        short_w = _beyond_w(
            controlled_w + sum(part.fading_w for part in parts),
            found.lowest_w + sum(part.fading_down_w for part in parts),
            found.highest_w - sum(part.fading_up_w for part in parts),
        )
    if abs(short_w) <= 1.0:
        # Within reach on paper, and yet not there although it had the time.
        missed_w = target_w - known.power_w
        if now_ns >= running.settled_at_ns and abs(missed_w) > 2.0 * known.std_w:
            short_w = missed_w
    cycle.out.notices += step_shortfall(
        state.watch,
        asked,
        short_w,
        plan.committed_w,
        cause_of(state.watch, known),
        now_ns,
        settings,
    )


def _beyond_w(power_w: float, lowest_w: float, highest_w: float) -> float:
    """Return how far a power lies outside a range; signed. [W]"""
    return power_w - min(max(power_w, lowest_w), highest_w)


def _trim(running: Running, cycle: _Cycle, known: Aggregate, plan: Plan, target_w: float) -> None:
    """Integrate slowly what remains between target and estimate, while the estimate can tell.

    It stands still while a partition is not summed up anew. It rests while measurements still lag
    behind a plan that moved, while too little is measured, within the estimate's own error, and at
    the end of the range.
    """
    settings, now_ns = cycle.settings, cycle.now_ns
    # Counted in ticks: while a partition tells nothing new, no more of its old error is taken up.
    elapsed_s = (known.tick_ns - running.trimmed_ns) / NS_PER_S if running.trimmed_ns else 0.0
    running.trimmed_ns = max(known.tick_ns, running.trimmed_ns)
    if elapsed_s <= 0.0 or not known.age_s <= settings.summary_age_s_max:
        return
    error_w = target_w - known.power_w
    if abs(error_w) <= known.std_w:
        running.trim_w *= exp(-elapsed_s / settings.trim_fades_s)
        return
    waiting = sum(known.phases[phase] for phase in _WAITING)
    if now_ns < running.settled_at_ns or waiting > settings.waiting_max * sum(known.phases):
        return
    if isnan(known.measured_share) or known.measured_share < settings.measured_share_min:
        return
    most_w = settings.trim_max * abs(plan.committed_w)
    step_w = settings.trim_per_s * min(elapsed_s, 5.0) * error_w
    running.trim_w = min(max(running.trim_w + step_w, -most_w), most_w)


def _note_moves(
    running: Running, cycle: _Cycle, known: Aggregate, plan: Plan, found: Solution
) -> None:
    """Have the trim rest after the plan moved or devices dropped out."""
    settings, now_ns = cycle.settings, cycle.now_ns
    uncounted = sum(known.excluded.values())
    moved_w = abs(found.reached_w - running.reached_w)
    if not moved_w <= settings.moved * abs(plan.committed_w):
        running.settled_at_ns = now_ns + int(settings.settle_s * NS_PER_S)
        running.reached_w = found.reached_w
    elif uncounted - running.uncounted > settings.moved * known.devices:
        running.settled_at_ns = max(running.settled_at_ns, now_ns + 2 * NS_PER_S)
    running.uncounted = uncounted


def _signal(
    running: Running, cycle: _Cycle, asked: Order, level: float, block_level: float
) -> None:
    """Send the levels if they are new, or old enough to be repeated."""
    signal = Signal(
        asked.resource, asked.order_no, level, block_level, cycle.epoch, asked.ends_at_ns
    )
    due_ns = running.signalled_at_ns + int(cycle.settings.signal_every_s * NS_PER_S)
    if signal != running.signal or cycle.now_ns >= due_ns:
        running.signal, running.signalled_at_ns = signal, cycle.now_ns
        cycle.out.signals.append(signal)


def _rest(state: ControlState, cycle: _Cycle, order: OrderState) -> None:
    """Have the devices of a held order released; the last hop stops what is on its way."""
    if order.status != OrderStatus.ACTIVE:
        return
    running = state.running.setdefault(order.order.order_no, Running())
    if running.signal is None or running.signal.order_no:
        running.signal = _release(order.order, cycle.epoch)
        running.signalled_at_ns = cycle.now_ns
        running.trim_w = 0.0
        cycle.out.signals.append(running.signal)


def _end(state: ControlState, cycle: _Cycle, order: OrderState) -> None:
    """Release the devices and close the order."""
    asked, plan = order.order, order.plan
    if order.status == OrderStatus.PENDING and not order.cancelled_at_ns:
        _decline(cycle, asked, "it ended before it could start")
        return
    if plan is not None or asked.order_no in state.running:
        cycle.out.signals.append(_release(asked, cycle.epoch))
    status = OrderStatus.CANCELLED if order.cancelled_at_ns else OrderStatus.COMPLETED
    cycle.out.plans.append(
        Plan(
            order_no=asked.order_no,
            at_ns=cycle.now_ns,
            epoch=cycle.epoch,
            status=status,
            baseline_w=plan.baseline_w if plan else nan,
            committed_w=plan.committed_w if plan else 0.0,
            declined_w=plan.declined_w if plan else asked.target_w,
            reason=plan.reason if plan else "",
        )
    )
    state.watch.shortfalls.pop(asked.order_no, None)


def _release(asked: Order, epoch: int) -> Signal:
    return Signal(asked.resource, 0, 0.0, 0.0, epoch, asked.ends_at_ns)


def _decline(cycle: _Cycle, asked: Order, reason: str) -> None:
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
