"""What a drill is judged by: one criterion a line, and all of them together."""

from collections.abc import Sequence
from math import isinf

import msgspec


class Criterion(msgspec.Struct, frozen=True, kw_only=True):
    """Something measured, held against the most it may be."""

    name: str
    measured: float | None
    """None: it never came."""
    limit: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is within its limit."""
        return self.measured is not None and self.measured <= self.limit


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill found."""

    drill: str
    title: str
    seeds: Sequence[int]
    fleet: str
    """Of what it was played with, in words."""
    criteria: Sequence[Criterion]
    notes: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(each.passed for each in self.criteria)


def worst(plays: Sequence[Sequence[Criterion]]) -> list[Criterion]:
    """Return each criterion as it was in the worst of several plays of the same drill."""
    return [max(same, key=_badness) for same in zip(*plays, strict=True)]


def _badness(each: Criterion) -> float:
    return float("inf") if each.measured is None else each.measured


def as_rows(report: Report) -> list[dict[str, str]]:
    """Return the criteria as rows for a table."""
    return [
        {
            "": "● pass" if each.passed else "✕ fail",
            "criterion": each.name,
            "measured": _said(each.measured, each.unit),
            "limit": f"≤ {_said(each.limit, each.unit)}",
        }
        for each in report.criteria
    ]


def as_document(report: Report) -> dict[str, object]:
    """Return the report for programs; what never came is null."""
    told: dict[str, object] = msgspec.to_builtins(report)
    told["passed"] = report.passed
    told["criteria"] = [
        msgspec.to_builtins(each) | {"passed": each.passed} for each in report.criteria
    ]
    return told


def _said(value: float | None, unit: str) -> str:
    if value is None or isinf(value):
        return "never"
    return f"{value:.2f} {unit}" if unit else f"{value:.0f}"
