"""S-22, S-21: orders that begin with a few devices, or with one after the other.

What was found for the whole resource is kept while the order is rolled out: each device that takes
part does what it would do at the end, so that the first few are a true sample, and nobody
makes up for those who still wait. A stage is over when the meters of its devices show what was
asked; more failures than `stage_failed_max` of them end the order. The plan carries all of it, so
that a dispatcher that restarts goes on where the one before it was.

An amendment to less counts at once: levels are found anew among those who take part, for their
part of what is still asked, and again at each further stage, since a few are a rough sample.

The last stage, all of them, is not waited for: its devices are those of the stages before and as
many more drawn by the same lot, and who of them fails is replaced as in any other order, which
could not begin while the order waits for proof of itself.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from kapelle.dispatch.memory import ControlState, Cycle, Running
from kapelle.dispatch.promise import levels_for, parts_of, room_at_rest_w, room_of
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.plant import OrderState, total
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Cancel, Order, Plan, RollOut, Stage
from kapelle.model.plant import Notice
from kapelle.model.signals import Signal
from kapelle.model.summaries import ResourceSummary
from kapelle.words import percent

_WRITER = "dispatch"
_HEARD_NS = 3 * NS_PER_S
"""From a signal to sums that reckon with it."""
_NOBODY_NS = 30 * NS_PER_S
"""A stage nobody can be asked in is over after this."""
_DECIDED = 0.9
"""So much of a stage has to be proven or have failed."""
_NONE = ("asked", "verified")
_ROUNDING = 1e-6


def is_staged(asked: Order, settings: DispatchSettings) -> bool:
    """Tell whether an order is to begin with a few of its devices."""
    is_large = abs(asked.target_w) > settings.stage_above_w
    return (asked.staged or is_large) and not asked.profile


def begin(state: ControlState, cycle: Cycle, asked: Order, plan: Plan) -> None:
    """Have what was just found for a new order go to its first stage only."""
    settings, running = cycle.settings, state.running.get(asked.order_no)
    if running is None or running.signal is None or asked.profile:
        return
    if is_staged(asked, settings):
        devices = max(total(cycle.view, asked.resource, cycle.now_ns).devices, 1)
        share = min(max(settings.stage_first, settings.stage_devices_min / devices), 1.0)
    elif asked.randomise_s > 0.0:
        share = 1.0
    else:
        return
    held = replace(running.signal, stage=share)
    stages = (Stage(share, cycle.now_ns),) if share < 1.0 else ()
    _write(cycle, replace(plan, rollout=RollOut(held, stages)))
    cycle.out.signals[:] = [each for each in cycle.out.signals if each is not running.signal]
    _send(running, cycle, held)


def is_held(order: OrderState, now_ns: int) -> bool:
    """Tell whether an order's levels stay as they are: it is rolled out, or runs out by and by."""
    if order.plan is None or order.plan.rollout is None:
        return False
    closes_ns = order.order.ends_at_ns - int(order.order.randomise_s * NS_PER_S)
    is_closing = order.order.randomise_s > 0.0 and now_ns >= closes_ns
    return not order.plan.rollout.complete_at_ns or is_closing


def roll_on(state: ControlState, cycle: Cycle, order: OrderState) -> None:
    """Take the next stage, wait for the present one's proof, or end the order."""
    asked, plan = order.order, order.plan
    assert plan is not None, "a roll-out is in the plan"
    assert plan.rollout is not None, "a roll-out is in the plan"
    rollout = plan.rollout
    running = state.running.setdefault(asked.order_no, Running())
    running.ends_at_ns, running.rank = asked.ends_at_ns, plan.rank
    held = replace(rollout.signal, epoch=cycle.epoch, ends_at_ns=asked.ends_at_ns)
    is_heard = _is_heard(running, cycle, rollout)
    if is_heard and _is_less(asked, plan) and _is_anybody(parts_of(cycle.view, asked.resource)):
        _lessen(running, cycle, asked, plan, held)
        return
    if rollout.complete_at_ns:
        # It runs out by and by: levels stay as they were last.
        last = running.signal or replace(held, stage=1.0)
        _send(running, cycle, replace(last, epoch=cycle.epoch, ends_at_ns=asked.ends_at_ns))
        return
    running.level, running.block_level = held.level, held.block_level
    if held.stage >= 1.0:
        _send(running, cycle, held)
        since_ns = rollout.stages[-1].at_ns if rollout.stages else plan.rank
        ready_ns = since_ns + int(held.randomise_s * NS_PER_S) + _HEARD_NS
        if cycle.now_ns >= ready_ns:
            done = replace(rollout, complete_at_ns=cycle.now_ns)
            _write(cycle, replace(plan, at_ns=cycle.now_ns, epoch=cycle.epoch, rollout=done))
        return
    counts = _counts(parts_of(cycle.view, asked.resource))
    stage = rollout.stages[-1]
    if running.signal is None or not running.signal.order_no:
        # After a hold its devices were released, and after a restart they may have been: what
        # they show, or do not, proves nothing yet.
        again = replace(rollout, stages=(*rollout.stages[:-1], replace(stage, at_ns=cycle.now_ns)))
        _write(cycle, replace(plan, epoch=cycle.epoch, rollout=again))
        _send(running, cycle, held)
        return
    verdict = judge(counts, (cycle.now_ns - stage.at_ns) / NS_PER_S, cycle.settings)
    if verdict == "failed":
        _abort(running, cycle, order, plan, counts)
        return
    if verdict == "proven":
        if rollout.is_lessened:
            held = _aimed(running, cycle, asked, plan, held)
        held = replace(held, stage=min(stage.share * cycle.settings.stage_growth, 1.0))
        stages = (*rollout.stages[:-1], _as_found(stage, counts), Stage(held.stage, cycle.now_ns))
        grown = replace(rollout, signal=held, stages=stages)
        _write(cycle, replace(plan, epoch=cycle.epoch, rollout=grown))
    _send(running, cycle, held)


def _is_less(asked: Order, plan: Plan) -> bool:
    """Tell whether an order was amended to less than was promised."""
    return 0.0 <= asked.target_w * plan.committed_w < (1.0 - _ROUNDING) * plan.committed_w**2


def _is_heard(running: Running, cycle: Cycle, rollout: RollOut) -> bool:
    """Tell whether sums are of those who take part now."""
    if running.signal is None or not running.signal.order_no:
        return False
    return not rollout.stages or cycle.now_ns >= rollout.stages[-1].at_ns + _HEARD_NS


def _is_anybody(parts: Sequence[ResourceSummary]) -> bool:
    """Tell whether anybody could be moved at all: of nobody no level says anything."""
    room = room_of(parts)
    return room.highest_w - room.lowest_w > 0.0


def _lessen(running: Running, cycle: Cycle, asked: Order, plan: Plan, held: Signal) -> None:
    """Promise and ask less; what a stage has shown so far was something else."""
    rollout, now_ns = plan.rollout, cycle.now_ns
    assert rollout is not None, "a roll-out is in the plan"
    plan = replace(
        plan, at_ns=now_ns, epoch=cycle.epoch, committed_w=asked.target_w, declined_w=0.0, reason=""
    )
    held = _aimed(running, cycle, asked, plan, held)
    stages = rollout.stages
    if stages and not rollout.complete_at_ns:
        stages = (*stages[:-1], replace(stages[-1], at_ns=now_ns))
    lessened = replace(rollout, signal=held, stages=stages, is_lessened=True)
    _write(cycle, replace(plan, rollout=lessened))
    _send(running, cycle, held)


def _aimed(running: Running, cycle: Cycle, asked: Order, plan: Plan, held: Signal) -> Signal:
    """Return a signal at whose levels those who take part give their part of the promise."""
    part = held.stage
    if held.randomise_s > 0.0:
        window_ns = held.randomise_s * NS_PER_S
        since_ns, left_ns = cycle.now_ns - plan.rank, asked.ends_at_ns - cycle.now_ns
        part *= min(since_ns / window_ns, left_ns / window_ns, 1.0)
    parts = parts_of(cycle.view, asked.resource)
    if not _is_anybody(parts):
        # There is nobody to find it among: it stays as deep as it was.
        return held
    wanted_w = part * plan.committed_w
    found = levels_for(
        parts, room_at_rest_w(parts) + wanted_w, held.block_level, running.near, wanted_w
    )
    # A few are a rough sample: no deeper than it was.
    running.level = min(found.level, held.level, key=abs)
    running.block_level = min(found.block_level, held.block_level, key=abs)
    return replace(
        held, level=running.level, block_level=running.block_level, prices=found.prices or {}
    )


def judge(counts: Counter[str], age_s: float, settings: DispatchSettings) -> str:
    """Return what a stage has come to: `failed`, `proven`, or empty while it is open.

    Args:
        counts: What `fleet.stages.counts` says of its devices.
        age_s: How long it has lasted. [s]
        settings: The thresholds.
    """
    asked, verified = counts["asked"], counts["verified"]
    failed = sum(count for cause, count in counts.items() if cause not in _NONE)
    if _is_too_many(failed, asked, settings):
        return "failed"
    if age_s * NS_PER_S < _HEARD_NS:
        return ""
    if not asked:
        return "proven" if age_s * NS_PER_S >= _NOBODY_NS else ""
    if verified + failed >= _DECIDED * asked and verified:
        return "proven"
    if age_s < settings.stage_s_max:
        return ""
    return "failed" if _is_too_many(asked - verified, asked, settings) else "proven"


def _is_too_many(failed: int, asked: int, settings: DispatchSettings) -> bool:
    # One alone is chance, unless it is all there is.
    return failed > settings.stage_failed_max * asked and (failed > 1 or failed == asked)


def _abort(
    running: Running, cycle: Cycle, order: OrderState, plan: Plan, counts: Counter[str]
) -> None:
    """End an order whose stage has failed; its devices are released."""
    asked, rollout, now_ns = order.order, plan.rollout, cycle.now_ns
    assert rollout is not None, "a roll-out is in the plan"
    stage = _as_found(rollout.stages[-1], counts)
    open_ = counts["asked"] - counts["verified"] - stage.failed
    causes = {cause: counts[cause] for cause in sorted(counts) if cause not in _NONE}
    if open_ > 0:
        is_late = now_ns - stage.at_ns >= int(cycle.settings.stage_s_max * NS_PER_S)
        causes["not verified in time" if is_late else "still open"] = open_
    said = ", ".join(f"{count} {cause}" for cause, count in causes.items() if count)
    text = (
        f"order {asked.order_no}: stopped at {percent(stage.share)} of {asked.resource!r}: of"
        f" {stage.asked} devices asked {stage.verified} verified; {said}"
    )
    done = RollOut(rollout.signal, (*rollout.stages[:-1], stage))
    ended = replace(
        plan,
        at_ns=now_ns,
        epoch=cycle.epoch,
        status=int(OrderStatus.CANCELLED),
        reason=f"rollout-aborted: {text}",
        rollout=done,
    )
    over_ns = min(asked.ends_at_ns, now_ns)
    over = Signal(asked.resource, 0, 0.0, 0.0, cycle.epoch, over_ns, ended_no=asked.order_no)
    running.signal, running.signalled_at_ns = over, now_ns
    cycle.out.signals.append(over)
    cycle.out.plans.append(ended)
    cycle.out.cancels.append(Cancel(asked.order_no, now_ns, _WRITER))
    failed = stage.asked - stage.verified
    cycle.out.notices.append(
        Notice(now_ns, "rollout-aborted", text, order_no=asked.order_no, devices=failed)
    )


def _as_found(stage: Stage, counts: Counter[str]) -> Stage:
    failed = sum(count for cause, count in counts.items() if cause not in _NONE)
    return replace(stage, asked=counts["asked"], verified=counts["verified"], failed=failed)


def _counts(parts: Iterable[ResourceSummary]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.rollout)
    return counts


def _write(cycle: Cycle, plan: Plan) -> None:
    """Say a plan in place of one of the same order in this cycle."""
    others = [each for each in cycle.out.plans if each.order_no != plan.order_no]
    cycle.out.plans[:] = [*others, plan]


def _send(running: Running, cycle: Cycle, held: Signal) -> None:
    """Send a signal if it is new, or old enough to be repeated."""
    due_ns = running.signalled_at_ns + int(cycle.settings.signal_every_s * NS_PER_S)
    if held not in (running.signal, None) or cycle.now_ns >= due_ns:
        running.signal, running.signalled_at_ns = held, cycle.now_ns
        cycle.out.signals.append(held)
