"""Lines with their scores as tables: for a terminal, and in Markdown."""

from collections.abc import Iterable, Sequence
from math import isinf

from kapelle.sim.acceptance.score import Score

COLUMNS = (
    "line",
    "seeds",
    "delivered / promised: mean, p5, worst",
    "worst 5 min",
    "within ±2 %: p50, p95",
    "out of ±5 %, ±2 % after an event: p95",
    "overshoot p95",
    "noticed p95",
    "redispatched p95",
    "twice, stranded, fencing",
    "seeds that meet the aims",
    "verdict",
)


def rows(scores: Iterable[Score]) -> list[dict[str, str]]:
    """Return the cells of each line under `COLUMNS`."""
    return [dict(zip(COLUMNS, _cells(score), strict=True)) for score in scores]


def _cells(score: Score) -> Sequence[str]:
    delivered = (score.delivered_mean, score.delivered_p5, score.delivered_worst)
    return (
        score.title,
        str(score.seeds),
        " ".join(_percent(value) for value in delivered),
        _percent(score.worst_5min),
        f"{_seconds(score.settle_2pct_p50_s)} {_seconds(score.settle_2pct_p95_s)}",
        f"{_seconds(score.out_5pct_p95_s)} {_seconds(score.out_2pct_p95_s)}".replace("– –", "–"),
        f"{score.overshoot_p95_pct:.1f} %",
        _noticed(score),
        _seconds(score.redispatch_p95_s),
        f"{score.double_effects}, {score.stranded}, {score.fencing}",
        "–" if score.met is None else f"{score.met:.0%}",
        verdict(score),
    )


def verdict(score: Score) -> str:
    """Return whether a line keeps what is promised, or that nothing is promised of it."""
    if score.missed:
        return "missed"
    return "no aim" if score.met is None else "met"


def _noticed(score: Score) -> str:
    """Return when a loss was classed as one, and a shortfall announced where one was due."""
    if score.notice_p95_s is None:
        return _seconds(score.detected_p95_s)
    return f"{_seconds(score.notice_p95_s)} (shortfall)"


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return "never" if isinf(seconds) else f"{seconds:.1f} s"


def markdown(scores: Sequence[Score]) -> str:
    """Return the table in Markdown, and below it what was missed, line by line."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(row.values())} |" for row in rows(scores)]
    said = [f"- {score.title}: {'; '.join(score.missed)}" for score in scores if score.missed]
    return "\n".join([*lines, *(["", "Missed:", "", *said] if said else [])])
