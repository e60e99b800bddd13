"""Mirror usage points: what a client measures, turned into what the plant knows. Pure.

Source: IEEE 2030.5-2018, 10.8 and the metering types of sep.xsd.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from kapelle.adapters.ieee2030.codec import Part, scaled
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S

FORWARD, NET, REVERSE, NOT_APPLICABLE = 1, 4, 19, 0
"""FlowDirectionType: to the customer; forward less reverse; from the customer."""
_VOLTAGE, _FREQUENCY, _POWER, _ENERGY = 29, 33, 38, 72
_REGISTERS = (3, 9)
"""AccumulationBehaviourType: cumulative, summation."""
_EXTREMES = (8, 9)
"""DataQualifierType: maximum, minimum; not what a device does now."""
_WHOLE_DEVICE = (None, 0, 224)
_FIRST_PHASE = (*_WHOLE_DEVICE, 128, 129)
_PREMISES = 1 << 1
"""RoleFlagsType: the meter is the site's, not the device's."""
_ROLES = 0xFFFF
_SERIES_MAX = 64
_READINGS_MAX = 2_000
_SECONDS_MAX = 2**33


class Signs(NamedTuple):
    """What directions mean, where a client or its standard leaves it open."""

    forward: float = -1.0
    """Of flowDirection 1. -1: towards the customer, as the standard has it; 1: towards the grid."""
    unsaid: float = 0.0
    """Of flowDirection 0. 0: nothing is known."""


class Moment(NamedTuple):
    """What a device measured at one moment."""

    at_ns: int
    """0 where it said none."""
    values: dict[Metric, float]


@dataclass(slots=True)
class _Series:
    """One MirrorMeterReading: what its numbers mean."""

    uom: int
    exponent: int
    flow: int
    accumulation: int
    qualifier: int
    phase: int | None


@dataclass(slots=True)
class Mirror:
    """One MirrorUsagePoint of a client."""

    mrid: str
    role: int
    series: dict[str, _Series] = field(default_factory=dict)
    """By mRID: later posts do not repeat the type."""
    _sides: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Newest power of each direction where a client meters them apart: time and amount."""
    _netted_ns: int = -1

    @property
    def is_premises(self) -> bool:
        """Return whether this is the meter of a whole site: nobody's own power."""
        return bool(self.role & _PREMISES)


def mirror_of(part: Part) -> Mirror | str:
    """Return the mirror a MirrorUsagePoint makes, or what is wrong with it."""
    mrid = part.hexadecimal("mRID", 32)
    if not mrid:
        return "mirror: mRID: is missing; give each mirror usage point one"
    return Mirror(mrid, (part.bits("roleFlags") or 0) & _ROLES)


def apply_readings(
    mirror: Mirror, readings: list[Part], signs: Signs
) -> tuple[list[Moment], list[str]]:
    """Take MirrorMeterReadings in; return what they say, by time, and what cannot be used.

    Args:
        mirror: What is known of the types of earlier posts; types said now are kept in it.
        readings: `MirrorMeterReading` elements.
        signs: What directions mean.
    """
    problems: dict[str, None] = {}
    found: dict[int, dict[Metric, float]] = defaultdict(dict)
    count = 0
    # Every type first: that there are two directions must be known before one is read.
    for part, series in [(part, _series(mirror, part)) for part in readings]:
        if isinstance(series, str):
            problems[series] = None
            continue
        if mirror.is_premises:
            continue
        for at_s, raw in _values(part):
            count += 1
            if count > _READINGS_MAX:
                problems[f"readings: number: is above {_READINGS_MAX}; send less at once"] = None
                break
            value = scaled(raw, series.exponent)
            if value is None or not 0 <= at_s < _SECONDS_MAX:
                problems["reading: value: is out of range; mend multiplier or time"] = None
                continue
            said = _meaning(mirror, series, at_s * NS_PER_S, value, signs)
            if isinstance(said, str):
                problems[said] = None
            elif said is not None:
                at_ns, metric, amount = said
                found[at_ns][metric] = amount
    return [Moment(at_ns, found[at_ns]) for at_ns in sorted(found)], list(problems)


def _series(mirror: Mirror, part: Part) -> _Series | str:
    mrid = part.hexadecimal("mRID", 32)
    kind = part.one("ReadingType")
    if kind is None:
        return mirror.series.get(mrid) or "reading: ReadingType: was never sent; send it once"
    series = _Series(
        kind.whole("uom") or 0,
        kind.whole("powerOfTenMultiplier") or 0,
        kind.whole("flowDirection") or 0,
        kind.whole("accumulationBehaviour") or 0,
        kind.whole("dataQualifier") or 0,
        kind.whole("phase"),
    )
    if mrid in mirror.series or len(mirror.series) < _SERIES_MAX:
        mirror.series[mrid] = series
    return series


def _values(part: Part) -> Iterator[tuple[int, int]]:
    """Yield time [s], 0 where none is said, and number of each reading."""
    updated = part.whole("lastUpdateTime") or 0
    single = part.one("Reading")
    for reading in [single] if single is not None else []:
        yield from _value(reading, updated)
    for group in part.all("MirrorReadingSet"):
        period = _end(group) or updated
        for reading in group.all("Reading"):
            yield from _value(reading, period)


def _value(reading: Part, otherwise_s: int) -> Iterator[tuple[int, int]]:
    value = reading.whole("value")
    if value is not None:
        yield _end(reading) or otherwise_s, value


def _end(part: Part) -> int:
    """Return when the interval of a reading ended: an average speaks of what has been. [s]"""
    period = part.one("timePeriod")
    start = period.whole("start") if period is not None else None
    if period is None or start is None:
        return 0
    return start + (period.whole("duration") or 0)


def _meaning(
    mirror: Mirror, series: _Series, at_ns: int, value: float, signs: Signs
) -> tuple[int, Metric, float] | str | None:
    """Return time, metric and value; None where it is nothing the plant keeps."""
    if series.qualifier in _EXTREMES:
        return None
    if series.uom == _POWER and series.phase in _WHOLE_DEVICE:
        return _power(mirror, series.flow, at_ns, value, signs)
    if series.uom == _ENERGY and series.accumulation in _REGISTERS:
        if series.phase not in _WHOLE_DEVICE:
            return None
        if series.flow not in (FORWARD, REVERSE):
            return None
        is_export = (series.flow == FORWARD) == (signs.forward > 0)
        return at_ns, Metric.EXPORT_WH if is_export else Metric.IMPORT_WH, value
    if series.uom == _VOLTAGE and series.phase in _FIRST_PHASE:
        return at_ns, Metric.VOLTAGE_V, value
    if series.uom == _FREQUENCY:
        return at_ns, Metric.FREQUENCY_HZ, value
    return None


def _power(
    mirror: Mirror, flow: int, at_ns: int, value: float, signs: Signs
) -> tuple[int, Metric, float] | str | None:
    if flow == NET:
        return at_ns, Metric.POWER_W, signs.forward * value
    if flow not in (FORWARD, REVERSE):
        if not signs.unsaid:
            remedy = "post 1 (forward) or 19 (reverse), or set ieee2030.unsaid_flow"
            return f"reading: flowDirection: {flow} does not say which way power flows; {remedy}"
        return at_ns, Metric.POWER_W, signs.unsaid * value
    flows = {series.flow for series in mirror.series.values() if series.uom == _POWER}
    if not {FORWARD, REVERSE} <= flows:
        return at_ns, Metric.POWER_W, signs.forward * (value if flow == FORWARD else -value)
    # Metered apart: one side alone would say 0 W while the other carries everything.
    mirror._sides[flow] = at_ns, value
    if len(mirror._sides) < 2:
        return None
    first_ns, last_ns = sorted(at for at, _ in mirror._sides.values())
    # Of one moment, be it sent again; or, where a client takes them apart, both since the last.
    if first_ns != last_ns and first_ns <= mirror._netted_ns:
        return None
    mirror._netted_ns = last_ns
    net = mirror._sides[FORWARD][1] - mirror._sides[REVERSE][1]
    return mirror._netted_ns, Metric.POWER_W, signs.forward * net
