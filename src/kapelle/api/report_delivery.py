"""What an order delivered against what was asked: power over time, energy, the judgement.

Pure: from the record's tables. Delivered power is the resource's power less its baseline, and less
what its devices did for other orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from kapelle.api.report_shapes import (
    EnergyTold,
    FiveMinutesTold,
    JudgedTold,
    PointTold,
    QuarterTold,
    Verdict,
)
from kapelle.api.times import to_datetime
from kapelle.history.evidence import Event, Evidence
from kapelle.history.tables import MINUTE_NS, QUARTER_NS
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S, Flags, Floats, Longs

POINTS_MAX = 300
HOLD_NS = 30 * NS_PER_S
"""A total counts until the next one, but no longer than this."""
SETTLE_NS = 60 * NS_PER_S
SETTLE_PART = 0.1
"""Left out of the judgement after each change: a minute, or of a short order a tenth."""
_FIVE_MINUTES_NS = 5 * MINUTE_NS
_WS_PER_MWH = 3.6


@dataclass(frozen=True, slots=True)
class Steps:
    """A value that stays until it is changed; before the first change it is 0."""

    at_ns: Longs
    value: Floats

    @classmethod
    def of(cls, changes: Sequence[tuple[int, float]]) -> "Steps":
        """Return the steps of changes in their order; of those at one time the last counts."""
        ordered = sorted(changes, key=lambda change: change[0])
        times, values = zip(*ordered, strict=True) if ordered else ((), ())
        return cls(np.array(times, np.int64), np.array(values, np.float64))

    def when(self, at_ns: Longs) -> Floats:
        """Return the value at each moment."""
        values = np.concatenate([[0.0], self.value])
        found: Floats = values[np.searchsorted(self.at_ns, at_ns, "right")]
        return found

    def mwh(self, starts_ns: int, ends_ns: int) -> int:
        """Return its energy over [starts_ns, ends_ns), for a value in W. [mWh]"""
        inside = self.at_ns[(self.at_ns > starts_ns) & (self.at_ns < ends_ns)].tolist()
        edges = np.array([starts_ns, *inside, ends_ns], np.int64)
        return mwh(float((self.when(edges[:-1]) * np.diff(edges)).sum()) / NS_PER_S)


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

    def mean(self, values: Floats, chosen: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> float:
        """Return the mean over the time of the chosen ticks; NaN for none."""
        known = chosen & ~np.isnan(values)
        held = self.held_ns[known]
        return float((values[known] * held).sum() / held.sum()) if held.sum() else np.nan


def mwh(watt_seconds: float) -> int:
    """Return W s as whole mWh."""
    return round(watt_seconds / _WS_PER_MWH)


def target_of(found: Evidence) -> Steps:
    """Return what was asked over time. [W]"""
    asked = _stretches(found.order, found.starts_at_ns, "target_w")
    for amend in found.amends:
        # What is changed before it starts counts from its start.
        at_ns = max(found.starts_at_ns, int(amend["at_ns"]))
        asked = _from(asked, at_ns, _stretches(amend, at_ns, "target_w"))
    return Steps.of(asked)


def _stretches(body: Event, at_ns: int, name: str) -> list[tuple[int, float]]:
    """Return what an order, amendment or plan says from a moment on, by interval if it has any."""
    steps = [(int(step["starts_at_ns"]), float(step[name])) for step in body.get("profile") or ()]
    if not steps:
        return [(at_ns, float(body[name] or 0.0))]
    begun = [value for starts_ns, value in steps if starts_ns <= at_ns]
    now = (at_ns, begun[-1] if begun else steps[0][1])
    return [now, *(step for step in steps if step[0] > at_ns)]


def _from(
    before: list[tuple[int, float]], at_ns: int, after: list[tuple[int, float]]
) -> list[tuple[int, float]]:
    return [*(step for step in before if step[0] < at_ns), *after]


def committed_of(found: Evidence) -> Steps:
    """Return what was promised over time. [W]"""
    active = [plan for plan in found.plans if plan["status"] == OrderStatus.ACTIVE]
    # While it comes to its devices by and by nothing is promised yet.
    whole = [plan for plan in active if _is_whole(plan)]
    if len(whole) < len(active):
        return Steps.of([(found.starts_at_ns, 0.0), *((p["at_ns"], _committed(p)) for p in whole)])
    # The first promise holds for the whole order, however late it was said.
    first = [max(found.starts_at_ns, plan["at_ns"]) for plan in active]
    if first:
        first[0] = found.starts_at_ns
    promised: list[tuple[int, float]] = []
    for at_ns, plan in zip(first, active, strict=True):
        promised = _from(promised, at_ns, _stretches(plan, at_ns, "committed_w"))
    return Steps.of(promised)


def _committed(plan: Event) -> float:
    return float(plan["committed_w"] or 0.0)


def _is_whole(plan: Event) -> bool:
    rollout = plan.get("rollout")
    return not rollout or bool(rollout.get("complete_at_ns"))


def baseline_w(found: Evidence) -> float:
    """Return the power from which the target counts; NaN where nothing was ever promised. [W]"""
    known = [plan["baseline_w"] for plan in found.plans if plan["baseline_w"] is not None]
    return float(known[0]) if known else np.nan


def others_of(found: Evidence) -> Steps:
    """Return what the resource's devices did for other orders over time, as published. [W]"""
    # A record from before orders could share devices says nothing of it.
    others_w = np.nan_to_num(_floats(found.published, "others_w"))
    return Steps(_longs(found.published, "at_ns"), others_w)


def said(found: Evidence) -> Said:
    """Return the published ticks of the window."""
    table = found.published
    at_ns = _longs(table, "at_ns")
    base_w = baseline_w(found) + others_of(found).value
    until_ns = np.append(at_ns[1:], found.ends_at_ns)
    return Said(
        at_ns=at_ns,
        held_ns=np.minimum(until_ns - at_ns, HOLD_NS),
        delivered_w=_floats(table, "power_w") - base_w,
        low_w=_floats(table, "low_w") - base_w,
        high_w=_floats(table, "high_w") - base_w,
        share=_floats(table, "measured_share"),
        target_w=target_of(found).when(at_ns),
        committed_w=committed_of(found).when(at_ns),
    )


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
    return JudgedTold(
        verdict=verdict,
        text=_TEXTS[verdict],
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


def energy(found: Evidence, told: Said) -> EnergyTold:
    """Add up the energy of the window: asked, promised, published, corrected and in the ledger."""
    target, window = target_of(found), (found.starts_at_ns, found.ends_at_ns)
    sure = ~np.isnan(told.delivered_w)
    held_s = told.held_ns[sure] / NS_PER_S
    minutes_ns, minutes_w = _minutes(found)
    is_told = ~np.isnan(minutes_w)
    minutes_ns, minutes_w = minutes_ns[is_told], minutes_w[is_told]
    quarters = _quarters(found, target)
    sums = [quarter.delivered_mwh for quarter in quarters]
    whole = [each for each in sums if each is not None]
    return EnergyTold(
        asked_mwh=target.mwh(*window),
        promised_mwh=committed_of(found).mwh(*window),
        published_mwh=mwh(float((told.delivered_w[sure] * held_s).sum())) if sure.any() else None,
        published_s=float(held_s.sum()),
        published_asked_mwh=mwh(float((told.target_w[sure] * held_s).sum())),
        corrected_mwh=mwh(float(minutes_w.sum()) * 60.0) if len(minutes_w) else None,
        corrected_s=len(minutes_w) * 60.0,
        corrected_asked_mwh=sum(target.mwh(ns, ns + MINUTE_NS) for ns in minutes_ns.tolist()),
        quarters=quarters,
        ledger_mwh=sum(whole) if sums and len(whole) == len(sums) else None,
        ledger_asked_mwh=sum(quarter.asked_mwh for quarter in quarters),
    )


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
    minutes_ns, corrected_w = _minutes(found)
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


def _minutes(found: Evidence) -> tuple[Longs, Floats]:
    """Return the corrected minutes that lie in the window as a whole, less the baseline."""
    if found.corrected is None:
        return np.zeros(0, np.int64), np.zeros(0)
    starts_ns = _longs(found.corrected, "starts_at_ns")
    whole = (starts_ns >= found.starts_at_ns) & (starts_ns + MINUTE_NS <= found.ends_at_ns)
    starts_ns, others = starts_ns[whole], others_of(found)
    others_w = [others.mwh(at, at + MINUTE_NS) * _WS_PER_MWH / 60.0 for at in starts_ns.tolist()]
    delivered_w = _floats(found.corrected, "power_w")[whole] - baseline_w(found)
    return starts_ns, delivered_w - np.array(others_w, np.float64)


def _quarters(found: Evidence, target: Steps) -> list[QuarterTold]:
    if found.energy is None:
        return []
    rows = {(row["starts_at_ns"], row["register"]): row for row in found.energy.to_pylist()}
    base_w = baseline_w(found)
    if np.isnan(base_w):
        return []
    base_mwh, others = mwh(base_w * QUARTER_NS / NS_PER_S), others_of(found)
    told = []
    for starts_ns in sorted({starts_ns for starts_ns, _ in rows}):
        out, into = (rows.get((starts_ns, register), {}) for register in (0, 1))
        given, taken = out.get("mwh"), into.get("mwh")
        is_known = given is not None and taken is not None
        net = given - taken if is_known else None
        others_mwh = others.mwh(starts_ns, starts_ns + QUARTER_NS)
        told.append(
            QuarterTold(
                starts_at=to_datetime(starts_ns),
                net_mwh=net,
                baseline_mwh=base_mwh,
                others_mwh=others_mwh,
                delivered_mwh=None if net is None else net - base_mwh - others_mwh,
                asked_mwh=target.mwh(starts_ns, starts_ns + QUARTER_NS),
                devices=max(row.get("devices", 0) for row in (out, into)),
                known=min(row.get("known", 0) for row in (out, into)),
            )
        )
    return told


def _means(edges: Longs, held_ns: Longs, values: Floats, starts_ns: Longs, span_ns: int) -> Floats:
    zero = np.zeros(1)
    sums = np.concatenate([zero, np.cumsum(values * held_ns)])
    held = np.concatenate([zero, np.cumsum(held_ns.astype(np.float64))])
    ends_ns = starts_ns + span_ns
    total = np.interp(ends_ns, edges, sums) - np.interp(starts_ns, edges, sums)
    time_ns = np.interp(ends_ns, edges, held) - np.interp(starts_ns, edges, held)
    means: Floats = total / np.maximum(time_ns, 1.0)
    return means


def _longs(table: pa.Table, name: str) -> Longs:
    found: Longs = table.column(name).to_numpy().astype(np.int64)
    return found


def _floats(table: pa.Table, name: str) -> Floats:
    found: Floats = table.column(name).to_numpy().astype(np.float64)
    return found
