"""Whether devices do on their meters what they were asked to do."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.fleet.desired import step_exclusions
from kapelle.model.enums import SWITCHED, Metric, Phase, Trait
from kapelle.model.ids import NS_PER_S, Flags, Floats

_COUNTED_MAX = 250


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """When a reading agrees with a setpoint."""

    settle_s: float = 5.0
    """Readings measured sooner after the device's answer are not held against it. [s]"""
    tolerance: float = 0.05
    """Accepted deviation as a fraction of nameplate."""
    tolerance_w_min: float = 50.0
    """… but at least this. [W]"""
    tolerance_switched: float = 0.3
    """For devices that are on or off, whose power while on is not ours to choose."""


DEFAULTS = VerifySettings()
_MAY_FOLLOW = np.isin(
    np.arange(32),
    [
        Phase.SENT,
        Phase.RECEIVED,
        Phase.ACCEPTED,
        Phase.APPLIED,
        Phase.VERIFIED,
        Phase.UNKNOWN,
        Phase.EXPIRED,
    ],
)
_IS_SWITCHED = np.isin(np.arange(256), [int(kind) for kind in SWITCHED])


def step_verification(fleet: Fleet, settings: VerifySettings = DEFAULTS) -> None:
    """Hold each new power reading once against the setpoint in force.

    A command without an answer can be proven by the meter, but not disproven: only whoever
    said that it follows can stray.
    """
    step_exclusions(fleet)
    size = fleet.size
    measured_at_ns = fleet.measured_at_ns[Metric.POWER_W, :size]
    rows = np.flatnonzero(
        (fleet.desired_w[:size] == fleet.desired_w[:size])
        # Not only later: a clock that was set back tells of earlier times for a while.
        & (measured_at_ns != fleet.seen_at_ns[:size])
        & _MAY_FOLLOW[fleet.phase[:size]]
    )
    if not len(rows):
        return
    answered = fleet.applied_at_ns[rows] > 0
    since_ns = np.where(answered, fleet.applied_at_ns[rows], fleet.tried_at_ns[rows])
    settled = fleet.heard_at_ns[rows] >= since_ns + int(settings.settle_s * NS_PER_S)
    rows, answered = rows[settled], answered[settled]

    tolerance_w = tolerance(fleet, rows, settings)
    desired_w = fleet.desired_w[rows]
    follows = np.abs(fleet.value[Metric.POWER_W, rows] - desired_w) <= tolerance_w
    # Who would be there anyway proves nothing.
    telling = np.abs(desired_w - fleet.own_w[rows]) > 2.0 * tolerance_w
    agree = rows[follows & (answered | telling)]
    stray = rows[~follows & answered & ~_still_moves(fleet, rows)]

    fleet.followed[agree] = np.minimum(fleet.followed[agree], _COUNTED_MAX) + 1
    fleet.strayed[agree] = 0
    fleet.strayed[stray] = np.minimum(fleet.strayed[stray], _COUNTED_MAX) + 1
    fleet.followed[stray] = 0
    fleet.seen_at_ns[rows] = fleet.measured_at_ns[Metric.POWER_W, rows]


def _still_moves(fleet: Fleet, rows: NDArray[np.intp]) -> Flags:
    """Tell which slow devices cannot have got to their setpoint yet: that is no divergence."""
    moves: Flags = (fleet.traits[rows] & np.uint8(Trait.SLOW)) != 0
    if not moves.any():
        return moves
    desired_w = fleet.desired_w[rows]
    # From where it began: its own schedule, or wherever it still is.
    far_w = np.maximum(
        np.abs(desired_w - fleet.own_w[rows]),
        np.abs(desired_w - fleet.value[Metric.POWER_W, rows]),
    )
    for_s = (fleet.heard_at_ns[rows] - fleet.applied_at_ns[rows]) / NS_PER_S
    moves &= fleet.ramp_w_per_s[rows] * for_s < far_w
    return moves


def tolerance(fleet: Fleet, rows: NDArray[np.intp], settings: VerifySettings = DEFAULTS) -> Floats:
    """Return how far the meter of each device may be off its setpoint and still agree. [W]"""
    nameplate_w = np.maximum(fleet.nameplate_up_w[rows], fleet.nameplate_down_w[rows])
    share = np.where(
        _IS_SWITCHED[fleet.kind[rows]], settings.tolerance_switched, settings.tolerance
    )
    tolerance_w: Floats = np.maximum(share * nameplate_w, settings.tolerance_w_min)
    return tolerance_w
