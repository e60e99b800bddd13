"""Commands as events, and reports as readings and answers. Pure.

OpenADR counts consumption as positive and speaks of kW; behind this codec power is positive towards
the grid and in W. `DEMAND` and `USAGE` cannot be negative, so what is fed in has payload types of
its own here, `EXPORT_DEMAND` and `EXPORT_USAGE`: the standard allows private ones.
Source: OpenADR 3.1.0, Definitions: event and report payloads, reading types, units.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

from msgspec import UnsetType

from kapelle.adapters.errands import Command
from kapelle.adapters.inbox import Answer, Report, Unreadable
from kapelle.adapters.openadr import shapes
from kapelle.adapters.openadr.periods import duration, duration_s, moment, moment_ns
from kapelle.adapters.openadr.shapes import (
    Event,
    EventDescriptor,
    Interval,
    IntervalPeriod,
    ReportDescriptor,
    ReportWanted,
    ValuesMap,
)
from kapelle.model.enums import AckStatus, Metric
from kapelle.model.ids import NS_PER_S

_T = TypeVar("_T")
PROGRAM = "kapelle"
TELEMETRY = "kapelle-telemetry"
"""Id of the event that asks for reports all the time, command or none."""
SETPOINT = "DISPATCH_SETPOINT"
EXPORT_DEMAND = "EXPORT_DEMAND"
EXPORT_USAGE = "EXPORT_USAGE"
REPORTED = {
    "DEMAND": "KW",
    EXPORT_DEMAND: "KW",
    "OPERATING_STATE": None,
    "SETPOINT": "KW",
    "STORAGE_CHARGE_LEVEL": "PERCENT",
}
"""What gateways are asked to report, and in which unit."""
_W = {"W": 1.0, "KW": 1e3, "MW": 1e6}
_WH = {"WH": 1.0, "KWH": 1e3, "MWH": 1e6}
_UNITS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "DEMAND": ("KW", _W),
    EXPORT_DEMAND: ("KW", _W),
    "SETPOINT": ("KW", _W),
    "STORAGE_MAX_DISCHARGE_POWER": ("KW", _W),
    "STORAGE_MAX_CHARGE_POWER": ("KW", _W),
    "USAGE": ("KWH", _WH),
    EXPORT_USAGE: ("KWH", _WH),
    "STORAGE_CHARGE_LEVEL": ("PERCENT", {"PERCENT": 0.01}),
}
"""By payload type: the unit where none is said, and the factor of each to ours."""
_NOT_MEASURED = ("FORECAST", "PEAK")
_SIGNED = ("SETPOINT",)
_FOLLOWING = ("RUNNING_CURTAILED", "RUNNING_HEIGHTENED", "IDLE_CURTAILED", "IDLE_HEIGHTENED")
_OWN = ("NORMAL", "IDLE_NORMAL", "RUNNING_NORMAL")
_OPTED_OUT = ("IDLE_OPTED_OUT", "RUNNING_OPTED_OUT")
_FAILED = ("ERROR", "SGD_ERROR_CONDITION")
_SETPOINT_APART_W = 10.0
_USAGE_S_MAX = 900.0
"""Energy over a longer interval says nothing of the power at its end. [s]"""
_INTERVALS_MAX = 2_000
"""Most intervals of one report that are read."""
_REVISIONS = 2**31
"""Ids of intervals are int32; revisions count on."""


class Resource(NamedTuple):
    """A device, as far as its reports need it."""

    device_no: int
    exports: bool
    """Whether it can feed in at all: then a demand of 0 alone does not say what it does."""


class Asked(NamedTuple):
    """What a device is told by an event, as far as a report may answer it."""

    device_no: int
    revision: int
    epoch: int
    setpoint_w: float
    """NaN where it was released. [W]"""


class Read(NamedTuple):
    """What a report says."""

    reports: list[Report]
    answers: list[Answer]
    unreadable: list[Unreadable]


# Commands.


def interval_id(revision: int) -> int:
    """Return the id of the interval that carries a command: reports name it again."""
    return revision % _REVISIONS


def event(command: Command, target: str, now_ns: int) -> Event:
    """Return the event of a command: from now, with its end where the device must revert.

    A release is an event that has ended.
    """
    period = IntervalPeriod(start=moment(now_ns), duration=duration(command.revert_s))
    payloads = []
    if math.isnan(command.setpoint_w):
        period = IntervalPeriod(start=moment(now_ns), duration="PT0S")
    else:
        # Adding 0 turns -0.0 into 0.
        payloads = [ValuesMap(type=SETPOINT, values=[-command.setpoint_w / 1e3 + 0.0])]
    return Event(
        program_id=PROGRAM,
        event_name=f"order {command.order_no}",
        priority=0,
        targets=[target],
        payload_descriptors=[EventDescriptor(payload_type=SETPOINT, units="KW")],
        report_descriptors=wanted(0),
        interval_period=period,
        intervals=[Interval(id=interval_id(command.revision), payloads=payloads)],
    )


def wanted(every: int) -> list[ReportWanted]:
    """Return what gateways are asked to report; `every` so many intervals, 0 at once and again."""
    return [
        ReportWanted(
            payload_type=name,
            units=unit,
            reading_type="DIRECT_READ",
            historical=True,
            frequency=every or 1,
            repeat=-1,
        )
        for name, unit in REPORTED.items()
    ]


def setpoint_w(event: Event) -> float | None:
    """Return what an event of ours tells a device, positive towards the grid; None: nothing."""
    for interval in _given(event.intervals):
        for payload in interval.payloads:
            value = payload.values[0] if payload.values else None
            if payload.type == SETPOINT and isinstance(value, int | float):
                return -1e3 * value + 0.0
    return None


# Reports.


def read(report: shapes.Report, resources: Mapping[str, Resource], asked: Asked | None) -> Read:
    """Return what a report says of these resources, by name; whatever cannot be used has a reason.

    `asked`: the command its event carries, None where it is an event of others.
    """
    found = Read([], [], [])
    units = {one.payload_type: one for one in _given(report.payload_descriptors)}
    left = _INTERVALS_MAX
    for row, resource in enumerate(report.resources):
        place = f"resources/{row}"
        device = resources.get(resource.resource_name)
        if device is None:
            what = "no resource of this gateway is enrolled under that name"
            remedy = "enrol it, or mend resourceName"
            found.unreadable.append(Unreadable(-1, f"device: {place}: {what}; {remedy}"))
            continue
        if len(resource.intervals) > left:
            why = f"too-many: {place}: more than {_INTERVALS_MAX} intervals; send several reports"
            found.unreadable.append(Unreadable(device.device_no, why))
            continue
        left -= len(resource.intervals)
        for number, interval in enumerate(resource.intervals):
            _Reader(found, device, units, f"{place}/intervals/{number}").read(
                interval, resource.interval_period, number, asked
            )
    return found


class _Reader:
    """Reads one interval of one resource."""

    def __init__(
        self, found: Read, device: Resource, units: Mapping[str, ReportDescriptor], place: str
    ) -> None:
        self._found = found
        self._device = device
        self._units = units
        self._place = place

    def read(
        self,
        interval: Interval,
        default: IntervalPeriod | UnsetType,
        number: int,
        asked: Asked | None,
    ) -> None:
        """Add what it says to what was found."""
        length_s, end_ns = _times(interval.interval_period, default, number)
        if end_ns is None:
            return self._refuse("time: ", "no time of RFC 3339 since 1970", "mend intervalPeriod")
        said = dict(self._numbers(interval))
        values = self._values(said, length_s)
        if values:
            self._found.reports.append(Report(self._device.device_no, values, end_ns))
        if asked is not None and asked.device_no == self._device.device_no:
            state = next(_states(interval), "")
            answer = _answer(interval.id, asked, state, values.get(Metric.SETPOINT_W))
            if answer is not None:
                self._found.answers.append(answer)
        return None

    def _numbers(self, interval: Interval) -> Iterator[tuple[str, float]]:
        """Yield each quantity in W, Wh or 1, as consumption counts."""
        for payload in interval.payloads:
            name = payload.type
            if name not in _UNITS:
                # Baselines, forecasts, states and private types are nothing we measure.
                continue
            described = self._units.get(name)
            if described is not None and described.reading_type in _NOT_MEASURED:
                continue
            usual, factors = _UNITS[name]
            unit = described.units if described is not None else None
            factor = factors.get(unit.upper() if isinstance(unit, str) else usual)
            value = payload.values[0] if len(payload.values) == 1 else None
            if factor is None:
                known = ", ".join(factors)
                self._refuse("unit: ", f"{name} in a unit that is none of {known}", "mend units")
            elif isinstance(value, bool) or not isinstance(value, int | float):
                self._refuse("value: ", f"{name} is not one number", "send values: [number]")
            elif not math.isfinite(float(value)):
                self._refuse("value: ", f"{name} is not finite", "leave out what is not known")
            elif value < 0 and name not in _SIGNED:
                remedy = f"report what is fed in as {EXPORT_DEMAND} or {EXPORT_USAGE}"
                self._refuse("value: ", f"{name} is negative", remedy)
            else:
                yield name, float(value) * factor

    def _values(self, said: Mapping[str, float], length_s: float) -> dict[Metric, float]:
        values: dict[Metric, float] = {}
        power_w = self._power_w(said, length_s)
        if power_w is not None:
            values[Metric.POWER_W] = power_w
        if "STORAGE_CHARGE_LEVEL" in said:
            values[Metric.SOC] = said["STORAGE_CHARGE_LEVEL"]
        if "SETPOINT" in said:
            values[Metric.SETPOINT_W] = -said["SETPOINT"] + 0.0
        if "STORAGE_MAX_DISCHARGE_POWER" in said:
            values[Metric.MAX_W] = said["STORAGE_MAX_DISCHARGE_POWER"]
        if "STORAGE_MAX_CHARGE_POWER" in said:
            values[Metric.MIN_W] = -said["STORAGE_MAX_CHARGE_POWER"] + 0.0
        return values

    def _power_w(self, said: Mapping[str, float], length_s: float) -> float | None:
        """Return power towards the grid, from demand or, of a short interval, from energy."""
        per_h = 3_600.0 / length_s if 0 < length_s <= _USAGE_S_MAX else math.nan
        used_w = said.get("DEMAND", said.get("USAGE", math.nan) * per_h)
        fed_w = said.get(EXPORT_DEMAND, said.get(EXPORT_USAGE, math.nan) * per_h)
        if math.isnan(fed_w):
            # One who can feed in and says 0 may be doing it; one who says 3 is not.
            unsure = math.isnan(used_w) or (used_w == 0 and self._device.exports)
            return None if unsure else -used_w + 0.0
        if math.isnan(used_w):
            return None if fed_w == 0 else fed_w
        return fed_w - used_w

    def _refuse(self, code: str, what: str, remedy: str) -> None:
        reason = f"{code}{self._place}: {what}; {remedy}"
        self._found.unreadable.append(Unreadable(self._device.device_no, reason))


def _times(
    own: IntervalPeriod | UnsetType, default: IntervalPeriod | UnsetType, number: int
) -> tuple[float, int | None]:
    """Return the length of an interval [s] and its end in ns: 0 where none is said, None where it
    is no time. A resource's period holds for its first interval; the others follow."""
    follows = isinstance(own, UnsetType) or isinstance(own.start, UnsetType)
    length_s = _length_s(own) or _length_s(default)
    period = default if follows else own
    if isinstance(period, UnsetType) or isinstance(period.start, UnsetType):
        return length_s, 0
    start_ns = moment_ns(period.start)
    if not start_ns:
        return length_s, start_ns
    after_s = length_s * (number + 1 if follows else 1)
    end_ns = start_ns + after_s * NS_PER_S
    return length_s, int(end_ns) if math.isfinite(end_ns) and end_ns < 2**63 else None


def _length_s(period: IntervalPeriod | UnsetType) -> float:
    if isinstance(period, UnsetType) or isinstance(period.duration, UnsetType):
        return 0.0
    length_s = duration_s(period.duration)
    return length_s if length_s > 0 else 0.0


def _states(interval: Interval) -> Iterator[str]:
    for payload in interval.payloads:
        if payload.type == "OPERATING_STATE":
            yield from (value for value in payload.values if isinstance(value, str))


def _answer(interval: int, asked: Asked, state: str, reported_w: float | None) -> Answer | None:
    """Return what a report is evidence of. OpenADR has no acknowledgement: all of it is derived.

    Only a report that names the interval of this very command answers it.
    """
    if interval != interval_id(asked.revision):
        return None
    status, why = AckStatus.RECEIVED, "a report on its event"
    if state in _OPTED_OUT:
        status, why = AckStatus.OPTED_OUT, state
    elif state in _FAILED:
        status, why = AckStatus.REJECTED, state
    elif math.isnan(asked.setpoint_w):
        if state in _OWN:
            status, why = AckStatus.APPLIED, state
    elif reported_w is not None:
        if abs(reported_w - asked.setpoint_w) <= _SETPOINT_APART_W:
            status, why = AckStatus.APPLIED, "SETPOINT"
    elif state in _FOLLOWING:
        status, why = AckStatus.APPLIED, state
    return Answer(asked.device_no, asked.revision, status, f"derived from {why}", asked.epoch)


def _given(values: list[_T] | UnsetType | None) -> list[_T]:
    return [] if values is None or isinstance(values, UnsetType) else values
