"""Charging profiles and schedules, as every version has them. Pure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from kapelle.adapters.ocpp.meters import time_text
from kapelle.model.ids import NS_PER_S


class Profile(NamedTuple):
    """A setpoint as a charging profile."""

    evse: int
    """0: the whole station."""
    transaction: str
    """Of a profile for one transaction; empty: the one of the station, or of all transactions."""
    is_default: bool
    """For whatever transaction runs, where a station takes no profile of its own (evse 0)."""
    value: float
    """Positive is consumption, in `unit`."""
    unit: str
    """A (per phase) or W."""
    unit_w: float
    """How many watts one of it is."""
    phases: int
    """Phases in use; 0: not known."""
    is_setpoint: bool
    """2.1: to be followed in both directions. False: a limit of consumption."""
    from_ns: int
    until_ns: int
    """It ends by itself; 0: never."""
    stack_level: int


class Composite(NamedTuple):
    """What a station says that it will do, from now on."""

    value: float
    """NaN: nothing limits it. Positive is consumption, in `unit`."""
    unit: str
    ends_s: float
    """When that value no longer holds; infinite: it is not said. [s]"""


def _tenths(value: float) -> float:
    """Return a limit as OCPP allows it: with one digit after the point (1.6, 7.14)."""
    return round(value, 1) + 0.0


def validity(profile: Profile) -> dict[str, object]:
    """Return when a schedule begins and, where it does, how long it lasts."""
    said: dict[str, object] = {"startSchedule": time_text(profile.from_ns)}
    if profile.until_ns:
        said["duration"] = math.ceil((profile.until_ns - profile.from_ns) / NS_PER_S)
    return said


def period(profile: Profile) -> dict[str, object]:
    """Return the one period of a profile's schedule."""
    value = _tenths(profile.value)
    if profile.is_setpoint:
        return {"startPeriod": 0, "setpoint": value, "operationMode": "CentralSetpoint"}
    said: dict[str, object] = {"startPeriod": 0, "limit": value}
    if profile.phases:
        said["numberPhases"] = profile.phases
    return said


def first(
    periods: Sequence[tuple[float, float]], unit: str, duration_s: float | None
) -> Composite | None:
    """Return what holds now of a composite schedule, which begins now, and until when.

    Args:
        periods: Start [s] and value of each.
        unit: Of the values: A or W.
        duration_s: Of the whole; None: not said.
    """
    if unit not in ("A", "W") or any(not math.isfinite(start) for start, _ in periods):
        return None
    ordered = sorted(periods)
    # A schedule whose first period begins later says that nothing limits the station until then.
    if not ordered or ordered[0][0] > 0:
        return Composite(math.nan, unit, ordered[0][0] if ordered else math.inf)
    begun = [value for start, value in ordered if start <= 0]
    ends = [start for start, value in ordered if start > 0 and value != begun[-1]]
    if duration_s is not None:
        ends.append(duration_s)
    return Composite(begun[-1], unit, min(ends, default=math.inf))
