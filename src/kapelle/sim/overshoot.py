"""How far beyond a promise a run could have gone, had everyone acted who still might (R-17)."""

import numpy as np

from kapelle.dispatch.settings import DispatchSettings
from kapelle.model.ids import Floats
from kapelle.model.orders import Order, Plan
from kapelle.sim.play import Play


def budget_w(play: Play, plan: Plan) -> float:
    """Return what a promise may be exceeded by: a part of it, or one device, the largest. [W]"""
    block = play.devices.enrolled
    one_w = float(np.maximum(block.nameplate_up_w, block.nameplate_down_w).max())
    return max(DispatchSettings().overshoot_budget * abs(plan.committed_w), one_w)


def beyond_w(play: Play, order: Order, plan: Plan) -> Floats:
    """Return how far the worst case lies beyond the promise, step by step of the run. [W]

    Positive where it is more than promised; NaN while the order does not run. What the plant
    measured too little of at its last tick is taken off: that nobody can hold back.
    """
    at_s, worst_w = np.array(play.at_s), np.array(play.worst_w)
    sign = 1.0 if plan.committed_w > 0 else -1.0
    over_w = sign * (worst_w - plan.baseline_w - plan.committed_w)
    told_s = np.array([each.at_s for each in play.published])
    if len(told_s):
        missed_w = np.interp(told_s, at_s, np.array(play.power_w))
        missed_w = sign * (missed_w - np.array([each.power_w for each in play.published]))
        last = np.searchsorted(told_s, at_s, side="right") - 1
        over_w -= np.where(last >= 0, np.maximum(missed_w[last], 0.0), 0.0)
    starts_s, ends_s = (play.elapsed_s(ns) for ns in (order.starts_at_ns, order.ends_at_ns))
    return np.where((at_s >= starts_s) & (at_s < ends_s), over_w, np.nan)


def worst_pct(play: Play, order: Order, plan: Plan | None) -> float | None:
    """Return the largest of it in percent of the promise; None where nothing, or a profile, was."""
    if plan is None or plan.committed_w == 0.0 or order.profile:
        return None
    over_w = beyond_w(play, order, plan)
    if np.isnan(over_w).all():
        return None
    return float(np.nanmax(over_w)) / abs(plan.committed_w) * 100
