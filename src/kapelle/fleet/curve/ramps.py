"""How far slow devices get before the next look: others take the rest, and hand it over later.

What a slow device cannot reach yet is asked of it only when everything else is used up: it lies in
a last tier of its own, beyond all tiers of the merit order. So the ends of a curve say what can be
held, and what lies before them what can be there in a moment.
"""

from typing import NamedTuple

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve.steps import Places
from kapelle.fleet.traits import AHEAD_S
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S, Floats, Ints

_STRIDE = 0.05
"""Setpoints of very slow devices go this part of nameplate ahead: beyond the dead-band, so that
they get there at all, and within what verification tolerates."""


class Reach(NamedTuple):
    """Where slow devices can be at the next look."""

    which: Places
    """Their places among the rows asked about."""
    lowest_w: Floats
    highest_w: Floats


def reach(
    fleet: Fleet, rows: Ints, which: Places, lower_w: Floats, upper_w: Floats
) -> Reach | None:
    """Return how far some of the rows get within the look-ahead, inside their bounds.

    None where none of them says what it does now.
    """
    which = which[~np.isnan(fleet.value[Metric.POWER_W, rows[which]])]
    if not len(which):
        return None
    at = rows[which]
    now_w = _now_w(fleet, at)
    nameplate_w = np.maximum(fleet.nameplate_up_w[at], fleet.nameplate_down_w[at])
    far_w = np.maximum(fleet.ramp_w_per_s[at] * AHEAD_S, _STRIDE * nameplate_w)
    lower_w, upper_w = lower_w[which], upper_w[which]
    return Reach(
        which,
        np.clip(now_w - far_w, lower_w, upper_w),
        np.clip(now_w + far_w, lower_w, upper_w),
    )


def _now_w(fleet: Fleet, at: Ints) -> Floats:
    """Return the last reading, and since then on the way to the setpoint at the ramp. [W]"""
    read_w, desired_w = fleet.value[Metric.POWER_W, at], fleet.desired_w[at]
    left_w = np.where(desired_w == desired_w, desired_w - read_w, 0.0)
    # Since the reading, not since the command: told to go on every few seconds, it never stops.
    age_s = np.maximum(fleet.now_ns - fleet.heard_at_ns[at], 0) / NS_PER_S
    gone_w = fleet.ramp_w_per_s[at] * age_s
    now_w: Floats = read_w + np.clip(left_w, -gone_w, gone_w)
    return now_w
