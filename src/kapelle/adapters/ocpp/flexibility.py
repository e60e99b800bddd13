"""How far a charging session can be moved: by the vehicle, and by when its driver wants to leave.

Pure. Powers are positive towards the grid, so charging at full power is the lowest one.
"""

import math
from dataclasses import dataclass, field

from kapelle.adapters.ocpp.events import Need, Occupancy
from kapelle.model.ids import NS_PER_S

_LAST_CALL_S = 900.0
"""A vehicle that must charge from now on to be ready is no longer moved this long before. [s]"""
_GIVES_BACK_S = 3_600.0
"""It gives energy back only while it has this much more time than it needs. [s]"""
_SETTLED_NS = 30 * NS_PER_S
_FOLLOWS = 0.9
"""A vehicle that takes less than this part of what it is allowed shows what it can take."""
_PAUSED_W = 1_000.0
"""No vehicle charges with less (6 A at 230 V, IEC 61851-1): told so, it is suspended. [W]"""
_SECONDS_PER_HOUR = 3_600.0
OUT_OF_ORDER = (Occupancy.FAULTED, Occupancy.UNAVAILABLE)


@dataclass(slots=True)
class Setpoint:
    """What an EVSE was told, and how long that holds."""

    value_w: float
    since_ns: int
    until_ns: int
    """It ends by itself; 0: never."""
    is_seen: bool = False
    """The station's composite schedule showed it."""

    def holds(self, now_ns: int) -> bool:
        """Tell whether the station should still follow it."""
        return not self.until_ns or now_ns < self.until_ns


@dataclass(slots=True)
class Evse:
    """What is known of one place to charge."""

    occupancy: Occupancy | None = None
    transaction: str = ""
    had_wh: float = math.nan
    """`stored_wh` as the vehicle said what it needs. [Wh]"""
    import_wh: float = math.nan
    export_wh: float = math.nan
    power_w: float = math.nan
    at_ns: int = 0
    """Of the newest sample."""
    volts: float = math.nan
    phases: int = 0
    """In use by the present vehicle; 0: not known."""
    need: Need | None = None
    takes_w: float = field(default=math.inf)
    """What the present vehicle was seen to take where nothing held it back. [W]"""

    @property
    def is_occupied(self) -> bool:
        """Whether a vehicle charges, or would."""
        if self.occupancy in OUT_OF_ORDER:
            return False
        charging = (Occupancy.CHARGING, Occupancy.PAUSED, Occupancy.SATISFIED)
        return bool(self.transaction) or self.occupancy in charging

    @property
    def stored_wh(self) -> float:
        """What has gone into vehicles here and not come back, by the registers. [Wh]"""
        return self.import_wh - (0.0 if math.isnan(self.export_wh) else self.export_wh)

    def leave(self) -> None:
        """Forget the vehicle."""
        self.transaction, self.need, self.phases = "", None, 0
        self.had_wh, self.takes_w = math.nan, math.inf
        self.power_w = 0.0


def learn(evse: Evse, setpoint: Setpoint | None, now_ns: int) -> None:
    """Take note of what a vehicle takes that is not held back, or takes all the same."""
    taken_w = -evse.power_w
    if evse.occupancy is not Occupancy.CHARGING or not taken_w > 0:
        return
    is_free = setpoint is None
    if setpoint is not None:
        held = setpoint.holds(now_ns)
        # A vehicle needs a moment to follow, and another one to return.
        is_settled = now_ns - (setpoint.since_ns if held else setpoint.until_ns) > _SETTLED_NS
        is_free = is_settled and (not held or taken_w < -setpoint.value_w * _FOLLOWS)
    evse.takes_w = taken_w if is_free else max(taken_w, evse.takes_w)


def bounds(
    evse: Evse, setpoint: Setpoint | None, up_w: float, down_w: float, now_ns: int
) -> tuple[float, float]:
    """Return the lowest and the highest power an EVSE could be brought to now. [W]

    Args:
        evse: As it is known.
        setpoint: What it was told; None: nothing.
        up_w: Nameplate towards export.
        down_w: Nameplate of consumption.
        now_ns: The time.
    """
    if not evse.is_occupied:
        return 0.0, 0.0
    held = setpoint is not None and setpoint.holds(now_ns) and setpoint.value_w > -_PAUSED_W
    if evse.occupancy is Occupancy.SATISFIED and not held:
        return 0.0, 0.0
    need = evse.need
    wished_w = need.charge_w_max if need is not None else math.nan
    most_w = min(down_w, evse.takes_w, wished_w if wished_w > 0 else math.inf)
    spare_s = _spare_s(evse, most_w, now_ns)
    if spare_s < _LAST_CALL_S:
        return -most_w, -most_w
    back_w = 0.0
    if need is not None and spare_s > _GIVES_BACK_S and need.discharge_w_max > 0:
        back_w = min(up_w, need.discharge_w_max)
    return -most_w, back_w


def _spare_s(evse: Evse, most_w: float, now_ns: int) -> float:
    """Return how long a vehicle can wait and still be ready in time; infinite where it can."""
    need = evse.need
    if need is None or not need.departure_ns or math.isnan(need.energy_wh):
        return math.inf
    gained_wh = evse.stored_wh - evse.had_wh
    left_wh = need.energy_wh - (0.0 if math.isnan(gained_wh) else gained_wh)
    left_s = (need.departure_ns - now_ns) / NS_PER_S
    if left_wh <= 0 or left_s <= 0 or most_w <= 0:
        return math.inf
    return max(0.0, left_s - left_wh / most_w * _SECONDS_PER_HOUR)
