"""One cycle: every order is started, driven, held or ended, by what the summaries say.

`step` writes only into the state given first. What must survive a restart is in the plans; the rest
of the state starts anew.
"""

from dataclasses import replace
from math import nan

from kapelle.dispatch.beside import is_followed, release
from kapelle.dispatch.firm.orders import step_prospects
from kapelle.dispatch.memory import ControlState, Cycle, Outcome, Running
from kapelle.dispatch.outages import step_groups
from kapelle.dispatch.planning.horizon import Horizon
from kapelle.dispatch.rollout import is_held, roll_on
from kapelle.dispatch.settings import DispatchSettings
from kapelle.dispatch.starting import decline, is_amended, promise_anew, start
from kapelle.dispatch.steering import drive
from kapelle.dispatch.watch import step_caps, step_partitions
from kapelle.fleet.plant import OrderState, PlantView, total
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.orders import Plan


def step(
    state: ControlState, view: PlantView, now_ns: int, epoch: int, settings: DispatchSettings
) -> Outcome:
    """Take one cycle: start, drive and end orders; say what an operator should know."""
    silent = [number for number in range(view.partitions) if number not in view.summaries]
    view = _as_last_heard(state, view, silent, now_ns, settings)
    cycle = Cycle(view, now_ns, epoch, settings, Outcome())
    cycle.out.notices += step_groups(state.watch.groups, total(view, ALL, now_ns), now_ns, settings)
    waits = False
    for order_no, order in sorted(view.orders.items()):
        if order.is_over:
            state.running.pop(order_no, None)
        elif order.cancelled_at_ns or now_ns >= order.order.ends_at_ns:
            _end(state, cycle, order)
        elif view.held:
            _rest(state, cycle, order)
        elif order.status == OrderStatus.ACTIVE and order.plan is not None:
            waits = bool(silent)
            if len(view.summaries) < view.partitions:
                # After a restart partitions come back one by one. What the others deliver would
                # seem missing and be asked of the first once more: levels stay as they are.
                continue
            if is_held(order, now_ns):
                roll_on(state, cycle, order)
            elif is_amended(state, order.order, order.plan):
                promise_anew(state, cycle, order, order.plan)
            else:
                drive(state, cycle, order.order, order.plan)
        elif now_ns >= order.order.starts_at_ns:
            start(state, cycle, order)
    cycle.out.notices += step_caps(state.watch, view, now_ns)
    cycle.out.notices += step_partitions(state.watch, silent, waits, now_ns, settings)
    cycle.out.prospects += step_prospects(state, cycle)
    return cycle.out


def _as_last_heard(
    state: ControlState,
    view: PlantView,
    silent: list[int],
    now_ns: int,
    settings: DispatchSettings,
) -> PlantView:
    """Return the plant to decide on: whoever stays silent after a restart counts as heard before.

    That is what dispatch would have gone on with, had it not been restarted; a profile's next
    interval cannot wait for who may never speak again.
    """
    since_ns = state.watch.unheard_since_ns
    is_long = since_ns and now_ns - since_ns >= int(settings.summary_age_s_max * NS_PER_S)
    if not is_long or not all(number in state.before for number in silent):
        return view
    last = {number: state.before[number] for number in silent}
    return replace(view, summaries={**last, **view.summaries})


def _rest(state: ControlState, cycle: Cycle, order: OrderState) -> None:
    """Have the devices of a held order released; the last hop stops what is on its way."""
    if order.status != OrderStatus.ACTIVE:
        return
    running = state.running.setdefault(order.order.order_no, Running())
    if running.signal is None or running.signal.order_no:
        running.signal = release(cycle, order.order)
        running.signalled_at_ns = cycle.now_ns
        running.trim_w = 0.0
        # Plans do not outlive a hold: what was announced would come into force when it ends.
        running.horizon = Horizon()
        cycle.out.signals.append(running.signal)


def _end(state: ControlState, cycle: Cycle, order: OrderState) -> None:
    """Release the devices and close the order."""
    asked, plan = order.order, order.plan
    if order.status == OrderStatus.PENDING and not order.cancelled_at_ns:
        decline(cycle, asked, "it ended before it could start")
        return
    # One that was announced has a signal without a plan, and a restart forgets announcements.
    announced = asked.order_no in state.running or is_followed(cycle.view, asked.order_no)
    if plan is not None or announced:
        cycle.out.signals.append(release(cycle, asked))
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
            firm_w=plan.firm_w if plan else None,
            rank=plan.rank if plan else 0,
            profile=plan.profile if plan else (),
            rollout=plan.rollout if plan else None,
        )
    )
    state.watch.shortfalls.pop(asked.order_no, None)
