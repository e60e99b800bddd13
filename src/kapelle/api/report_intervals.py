"""An order whose target changes, judged interval by interval: each with its verdict and energy."""

import numpy as np

from kapelle.api.report_delivery import Said
from kapelle.api.report_judgement import judged, settle_ns
from kapelle.api.report_shapes import IntervalJudgedTold, JudgedTold
from kapelle.api.report_targets import committed_of, mwh, target_of
from kapelle.api.times import to_datetime
from kapelle.history.evidence import Evidence
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S

_WORST_FIRST = ("fell-short", "unknown", "promise-kept", "delivered")


def intervals(found: Evidence, told: Said, status: OrderStatus) -> list[IntervalJudgedTold]:
    """Return the intervals of a profile in their order; none of an order without one."""
    if not any(body.get("profile") for body in (found.order, *found.amends)):
        return []
    asked = target_of(found)
    promised = committed_of(found)
    starts_ns = [int(at) for at in asked.at_ns if at < found.ends_at_ns]
    made = []
    for start_ns, end_ns in zip(starts_ns, [*starts_ns[1:], found.ends_at_ns], strict=True):
        if end_ns <= start_ns:
            continue
        left_out_ns = settle_ns(end_ns - start_ns)
        within = (told.at_ns >= start_ns) & (told.at_ns < end_ns) & ~np.isnan(told.delivered_w)
        settled = within & (told.at_ns >= start_ns + left_out_ns)
        held_s = told.held_ns[within] / NS_PER_S
        given = float((told.delivered_w[within] * held_s).sum())
        made.append(
            IntervalJudgedTold(
                starts_at=to_datetime(start_ns),
                ends_at=to_datetime(end_ns),
                asked_mwh=asked.mwh(start_ns, end_ns),
                promised_mwh=promised.mwh(start_ns, end_ns),
                published_mwh=mwh(given) if within.any() else None,
                judged=judged(found, told, settled, left_out_ns, status),
            )
        )
    return made


def of_all(whole: JudgedTold, each: list[IntervalJudgedTold]) -> JudgedTold:
    """Return the judgement of an order, which with a profile is that of its worst interval.

    A mean over intervals would let one that was missed hide behind one that gave too much.
    """
    verdicts = {interval.judged.verdict for interval in each}
    worst = next((verdict for verdict in _WORST_FIRST if verdict in verdicts), None)
    if worst is None or whole.verdict not in _WORST_FIRST:
        return whole
    text = "as the worst of its intervals"
    return whole.model_copy(update={"verdict": worst, "text": text, "deviation": None})
