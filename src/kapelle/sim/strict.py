"""Reads tables of a file strictly: every key is known, every value is of its kind and range."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

from kapelle.errors import Problem


def checked(
    table: object,
    where: str,
    rules: Mapping[str, "Rule"],
    problems: list[Problem],
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the table's values, having listed all that is wrong with them."""
    if not isinstance(table, dict):
        problems.append(Problem(where, "is not a table", f"write it as [{where}]"))
        return {}
    dot = f"{where}." if where else ""
    good: dict[str, Any] = {}
    for key, value in table.items():
        rule = rules.get(key)
        if rule is None:
            remedy = f"{nearest(key, list(rules))}known here: {', '.join(sorted(rules))}"
            problems.append(Problem(f"{dot}{key}", "no such key", remedy))
        elif not rule.accepts(value):
            problems.append(Problem(f"{dot}{key}", f"is {value!r}", f"give {rule.wanted}"))
        else:
            good[key] = rule.take(value)
    problems += [
        Problem(f"{dot}{key}", "is missing", f"give {rules[key].wanted}")
        for key in required
        if key not in table
    ]
    return good


def nearest(word: str, known: Sequence[str]) -> str:
    """Return the beginning of a remedy that names the known word most like this one."""
    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]!r}? " if close else ""


def tables(value: object) -> Sequence[object]:
    """Return an array of tables; one table is an array of one."""
    return value if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one key may hold."""

    wanted: str
    accepts: Callable[[object], bool]
    take: Callable[[Any], object] = lambda value: value


def is_real(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def real(low: float, high: float, unit: str = "") -> Rule:
    """Accept numbers of a range."""
    wanted = f"a number from {low:g} to {high:g}{unit}"
    return Rule(wanted, lambda v: is_real(v) and low <= cast("float", v) <= high, float)


def count(low: int, high: int) -> Rule:
    """Accept whole numbers of a range."""

    def accepts(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Rule(f"a whole number from {low} to {high}", accepts)


def one_of(*words: str) -> Rule:
    """Accept some words."""
    return Rule(f"one of {', '.join(words)}", lambda value: value in words)


def shares(known: Sequence[str] = ()) -> Rule:
    """Accept names with shares that sum to one; only known names where there are any."""

    def accepts(value: object) -> bool:
        return (
            isinstance(value, dict)
            and bool(value)
            and all(not known or name in known for name in value)
            and all(is_real(share) and share >= 0 for share in value.values())
            and abs(sum(value.values()) - 1.0) < 1e-6
        )

    names = f" of {', '.join(known)}" if known else ""
    return Rule(f"a table{names} with shares that sum to 1", accepts)


def some(known: Sequence[str] = ()) -> Rule:
    """Accept a list of names; only known ones where there are any."""

    def accepts(value: object) -> bool:
        return (
            isinstance(value, list)
            and bool(value)
            and all(isinstance(name, str) and (not known or name in known) for name in value)
        )

    names = f" out of {', '.join(known)}" if known else ""
    return Rule(f"a list of names{names}", accepts, tuple)
