"""How far a silent device strays from its kind: by kind and age of its last reading.

Two witnesses: anchors show just this, but few at each age, and where devices come and go as rare
events those may have seen none; the moves from report to report of all devices show every event,
but not how much of it is taken back later. So the anchors are believed by the number of events they
have seen, and the moves make up for the rest (`docs/estimation.md`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, expm1, log

import msgspec
import numpy as np

from kapelle.fleet.estimation.evidence import OCTAVES
from kapelle.fleet.estimation.levels import Level
from kapelle.model.enums import DeviceKind
from kapelle.model.summaries import Evidence

_CELL_S = 7200.0
"""Over about this long (or 8 times the age) the scatter is averaged. [s]"""
_DWELL = 0.7
"""An anchor tells of one octave for this part of the mean age in it."""
_PRESUMED = 3.0
"""What is presumed weighs as much as this many events."""
DARK = 0.02
"""PV at a lower share of nameplate teaches nothing about clouds."""


class Moves(msgspec.Struct):
    """Moves of one kind from report to report, as shares of nameplate (of the level for PV)."""

    seconds: float = 0.0
    """Between those reports. [device s]"""
    square: float = 0.0
    fourth: float = 0.0
    at_s: float = 0.0

    @property
    def rate(self) -> float:
        """Return the variance a device gathers in a second, were no move ever taken back. [1/s]"""
        return self.square / self.seconds if self.seconds else 0.0

    @property
    def events(self) -> float:
        """Return how many events that rests on; `n` equal jumps, whatever rests, make `n`."""
        return self.square * self.square / self.fourth if self.fourth else 0.0


class Cell(msgspec.Struct):
    """Readings of one kind against anchors of one octave of age; centred within each tick."""

    freedom: float = 0.0
    then2: float = 0.0
    both: float = 0.0
    now2: float = 0.0
    age: float = 0.0
    count: float = 0.0
    at_s: float = 0.0
    seconds: float = 0.0
    """For how long, in effect. [s]"""
    square: float = 0.0
    """Of what devices moved since the anchor."""
    fourth: float = 0.0

    @property
    def age_s(self) -> float:
        """Return the mean age of the anchors. [s]"""
        return self.age / self.count

    def events(self, gap_s: float) -> float:
        """Return how many events it has seen, of devices that report so often.

        A device that has moved shows it with each report until its anchor is older.
        """
        if not self.fourth:
            return 0.0
        repeated = max(min(_DWELL * self.age_s, self.seconds) / gap_s, 1.0)
        return self.square * self.square / self.fourth / repeated


def learn_moves(
    moves: dict[int, Moves], levels: Mapping[int, Level], told: Evidence, now_s: float
) -> None:
    """Learn from the moves one tick told of, by kind."""
    for kind, (seconds, square, fourth) in told.moves.items():
        unit2 = 1.0
        if kind == DeviceKind.PV:
            level = levels.get(kind)
            if level is None or level.level < DARK:
                continue
            unit2 = level.level**2
        known = moves.setdefault(kind, Moves(at_s=now_s))
        fade = exp(-(now_s - known.at_s) / _CELL_S)
        known.at_s = now_s
        known.seconds = known.seconds * fade + seconds
        known.square = known.square * fade + square / unit2
        known.fourth = known.fourth * fade + fourth / unit2**2


def learn_cells(cells: dict[int, Cell], told: Evidence, now_s: float) -> None:
    """Learn from the anchors one tick told of, by cell."""
    for place, (count, then, now, then2, both, now2, age) in told.anchors.items():
        if count < 2.0:
            continue
        before, after = then / count, now / count
        scale = unit2 = 1.0
        if place // OCTAVES == DeviceKind.PV:
            # What clouds and roofs do is proportional to the sun.
            if min(before, after) < DARK:
                continue
            scale, unit2 = after / before, after**2
        cell = cells.setdefault(place, Cell(at_s=now_s))
        fade = exp(-(now_s - cell.at_s) / max(_CELL_S, 8.0 * age / count))
        cell.seconds = cell.seconds * fade + now_s - cell.at_s
        cell.at_s = now_s
        cell.freedom = cell.freedom * fade + count - 1.0
        cell.then2 = cell.then2 * fade + (then2 - count * before**2) * scale**2 / unit2
        cell.both = cell.both * fade + (both - count * before * after) * scale / unit2
        cell.now2 = cell.now2 * fade + (now2 - count * after**2) / unit2
        cell.age = cell.age * fade + age
        cell.count = cell.count * fade + count
        cell.square = cell.square * fade + max(now2 - 2.0 * both + then2, 0.0) / unit2
        cell.fourth = cell.fourth * fade + told.fourths.get(place, 0.0) / unit2**2


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a kind but for its anchors; variances are of shares (of PV's level)."""

    presumed: tuple[float, float]
    """Long-run standard deviation as a share of nameplate, and the age at which half of the
    variance is reached: what is said before anything was learned. [1, s]"""
    moves: Moves
    spread2: float
    """Variance between devices at one moment: nobody strays further from his kind; 0 if unknown."""
    gap_s: float
    """Between two reports. [s]"""
    alike: float
    """How many devices count as one, since they stand under one sky."""

    def variance(self, age_s: float) -> float:
        """Return the variance that is to be expected at this age."""
        share, half_s = self.presumed
        presumed = share * share * age_s / (age_s + half_s)
        moved = self.moves.rate * age_s
        if self.spread2 > 0.0:
            moved = self.spread2 * -expm1(-moved / self.spread2)
        events = self.moves.events
        return (events * moved + _PRESUMED * presumed) / (events + _PRESUMED)


@dataclass(frozen=True, slots=True)
class Strayed:
    """How far devices stray from what they did some time ago."""

    keep: float
    """What is left of a reading's distance from its kind. 0-1"""
    variance: float
    """Of the rest; as a share of nameplate, or of the level for PV."""
    events: float
    """How many events that rests on."""


def strayed(cells: Mapping[int, Cell], kind: int, age_s: float, prior: Prior) -> Strayed:
    """Return what is known of devices of a kind (`DeviceKind`) that were last heard so long ago."""
    found: list[tuple[float, float, float, float]] = []
    for octave in range(OCTAVES):
        cell = cells.get(kind * OCTAVES + octave)
        if cell is None or cell.freedom < 1.0:
            continue
        ridge = 1e-4 * cell.freedom
        # A few readings may say that distances grow; taken on over hours that has no bounds.
        keep = min(max((cell.both + ridge) / (cell.then2 + ridge), 0.0), 1.0)
        rest = max(cell.now2 - 2.0 * keep * cell.both + keep * keep * cell.then2, 0.0)
        events = cell.events(prior.gap_s) / prior.alike
        variance = events * rest / cell.freedom + _PRESUMED * prior.variance(cell.age_s)
        events += _PRESUMED
        found.append((log(cell.age_s), keep, variance / events, events))
    if not found:
        return Strayed(1.0, prior.variance(age_s), _PRESUMED)
    at = log(max(age_s, 1.0))
    ages, *columns = zip(*found, strict=True)
    keep, variance, events = (float(np.interp(at, ages, column)) for column in columns)
    if at < ages[0]:
        variance *= exp(at - ages[0])
    elif at > ages[-1]:
        ratio = exp(at - ages[-1])
        keep, variance = keep**ratio, variance * min(ratio, 4.0)
    return Strayed(keep, variance, events)
