"""From a promise and what the plant does to the levels that keep it: feed forward, then trim."""

from kapelle.dispatch.allocation import Solution
from kapelle.dispatch.beside import earlier
from kapelle.dispatch.doubt import held_back_w
from kapelle.dispatch.memory import ControlState, Cycle, Running
from kapelle.dispatch.planning.groups import way_of
from kapelle.dispatch.planning.receding import look_further
from kapelle.dispatch.promise import levels_for, parts_of
from kapelle.dispatch.trim import step_trim, unwind
from kapelle.dispatch.watch import Miss, accepted_w, cause_of, step_shortfall
from kapelle.fleet.plant import Aggregate, total
from kapelle.fleet.profiles import present
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Order, Plan
from kapelle.model.signals import Signal


def drive(state: ControlState, cycle: Cycle, asked: Order, plan: Plan) -> None:
    """Solve for the levels that bring the resource to its target, and say so."""
    settings, now_ns = cycle.settings, cycle.now_ns
    running = state.running.setdefault(asked.order_no, Running())
    running.ends_at_ns, running.rank = asked.ends_at_ns, plan.rank
    known = total(cycle.view, asked.resource, now_ns)
    parts = parts_of(cycle.view, asked.resource)
    plan = present(plan, now_ns)
    if not parts:
        _miss_all(state, running, cycle, asked, plan, known)
        return
    if asked.profile and not look_further(running.horizon, cycle, asked, plan, known, parts):
        if running.signal is not None:
            prices = running.near.prices
            signal(running, cycle, asked, running.level, running.block_level, prices)
        return
    if running.promised_at_ns != plan.at_ns:
        running.promised_at_ns, running.trim_w = plan.at_ns, 0.0
        running.settled_at_ns = now_ns + int(settings.settle_s * NS_PER_S)

    target_w = plan.baseline_w + plan.committed_w
    controlled_w = target_w - known.unmoved_w
    held_w = held_back_w(parts, plan.committed_w, settings.overshoot_budget)
    step_trim(running, cycle, known, plan.committed_w, target_w + held_w)
    found = levels_for(
        parts,
        controlled_w + running.trim_w + held_w,
        running.block_level,
        running.near,
        plan.committed_w,
    )
    wanted_w = controlled_w + running.trim_w + held_w
    outside_w = _beyond_w(wanted_w, found.lowest_w, found.highest_w)
    running.trim_w = unwind(running.trim_w, outside_w)
    _note_moves(running, cycle, known, plan, found)
    running.level, running.block_level = found.level, found.block_level
    signal(running, cycle, asked, found.level, found.block_level, found.prices)

    short_w, miss = _beyond_w(controlled_w, found.lowest_w, found.highest_w), Miss.OUT_OF_REACH
    # What silent devices still hold is certain to end with their timers: said beforehand, and not
    # taken back while they end one by one.
    soon_w = _beyond_w(
        controlled_w + sum(part.fading_w for part in parts),
        found.lowest_w + sum(part.fading_down_w for part in parts),
        found.highest_w - sum(part.fading_up_w for part in parts),
    )
    is_met = abs(short_w) <= accepted_w(asked, plan.committed_w)
    if is_met and abs(soon_w) > abs(short_w):
        short_w, miss = soon_w, Miss.TO_COME
    if abs(short_w) <= 1.0:
        # Within reach on paper, and yet not there although it had the time.
        missed_w = target_w + held_w - known.net_w
        if now_ns >= running.settled_at_ns and abs(missed_w) > 2.0 * known.std_w:
            short_w, miss = missed_w, Miss.NOT_FOLLOWED
    cause = cause_of(state.watch, known, miss)
    cycle.out.notices += step_shortfall(
        state.watch, asked, short_w, plan.committed_w, cause, now_ns, settings
    )


def _miss_all(
    state: ControlState,
    running: Running,
    cycle: Cycle,
    asked: Order,
    plan: Plan,
    known: Aggregate,
) -> None:
    """Say that nobody is left in the resource. The claim stays in force for whoever comes back: all
    who begin wait until it is known."""
    signal(running, cycle, asked, running.level, running.block_level, running.near.prices)
    missing_w, cause = plan.committed_w, cause_of(state.watch, known, Miss.OUT_OF_REACH)
    cycle.out.notices += step_shortfall(
        state.watch, asked, missing_w, missing_w, cause, cycle.now_ns, cycle.settings
    )


def _beyond_w(power_w: float, lowest_w: float, highest_w: float) -> float:
    """Return how far a power lies outside a range; signed. [W]"""
    return power_w - min(max(power_w, lowest_w), highest_w)


def _note_moves(
    running: Running, cycle: Cycle, known: Aggregate, plan: Plan, found: Solution
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


def signal(
    running: Running,
    cycle: Cycle,
    asked: Order,
    level: float,
    block_level: float,
    prices: dict[str, float] | None = None,
) -> None:
    """Send the levels if they are new, or old enough to be repeated."""
    latest = Signal(
        asked.resource,
        asked.order_no,
        level,
        block_level,
        cycle.epoch,
        asked.ends_at_ns,
        rank=running.rank,
        beside=earlier(cycle.view, asked.order_no, running.rank),
        stores=way_of(step.target_w for step in asked.profile) if asked.profile else "",
        rations=running.horizon.rations,
        announced=running.horizon.announced,
        prices=prices or {},
        randomise_s=asked.randomise_s,
    )
    if running.signal is not None and latest.beside != running.signal.beside:
        # Devices change hands: measurements lag behind.
        running.settled_at_ns = cycle.now_ns + int(cycle.settings.settle_s * NS_PER_S)
    due_ns = running.signalled_at_ns + int(cycle.settings.signal_every_s * NS_PER_S)
    if latest != running.signal or cycle.now_ns >= due_ns:
        running.signal, running.signalled_at_ns = latest, cycle.now_ns
        cycle.out.signals.append(latest)
