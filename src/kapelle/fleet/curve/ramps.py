"""How far slow devices get before others can answer: those take the rest, and hand it over later.

They are told to go a little further than they are counted to get: a setpoint lasts for a few looks.
What a slow device cannot reach yet is asked of it only when everything else is used up: it lies in
a last tier of its own, beyond all tiers of the merit order. So the ends of a curve say what can be
held, and what lies before them what can be there in a moment.
"""

from typing import NamedTuple

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve.steps import Places
from kapelle.fleet.desired import in_force
from kapelle.fleet.traits import AHEAD_S
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S, Floats, Ints

SOON_S = 2.5
"""From a look to the moment when what it asks of others is there. [s]"""
_STRIDE = 0.05
"""Setpoints of very slow devices go this part of nameplate ahead: beyond the dead-band, so that
they get there at all, and within what verification tolerates."""


class Reach(NamedTuple):
    """Where slow devices can be soon."""

    which: Places
    """Their places among the rows asked about."""
    lowest_w: Floats
    highest_w: Floats
    stride_w: Floats
    """How much further they may be told to go at once. [W]"""


def reach(
    fleet: Fleet, rows: Ints, which: Places, lower_w: Floats, upper_w: Floats
) -> Reach | None:
    """Return how far some of the rows get soon, inside their bounds.

    None where none of them says what it does now.
    """
    which = which[~np.isnan(fleet.value[Metric.POWER_W, rows[which]])]
    if not len(which):
        return None
    at = rows[which]
    now_w = _now_w(fleet, at)
    nameplate_w = np.maximum(fleet.nameplate_up_w[at], fleet.nameplate_down_w[at])
    ramp_w_per_s = fleet.ramp_w_per_s[at].astype(np.float64)
    soon_w = ramp_w_per_s * SOON_S
    told_w = np.maximum(ramp_w_per_s * AHEAD_S, _STRIDE * nameplate_w)
    lower_w, upper_w = lower_w[which], upper_w[which]
    return Reach(
        which,
        np.clip(now_w - soon_w, lower_w, upper_w),
        np.clip(now_w + soon_w, lower_w, upper_w),
        told_w - soon_w,
    )


def _now_w(fleet: Fleet, at: Ints) -> Floats:
    """Return the last reading, and since then on the way to the setpoint at the ramp. [W]"""
    read_w, desired_w = fleet.value[Metric.POWER_W, at], fleet.desired_w[at]
    left_w = np.where(desired_w == desired_w, desired_w - read_w, 0.0)
    # Since its order has it, not since its last command: told to go on every few seconds, it never
    # stops meanwhile.
    since_ns = fleet.heard_at_ns[at]
    for signal in in_force(fleet):
        mine = fleet.order_no[at] == np.int32(signal.order_no)
        since_ns = np.where(mine, np.maximum(since_ns, signal.rank), since_ns)
    gone_w = fleet.ramp_w_per_s[at] * (np.maximum(fleet.now_ns - since_ns, 0) / NS_PER_S)
    now_w: Floats = read_w + np.clip(left_w, -gone_w, gone_w)
    return now_w
