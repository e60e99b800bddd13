"""A charging station as it is known: what it says becomes reports of its devices. Pure.

A device is a whole station (scope 0) or one EVSE of it (its number).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from kapelle.adapters.ocpp.events import Event, Occupancy, Sample
from kapelle.adapters.ocpp.flexibility import OUT_OF_ORDER, Evse, Setpoint, bounds, learn
from kapelle.model.enums import DeviceMode, Metric

STATION = 0
EVSES_MAX = 64
"""More than any station has; what names more is not believed."""
_REGISTERS = ((Metric.IMPORT_WH, "import_wh"), (Metric.EXPORT_WH, "export_wh"))


class Nameplate(NamedTuple):
    """Ratings of a device, both at least 0. [W]"""

    up_w: float
    down_w: float


class Saying(NamedTuple):
    """A report of one scope."""

    scope: int
    values: Mapping[Metric, float]
    at_ns: int
    """The station's time; 0: it said none."""


class Station:
    """What is known of one station; `apply` is the only thing that changes it by what it says."""

    def __init__(self) -> None:
        self.evses: dict[int, Evse] = {}
        self.main = Evse()
        """Its main meter, where it has one."""
        self.setpoints: dict[int, Setpoint] = {}
        """By scope."""
        self.evses_said = 0
        """How many it says it has; 0: it did not say."""
        self._evse_of: dict[str, int] = {}
        """Of each running transaction."""

    def apply(
        self, event: Event, scopes: Mapping[int, Nameplate], now_ns: int
    ) -> tuple[list[Saying], list[str]]:
        """Take in what it said.

        Args:
            event: A call of it.
            scopes: Its devices.
            now_ns: The time.

        Returns:
            Reports, oldest first, and why parts cannot be used.
        """
        if event.alive:
            return self._alive(scopes, now_ns), []
        number = self._place(event)
        problems = list(event.problems)
        if number is None:
            if event.samples:
                problems.append("evse: /: is not said and not known; send it once per transaction")
            return [], problems
        if not 0 <= number <= EVSES_MAX:
            problems.append(f"evse: /: there is no EVSE {number}; number them from 1")
            return [], problems
        evse = self.evse(number)
        self._occupy(evse, number, event)
        said: list[Saying] = []
        for sample in event.samples:
            self._measure(evse, sample)
            said += self._told(sample, number, scopes, now_ns)
        if event.need is not None:
            evse.need, evse.had_wh = event.need, evse.stored_wh
            soc = event.need.soc
            extra = {} if math.isnan(soc) else {Metric.SOC: soc}
            said += self._stands(number, scopes, event.at_ns, now_ns, extra)
        elif event.ended or event.began or event.occupancy is not None:
            said += self._stands(number, scopes, event.at_ns, now_ns, {})
        return said, problems

    def confirm(self, scope: int, scopes: Mapping[int, Nameplate], now_ns: int) -> list[Saying]:
        """Return what a device's composite schedule has just shown."""
        return [Saying(scope, self._limits(scope, scopes[scope], now_ns), 0)]

    def evse(self, number: int) -> Evse:
        """Return one EVSE, 0 its main meter; it is made where it was not known."""
        return self.main if number == STATION else self.evses.setdefault(number, Evse())

    def active(self, scope: int) -> list[int]:
        """Return the EVSEs of a scope that have a vehicle, rising."""
        return [number for number, evse in self._of(scope) if evse.is_occupied]

    def setpoint(self, number: int) -> Setpoint | None:
        """Return what one EVSE was told; its part where the whole station was."""
        own = self.setpoints.get(number)
        if own is not None or (whole := self.setpoints.get(STATION)) is None:
            return own
        part_w = whole.value_w / max(1, len(self.active(STATION)))
        return Setpoint(part_w, whole.since_ns, whole.until_ns, whole.is_seen)

    def bounds(self, scope: int, nameplate: Nameplate, now_ns: int) -> tuple[float, float]:
        """Return the lowest and highest power a device could be brought to now. [W]"""
        if self.main.occupancy in OUT_OF_ORDER:
            return 0.0, 0.0
        each = [
            bounds(evse, self.setpoint(number), nameplate.up_w, nameplate.down_w, now_ns)
            for number, evse in self._of(scope)
        ]
        lowest_w, highest_w = sum(low for low, _ in each), sum(high for _, high in each)
        return max(lowest_w, -nameplate.down_w) + 0.0, min(highest_w, nameplate.up_w) + 0.0

    def release(self, scope: int, now_ns: int) -> None:
        """Note that a device follows its own schedule again."""
        if scope in self.setpoints:
            self.setpoints[scope].until_ns = now_ns

    def volts(self, scope: int, otherwise: float) -> float:
        """Return the voltage measured, phase to neutral. [V]"""
        known = [evse.volts for _, evse in self._of(scope) if evse.volts > 0]
        return known[0] if known else otherwise

    def phases(self, scope: int) -> int:
        """Return how many phases are in use; 0 where it is not known, or differs."""
        known = {self.evses[number].phases for number in self.active(scope)}
        return known.pop() if len(known) == 1 else 0

    def _of(self, scope: int) -> list[tuple[int, Evse]]:
        if scope == STATION:
            return sorted(self.evses.items())
        return [(scope, self.evses[scope])] if scope in self.evses else []

    def _place(self, event: Event) -> int | None:
        """Return which EVSE a call is about: only the first of a transaction must say it."""
        if event.evse is not None:
            return event.evse
        if event.transaction in self._evse_of:
            return self._evse_of[event.transaction]
        if not self.evses and self.evses_said <= 1:
            return 1
        return next(iter(self.evses)) if len(self.evses) == 1 else None

    def _occupy(self, evse: Evse, number: int, event: Event) -> None:
        if number == STATION:
            # Of the station as a whole: it says nothing about a vehicle.
            evse.occupancy = event.occupancy or evse.occupancy
            return
        if event.began or (event.transaction and event.transaction != evse.transaction):
            self._evse_of.pop(evse.transaction, None)
            # What a vehicle needs may be heard before its transaction begins.
            need = evse.need if not evse.transaction else None
            evse.leave()
            evse.power_w = math.nan
            evse.need = need
            if event.transaction and not event.ended:
                evse.transaction = event.transaction
                self._evse_of[event.transaction] = number
        if event.occupancy is not None and not (event.is_aside and evse.transaction):
            if event.occupancy is Occupancy.FREE:
                self._evse_of.pop(evse.transaction, None)
                evse.leave()
            evse.occupancy = event.occupancy
        if event.ended:
            self._evse_of.pop(event.transaction or evse.transaction, None)
            evse.leave()
            evse.occupancy = Occupancy.PLUGGED

    def _measure(self, evse: Evse, sample: Sample) -> None:
        if sample.at_ns and sample.at_ns < evse.at_ns:
            return
        evse.at_ns = sample.at_ns
        values = sample.values
        evse.power_w = values.get(Metric.POWER_W, evse.power_w)
        evse.volts = values.get(Metric.VOLTAGE_V, evse.volts)
        evse.phases = sample.phases or evse.phases
        evse.import_wh = values.get(Metric.IMPORT_WH, evse.import_wh)
        evse.export_wh = values.get(Metric.EXPORT_WH, evse.export_wh)

    def _told(
        self, sample: Sample, number: int, scopes: Mapping[int, Nameplate], now_ns: int
    ) -> list[Saying]:
        """Return a sample as reports of the devices it concerns."""
        if number != STATION:
            learn(self.evses[number], self.setpoint(number), now_ns)
        said = []
        for scope in {number: None, STATION: None}:
            if scope not in scopes:
                continue
            values = dict(sample.values)
            if scope == STATION:
                self._sum_up(values, number)
            if values:
                values |= self._limits(scope, scopes[scope], now_ns)
                said.append(Saying(scope, values, sample.at_ns))
        return said

    def _sum_up(self, values: dict[Metric, float], number: int) -> None:
        """Make one EVSE's sample the station's; leave out what is not known of the others."""
        has_main = not math.isnan(self.main.power_w) or not math.isnan(self.main.import_wh)
        several = max(len(self.evses), self.evses_said) > 1
        if number == STATION or not (has_main or several):
            return
        for metric, name in ((Metric.POWER_W, "power_w"), *_REGISTERS):
            if metric not in values:
                continue
            own = getattr(self.main, name)
            known = [getattr(evse, name) for evse in self.evses.values()]
            complete = len(known) >= self.evses_said and not any(map(math.isnan, known))
            if math.isnan(own) and complete:
                values[metric] = sum(known)
            else:
                # The main meter speaks for itself; a sum with a part missing would be wrong.
                del values[metric]
        if several:
            values.pop(Metric.SOC, None)

    def _stands(
        self,
        number: int,
        scopes: Mapping[int, Nameplate],
        at_ns: int,
        now_ns: int,
        extra: Mapping[Metric, float],
    ) -> list[Saying]:
        """Return how devices stand after a change that no meter has shown."""
        said = []
        for scope in {number: None, STATION: None}:
            if scope in scopes:
                values = dict(self._limits(scope, scopes[scope], now_ns)) | dict(extra)
                if values[Metric.MIN_W] == values[Metric.MAX_W] == 0 and not self.active(scope):
                    # Without a transaction the contactor is open.
                    values[Metric.POWER_W] = 0.0
                said.append(Saying(scope, values, at_ns))
        return said

    def _alive(self, scopes: Mapping[int, Nameplate], now_ns: int) -> list[Saying]:
        """Return what a heartbeat says: of devices without a vehicle, that nothing flows."""
        return [
            Saying(scope, {Metric.POWER_W: 0.0} | self._limits(scope, nameplate, now_ns), 0)
            for scope, nameplate in scopes.items()
            if self._of(scope) and not self.active(scope)
        ]

    def _limits(self, scope: int, nameplate: Nameplate, now_ns: int) -> dict[Metric, float]:
        lowest_w, highest_w = self.bounds(scope, nameplate, now_ns)
        values = {Metric.MIN_W: lowest_w, Metric.MAX_W: highest_w}
        faults = [evse.occupancy is Occupancy.FAULTED for _, evse in self._of(scope)]
        is_faulted = self.main.occupancy is Occupancy.FAULTED or (bool(faults) and all(faults))
        setpoint = self.setpoints.get(scope)
        follows = setpoint is not None and setpoint.is_seen and setpoint.holds(now_ns)
        mode = DeviceMode.COMMAND if follows else DeviceMode.OWN
        if follows and setpoint is not None:
            values[Metric.SETPOINT_W] = setpoint.value_w
        if is_faulted:
            mode = DeviceMode.FAULT
        values[Metric.MODE] = float(mode)
        return values
