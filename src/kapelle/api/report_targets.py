"""What was asked of an order's resource over time, what was promised, and from where it counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kapelle.history.evidence import Event, Evidence
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S, Floats, Longs

WS_PER_MWH = 3.6


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


def mwh(watt_seconds: float) -> int:
    """Return W s as whole mWh."""
    return round(watt_seconds / WS_PER_MWH)


def target_of(found: Evidence) -> Steps:
    """Return what was asked over time. [W]"""
    asked = _stretches(found.order, found.starts_at_ns, "target_w")
    for amend in found.amends:
        # What is changed before it starts counts from its start.
        at_ns = max(found.starts_at_ns, int(amend["at_ns"]))
        asked = _from(asked, at_ns, _stretches(amend, at_ns, "target_w"))
    return Steps.of(asked)


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


def baseline_w(found: Evidence) -> float:
    """Return the power from which the target counts; NaN where nothing was ever promised. [W]"""
    known = [plan["baseline_w"] for plan in found.plans if plan["baseline_w"] is not None]
    return float(known[0]) if known else np.nan


def others_of(found: Evidence) -> Steps:
    """Return what the resource's devices did for other orders over time, as published. [W]"""
    # A record from before orders could share devices says nothing of it.
    others_w = np.nan_to_num(floats(found.published, "others_w"))
    return Steps(longs(found.published, "at_ns"), others_w)


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


def _committed(plan: Event) -> float:
    return float(plan["committed_w"] or 0.0)


def _is_whole(plan: Event) -> bool:
    rollout = plan.get("rollout")
    return not rollout or bool(rollout.get("complete_at_ns"))


def longs(table: pa.Table, name: str) -> Longs:
    """Return a column of whole numbers."""
    found: Longs = table.column(name).to_numpy().astype(np.int64)
    return found


def floats(table: pa.Table, name: str) -> Floats:
    """Return a column of numbers; NaN where nobody knows."""
    found: Floats = table.column(name).to_numpy().astype(np.float64)
    return found
