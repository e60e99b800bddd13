"""Plans a running profile again and again, and hands each plan over to those who follow it.

A plan is announced first: partitions then tell curves for it, while devices go on as they are. When
all have, it comes into force together with levels solved on these very curves. In between levels
stand still for a tick or two. What a plan says is acted on only after `physics` has let it pass;
until there is a new one the last stays in force.
"""

from collections.abc import Sequence

from kapelle.dispatch.memory import Cycle
from kapelle.dispatch.planning.groups import Window, groups, way_of, window
from kapelle.dispatch.planning.horizon import Horizon
from kapelle.dispatch.planning.lookahead import Ahead, Unplanned, by_knot
from kapelle.dispatch.planning.physics import checked
from kapelle.dispatch.promise import room_of
from kapelle.fleet.plant import Aggregate
from kapelle.fleet.profiles import promised
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Order, Plan
from kapelle.model.plant import Notice
from kapelle.model.signals import Rationing
from kapelle.model.summaries import ResourceSummary
from kapelle.words import power

REPLAN_S = 30.0
"""A plan is made anew this often, and at each interval's start. [s]"""
_AGAIN_S = 5.0
"""Where devices drop out or a plan was rejected: after this at the earliest. [s]"""
_LEAD_S = 3.0
"""So long before an interval its plan is announced. [s]"""
_PATIENCE_NS = 4 * NS_PER_S
"""A partition that has not told curves for a plan by then is not waited for."""
_ALIKE = 0.02
"""Rations that differ by less are left as they are: every change costs commands."""
_DROPPED = 0.02
"""Part of the devices that, when it drops out, makes for a new plan."""
_SHORT = 0.01
"""Part of an interval's promise that, when it will be missing, is told."""


def look_further(
    horizon: Horizon,
    cycle: Cycle,
    asked: Order,
    plan: Plan,
    known: Aggregate,
    told: Sequence[ResourceSummary],
) -> bool:
    """Plan if it is time to; return whether levels may be solved on the present curves."""
    now_ns = cycle.now_ns
    horizon.since_ns = horizon.since_ns or now_ns
    if horizon.rations is None and horizon.announced is None:
        horizon.rations = _in_force(told)
        if horizon.rations is not None:
            # Taken over from who drove before, even where its interval is over by now: first drive
            # on, towards the present target, then think.
            horizon.tried_at_ns = now_ns
        elif any(part.rationing for part in told) and now_ns - horizon.since_ns < _PATIENCE_NS:
            return False
    if horizon.announced is not None:
        waited_ns = now_ns - max(horizon.announced_at_ns, horizon.from_ns)
        is_told = _all_told(told, horizon.announced) or waited_ns >= _PATIENCE_NS
        if not is_told or now_ns < horizon.from_ns:
            return False
        horizon.rations, horizon.announced = horizon.announced, None
        horizon.switched_at_ns = now_ns
    from_ns = _due(horizon, cycle, asked, plan, known)
    if from_ns is None or not any(part.stores for part in told):
        return _all_told(told, horizon.rations) or now_ns - horizon.switched_at_ns >= _PATIENCE_NS
    _plan(horizon, cycle, asked, plan, known, told, from_ns)
    return horizon.announced is None


def _in_force(told: Sequence[ResourceSummary]) -> Rationing | None:
    """Return what partitions follow already, if they agree: as after a restart of ours."""
    first = told[0].rationing
    return first if _all_told(told, first) else None


def _all_told(told: Sequence[ResourceSummary], rationing: Rationing | None) -> bool:
    return all(part.rationing == rationing for part in told)


def _due(horizon: Horizon, cycle: Cycle, asked: Order, plan: Plan, known: Aggregate) -> int | None:
    """Return from when on a plan is to be made now; None where none is."""
    now_ns = cycle.now_ns
    begins = [each.starts_at_ns for each in plan.profile if each.starts_at_ns > now_ns]
    coming = begins[0] if begins else asked.ends_at_ns
    since_s = (now_ns - horizon.tried_at_ns) / NS_PER_S
    if begins and coming - now_ns <= _LEAD_S * NS_PER_S:
        is_planned = horizon.rations is not None and horizon.rations.until_ns > coming
        return None if is_planned or since_s < _LEAD_S / 2 else coming
    uncounted = sum(known.excluded.values())
    dropped = uncounted - horizon.uncounted > _DROPPED * known.devices
    overdue = horizon.rations is None or horizon.rations.until_ns <= now_ns or horizon.rejected
    if since_s >= (_AGAIN_S if dropped or overdue else REPLAN_S):
        return now_ns
    return None


def _plan(
    horizon: Horizon,
    cycle: Cycle,
    asked: Order,
    plan: Plan,
    known: Aggregate,
    told: Sequence[ResourceSummary],
    from_ns: int,
) -> None:
    horizon.tried_at_ns, horizon.uncounted = cycle.now_ns, sum(known.excluded.values())
    others_w = known.unmoved_w + room_of(told).own_w
    left = window(promised(plan, asked.ends_at_ns), from_ns, plan.baseline_w - others_w)
    way = way_of(step.target_w for step in asked.profile)
    there = groups((part.stores for part in told), left.lasts_s, way, len(left.want_w))
    found = checked(horizon.solve, there, left)
    _tell_rejected(horizon, cycle, asked, found.reason if isinstance(found, Unplanned) else "")
    if isinstance(found, Unplanned):
        return
    _tell_short(horizon, cycle, asked, found, left)
    parts = [part for part in promised(plan, asked.ends_at_ns) if part.ends_at_ns > from_ns]
    down = bool(left.want_w[0] < 0)
    table = by_knot(there, found.most, down)
    made = Rationing(
        until_ns=parts[0].ends_at_ns,
        ends_at_ns=asked.ends_at_ns,
        up=() if down else table,
        down=table if down else (),
    )
    if horizon.rations is None or not _alike(horizon.rations, made):
        horizon.announced, horizon.announced_at_ns = made, cycle.now_ns
        horizon.from_ns = from_ns


def _alike(one: Rationing, other: Rationing) -> bool:
    if (one.until_ns, one.ends_at_ns) != (other.until_ns, other.ends_at_ns):
        return False
    if (len(one.up), len(one.down)) != (len(other.up), len(other.down)):
        return False
    pairs = zip((*one.up, *one.down), (*other.up, *other.down), strict=True)
    return all(abs(first - second) <= _ALIKE for first, second in pairs)


def _tell_rejected(horizon: Horizon, cycle: Cycle, asked: Order, wrong: str) -> None:
    """Say once that plans are rejected, and why, and once that they no longer are."""
    if bool(wrong) != bool(horizon.rejected):
        code = "plan-rejected" if wrong else "plan-accepted"
        kept = "the last plan stays" if horizon.rations else "no look-ahead: all is held to the end"
        text = f"{wrong}; {kept}" if wrong else "plans are followed again"
        cycle.out.notices.append(
            Notice(cycle.now_ns, code, f"order {asked.order_no}: {text}", asked.order_no)
        )
    horizon.rejected = wrong


def _tell_short(horizon: Horizon, cycle: Cycle, asked: Order, found: Ahead, left: Window) -> None:
    """Say beforehand which intervals will fall short of what was promised."""
    first = len(asked.profile) - len(found.short_w)
    short = [
        (first + place + 1, float(short_w))
        for place, short_w in enumerate(found.short_w)
        if short_w > _SHORT * abs(left.want_w[place]) + 1.0
    ]
    numbers = tuple(number for number, _ in short)
    if set(numbers) - set(horizon.short):
        listed = ", ".join(f"{number} by {power(short_w)}" for number, short_w in short)
        text = f"order {asked.order_no}: energy will not suffice in interval {listed}"
        worst_w = max(short_w for _, short_w in short)
        cycle.out.notices.append(
            Notice(cycle.now_ns, "shortfall-ahead", text, asked.order_no, worst_w)
        )
    horizon.short = numbers
