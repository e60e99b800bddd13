"""What a run was like: measured on the devices' own physics, not on the plant's opinion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from kapelle.model.ids import Flags, Floats

_HOLD_S = 10.0
"""Within a band means: for this long without leaving it."""
_WINDOW_S = 300.0
_SETTLE_S = 60.0
"""Left out of an interval's judgement: as much, or of a short one …"""
_SETTLE_PART = 0.1
"""… this part. Reports do so too."""


class IntervalResult(msgspec.Struct, kw_only=True):
    """One interval of an order with a profile."""

    starts_s: float
    ends_s: float
    target_w: float
    committed_w: float
    delivered_mean: float | None
    """The change of the true power over `committed_w`, without the first moments, as an order is
    judged; None where nothing was committed."""


class OrderResult(msgspec.Struct, kw_only=True):
    """One order. Delivered is the change of the true power since its start, over `committed_w`."""

    committed_w: float
    delivered_mean: float | None
    """From settling to the end; None where nothing was committed."""
    worst_5min: float | None
    """The least mean over any five minutes between settling and the end."""
    settle_5pct_s: float | None
    """From the start until within 5 % (and then for ten seconds more); None: never."""
    settle_2pct_s: float | None
    recover_2pct_s: list[float]
    """Per group loss: the longest time out of the 2 % band between it and what happened next."""
    overshoot_pct: float | None
    shortfall_notice_s: float | None
    """From the order's start or the group loss before it to the first notice; None: none."""
    recover_5pct_s: list[float]
    target_w: float
    declined_w: float
    baseline_w: float
    """The plant's own."""
    true_baseline_w: float
    starts_s: float
    ends_s: float
    worst_pct: float | None = None
    """The most that would have come beyond the promise had every device obeyed all it still might,
    in percent of it, without what the plant had measured too little; None for a profile."""
    intervals: list[IntervalResult] = []
    """Of a profile. `committed_w` is then that of the largest target, and what is delivered counts
    over the promise of its moment."""


class AggregateResult(msgspec.Struct, kw_only=True):
    """The published aggregate against the truth of the same moments."""

    error_p50_pct: float | None
    """In percent of nameplate."""
    error_p95_pct: float | None
    interval_coverage: float | None
    """Share of truths inside the published 95 % interval."""
    published: int
    interval_mean_pct: float | None
    """Mean half-width of the interval, in percent of nameplate."""


class RedispatchResult(msgspec.Struct, kw_only=True, frozen=True):
    """From the loss of a device to the sending of its replacement (see `fleet.redispatch`)."""

    devices: int = 0
    p50_s: float | None = None
    p95_s: float | None = None


class Result(msgspec.Struct, kw_only=True):
    """Everything `kapelle sim run` tells. The same file and seed give the same, but `wall_s`."""

    seed: int
    virtual_s: float
    wall_s: float
    orders: list[OrderResult]
    aggregate: AggregateResult
    firm: dict[str, float]
    commands: dict[str, int]
    double_effects: int
    stranded: int
    readings: dict[str, int]
    state_hash: str
    devices: dict[str, int]
    notices: list[str]
    restarts: int
    problems: list[str]
    """Broken promises, should there be any."""
    redispatch: RedispatchResult = RedispatchResult()
    commands_per_device_hour: float = 0.0
    """Commands sent, each try and refresh counted, per device and hour of orders."""

    def to_json(self) -> bytes:
        """Return one line of JSON; what does not exist is null."""
        return msgspec.json.encode(self)


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The true power of the fleet over time; times ascend."""

    at_s: Floats
    power_w: Floats

    def at(self, when_s: float) -> float:
        """Return the power at a moment, interpolated."""
        return float(np.interp(when_s, self.at_s, self.power_w))

    def between(self, start_s: float, end_s: float) -> "Track":
        """Return the part in `[start, end)`."""
        part = slice(*np.searchsorted(self.at_s, [start_s, end_s]))
        return Track(self.at_s[part], self.power_w[part])


@dataclass(frozen=True, slots=True)
class Ordered:
    """What the plant made of an order."""

    starts_s: float
    ends_s: float
    target_w: float
    committed_w: float
    declined_w: float
    baseline_w: float
    notices_s: Sequence[float] = ()
    """When a shortfall was announced."""
    intervals: Sequence[IntervalResult] = ()
    """Of a profile: what was asked and promised of each."""


def measure_order(
    track: Track, order: Ordered, losses_s: Sequence[float], turns_s: Sequence[float]
) -> OrderResult:
    """Measure one order.

    Args:
        track: The true power.
        order: What the plant promised.
        losses_s: When groups vanished.
        turns_s: When anything else happened that ends a recovery: returns, other orders.
    """
    part = track.between(order.starts_s, order.ends_s)
    baseline_w = track.at(order.starts_s)
    losses_s = [at_s for at_s in losses_s if order.starts_s <= at_s < order.ends_s]
    result = OrderResult(
        committed_w=order.committed_w,
        delivered_mean=None,
        worst_5min=None,
        settle_5pct_s=None,
        settle_2pct_s=None,
        recover_2pct_s=[],
        overshoot_pct=None,
        shortfall_notice_s=_noticed(order, losses_s),
        recover_5pct_s=[],
        target_w=order.target_w,
        declined_w=order.declined_w,
        baseline_w=order.baseline_w,
        true_baseline_w=baseline_w,
        starts_s=order.starts_s,
        ends_s=order.ends_s,
    )
    # Of a profile the largest interval can have nothing, and another something.
    promised_w = [each.committed_w for each in order.intervals] or [order.committed_w]
    if not any(promised_w) or len(part.at_s) < 2:
        return result
    if order.intervals:
        result.intervals = [_measured(each, part, baseline_w) for each in order.intervals]
        part, delivered = _by_interval(order, part, baseline_w)
    else:
        delivered = (part.power_w - baseline_w) / order.committed_w
    result.settle_5pct_s = settled(part.at_s, np.abs(delivered - 1) <= 0.05)
    result.settle_2pct_s = settled(part.at_s, np.abs(delivered - 1) <= 0.02)
    from_s = order.starts_s + (result.settle_2pct_s or result.settle_5pct_s or 0.0)
    after = part.at_s >= from_s
    result.delivered_mean = float(delivered[after].mean())
    result.worst_5min = worst_window(part.at_s[after], delivered[after], _WINDOW_S)
    result.overshoot_pct = max(0.0, float(delivered.max() - 1) * 100)
    for at_s in losses_s:
        until_s = min([t for t in (*losses_s, *turns_s) if t > at_s], default=order.ends_s)
        window = (part.at_s >= at_s) & (part.at_s < until_s)
        for band, found in ((0.02, result.recover_2pct_s), (0.05, result.recover_5pct_s)):
            out = np.abs(delivered[window] - 1) > band
            found.append(longest_out(part.at_s[window], out))
    return result


def _settle_s(interval: IntervalResult) -> float:
    return min(_SETTLE_S, _SETTLE_PART * (interval.ends_s - interval.starts_s))


def _measured(interval: IntervalResult, track: Track, baseline_w: float) -> IntervalResult:
    part = track.between(interval.starts_s + _settle_s(interval), interval.ends_s)
    if not interval.committed_w or not len(part.at_s):
        return interval
    mean = float((part.power_w - baseline_w).mean()) / interval.committed_w
    return msgspec.structs.replace(interval, delivered_mean=mean)


def _by_interval(order: Ordered, track: Track, baseline_w: float) -> tuple[Track, Floats]:
    """Return the settled part of a profile, and what was delivered over what was promised then.

    Where nothing was promised, what is off counts against the largest promise.
    """
    kept = np.zeros(len(track.at_s), np.bool_)
    wanted_w = np.zeros(len(track.at_s))
    for number, each in enumerate(order.intervals):
        within = (track.at_s >= each.starts_s) & (track.at_s < each.ends_s)
        wanted_w[within] = each.committed_w
        # The first has its own times: until it settles.
        since_s = each.starts_s + (_settle_s(each) if number else 0.0)
        kept |= within & (track.at_s >= since_s)
    largest_w = max((each.committed_w for each in order.intervals), key=abs)
    over_w = np.where(wanted_w == 0.0, largest_w, wanted_w)
    delivered = 1.0 + (track.power_w - baseline_w - wanted_w) / over_w
    return Track(track.at_s[kept], track.power_w[kept]), delivered[kept]


def _noticed(order: Ordered, losses_s: Sequence[float]) -> float | None:
    if not order.notices_s:
        return None
    first_s = min(order.notices_s)
    since_s = max([order.starts_s, *(t for t in losses_s if t <= first_s)])
    return first_s - since_s


def settled(at_s: Floats, inside: Flags) -> float | None:
    """Return the time from the first moment until `inside` holds for ten seconds; None: never."""
    for start in np.flatnonzero(inside & ~np.concatenate([[False], inside[:-1]])):
        later = np.flatnonzero(~inside[start:])
        stays_s = at_s[start + later[0]] - at_s[start] if len(later) else np.inf
        if stays_s >= _HOLD_S or not len(later):
            return float(at_s[start] - at_s[0])
    return None


def longest_out(at_s: Floats, out: Flags) -> float:
    """Return the longest time outside, short returns of less than ten seconds included."""
    outside_s = at_s[out]
    if not len(outside_s):
        return 0.0
    step_s = float(np.median(np.diff(at_s))) if len(at_s) > 1 else 0.0
    breaks = np.flatnonzero(np.diff(outside_s) > _HOLD_S)
    starts = outside_s[np.concatenate([[0], breaks + 1])]
    ends = outside_s[np.concatenate([breaks, [len(outside_s) - 1]])]
    return float((ends - starts).max()) + step_s


def worst_window(at_s: Floats, value: Floats, window_s: float) -> float:
    """Return the least mean over any window of this length; over all where it is shorter."""
    step_s = float(np.median(np.diff(at_s))) if len(at_s) > 1 else window_s
    wide = max(1, round(window_s / step_s))
    if len(value) <= wide:
        return float(value.mean())
    summed = np.concatenate([[0.0], np.cumsum(value)])
    return float(((summed[wide:] - summed[:-wide]) / wide).min())


@dataclass(frozen=True, slots=True)
class Published:
    """One published aggregate."""

    at_s: float
    power_w: float
    low_w: float
    high_w: float
    nameplate_w: float


def measure_aggregate(
    track: Track, published: Sequence[Published], from_s: float
) -> AggregateResult:
    """Hold what was published against the truth, from when every device can have reported."""
    heard = [each for each in published if each.at_s >= from_s and each.nameplate_w > 0]
    if not heard:
        return AggregateResult(
            error_p50_pct=None,
            error_p95_pct=None,
            interval_coverage=None,
            published=0,
            interval_mean_pct=None,
        )
    true_w = np.array([track.at(each.at_s) for each in heard])
    power_w = np.array([each.power_w for each in heard])
    low_w, high_w = (np.array([getattr(e, end) for e in heard]) for end in ("low_w", "high_w"))
    nameplate_w = np.array([each.nameplate_w for each in heard])
    error_pct = np.abs(power_w - true_w) / nameplate_w * 100
    inside = (low_w <= true_w) & (true_w <= high_w)
    return AggregateResult(
        error_p50_pct=float(np.quantile(error_pct, 0.5)),
        error_p95_pct=float(np.quantile(error_pct, 0.95)),
        interval_coverage=float(inside.mean()),
        published=len(heard),
        interval_mean_pct=float(((high_w - low_w) / 2 / nameplate_w).mean() * 100),
    )


def measure_redispatch(took_s: Sequence[float]) -> RedispatchResult:
    """Measure how soon lost devices were replaced."""
    if not took_s:
        return RedispatchResult()
    p50_s, p95_s = np.quantile(np.array(took_s), (0.5, 0.95)).tolist()
    return RedispatchResult(devices=len(took_s), p50_s=p50_s, p95_s=p95_s)


def counted(names: Sequence[str], counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts under these names first, 0 where there were none, then all others."""
    return {name: counts.get(name, 0) for name in names} | dict(sorted(counts.items()))
