"""What an order delivered over time: as the plant published it, and by the minute as corrected.

Pure: from the record's tables. Delivered power is the resource's power less its baseline, and less
what its devices did for other orders.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kapelle.api.report_shapes import FiveMinutesTold, PointTold
from kapelle.api.report_targets import (
    WS_PER_MWH,
    baseline_w,
    committed_of,
    floats,
    longs,
    others_of,
    target_of,
)
from kapelle.api.times import to_datetime
from kapelle.history.evidence import Evidence
from kapelle.history.tables import MINUTE_NS
from kapelle.model.ids import NS_PER_S, Flags, Floats, Longs

POINTS_MAX = 300
HOLD_NS = 30 * NS_PER_S
"""A total counts until the next one, but no longer than this."""
_FIVE_MINUTES_NS = 5 * MINUTE_NS


@dataclass(frozen=True, slots=True)
class Said:
    """The published ticks of the window, each with how long it counts, and what was wanted then."""

    at_ns: Longs
    held_ns: Longs
    delivered_w: Floats
    low_w: Floats
    high_w: Floats
    share: Floats
    target_w: Floats
    committed_w: Floats

    def mean(self, values: Floats, chosen: Flags) -> float:
        """Return the mean over the time of the chosen ticks; NaN for none."""
        known = chosen & ~np.isnan(values)
        held = self.held_ns[known]
        return float((values[known] * held).sum() / held.sum()) if held.sum() else np.nan


def said(found: Evidence) -> Said:
    """Return the published ticks of the window."""
    table = found.published
    at_ns = longs(table, "at_ns")
    base_w = baseline_w(found) + others_of(found).value
    until_ns = np.append(at_ns[1:], found.ends_at_ns)
    return Said(
        at_ns=at_ns,
        held_ns=np.minimum(until_ns - at_ns, HOLD_NS),
        delivered_w=floats(table, "power_w") - base_w,
        low_w=floats(table, "low_w") - base_w,
        high_w=floats(table, "high_w") - base_w,
        share=floats(table, "measured_share"),
        target_w=target_of(found).when(at_ns),
        committed_w=committed_of(found).when(at_ns),
    )


def corrected_minutes(found: Evidence) -> tuple[Longs, Floats]:
    """Return the corrected minutes that lie in the window as a whole, less the baseline."""
    if found.corrected is None:
        return np.zeros(0, np.int64), np.zeros(0)
    starts_ns = longs(found.corrected, "starts_at_ns")
    whole = (starts_ns >= found.starts_at_ns) & (starts_ns + MINUTE_NS <= found.ends_at_ns)
    starts_ns, others = starts_ns[whole], others_of(found)
    others_w = [others.mwh(at, at + MINUTE_NS) * WS_PER_MWH / 60.0 for at in starts_ns.tolist()]
    delivered_w = floats(found.corrected, "power_w")[whole] - baseline_w(found)
    return starts_ns, delivered_w - np.array(others_w, np.float64)


def worst(told: Said) -> FiveMinutesTold | None:
    """Return the five minutes in which most was missing; of a shorter order all of it."""
    sure = ~np.isnan(told.delivered_w)
    at_ns, held_ns = told.at_ns[sure], told.held_ns[sure]
    if not len(at_ns):
        return None
    ends_ns = at_ns + held_ns
    first_ns, last_ns = int(at_ns[0]), int(ends_ns[-1])
    span_ns = min(_FIVE_MINUTES_NS, last_ns - first_ns)
    starts_ns = at_ns[at_ns + span_ns <= last_ns]
    # The sums up to a moment are linear between ticks: a span's is the difference of two.
    edges = np.append(at_ns, last_ns)
    delivered_w, target_w, missing_w = (
        _means(edges, held_ns, values[sure], starts_ns, span_ns)
        for values in (
            told.delivered_w,
            told.target_w,
            np.abs(told.target_w - told.delivered_w),
        )
    )
    place = int(np.argmax(missing_w))
    return FiveMinutesTold(
        starts_at=to_datetime(int(starts_ns[place])),
        ends_at=to_datetime(int(starts_ns[place]) + span_ns),
        delivered_w=float(delivered_w[place]),
        target_w=float(target_w[place]),
        missing_w=float(missing_w[place]),
    )


def points(found: Evidence, told: Said) -> list[PointTold]:
    """Return power over time: each tick, or means so that there are no more than 300 points."""
    if not len(told.at_ns):
        return []
    step_ns = max(NS_PER_S, -(-(found.ends_at_ns - found.starts_at_ns) // POINTS_MAX))
    step = (told.at_ns - found.starts_at_ns) // step_ns
    minutes_ns, corrected_w = corrected_minutes(found)
    edges = [0, *(np.flatnonzero(np.diff(step)) + 1).tolist(), len(step)]
    made = []
    for first, last in pairwise(edges):
        chosen = np.zeros(len(step), np.bool_)
        chosen[first:last] = True
        at_ns = int(told.at_ns[first])
        minute = int(np.searchsorted(minutes_ns, at_ns, "right")) - 1
        is_in = minute >= 0 and at_ns < minutes_ns[minute] + MINUTE_NS
        delivered_w = told.mean(told.delivered_w, chosen)
        if np.isnan(delivered_w):
            continue
        made.append(
            PointTold(
                at=to_datetime(at_ns),
                target_w=float(told.target_w[first]),
                committed_w=float(told.committed_w[first]),
                delivered_w=delivered_w,
                low_w=told.mean(told.low_w, chosen),
                high_w=told.mean(told.high_w, chosen),
                corrected_w=known(float(corrected_w[minute])) if is_in else None,
                measured_share=known(told.mean(told.share, chosen)),
            )
        )
    return made


def known(value: float) -> float | None:
    """Return a value, or None where nobody knows it."""
    return None if np.isnan(value) else float(value)


def _means(edges: Longs, held_ns: Longs, values: Floats, starts_ns: Longs, span_ns: int) -> Floats:
    zero = np.zeros(1)
    sums = np.concatenate([zero, np.cumsum(values * held_ns)])
    held = np.concatenate([zero, np.cumsum(held_ns.astype(np.float64))])
    ends_ns = starts_ns + span_ns
    total = np.interp(ends_ns, edges, sums) - np.interp(starts_ns, edges, sums)
    time_ns = np.interp(ends_ns, edges, held) - np.interp(starts_ns, edges, held)
    means: Floats = total / np.maximum(time_ns, 1.0)
    return means
