"""A command becomes a charging profile, and the station's schedule the evidence of it. Pure."""

import math
from typing import NamedTuple

from kapelle.adapters.ocpp.dialect import Dialect
from kapelle.adapters.ocpp.schedule import Composite, Profile
from kapelle.adapters.ocpp.station import STATION, Station
from kapelle.adapters.ocpp.v2 import V21
from kapelle.model.ids import NS_PER_S

_EARLY_NS = 60 * NS_PER_S
"""Profiles begin this much before now: the station's clock may be late, and they hold at once."""
WINDOW_S = 600.0
"""A composite schedule is asked for so much longer than a setpoint lasts, to see its end. [s]"""
_LATE_S = 120.0
_SINGLE_PHASE_W_MAX = 7_700.0
"""Chargers up to 32 A at 240 V have one phase. [W]"""
_DIRECT_V_MIN = 290.0
"""No phase to neutral has so much: it is the voltage of direct current. [V]"""
_NEAR = 0.02
_NEAR_W = 100.0


class Means(NamedTuple):
    """How a station is to be told, as far as it is known."""

    dialect: Dialect
    unit: str
    volts_otherwise: float
    stack_level: int
    is_default: bool
    """It takes no profile for the station as a whole."""


class Plan(NamedTuple):
    """What is to be told, EVSE by EVSE."""

    profiles: tuple[Profile, ...]
    value_w: float
    """What that makes together, in the plant's sign. [W]"""


def plan(
    station: Station,
    scope: int,
    setpoint_w: float,
    revert_s: float,
    means: Means,
    down_w: float,
    now_ns: int,
) -> Plan | str:
    """Return how a setpoint is told, or why it cannot be.

    Args:
        station: Who is told.
        scope: The device: the station, or one EVSE.
        setpoint_w: Positive towards the grid. [W]
        revert_s: The profile ends so long after now; NaN: never. [s]
        means: How it is told.
        down_w: Nameplate of consumption. [W]
        now_ns: The time.
    """
    active = station.active(scope)
    giving = {number for number in active if _gives_back(station, number, means.dialect)}
    if setpoint_w > 0 and not giving:
        return "no vehicle here can give energy back"
    # A setpoint in both directions belongs to a transaction, so each vehicle gets its part.
    is_spread = giving or (means.is_default and scope == STATION and active)
    places = active if is_spread else [scope]
    until_ns = now_ns + math.ceil(revert_s * NS_PER_S) if revert_s > 0 else 0
    sharing = giving if setpoint_w > 0 else set(places)
    profiles = []
    for place in places:
        unit_w = per_unit(station, place, means, down_w)
        gives = place in giving
        profiles.append(
            Profile(
                evse=place,
                transaction=station.evse(place).transaction if gives else "",
                is_default=means.is_default,
                value=-setpoint_w / len(sharing) / unit_w if place in sharing else 0.0,
                unit=means.unit,
                unit_w=unit_w,
                phases=0 if gives else station.phases(place),
                is_setpoint=gives,
                from_ns=now_ns - _EARLY_NS,
                until_ns=until_ns,
                stack_level=means.stack_level,
            )
        )
    return Plan(tuple(profiles), setpoint_w)


def per_unit(station: Station, scope: int, means: Means, down_w: float) -> float:
    """Return how many watts one unit of a profile is: 1, or volts times phases."""
    if means.unit == "W":
        return 1.0
    volts = station.volts(scope, means.volts_otherwise)
    if volts >= _DIRECT_V_MIN:
        return volts
    phases = station.phases(scope) or (1 if down_w <= _SINGLE_PHASE_W_MAX else 3)
    return volts * phases


def is_shown(composite: Composite, profile: Profile) -> bool:
    """Tell whether a station's schedule shows what it was told."""
    if composite.unit != profile.unit or not math.isfinite(composite.value):
        return False
    off_w = abs(composite.value - profile.value) * profile.unit_w
    return off_w <= max(_NEAR_W, abs(profile.value) * profile.unit_w * _NEAR)


def is_ending(composite: Composite, profile: Profile, now_ns: int) -> bool:
    """Tell whether the schedule shows that the setpoint ends by itself."""
    if not profile.until_ns:
        return True
    return composite.ends_s <= (profile.until_ns - now_ns) / NS_PER_S + _LATE_S


def _gives_back(station: Station, number: int, dialect: Dialect) -> bool:
    evse = station.evse(number)
    can = evse.need is not None and evse.need.discharge_w_max > 0
    return can and dialect.name == V21 and bool(evse.transaction)
