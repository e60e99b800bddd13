"""What drives the devices from outside: sun and clouds, households, arriving cars.

`Weather` is parametric; `measured.MeasuredWeather` takes the same shapes from real homes.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator

from kapelle.model.ids import NS_PER_S, Floats, Ints

DAY_S = 86_400
_CLOUD_MINUTES = 8.0
"""Correlation time of the clouds over one feeder. [min]"""
_HOME_MINUTES = 3.0
"""Correlation time of what goes on in a household. [min]"""


class Driver(Protocol):
    """The world outside the devices, for a whole fleet at once."""

    def step(self, now_ns: int, dt_s: float) -> None:
        """Advance clouds and households."""

    def sun(self) -> Floats:
        """Return the share of its rating each device's PV could give now, 0-1."""

    def load(self) -> Floats:
        """Return each household's (or load's) consumption as a share of its rating, 0-1."""

    def next_car(self, rows: Ints, now_ns: int) -> "Cars":
        """Draw the next session of each of these chargers."""


@dataclass(frozen=True, slots=True, eq=False)
class Cars:
    """Charging sessions, one per row asked for."""

    arrives_ns: np.ndarray[tuple[int], np.dtype[np.int64]]
    departs_ns: np.ndarray[tuple[int], np.dtype[np.int64]]
    need_wh: Floats


class Weather:
    """Parametric: a clear-sky curve, clouds that pass over feeders, noisy households."""

    def __init__(self, feeder: Ints, nameplate_down_w: Floats, rng: Generator) -> None:
        n = len(feeder)
        self._rng = rng
        self._feeder = feeder
        self._rating_w = np.maximum(nameplate_down_w, 1.0)
        self._cloud = rng.normal(size=int(feeder.max(initial=0)) + 1)
        self._home = rng.normal(size=n)
        self._habit_s = rng.normal(0.0, 3600.0, size=n)
        self._size = rng.uniform(0.35, 0.75, size=n)
        self._second_of_day = 0.0

    def step(self, now_ns: int, dt_s: float) -> None:
        """Advance clouds and households as mean-reverting walks (Ornstein-Uhlenbeck, exact)."""
        self._second_of_day = now_ns / NS_PER_S % DAY_S
        self._cloud = walk(self._cloud, dt_s / (60 * _CLOUD_MINUTES), self._rng)
        self._home = walk(self._home, dt_s / (60 * _HOME_MINUTES), self._rng)

    def sun(self) -> Floats:
        """Return clear sky times clouds; a cloud takes up to 70 %."""
        clear = max(0.0, np.sin(np.pi * (self._second_of_day / 3600 - 5.0) / 16.0)) ** 1.2
        sun: Floats = clear * 0.95 * cloud_share(self._cloud)[self._feeder]
        return sun

    def load(self) -> Floats:
        """Return a morning and an evening peak over a base, with noise of its own per house."""
        hour = ((self._second_of_day + self._habit_s) % DAY_S) / 3600
        peaks = np.exp(-(((hour - 7.5) / 1.5) ** 2)) + 1.4 * np.exp(-(((hour - 19.0) / 2.5) ** 2))
        share: Floats = self._size * (0.45 + 0.35 * peaks) * (1.0 + 0.08 * self._home)
        return np.clip(share, 0.02, 1.0)

    def next_car(self, rows: Ints, now_ns: int) -> Cars:
        """Draw stays of some hours that ask for an evening's energy; a pause lies between."""
        size = len(rows)
        away_s = self._rng.exponential(3 * 3600.0, size=size)
        stay_s = self._rng.uniform(2.0, 9.0, size=size) * 3600
        need_wh = np.minimum(
            self._rng.gamma(4.0, 4000.0, size=size), 0.9 * self._rating_w[rows] * stay_s / 3600
        )
        arrives_ns = now_ns + (away_s * NS_PER_S).astype(np.int64)
        return Cars(arrives_ns, arrives_ns + (stay_s * NS_PER_S).astype(np.int64), need_wh)


def cloud_share(cloud: Floats) -> Floats:
    """Return the share of light that comes through, from a standard normal state of the sky."""
    through: Floats = 1.0 - 0.7 / (1.0 + np.exp(-2.0 * (cloud - 0.8)))
    return through


def walk(value: Floats, steps: float, rng: Generator) -> Floats:
    """Advance a standard Ornstein-Uhlenbeck walk by `steps` correlation times."""
    keep = float(np.exp(-steps))
    moved: Floats = keep * value + np.sqrt(1.0 - keep * keep) * rng.standard_normal(len(value))
    return moved
