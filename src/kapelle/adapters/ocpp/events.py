"""What charging stations say, whatever version they say it in."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from kapelle.model.enums import Metric


class Occupancy(Enum):
    """How it stands between an EVSE and a vehicle."""

    FREE = auto()
    PLUGGED = auto()
    """A vehicle may be there; nothing is agreed yet, or not any more."""
    CHARGING = auto()
    PAUSED = auto()
    """The station holds the vehicle back (SuspendedEVSE)."""
    SATISFIED = auto()
    """The vehicle takes nothing, though it might (SuspendedEV)."""
    FAULTED = auto()
    UNAVAILABLE = auto()


class Sample(NamedTuple):
    """What a meter showed at one moment."""

    at_ns: int
    """The station's time; 0 where it said none that can be read."""
    values: Mapping[Metric, float]
    """Power positive towards the grid, registers, charge, voltage to neutral, frequency."""
    phases: int = 0
    """How many phases carry current; 0 where that is not known."""


class Need(NamedTuple):
    """What a vehicle wants before it leaves, and what it can do; NaN where it did not say."""

    energy_wh: float
    """Still to be charged when it said so. [Wh]"""
    departure_ns: int
    """0: not said."""
    charge_w_max: float
    discharge_w_max: float
    """0 where it cannot give anything back. [W]"""
    soc: float


@dataclass(frozen=True, slots=True)
class Event:
    """One call of a station, as far as the plant is concerned. Most fields are unsaid in most."""

    evse: int | None = None
    """EVSE, or in 1.6 connector; 0 is the station's main meter, None: not said."""
    transaction: str = ""
    began: bool = False
    ended: bool = False
    at_ns: int = 0
    occupancy: Occupancy | None = None
    is_aside: bool = False
    """The occupancy is of one connector of the EVSE: a transaction, while it runs, says more."""
    samples: tuple[Sample, ...] = ()
    need: Need | None = None
    booted: bool = False
    alive: bool = False
    """A heartbeat: nothing but that it lives."""
    problems: tuple[str, ...] = ()
    """Why parts of it cannot be used: `code: place: what; remedy`."""


NOTHING = Event()
"""Of calls that are answered and else concern nobody here."""


@dataclass(frozen=True, slots=True)
class Misread:
    """A call that cannot be used, and the OCPP error it is answered with."""

    code: str
    reason: str
