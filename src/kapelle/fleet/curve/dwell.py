"""Who must stay on, or off, for a while: a compressor that has just started, a boiler that cools.

Whether a device is on is seen on its meter. A command that will change it counts from the moment it
is given: what is under way is not called back.
"""

import numpy as np

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.traits import any_of, has
from kapelle.model.enums import Metric, Phase, Trait
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints

_ON = 0.02
"""More than this part of nameplate, in either direction, is on."""
_UNDER_WAY = np.isin(
    np.arange(32),
    [Phase.PLANNED, Phase.SENT, Phase.RECEIVED, Phase.ACCEPTED, Phase.APPLIED, Phase.VERIFIED],
)


def step_dwell(fleet: Fleet) -> None:
    """Note who was switched since the last tick, of those it matters for."""
    size = fleet.size
    if not has(any_of(fleet.traits[:size]), Trait.DWELLS):
        return
    rows = np.flatnonzero(fleet.traits[:size] & np.uint8(Trait.DWELLS)).astype(np.int32)
    power_w = fleet.value[Metric.POWER_W, rows]
    on = _is_on(fleet, rows, power_w)
    changed = (power_w == power_w) & (on != fleet.is_on[rows])
    rows = rows[changed]
    fleet.is_on[rows] = on[changed]
    fleet.switched_at_s[rows] = fleet.now_ns // NS_PER_S


def stays_until_s(fleet: Fleet, rows: Ints) -> Floats:
    """Return until when each device may not be switched, since 1970; 0 where it may be. [s]

    Infinite while a switch that was asked for has yet to show on the meter.
    """
    at = span(rows)
    now_s = fleet.now_ns / NS_PER_S
    is_on, switched_at_s = fleet.is_on[at], fleet.switched_at_s[at]
    least_s = np.where(is_on, fleet.min_on_s[at], fleet.min_off_s[at]).astype(np.float64)
    until_s = np.where(switched_at_s > 0, switched_at_s + least_s, 0.0)
    until_s[until_s <= now_s] = 0.0
    asked_w = fleet.desired_w[at]
    turns = (asked_w == asked_w) & (_is_on(fleet, rows, asked_w) != is_on)
    turns &= _UNDER_WAY[fleet.phase[at]]
    # Only for who could not go back at once.
    turns &= np.where(is_on, fleet.min_off_s[at], fleet.min_on_s[at]) > 0
    until_s[turns] = np.inf
    return until_s


def stays(fleet: Fleet, rows: Ints) -> Flags:
    """Tell which devices have to stay as they are."""
    return stays_until_s(fleet, rows) > 0.0


def _is_on(fleet: Fleet, rows: Ints, power_w: Floats) -> Flags:
    at = span(rows)
    nameplate_w = np.maximum(fleet.nameplate_up_w[at], fleet.nameplate_down_w[at])
    on: Flags = np.abs(power_w) > _ON * nameplate_w
    return on
