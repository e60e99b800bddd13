"""Whether an order delivered: the mean of what was published, once settled, against its target."""

import numpy as np

from kapelle.api.report_delivery import Said, known
from kapelle.api.report_shapes import JudgedTold, Verdict
from kapelle.api.report_targets import target_of
from kapelle.history.evidence import Evidence
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S, Flags

SETTLE_NS = 60 * NS_PER_S
SETTLE_PART = 0.1
"""Left out of the judgement after each change: a minute, or of a short order a tenth."""


def judge(found: Evidence, told: Said, status: OrderStatus) -> JudgedTold:
    """Say whether an order delivered: its mean, once settled, lies within its tolerance."""
    left_out_ns = settle_ns(found.ends_at_ns - found.starts_at_ns)
    changes = [found.starts_at_ns, *(amend["at_ns"] for amend in found.amends)]
    chosen = np.ones(len(told.at_ns), np.bool_)
    for change_ns in changes:
        chosen &= (told.at_ns < change_ns) | (told.at_ns >= change_ns + left_out_ns)
    return judged(found, told, chosen & ~np.isnan(told.delivered_w), left_out_ns, status)


def settle_ns(length_ns: int) -> int:
    """Return how much after each change is left out of the judgement of so long a time."""
    return min(SETTLE_NS, int(SETTLE_PART * length_ns))


def judged(
    found: Evidence, told: Said, chosen: Flags, left_out_ns: int, status: OrderStatus
) -> JudgedTold:
    """Judge the mean over some of the published ticks."""
    tolerance = float(found.order["tolerance"])
    target_w = told.mean(told.target_w, chosen)
    committed_w = told.mean(told.committed_w, chosen)
    delivered_w = told.mean(told.delivered_w, chosen)
    # Of 0 W nothing is a part: where that is asked for a while, the largest target counts.
    largest_w = float(np.abs(target_of(found).value).max(initial=0.0))
    accepted_w = tolerance * np.abs(np.where(told.target_w == 0.0, largest_w, told.target_w))
    off_w = np.abs(told.delivered_w - told.target_w) <= accepted_w
    verdict = _verdict(status, tolerance, target_w, committed_w, delivered_w, largest_w)
    text = _TEXTS[verdict]
    if verdict == "promise-kept" and not any(plan["declined_w"] for plan in found.plans):
        # It began in stages, or each device at its own moment.
        text = "it delivered what was promised: less than asked, while it came to its devices"
    return JudgedTold(
        verdict=verdict,
        text=text,
        tolerance=tolerance,
        settle_s=left_out_ns / NS_PER_S,
        judged_s=float(told.held_ns[chosen].sum()) / NS_PER_S,
        target_w=known(target_w),
        delivered_w=known(delivered_w),
        low_w=known(told.mean(told.low_w, chosen)),
        high_w=known(told.mean(told.high_w, chosen)),
        deviation=known((delivered_w - target_w) / abs(target_w)) if target_w else None,
        within_share=known(told.mean(off_w.astype(np.float64), chosen)),
    )


_TEXTS: dict[Verdict, str] = {
    "delivered": "its mean lies within the tolerance of what was asked",
    "promise-kept": "it delivered what was promised; the rest had been declined beforehand",
    "fell-short": "its mean lies outside of the tolerance of what was promised",
    "declined": "nothing was promised, and nothing was asked of any device",
    "cancelled": "it was ended before its time",
    "running": "it is not over yet",
    "unknown": "the record holds no total of it to judge by",
}


def _verdict(
    status: OrderStatus,
    tolerance: float,
    target_w: float,
    committed_w: float,
    delivered_w: float,
    largest_w: float,
) -> Verdict:
    match status:
        case OrderStatus.DECLINED:
            return "declined"
        case OrderStatus.CANCELLED:
            return "cancelled"
        case OrderStatus.PENDING | OrderStatus.ACTIVE:
            return "running"
    if np.isnan(delivered_w):
        return "unknown"
    if abs(delivered_w - target_w) <= tolerance * abs(target_w or largest_w):
        return "delivered"
    is_kept = abs(delivered_w - committed_w) <= tolerance * abs(committed_w or largest_w)
    return "promise-kept" if is_kept else "fell-short"
