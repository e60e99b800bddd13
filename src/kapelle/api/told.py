"""Turns the plant view into answers. Unknown is null, never 0."""

from collections.abc import Sequence
from math import isnan

from kapelle.api.health import Health
from kapelle.api.profiles import asked_w
from kapelle.api.shapes import (
    IntervalTold,
    NoticeTold,
    OrderAsked,
    OrderTold,
    PreviewTold,
    ReasonTold,
    ResourceTold,
)
from kapelle.api.times import to_datetime
from kapelle.dispatch.caps.binding import in_force
from kapelle.dispatch.preview import Preview
from kapelle.dispatch.promise import parts_of
from kapelle.fleet.plant import Aggregate, OrderState, PlantView
from kapelle.fleet.profiles import parts
from kapelle.model.enums import Freshness, OrderStatus, Phase, Standing
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Order, Promised
from kapelle.model.plant import Notice


def tell_order(state: OrderState, view: PlantView | None = None) -> OrderTold:
    """Return an order as it stands; with a view also what binds while it runs."""
    order, plan = state.order, state.plan
    rollout = plan.rollout if plan else None
    is_cancelled = state.cancelled_at_ns > 0 and not state.is_over
    status = OrderStatus.CANCELLED if is_cancelled else state.status
    return OrderTold(
        order_no=order.order_no,
        resource=order.resource,
        target_w=order.target_w,
        starts_at=to_datetime(order.starts_at_ns),
        ends_at=to_datetime(order.ends_at_ns),
        issued_at=to_datetime(order.issued_at_ns),
        issued_by=order.issued_by,
        operated_by=order.operated_by,
        why=order.why,
        tolerance=order.tolerance,
        product=order.product,
        status=status.name.lower(),
        planned=plan is not None,
        baseline_w=_known(plan.baseline_w) if plan else None,
        committed_w=_known(plan.committed_w) if plan else None,
        firm_w=plan.firm_w if plan else None,
        declined_w=_known(plan.declined_w) if plan else None,
        reason=plan.reason if plan else "",
        binding=in_force(parts_of(view, order.resource), plan.committed_w)
        if plan and view is not None and status is OrderStatus.ACTIVE
        else [],
        randomise_s=order.randomise_s,
        stage=rollout.stages[-1].share if rollout and rollout.stages else None,
        complete_at=to_datetime(rollout.complete_at_ns)
        if rollout and rollout.complete_at_ns
        else None,
        profile=_intervals(order, plan.profile if plan else ()),
    )


def _intervals(order: Order, promised: Sequence[Promised]) -> list[IntervalTold]:
    """Return the intervals of an order's profile, if it has one, with what is promised of each."""
    committed_w = {step.starts_at_ns: step.committed_w for step in promised}
    return [
        IntervalTold(
            starts_at=to_datetime(part.starts_at_ns),
            ends_at=to_datetime(part.ends_at_ns),
            target_w=part.target_w,
            committed_w=committed_w.get(part.starts_at_ns),
        )
        for part in (parts(order) if order.profile else ())
    ]


def tell_preview(asked: OrderAsked, shown: Preview) -> PreviewTold:
    """Return what an order would be promised."""
    return PreviewTold(
        resource=asked.resource,
        target_w=asked_w(asked),
        committed_w=shown.committed_w,
        firm_w=shown.firm_w,
        declined_w=shown.declined_w,
        feasible=shown.feasible,
        reason=shown.binding,
        baseline_w=shown.baseline_w,
        baseline_std_w=shown.baseline_std_w,
        headroom_up_w=shown.headroom_up_w,
        headroom_down_w=shown.headroom_down_w,
        devices=shown.devices,
        excluded=shown.excluded,
        held_s=shown.held_s,
        profile=_intervals(shown.order, shown.profile),
    )


def tell_resource(total: Aggregate) -> ResourceTold:
    """Return a resource with everything that says how far its numbers can be trusted."""
    heard = total.freshness[Freshness.LIVE] + total.freshness[Freshness.LATE]
    has_age = total.tick_ns and total.age_s == total.age_s  # NaN differs from itself
    computed_ns = total.tick_ns + round(total.age_s * NS_PER_S) if has_age else 0
    return ResourceTold(
        resource=total.resource,
        at=to_datetime(total.tick_ns) if total.tick_ns else None,
        age_s=_known(total.age_s),
        computed_at=to_datetime(computed_ns) if computed_ns else None,
        complete=total.complete,
        devices=total.devices,
        coverage=heard / total.devices if total.devices else None,
        power_w=total.power_w,
        low_w=total.low_w,
        high_w=total.high_w,
        std_w=total.std_w,
        measured_w=total.measured_w,
        measured_share=_known(total.measured_share),
        oldest_age_s=_known(total.oldest_age_s),
        freshness={f.name.lower(): total.freshness[f] for f in Freshness},
        nameplate_w=total.nameplate_w,
        uncontrolled_w=total.uncontrolled_w,
        headroom_up_w=total.headroom_up_w,
        headroom_down_w=total.headroom_down_w,
        commanded_w=total.commanded_w,
        others_w=total.others_w,
        claimed=total.claimed,
        phases={p.name.lower(): total.phases[p] for p in Phase if p != Phase.NONE},
        excluded=total.excluded,
        by_kind_w=total.by_kind_w,
        vendors=total.vendors,
        standings={s.name.lower(): total.standings[s] for s in Standing if s != Standing.NONE},
        conditions=total.conditions,
    )


def tell_notice(notice: Notice) -> NoticeTold:
    """Return a notice."""
    return NoticeTold(
        at=to_datetime(notice.at_ns),
        code=notice.code,
        text=notice.text,
        order_no=notice.order_no,
        power_w=notice.power_w,
        device_no=None if notice.device_no < 0 else notice.device_no,
        devices=notice.devices,
    )


def tell_reasons(health: Health) -> list[ReasonTold]:
    """Return why the plant is as it is."""
    return [
        ReasonTold(
            code=reason.code,
            state=reason.state,
            text=reason.text,
            remedy=reason.remedy,
            since=to_datetime(reason.since_ns),
        )
        for reason in health.reasons
    ]


def _known(value: float) -> float | None:
    return None if isnan(value) else value
