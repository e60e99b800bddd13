"""How far a silent device strays from its kind: by kind and age of its last reading."""

from collections.abc import Mapping
from math import exp, log

import msgspec
import numpy as np

from kapelle.fleet.estimation.evidence import OCTAVES
from kapelle.model.enums import DeviceKind

_CELL_S = 7200.0
"""Over about this long (or 8 times the age) the scatter is averaged. [s]"""
_DARK = 0.02
"""PV at a lower share of nameplate teaches nothing about clouds."""


class Cell(msgspec.Struct):
    """Readings of one kind against anchors of one octave of age; centred within each tick."""

    freedom: float = 0.0
    then2: float = 0.0
    both: float = 0.0
    now2: float = 0.0
    age: float = 0.0
    count: float = 0.0
    at_s: float = 0.0


def learn_cells(cells: dict[int, Cell], told: Mapping[int, list[float]], now_s: float) -> None:
    """Learn from the anchors one tick told of, by cell."""
    for place, (count, then, now, then2, both, now2, age) in told.items():
        if count < 2.0:
            continue
        before, after = then / count, now / count
        scale = 1.0
        if place // OCTAVES == DeviceKind.PV:
            # What clouds and roofs do is proportional to the sun.
            if min(before, after) < _DARK:
                continue
            scale = after / before
        unit = after if place // OCTAVES == DeviceKind.PV else 1.0
        cell = cells.setdefault(place, Cell(at_s=now_s))
        fade = exp(-(now_s - cell.at_s) / max(_CELL_S, 8.0 * age / count))
        cell.at_s = now_s
        cell.freedom = cell.freedom * fade + count - 1.0
        cell.then2 = cell.then2 * fade + (then2 - count * before**2) * scale**2 / unit**2
        cell.both = cell.both * fade + (both - count * before * after) * scale / unit**2
        cell.now2 = cell.now2 * fade + (now2 - count * after**2) / unit**2
        cell.age = cell.age * fade + age
        cell.count = cell.count * fade + count


def keep_and_scatter(
    cells: Mapping[int, Cell], kind: int, age_s: float, presumed: tuple[float, float]
) -> tuple[float, float]:
    """Return what is left of a reading's distance from its kind, and the variance of the rest.

    Args:
        cells: What is known.
        kind: `DeviceKind`.
        age_s: Of the reading. [s]
        presumed: Long-run standard deviation as a share of nameplate, and the age at which half of
            the variance is reached: what is said before anything was learned.
    """
    share, half_s = presumed
    prior = share * share * age_s / (age_s + half_s)
    found: list[tuple[float, float, float]] = []
    for octave in range(OCTAVES):
        cell = cells.get(kind * OCTAVES + octave)
        if cell is None or cell.freedom < 1.0:
            continue
        age = cell.age / cell.count
        ridge = 1e-4 * cell.freedom
        # A few readings may say that distances grow; taken on over hours that has no bounds.
        keep = min(max((cell.both + ridge) / (cell.then2 + ridge), 0.0), 1.0)
        rest = max(cell.now2 - 2.0 * keep * cell.both + keep * keep * cell.then2, 0.0)
        first = share * share * age / (age + half_s)
        rest = (rest + 3.0 * first) / (cell.freedom + 3.0)
        found.append((log(age), keep, rest))
    if not found:
        return 1.0, prior
    at = log(max(age_s, 1.0))
    ages, keeps, rests = zip(*found, strict=True)
    keep, rest = float(np.interp(at, ages, keeps)), float(np.interp(at, ages, rests))
    if at < ages[0]:
        rest *= exp(at - ages[0])
    elif at > ages[-1]:
        ratio = exp(at - ages[-1])
        keep, rest = keep**ratio, rest * min(ratio, 4.0)
    return keep, rest
