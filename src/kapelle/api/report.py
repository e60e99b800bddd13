"""Makes the report of one order from the tables of the record. Pure: same record, same report."""

from datetime import datetime

import numpy as np

from kapelle.api.report_delivery import known, points, said, worst
from kapelle.api.report_energy import energy
from kapelle.api.report_intervals import intervals, of_all
from kapelle.api.report_judgement import judge
from kapelle.api.report_shapes import (
    AmendTold,
    CancelTold,
    GoneTold,
    OccurredTold,
    PlanTold,
    ReplacedTold,
    ReportTold,
    RolledTold,
    StageTold,
)
from kapelle.api.times import to_datetime
from kapelle.history.evidence import GONE, LISTED_MAX, Event, Evidence
from kapelle.model.enums import OrderStatus, Phase

WAY = (
    Phase.PLANNED,
    Phase.SENT,
    Phase.RECEIVED,
    Phase.ACCEPTED,
    Phase.APPLIED,
    Phase.VERIFIED,
    Phase.COMPLETED,
)
EXITS = (*GONE, Phase.CANCELLED)
_OVER = (OrderStatus.COMPLETED, OrderStatus.CANCELLED, OrderStatus.DECLINED)


def make_report(found: Evidence) -> ReportTold:
    """Return all that can be said of an order, and whether it delivered."""
    order, status, told = found.order, status_of(found), said(found)
    judged = intervals(found, told, status)
    occurred = [_occurred(kind, body) for kind, body in found.around]
    everything = np.ones(len(told.at_ns), np.bool_)
    through_ns = int(told.at_ns[-1]) if len(told.at_ns) else 0
    return ReportTold(
        order_no=order["order_no"],
        resource=order["resource"],
        product=order.get("product", "manual"),
        issued_by=order.get("issued_by", ""),
        operated_by=order.get("operated_by", ""),
        why=order.get("why", ""),
        issued_at=to_datetime(order["issued_at_ns"]),
        starts_at=to_datetime(found.starts_at_ns),
        planned_end_at=to_datetime(order["ends_at_ns"]),
        ends_at=to_datetime(found.ends_at_ns),
        target_w=order["target_w"],
        tolerance=order["tolerance"],
        status=status.name.lower(),
        is_over=status in _OVER,
        # Dispatch's last word comes after every total of the window, in the same topic.
        is_complete=any(plan["status"] in _OVER for plan in found.plans),
        recorded_through=to_datetime(through_ns) if through_ns else None,
        judged=of_all(judge(found, told, status), judged),
        intervals=judged,
        plans=[_plan(plan) for plan in found.plans],
        amends=[_amend(amend) for amend in found.amends],
        cancelled=next((_cancel(cancel) for cancel in found.cancels), None),
        held_before=found.held_before,
        funnel=_funnel(found),
        replaced=_replaced(found),
        occurred=occurred,
        shortfalls=sum(each.code == "shortfall" for each in occurred),
        energy=energy(found, told),
        measured_share=known(told.mean(told.share, everything)),
        worst=worst(told),
        points=points(found, told),
    )


def status_of(found: Evidence) -> OrderStatus:
    """Return how far an order has come: as dispatch said last, or as it was cancelled."""
    status = OrderStatus(found.plans[-1]["status"]) if found.plans else OrderStatus.PENDING
    return OrderStatus.CANCELLED if found.cancels and status not in _OVER else status


def _plan(plan: Event) -> PlanTold:
    rollout = plan.get("rollout") or {}
    return PlanTold(
        at=to_datetime(plan["at_ns"]),
        status=OrderStatus(plan["status"]).name.lower(),
        baseline_w=plan["baseline_w"],
        committed_w=plan["committed_w"],
        firm_w=plan.get("firm_w"),
        declined_w=plan["declined_w"],
        reason=plan["reason"],
        stages=[_stage(stage) for stage in rollout.get("stages", ())],
        complete_at=to_datetime(rollout["complete_at_ns"])
        if rollout.get("complete_at_ns")
        else None,
    )


def _stage(stage: Event) -> RolledTold:
    return RolledTold(
        at=to_datetime(stage["at_ns"]),
        share=stage["share"],
        asked=stage["asked"],
        verified=stage["verified"],
        failed=stage["failed"],
    )


def _amend(amend: Event) -> AmendTold:
    return AmendTold(
        at=to_datetime(amend["at_ns"]),
        target_w=amend["target_w"],
        ends_at=to_datetime(amend["ends_at_ns"]),
        issued_by=amend.get("issued_by", ""),
    )


def _cancel(cancel: Event) -> CancelTold:
    return CancelTold(at=to_datetime(cancel["at_ns"]), issued_by=cancel.get("issued_by", ""))


def _funnel(found: Evidence) -> list[StageTold]:
    rows = {row["phase"]: row for row in found.stages.to_pylist()}
    nothing = dict.fromkeys(found.stages.column_names)
    told = []
    for phase in (*WAY, *EXITS):
        row = rows.get(phase.value, nothing)
        if phase in EXITS and not row["commands"]:
            continue
        # Sending is what the others are counted from.
        is_answer = phase not in (Phase.PLANNED, Phase.SENT)
        told.append(
            StageTold(
                stage=phase.name.lower(),
                is_exit=phase in EXITS,
                commands=row["commands"] or 0,
                devices=row["devices"] or 0,
                first_at=_moment(row["first_ns"]),
                last_at=_moment(row["last_ns"]),
                p50_s=_seconds(row["p50_ns"]) if is_answer else None,
                p95_s=_seconds(row["p95_ns"]) if is_answer else None,
            )
        )
    return told


def _replaced(found: Evidence) -> ReplacedTold:
    rows = found.gone.to_pylist()
    causes = [Phase(row["phase"]).name.lower() for row in rows]
    (after,) = found.successors.to_pylist()
    return ReplacedTold(
        gone=len(rows),
        by_cause={cause: causes.count(cause) for cause in sorted(set(causes))},
        back=sum(row["back_ns"] is not None for row in rows),
        devices=[
            GoneTold(
                device_id=row["device_id"] or f"number {row['device_no']}",
                vendor=row["vendor"] or "",
                at=to_datetime(row["at_ns"]),
                cause=cause,
                setpoint_w=row["setpoint_w"],
                back_at=_moment(row["back_ns"]),
            )
            for row, cause in list(zip(rows, causes, strict=True))[:LISTED_MAX]
        ],
        joined=after["joined"],
        joined_at=_moment(after["joined_ns"]),
        joined_w=after["joined_w"] or 0.0,
        raised=after["raised"],
        raised_w=after["raised_w"] or 0.0,
        lowered=after["lowered"],
        lowered_w=after["lowered_w"] or 0.0,
    )


def _occurred(kind: str, body: Event) -> OccurredTold:
    if kind == "hold":
        return OccurredTold(
            at=to_datetime(body["at_ns"]),
            kind="hold",
            code="held" if body["held"] else "released",
            text=body.get("reason", ""),
            by=body.get("issued_by", ""),
        )
    return OccurredTold(
        at=to_datetime(body["at_ns"]),
        kind="notice",
        code=body["code"],
        text=body["text"],
        power_w=body.get("power_w") or None,
    )


def _moment(at_ns: int | None) -> datetime | None:
    return None if at_ns is None else to_datetime(int(at_ns))


def _seconds(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e9
