"""How far each device can move, how readily, and the setpoint it has at a level."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.curve.limits import HOLD_S, HOLD_S_MIN, bounds
from kapelle.model.enums import SWITCHED
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints

TIER = 1024.0
"""Width of a tier along λ. Weights are at least head / TIER: a tier's end is all of everyone."""
CHUNK = 1 << 15
"""Rows at once: their temporaries stay in the processor's cache."""
_NO_FAILSAFE_PRIORITY = 0.5
"""A device without a revert timer counts less (DESIGN: dead-man)."""
_ROOM_MIN = 0.02
"""Headroom below this part of nameplate does not count."""
_GOLDEN = 0.6180339887498949

_IS_SWITCHED = np.isin(np.arange(256), [int(kind) for kind in SWITCHED])

Rows = Ints


class Shares(NamedTuple):
    """How far each device can move from its own schedule, and how readily."""

    own_w: Floats
    """Own schedule, within the bounds. [W]"""
    up_w: Floats
    """Headroom towards export, >= 0. [W]"""
    down_w: Floats
    readiness: Floats
    """Part of its headroom a device gives per unit of λ. It is at its limit at 1 / readiness."""
    switched: Flags


def horizon_s(fleet: Fleet, resource: str) -> float:
    """Return how long setpoints of a resource must be possible: the rest of its order. [s]"""
    signal = fleet.signals.get(resource)
    if signal is None or signal.order_no == 0 or signal.ends_at_ns <= fleet.now_ns:
        return HOLD_S
    return max((signal.ends_at_ns - fleet.now_ns) / NS_PER_S, HOLD_S_MIN)


def is_switched(fleet: Fleet, rows: Rows) -> Flags:
    """Tell which devices are on or off."""
    switched: Flags = _IS_SWITCHED.take(fleet.kind[span(rows)])
    return switched


def readiness(fleet: Fleet, rows: Rows, switched: Flags) -> Floats:
    """Return p̂ · priority: what part of its headroom each device gives per unit of λ.

    p̂ is the learned probability that a command is followed. Devices that are on or off (`switched`)
    are ordered by their number alone: a probability that moves would switch them back and forth.
    """
    at = span(rows)
    responses = fleet.responses[at]
    ready = (responses / (responses + fleet.refusals[at])).astype(np.float64)
    ready[np.isnan(fleet.revert_s[at])] *= _NO_FAILSAFE_PRIORITY
    ready[switched] = 1.0
    return np.maximum(ready, 1.0 / TIER, out=ready)


def shares(fleet: Fleet, rows: Rows, horizon: float = HOLD_S) -> Shares:
    """Return how far and how readily each device moves."""
    at = span(rows)
    lower_w, upper_w = bounds(fleet, rows, horizon)
    own_w = np.minimum(np.maximum(fleet.own_w[at], lower_w), upper_w)
    up_w = upper_w - own_w
    down_w = own_w - lower_w
    # Less is noise: a plant that gives all the sun offers would be ordered up and released
    # again with every cloud.
    least_w = np.maximum(fleet.nameplate_up_w[at], fleet.nameplate_down_w[at])
    least_w *= _ROOM_MIN
    up_w *= up_w > least_w
    down_w *= down_w > least_w
    switched = is_switched(fleet, rows)
    return Shares(own_w, up_w, down_w, readiness(fleet, rows, switched), switched)


def setpoints(
    fleet: Fleet,
    rows: Rows,
    level: float,
    block_level: float,
    horizon: float = HOLD_S,
) -> Floats:
    """Return the setpoint of each row at this λ, for rows that are controllable. [W]

    NaN where a device is left on its own schedule: switched devices before their turn, and
    those that have no room to move.
    """
    if len(rows) > CHUNK:
        pieces = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
        return np.concatenate(
            [setpoints(fleet, piece, level, block_level, horizon) for piece in pieces]
        )
    part = shares(fleet, rows, horizon)
    head_w = part.up_w if level >= 0 else part.down_w
    share_w = np.minimum(part.readiness * min(abs(level), TIER), 1.0)
    share_w *= head_w
    moved_w = part.own_w + share_w if level >= 0 else part.own_w - share_w
    moved_w[head_w <= 0.0] = np.nan
    switched = np.flatnonzero(part.switched)
    if len(switched):
        upwards = block_level >= 0
        head_w = (part.up_w if upwards else part.down_w)[switched]
        own_w = part.own_w[switched]
        flips = (head_w > 0.0) & (turn(fleet, rows, switched) <= abs(block_level))
        whole_w = own_w + head_w if upwards else own_w - head_w
        moved_w[switched] = np.where(flips, whole_w, np.nan)
    return moved_w


def turn(fleet: Fleet, rows: Rows, which: NDArray[np.intp]) -> Floats:
    """Return |λ| at which each switched device changes over: spread evenly over (0, 1]."""
    device_no = fleet.device_nos(np.asarray(rows[which], np.int32))
    place = device_no * _GOLDEN
    # What `np.mod` gives, at a tenth of its cost: numbers of devices are not negative.
    turn: Floats = 1.0 - (place - np.floor(place))
    return turn
