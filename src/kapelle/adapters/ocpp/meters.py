"""Meter values of charging stations: units absent or in kilo, per phase or summed, both directions.

Source: OCPP 1.6 edition 2, 7.31-7.45; OCPP 2.0.1 part 2, MeterValueType. Import and export are
unsigned there; here power is positive towards the grid.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from kapelle.adapters.ocpp.events import Sample
from kapelle.model.enums import Metric

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_TIME_CHARS_MAX = 40
_FLOWS_A = 0.5
"""A phase with less current is not used: meters show some noise. [A]"""
_FLOWS_W = 100.0

_POWER, _ENERGY, _VOLTAGE = "power", "energy", "voltage"
_UNITS = {
    _POWER: {"": 1.0, "W": 1.0, "kW": 1e3},
    _ENERGY: {"": 1.0, "Wh": 1.0, "kWh": 1e3},
    _VOLTAGE: {"": 1.0, "V": 1.0, "kV": 1e3},
    "current": {"": 1.0, "A": 1.0},
    "soc": {"": 0.01, "Percent": 0.01, "%": 0.01},
    "frequency": {"": 1.0, "Hz": 1.0, "Hertz": 1.0},
}
_MEASURANDS = {
    "Power.Active.Import": (_POWER, -1.0),
    "Power.Active.Export": (_POWER, 1.0),
    "Energy.Active.Import.Register": (_ENERGY, -1.0),
    "Energy.Active.Export.Register": (_ENERGY, 1.0),
    "Voltage": (_VOLTAGE, 1.0),
    "Current.Import": ("current", -1.0),
    "Current.Export": ("current", 1.0),
    "SoC": ("soc", 1.0),
    "Frequency": ("frequency", 1.0),
}
_PLACES = ("Outlet", "Inlet", "Cable")
"""Where what is exchanged with the grid is measured, the best first; not `EV`, not `Body`."""
_PHASES = {"L1": "1", "L1-N": "1", "L2": "2", "L2-N": "2", "L3": "3", "L3-N": "3"}
_BETWEEN = ("L1-L2", "L2-L3", "L3-L1")
_PHASES_OF_VOLTAGE = (*_PHASES, *_BETWEEN)


class Sampled(NamedTuple):
    """One sampled value as it was sent; empty texts where the station left them out."""

    value: str | float
    measurand: str
    phase: str
    location: str
    unit: str
    multiplier: int = 0
    context: str = ""


class Sampling(Protocol):
    """A sampled value in the words of some version."""

    def sampled(self) -> Sampled | None:
        """Return it in the words of all; None where it says nothing (it is only signed)."""


Value = TypeVar("Value", bound=Sampling)


class Meter(msgspec.Struct, Generic[Value], rename="camel"):
    """What was sampled at one moment (MeterValue, MeterValueType)."""

    sampled_value: list[Value]
    timestamp: str = ""


class Measured(NamedTuple):
    """What sampled values of one moment say."""

    values: dict[Metric, float]
    phases: int
    """Phases in use; 0: not known."""
    problems: list[str]


def samples(
    meters: Sequence[Meter[Value]], where: str
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Return what meters say, moment by moment, and why parts of it cannot be used.

    `where`: the field they stand in.
    """
    said: list[Sample] = []
    problems: list[str] = []
    for place, meter in enumerate(meters):
        sampled = [one for value in meter.sampled_value if (one := value.sampled()) is not None]
        measured = measure(sampled, f"/{where}/{place}/sampledValue")
        problems += measured.problems
        if measured.values:
            said.append(Sample(moment_ns(meter.timestamp), measured.values, measured.phases))
    return tuple(said), tuple(problems)


def moment_ns(text: str) -> int:
    """Return a time in ns; 0 where it is none. One without zone is UTC (OCPP 1.6, 3.15)."""
    if len(text) > _TIME_CHARS_MAX:
        return 0
    try:
        at = datetime.fromisoformat(text)
        since = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        return 0
    return max(0, (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000)


def time_text(utc_ns: int) -> str:
    """Write a time as stations read it."""
    at = _EPOCH + timedelta(microseconds=utc_ns // 1000)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def number(value: str | float) -> float:
    """Return a number of a station; NaN where it is none."""
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if len(text) < 40 and _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def measure(sampled: Sequence[Sampled], where: str) -> Measured:
    """Read the sampled values of one moment. `where`: their place in the message."""
    found: dict[tuple[str, float], dict[str, dict[str, float]]] = {}
    problems: list[str] = []
    for index, one in enumerate(sampled):
        kind, direction = _MEASURANDS.get(one.measurand, ("", 0.0))
        location = one.location or (_PLACES[0] if kind != "soc" else "EV")
        if not kind or (location not in _PLACES and kind != "soc"):
            continue
        if one.phase and one.phase not in (_PHASES_OF_VOLTAGE if kind == _VOLTAGE else _PHASES):
            continue
        value, factor = number(one.value), _UNITS[kind].get(one.unit)
        if math.isnan(value) or factor is None or not -12 <= one.multiplier <= 12:
            what = f"{one.value!r:.30} {one.unit:.12} is no {kind}"
            problems.append(f"meter: {where}/{index}: {what}; send a number in its unit")
            continue
        per_place = found.setdefault((kind, direction), {}).setdefault(location, {})
        if one.phase in per_place and one.context.endswith(".Begin"):
            # Some repeat what the register was as the transaction began beside what it is.
            continue
        per_place[one.phase] = value * factor * 10.0**one.multiplier
    values = _totals({key: _nearest(places) for key, places in found.items()})
    soc = values.get(Metric.SOC)
    if soc is not None and not 0.0 <= soc <= 1.0:
        problems.append(f"soc: {where}: {soc * 100:.0f} % is no state of charge; send 0 to 100")
        del values[Metric.SOC]
    return Measured(values, _phases_in_use(found), problems)


def _nearest(places: dict[str, dict[str, float]]) -> dict[str, float]:
    return next((places[place] for place in _PLACES if place in places), places.get("EV", {}))


def _totals(found: dict[tuple[str, float], dict[str, float]]) -> dict[Metric, float]:
    values: dict[Metric, float] = {}
    powers = [
        direction * _total(phases) for (kind, direction), phases in found.items() if kind == _POWER
    ]
    if powers:
        values[Metric.POWER_W] = sum(powers) + 0.0
    for key, metric in (
        ((_ENERGY, -1.0), Metric.IMPORT_WH),
        ((_ENERGY, 1.0), Metric.EXPORT_WH),
        (("soc", 1.0), Metric.SOC),
        (("frequency", 1.0), Metric.FREQUENCY_HZ),
    ):
        if key in found:
            values[metric] = _total(found[key])
    volts = _to_neutral(found.get((_VOLTAGE, 1.0), {}))
    if volts:
        values[Metric.VOLTAGE_V] = sum(volts) / len(volts)
    return values


def _total(phases: dict[str, float]) -> float:
    """Return the value of all phases: as it was sent, else their sum."""
    if "" in phases:
        return phases[""]
    return sum({_PHASES[name]: value for name, value in phases.items()}.values())


def _to_neutral(phases: dict[str, float]) -> list[float]:
    direct = [value for name, value in phases.items() if not name or name in _PHASES]
    between = [value / math.sqrt(3) for name, value in phases.items() if name in _BETWEEN]
    return [value for value in direct or between if value > 0]


def _phases_in_use(found: dict[tuple[str, float], dict[str, dict[str, float]]]) -> int:
    for kind, least in (("current", _FLOWS_A), (_POWER, _FLOWS_W)):
        flowing = {
            _PHASES[name]
            for direction in (-1.0, 1.0)
            for name, value in _nearest(found.get((kind, direction), {})).items()
            if name in _PHASES and abs(value) > least
        }
        if flowing:
            return len(flowing)
    return 0
