"""The closed vocabularies of the plant. Numbers are stored in the journal and never reused."""

from enum import IntEnum, unique


@unique
class DeviceKind(IntEnum):
    """What a device is, physically."""

    BATTERY = 0
    PV = 1
    EV = 2
    HEAT_PUMP = 3
    WATER_HEATER = 4
    LOAD = 5
    GENERATOR = 6


SWITCHED = (DeviceKind.HEAT_PUMP, DeviceKind.WATER_HEATER)
"""Kinds that are on or off; every other kind follows any setpoint within its limits."""


@unique
class Metric(IntEnum):
    """What a reading measures. Power is positive towards the grid."""

    POWER_W = 0
    SOC = 1
    EXPORT_WH = 2
    """Energy register towards the grid; only counts up."""
    IMPORT_WH = 3
    MAX_W = 4
    """Highest power (towards export) the device could reach now."""
    MIN_W = 5
    """Lowest power (towards consumption) the device could reach now."""
    VOLTAGE_V = 6
    FREQUENCY_HZ = 7


@unique
class Quality(IntEnum):
    """Bits of a reading's `quality` column."""

    UNSTAMPED = 1
    """The device sent no time; the time of arrival was taken."""
    AHEAD = 2
    """Device time lies ahead of ours, within the accepted bound."""


@unique
class Freshness(IntEnum):
    """How far a device's silence exceeds its own cadence."""

    NEVER = 0
    LIVE = 1
    LATE = 2
    STALE = 3
    LOST = 4


@unique
class SessionEvent(IntEnum):
    """What happened to a device's connection."""

    UP = 1
    DOWN = 2
    WILL = 3
    """The device's last will: the connection broke without a goodbye."""


@unique
class AckStatus(IntEnum):
    """What a device answered to a command."""

    RECEIVED = 1
    ACCEPTED = 2
    APPLIED = 3
    COMPLETED = 4
    REJECTED = 5
    OPTED_OUT = 6
    EXPIRED = 7


@unique
class Phase(IntEnum):
    """Life of a command. A phase is entered only on evidence of that phase."""

    NONE = 0
    PLANNED = 1
    SENT = 2
    RECEIVED = 3
    ACCEPTED = 4
    APPLIED = 5
    VERIFIED = 6
    COMPLETED = 7
    REJECTED = 10
    OPTED_OUT = 11
    EXPIRED = 12
    SUPERSEDED = 13
    CANCELLED = 14
    UNKNOWN = 15
    """No answer. Not failed: the device may have acted, and a late answer reopens the command."""
    DIVERGED = 16
    """Applied, then left; or applied and never seen on the meter."""
    LOST = 17


@unique
class OrderStatus(IntEnum):
    """Life of an order."""

    PENDING = 0
    ACTIVE = 1
    COMPLETED = 2
    CANCELLED = 3
    DECLINED = 4


@unique
class Exclusion(IntEnum):
    """Why dispatch does not count on a device now."""

    NONE = 0
    SILENT = 1
    """Its readings are stale, lost or never came."""
    UNREACHABLE = 2
    """No session to send a command on."""
    UNKNOWN = 3
    """It did not answer its last command."""
    DIVERGED = 4
    """It answered and its meter says otherwise."""
    REJECTED = 5
    OPTED_OUT = 6
