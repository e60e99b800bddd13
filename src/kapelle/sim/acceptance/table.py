"""Lines with their scores as tables: for a terminal, and in Markdown."""

from collections.abc import Sequence
from math import isinf

from kapelle.sim.acceptance.score import Score
from kapelle.words import percent

COLUMNS = (
    "line",
    "seeds",
    "mean",
    "p5",
    "worst",
    "5 min",
    "±2 % p50",
    "±2 % p95",
    "out ±5 %",
    "out ±2 %",
    "over",
    "baseline off",
    "noticed",
    "redispatch",
    "commands",
    "twice",
    "stranded",
    "fencing",
    "aims kept",
    "verdict",
)
"""See docs/acceptance.md for what each says."""


def row(score: Score, name: str) -> dict[str, str]:
    """Return the cells of a line under `COLUMNS`."""
    cells = (
        name,
        str(score.seeds),
        percent(score.delivered_mean, 1),
        percent(score.delivered_p5, 1),
        percent(score.delivered_worst, 1),
        percent(score.worst_5min, 1),
        _seconds(score.settle_2pct_p50_s),
        _seconds(score.settle_2pct_p95_s),
        _seconds(score.out_5pct_p95_s),
        _seconds(score.out_2pct_p95_s),
        percent(score.overshoot_p95_pct / 100, 1),
        percent(score.baseline_off_p95_pct / 100, 1),
        _noticed(score),
        _seconds(score.redispatch_p95_s),
        f"{score.commands_per_device_hour:.0f}",
        str(score.double_effects),
        str(score.stranded),
        str(score.fencing),
        percent(score.met),
        verdict(score),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def verdict(score: Score) -> str:
    """Return whether a line keeps what is promised, or that nothing is promised of it."""
    if score.missed:
        return "missed"
    return "no aim" if score.met is None else "met"


def _noticed(score: Score) -> str:
    """Return when a loss was classed as one; where a shortfall is due, when it was announced."""
    if score.notice_p95_s is None or score.notice_error_p95 is None:
        return _seconds(score.detected_p95_s)
    return f"{_seconds(score.notice_p95_s)} (size ±{percent(score.notice_error_p95)})"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return "never" if isinf(seconds) else f"{seconds:.1f} s"


_JOINED = {
    "line": ("line",),
    "delivered / promised: mean, worst seed": ("mean", "worst"),
    "worst 5 min": ("5 min",),
    "within ±2 % after": ("±2 % p95",),
    "out of ±5 %, ±2 % after": ("out ±5 %", "out ±2 %"),
    "overshoot": ("over",),
    "baseline off": ("baseline off",),
    "noticed after": ("noticed",),
    "replaced within": ("redispatch",),
    "twice, stranded, fencing": ("twice", "stranded", "fencing"),
    "aims kept": ("aims kept",),
    "": ("verdict",),
}
"""Columns in Markdown, which has less room, and what each joins of `COLUMNS`."""


def markdown(scores: Sequence[Score]) -> str:
    """Return the table in Markdown, and below it what was missed, line by line."""
    lines = [f"| {' | '.join(_JOINED)} |", f"|{'---|' * len(_JOINED)}"]
    for score in scores:
        told = row(score, score.title)
        cells = (", ".join(told[name] for name in names) for names in _JOINED.values())
        lines.append(f"| {' | '.join(cells)} |".replace("–, –", "–"))
    said = [f"- {score.title}: {'; '.join(score.missed)}" for score in scores if score.missed]
    return "\n".join([*lines, *(["", "Missed:", "", *said] if said else [])])
