"""What all seeds of a line say together, and whether the line keeps what is promised."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, isinf

import msgspec

from kapelle.sim.acceptance.lines import Aims, Line
from kapelle.sim.acceptance.seen import Seen
from kapelle.words import number, percent


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One line over its seeds. Percentiles are by nearest rank; what never came is infinite."""

    line: str
    title: str
    seeds: int
    delivered_mean: float
    delivered_p5: float
    """The 5th percentile of the seeds."""
    delivered_worst: float
    delivered_whole: float
    """Mean from the very start, ramp-up included."""
    baseline_off_p95_pct: float
    """How far the published baseline was from what the fleet did in that moment. [%]"""
    worst_5min: float
    settle_2pct_p50_s: float
    settle_2pct_p95_s: float
    out_5pct_p95_s: float | None
    """95th percentile of each seed's longest time outside after an event; None: no events."""
    out_2pct_p95_s: float | None
    off_p95_pct: float | None
    overshoot_p95_pct: float
    detected_p95_s: float | None
    """None where nothing is lost."""
    notice_p95_s: float | None
    """None where no notice is due: what is missing can be made up for."""
    notice_error_p95: float | None
    named_p95_s: float | None
    """Until a notice named what was lost."""
    redispatch_p95_s: float | None
    """Of the seeds, the 95th percentile of each one's; None where nobody was lost."""
    commands_per_device_hour: float
    """Mean; each try and refresh counted."""
    double_effects: int
    stranded: int
    fencing: int
    problems: list[str]
    met: float | None
    """Share of the seeds that keep the line's aims by themselves; None: it has none."""
    missed: list[str]
    """Which aims the line missed, in words."""


def score(line: Line, runs: Sequence[Seen]) -> Score:
    """Sum up the seeds of a line.

    Args:
        line: Whose aims count.
        runs: At least one.
    """
    losses = bool(line.scenario.faults.group_loss)
    events, scarce = bool(line.events_s), not isinf(line.aims.notice_s)
    told_s = [s.redispatch_p95_s for s in runs if s.redispatch_p95_s is not None]
    return Score(
        line=line.name,
        title=line.title,
        seeds=len(runs),
        delivered_mean=_mean([s.delivered_mean for s in runs]),
        delivered_p5=ranked(0.05, [s.delivered_mean for s in runs]),
        delivered_worst=min(s.delivered_mean for s in runs),
        delivered_whole=_mean([s.delivered_whole for s in runs]),
        baseline_off_p95_pct=ranked(0.95, [s.baseline_off_pct for s in runs]),
        worst_5min=min(s.worst_5min for s in runs),
        settle_2pct_p50_s=ranked(0.5, [_or_never(s.settle_2pct_s) for s in runs]),
        settle_2pct_p95_s=ranked(0.95, [_or_never(s.settle_2pct_s) for s in runs]),
        out_5pct_p95_s=ranked(0.95, [max(s.out_5pct_s) for s in runs]) if events else None,
        out_2pct_p95_s=ranked(0.95, [max(s.out_2pct_s) for s in runs]) if events else None,
        off_p95_pct=ranked(0.95, [max(s.off_pct) for s in runs]) if events else None,
        overshoot_p95_pct=ranked(0.95, [s.overshoot_pct for s in runs]),
        detected_p95_s=ranked(0.95, [_or_never(s.detected_s) for s in runs]) if losses else None,
        notice_p95_s=ranked(0.95, [_notice_s(s) for s in runs]) if scarce else None,
        notice_error_p95=ranked(0.95, [_notice_error(s) for s in runs]) if scarce else None,
        named_p95_s=ranked(0.95, [_named_s(s) for s in runs]) if scarce else None,
        redispatch_p95_s=ranked(0.95, told_s) if told_s else None,
        commands_per_device_hour=_mean([s.commands_per_device_hour for s in runs]),
        double_effects=sum(s.double_effects for s in runs),
        stranded=sum(s.stranded for s in runs),
        fencing=sum(s.fencing for s in runs),
        problems=[f"seed {s.seed}: {problem}" for s in runs for problem in s.problems],
        met=_mean([not _missed(line.aims, [s]) for s in runs]) if line.aims != Aims() else None,
        missed=_missed(line.aims, runs),
    )


def ranked(share: float, values: Sequence[float]) -> float:
    """Return a percentile by nearest rank: a value that was there, never one between two."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def _seconds(seconds: float, places: int) -> str:
    return "never" if isinf(seconds) else f"{number(seconds, places)} s"


@dataclass(frozen=True, slots=True)
class _Measure:
    """How one aim is held against seeds."""

    of: Callable[[Seen], float]
    over: Callable[[Sequence[float]], float]
    """Makes one value of those of all seeds."""
    at_least: bool
    said: str
    """With places for what was seen and for the aim."""
    shown: Callable[[float, int], str] = _seconds
    places: int = 1
    """Decimals of what was seen; an aim has none."""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _p95(values: Sequence[float]) -> float:
    return ranked(0.95, values)


def _or_never(seconds: float | None) -> float:
    return inf if seconds is None else seconds


def _notice_s(seen: Seen) -> float:
    return inf if seen.admitted is None else seen.admitted.after_s


def _notice_error(seen: Seen) -> float:
    return inf if seen.admitted is None else seen.admitted.error


def _named_s(seen: Seen) -> float:
    return inf if seen.admitted is None else _or_never(seen.admitted.named_s)


_MEASURES = {
    "delivered_mean": _Measure(
        lambda s: s.delivered_mean, _mean, True, "delivered {}, aim {}", percent, 2
    ),
    "worst_5min": _Measure(
        lambda s: s.worst_5min, min, True, "five minutes with {}, aim {}", percent, 2
    ),
    "settle_2pct_s": _Measure(
        lambda s: _or_never(s.settle_2pct_s), _p95, False, "within ±2 % after {}, aim {}"
    ),
    "recover_5pct_s": _Measure(
        lambda s: max(s.out_5pct_s), _p95, False, "outside ±5 % for {}, aim {}"
    ),
    "recover_2pct_s": _Measure(
        lambda s: max(s.out_2pct_s), _p95, False, "outside ±2 % for {}, aim {}"
    ),
    "redispatch_s": _Measure(
        lambda s: s.redispatch_p95_s or 0.0, _p95, False, "redispatched in {}, aim {}"
    ),
    "notice_s": _Measure(_notice_s, _p95, False, "shortfall said after {}, aim {}"),
    "notice_error": _Measure(
        _notice_error, _p95, False, "size said wrong by {} of the commitment, aim {}", percent
    ),
    "named_s": _Measure(_named_s, _p95, False, "cause named after {}, aim {}"),
}
"""By the name of the aim."""


def _missed(aims: Aims, runs: Sequence[Seen]) -> list[str]:
    """Return which aims these seeds together miss, in words; what no seed may do comes last."""
    found: list[str] = []
    for name, measure in _MEASURES.items():
        aim: float = getattr(aims, name)
        if isinf(aim):
            continue
        value = measure.over([measure.of(seen) for seen in runs])
        if value < aim if measure.at_least else value > aim:
            seen, due = measure.shown(value, measure.places), measure.shown(aim, 0)
            found.append(measure.said.format(seen, due).replace("after never", "never"))
    for count, what in (
        (sum(seen.double_effects for seen in runs), "commands took effect twice"),
        (sum(seen.stranded for seen in runs), "commands were stranded"),
        (sum(seen.fencing for seen in runs), "orders of a deposed epoch got through"),
        (sum(bool(seen.problems) for seen in runs), "seeds broke another promise"),
    ):
        if count:
            found.append(f"{count} {what}")
    return found
