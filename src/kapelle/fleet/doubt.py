"""What devices that are not counted on may still do, beyond what is counted for them (R-17).

Who does not answer may have heard: until his command runs out he may yet act on it. Who is about to
be tried again may act on that, though nobody counts on it. Who has fallen silent holds his setpoint
until his timer ends, also where the plant counts him as gone already so that others are in place
when it does. Afterwards nothing obliges a device any more: one that obeyed at the last moment and
whose every answer got lost cannot be told from one that never heard.
"""

from typing import NamedTuple

import numpy as np

from kapelle.fleet.columns import Fleet, is_heard, span
from kapelle.fleet.curve.trust import reachable
from kapelle.model.enums import Exclusion, Metric, Phase
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints

ANSWER_S = 0.5
"""A command obeyed at the last moment is answered by then, or counted as not obeyed. [s]"""

_AHEAD_S = 1.5
"""From a summary to the commands of the tick after the one that follows from it. [s]"""
_MAY_BE_OBEYED = np.isin(
    np.arange(32), [Phase.PLANNED, Phase.SENT, Phase.RECEIVED, Phase.UNKNOWN, Phase.EXPIRED]
)


class Doubt(NamedTuple):
    """How much power may come on top of what is counted. All >= 0. [W]"""

    up_w: float
    """Towards export."""
    down_w: float
    most_w: float
    """Of any one device, either way."""


def doubt(fleet: Fleet, rows: Ints, counted_w: Floats) -> Doubt:
    """Return what may come on top, of devices that are not controllable.

    Args:
        fleet: The partition.
        rows: Devices no setpoint is counted to reach.
        counted_w: What is counted for each of them. [W]
    """
    at = span(rows)
    now_ns = fleet.now_ns
    holds = fleet.reverts_at_ns[at] > now_ns
    ends_ns = fleet.not_after_ns[at] + int(ANSWER_S * NS_PER_S)
    asked = (ends_ns > now_ns) & (fleet.applied_at_ns[at] == 0) & _MAY_BE_OBEYED[fleet.phase[at]]
    asked |= _is_probed_next(fleet, rows)
    some = np.flatnonzero(holds | asked)
    if not len(some):
        return Doubt(0.0, 0.0, 0.0)
    which, counted_w = rows[some], counted_w[some]
    up_w, down_w = fleet.nameplate_up_w[which], fleet.nameplate_down_w[which]
    reading_w, desired_w = fleet.value[Metric.POWER_W, which], fleet.desired_w[which]
    # Where it may be: at what it is asked (a release: at its own), if it may follow that at all …
    goal_w = np.where(np.isnan(desired_w), fleet.own_w[which], desired_w)
    goal_w = np.clip(goal_w, -down_w, up_w)
    # … or, out of hearing, still where it was last seen under a timer that runs.
    unseen = holds[some] & ~is_heard(fleet.freshness[which]) & ~np.isnan(reading_w)
    last_w = np.where(unseen, reading_w, counted_w)
    follows = asked[some] | (unseen & ~np.isnan(desired_w))
    goal_w = np.where(follows, goal_w, counted_w)
    more_w = np.maximum(np.maximum(goal_w, last_w) - counted_w, 0.0)
    less_w = np.maximum(counted_w - np.minimum(goal_w, last_w), 0.0)
    most_w = float(np.maximum(more_w, less_w).max())
    return Doubt(float(more_w.sum()), float(less_w.sum()), most_w)


def _is_probed_next(fleet: Fleet, rows: Ints) -> Flags:
    """Tell who is let try again by the next tick, so that there is room for it when it does."""
    at = span(rows)
    due: Flags = fleet.excluded_until_ns[at] <= fleet.now_ns + int(_AHEAD_S * NS_PER_S)
    due &= (fleet.excluded[at] != np.uint8(Exclusion.NONE)) & (fleet.order_no[at] != 0)
    return due & reachable(fleet, rows)
