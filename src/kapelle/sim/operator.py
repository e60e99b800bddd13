"""Who sits before the simulated plant: follows what it publishes, and gives a scenario's orders."""

from kapelle.errors import JournalFull
from kapelle.fleet.plant import apply_plant, total
from kapelle.fleet.profiles import largest_w
from kapelle.model.ids import ALL, NS_PER_S, PLANT
from kapelle.model.orders import Interval, Order
from kapelle.model.plant import Notice
from kapelle.sim.play import Play
from kapelle.sim.result import Published
from kapelle.sim.scenario import OrderPlan

_CAPABILITY_WAIT_S = 60.0
"""An order for a share of the capability waits this long for the plant to know it. [s]"""


async def observe(play: Play) -> None:
    """Follow what the plant publishes, as an operator would."""
    last_ns = 0
    async for entries in play.journal.follow(PLANT, 0):
        for entry in entries:
            apply_plant(play.view, entry)
            if isinstance(entry.body, Notice):
                play.notices.append(entry.body)
        if not play.thorough:
            continue
        ticks = {summary.tick_ns for summary in play.view.summaries.values()}
        # A sum over partitions belongs to one moment once all have spoken for it.
        if len(ticks) == 1 and len(play.view.summaries) == play.view.partitions:
            (tick_ns,) = ticks
            if tick_ns > last_ns:
                last_ns = tick_ns
                all_ = total(play.view, ALL)
                play.published.append(
                    Published(
                        play.elapsed_s(tick_ns),
                        all_.power_w,
                        all_.low_w,
                        all_.high_w,
                        all_.nameplate_w,
                    )
                )


async def give_order(play: Play, number: int, plan: OrderPlan) -> None:
    """Give one order at its time, as the API would."""
    await play.wait_until(plan.at_s)
    target_w = await _target_w(play, plan)
    play.world.faults.kill()
    while True:
        now_ns = play.clock.now_ns()
        signed_w = target_w if plan.direction == "up" else -target_w
        profile = _profile(plan, signed_w, now_ns)
        order = Order(
            order_no=number,
            resource=plan.resource,
            target_w=largest_w(profile) if profile else signed_w,
            starts_at_ns=now_ns,
            ends_at_ns=now_ns + round(plan.duration_s * NS_PER_S),
            issued_at_ns=now_ns,
            issued_by="scenario",
            key=f"order-{number}",
            profile=profile,
            staged=plan.staged,
            randomise_s=plan.randomise_s,
        )
        try:
            await play.journal.append(PLANT, [order], writer="api")
        except JournalFull:
            # Whoever orders is told that it was not taken, and tries again.
            await play.clock.sleep(1.0)
        else:
            play.orders.append(order)
            return


def _profile(plan: OrderPlan, target_w: float, starts_at_ns: int) -> tuple[Interval, ...]:
    made, at_s = [], 0.0
    for each in plan.profile:
        made.append(Interval(starts_at_ns + round(at_s * NS_PER_S), target_w * each.part))
        at_s += each.duration_s
    return tuple(made)


async def _target_w(play: Play, plan: OrderPlan) -> float:
    if plan.target_w is not None:
        return plan.target_w
    waited_s = 0.0
    while waited_s < _CAPABILITY_WAIT_S:
        known = total(play.view, plan.resource, play.clock.now_ns())
        if known.complete and known.age_s < 5.0:
            break
        waited_s += 1.0
        await play.clock.sleep(1.0)
    known = total(play.view, plan.resource)
    able_w = known.headroom_up_w if plan.direction == "up" else known.headroom_down_w
    return (plan.fraction or 0.0) * able_w
