"""What the demo saw, and what follows from it: delivered share, settling and recovery times."""

from dataclasses import dataclass, field
from itertools import pairwise
from math import nan

import numpy as np

from kapelle.model.ids import NS_PER_S, Flags, Floats, Longs

_MOVED = 0.1
"""Of what it owes by its number of devices, before a protocol counts as having moved."""
_STAY_S = 3.0
"""Inside the band counts from when power stays there this long. [s]"""


@dataclass(frozen=True, slots=True)
class Seen:
    """The plant's own picture at one tick. [W]"""

    at_ns: int
    power_w: float
    low_w: float
    high_w: float
    target_w: float
    """NaN where no order is active."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened during the demo."""

    at_ns: int
    mark: str
    """A shape: never colour alone."""
    text: str
    is_fault: bool = False
    """Whether the plant has to recover from it."""


@dataclass(slots=True)
class Record:
    """Grows while the demo runs."""

    started_ns: int
    tolerance: float = 0.02
    seen: list[Seen] = field(default_factory=list)
    true: list[tuple[int, float]] = field(default_factory=list)
    """When, and what the devices really did together. [ns, W]"""
    moved: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """By protocol: when, and how far its devices were from their own schedules. [ns, W]"""
    devices: dict[str, int] = field(default_factory=dict)
    """By protocol."""
    events: list[Event] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    """Measured by a device -> part of a published aggregate."""

    def seconds(self, at_ns: int) -> float:
        """Return a moment counted from the start. [s]"""
        return (at_ns - self.started_ns) / NS_PER_S


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a fault did to the delivered power."""

    text: str
    back_s: float
    """From the fault until within the tolerance to stay; 0: never left it, NaN: not back. [s]"""
    outside_s: float
    """Time outside the tolerance until the next fault or the end. [s]"""


@dataclass(frozen=True, slots=True)
class Share:
    """What the devices of one protocol did for an order."""

    devices: int
    delivered: float
    """Mean of true power against their own schedules, over the committed power."""
    met: bool
    """Whether that is at least a tenth of what so many devices owe by their number."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an order went, by the devices' own physics."""

    committed_w: float
    delivered_mean: float
    """Mean true change over committed change, from settling to the end."""
    believed_mean: float
    """The same by the plant's own estimate."""
    delivered_with_rise: float
    """The same as `delivered_mean` over the whole window, the rise included."""
    worst_5s: float
    """Least mean share of any 5 s after settling, faults included."""
    settle_s: float
    """From the start until within the tolerance; NaN: never. [s]"""
    recoveries: tuple[Recovery, ...]
    error_mean: float
    """Mean absolute difference between estimate and truth, as a share of the committed power."""
    interval_coverage: float
    """Share of the truths inside the published 95 % interval."""
    shares: dict[str, Share]
    """By protocol."""
    met: bool
    """Whether it settled, the delivered mean is within the tolerance, and every protocol moved."""


def judge(
    record: Record, committed_w: float, baseline_w: float, starts_ns: int, ends_ns: int
) -> Verdict:
    """Hold the truth against what was promised."""
    at_ns, true_w = _columns(record.true)
    inside = (at_ns >= starts_ns) & (at_ns < ends_ns)
    at_ns, share = at_ns[inside], (true_w[inside] - baseline_w) / (committed_w or nan)
    within = np.abs(share - 1) <= record.tolerance
    settle_s = _steady_after(at_ns, within, starts_ns)
    settled_ns = starts_ns + round((0.0 if np.isnan(settle_s) else settle_s) * NS_PER_S)
    after = at_ns >= settled_ns
    delivered = _mean(share[after])
    seen = [s for s in record.seen if settled_ns <= s.at_ns < ends_ns]
    believed = np.array([s.power_w - baseline_w for s in seen]) / (committed_w or nan)
    error, coverage = _honesty(record, committed_w, starts_ns, ends_ns)
    shares = _shares(record, committed_w, settled_ns, ends_ns)
    return Verdict(
        committed_w=committed_w,
        delivered_mean=delivered,
        believed_mean=_mean(believed),
        delivered_with_rise=_mean(share),
        worst_5s=_worst(at_ns[after], share[after]),
        settle_s=settle_s,
        recoveries=_recoveries(record.events, at_ns, within, starts_ns, ends_ns),
        error_mean=error,
        interval_coverage=coverage,
        shares=shares,
        met=not np.isnan(settle_s)
        and abs(delivered - 1) <= record.tolerance
        and all(share.met for share in shares.values()),
    )


def _shares(record: Record, committed_w: float, settled_ns: int, ends_ns: int) -> dict[str, Share]:
    """Return what each protocol did from settling to the end."""
    shares: dict[str, Share] = {}
    for name, rows in record.moved.items():
        at_ns, moved_w = _columns(rows)
        after = (at_ns >= settled_ns) & (at_ns < ends_ns)
        delivered = _mean(moved_w[after]) / (committed_w or nan)
        owed = record.devices[name] / sum(record.devices.values())
        shares[name] = Share(record.devices[name], delivered, delivered >= _MOVED * owed)
    return shares


def _columns(rows: list[tuple[int, float]]) -> tuple[Longs, Floats]:
    at_ns = np.array([at for at, _ in rows], np.int64)
    return at_ns, np.array([power for _, power in rows], np.float64)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else nan


def _steady_after(at_ns: Longs, within: Flags, begin_ns: int) -> float:
    """Return the time from `begin_ns` until power is inside the band to stay; NaN: never."""
    since = -1
    for at, ok in zip(at_ns.tolist(), within.tolist(), strict=True):
        if at >= begin_ns:
            since = (since if since >= 0 else at) if ok else -1
            if since >= 0 and at - since >= _STAY_S * NS_PER_S:
                return float(since - begin_ns) / NS_PER_S
    return nan


def _recoveries(
    events: list[Event], at_ns: Longs, within: Flags, starts_ns: int, ends_ns: int
) -> tuple[Recovery, ...]:
    faults = [event for event in events if event.is_fault and starts_ns <= event.at_ns < ends_ns]
    limits = [*(fault.at_ns for fault in faults), ends_ns]
    made: list[Recovery] = []
    for fault, (begin_ns, until_ns) in zip(faults, pairwise(limits), strict=True):
        part = (at_ns >= begin_ns) & (at_ns < until_ns)
        times, ok = at_ns[part], within[part]
        back_s, outside_s = 0.0, 0.0
        if not ok.all():
            left_ns = int(times[np.argmin(ok)])
            back_s = (left_ns - begin_ns) / NS_PER_S + _steady_after(times, ok, left_ns)
            outside_s = float((~ok).mean()) * (until_ns - begin_ns) / NS_PER_S
        made.append(Recovery(fault.text, back_s, outside_s))
    return tuple(made)


def _worst(at_ns: Longs, share: Floats) -> float:
    """Return the least mean over any 5 s."""
    if not len(at_ns):
        return nan
    ends = np.searchsorted(at_ns, at_ns + 5 * NS_PER_S)
    whole = [float(share[i:end].mean()) for i, end in enumerate(ends) if end < len(at_ns)]
    return min(whole, default=float(share.mean()))


def _honesty(
    record: Record, committed_w: float, starts_ns: int, ends_ns: int
) -> tuple[float, float]:
    """Return mean error of the estimate, and the share of truths inside its interval."""
    at_ns, true_w = _columns(record.true)
    seen = [s for s in record.seen if starts_ns <= s.at_ns < ends_ns]
    if len(at_ns) < 2 or not seen:
        return nan, nan
    then_w = np.interp([float(s.at_ns) for s in seen], at_ns.astype(np.float64), true_w)
    error_w = np.abs(np.array([s.power_w for s in seen]) - then_w)
    low_w, high_w = np.array([s.low_w for s in seen]), np.array([s.high_w for s in seen])
    held = (low_w <= then_w) & (then_w <= high_w)
    return _mean(error_w) / (abs(committed_w) or nan), float(held.mean())
