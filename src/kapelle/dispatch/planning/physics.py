"""Whether a plan is possible, by rules of its own: nothing here knows how the plan was found.

R-23: what an optimiser says is held against physics before anybody acts on it.
"""

from collections.abc import Callable

import numpy as np

from kapelle.dispatch.planning.groups import Groups, Window
from kapelle.dispatch.planning.lookahead import Ahead, Unplanned
from kapelle.model.ids import Flags, Floats
from kapelle.words import percent, power

_TOLERANCE = 1e-4
"""Of all that is wanted, or of a group's power or energy: what solvers call equal."""
_EFFORT = 0.005
"""Of what an interval wants: so much may be left undone without a reason."""


def checked(
    solve: Callable[[Groups, Window], Ahead | Unplanned], groups: Groups, window: Window
) -> Ahead | Unplanned:
    """Return a plan that keeps every rule, or why there is none; whatever the solver does."""
    try:
        found = solve(groups, window)
    except Exception as error:  # noqa: BLE001  # foreign code: it must not stop the other orders
        return Unplanned(f"the solver failed: {error!r}")
    if isinstance(found, Unplanned):
        return found
    wrong = violation(found, groups, window)
    return Unplanned(wrong) if wrong else found


def violation(plan: Ahead, groups: Groups, window: Window) -> str:
    """Return the constraint a plan violates, in words; empty where it keeps all of them."""
    shape = (len(window.want_w), len(groups))
    if plan.power_w.shape != shape or plan.short_w.shape != shape[:1]:
        return "the plan has another shape than what was asked"
    for name, values in (("power", plan.power_w), ("shortfall", plan.short_w)):
        if not np.isfinite(values).all():
            return f"{name} is not a number in interval {_first(~np.isfinite(values))}"
    if plan.most.shape != shape[1:] or not np.isfinite(plan.most).all():
        return "a ration is not a number"
    if (plan.most < 0.0).any() or (plan.most > 1.0).any():
        return f"a ration of {_far(plan.most):.4g} is not within 0 and 1"
    return (
        _of_power(plan, groups, window)
        or _of_energy(plan, groups, window)
        or _of_sum(plan, window)
        or _of_effort(plan, groups, window)
    )


def _of_power(plan: Ahead, groups: Groups, window: Window) -> str:
    able_w = _able_w(groups, window)
    beyond = (plan.power_w < -_TOLERANCE * able_w - 1.0) | (
        plan.power_w > able_w * (1.0 + _TOLERANCE) + 1.0
    )
    if beyond.any():
        place = _first(beyond)
        return f"power beyond what a group has in interval {place}"
    now_w = plan.most * able_w[0]
    if (plan.power_w[0] > now_w + _TOLERANCE * able_w[0] + 1.0).any():
        return "a ration is smaller than what the plan needs now"
    return ""


def _of_energy(plan: Ahead, groups: Groups, window: Window) -> str:
    left_wh = _left_wh(plan, groups, window)
    whole_wh = groups.energy_wh.sum(axis=1)
    spare_wh = _TOLERANCE * whole_wh + 1.0
    limited = np.isfinite(whole_wh)
    empty = (left_wh < -spare_wh) & limited
    if empty.any():
        part = float((left_wh[:, limited] / np.maximum(whole_wh[limited], 1e-9)).min())
        return (
            f"energy falls to {percent(part)} of what a group can give in interval {_first(empty)}"
        )
    full = (left_wh > whole_wh + spare_wh) & limited
    if full.any():
        return f"a group is charged beyond full in interval {_first(full)}"
    return ""


def _of_sum(plan: Ahead, window: Window) -> str:
    size_w = np.abs(window.want_w)
    spare_w = _TOLERANCE * max(float(size_w.max()), 1.0) + 1.0
    if (plan.short_w < -spare_w).any() or (plan.short_w > size_w + spare_w).any():
        return "a shortfall is not between nothing and all that is wanted"
    off_w = plan.power_w.sum(axis=1) + plan.short_w - size_w
    wrong = np.abs(off_w) > spare_w
    if wrong.any():
        place = _first(wrong)
        return f"the sum is off the target by {power(float(off_w[place - 1]))} in interval {place}"
    return ""


def _of_effort(plan: Ahead, groups: Groups, window: Window) -> str:
    """Nothing may be missing while a group has power and energy left over: an empty plan is none.

    Energy counts as left over if giving it would not have left too little at any later moment.
    """
    able_w, left_wh = _able_w(groups, window), _left_wh(plan, groups, window)
    with np.errstate(invalid="ignore"):
        rising_wh = groups.energy_wh.sum(axis=1) - left_wh
    rising_wh[:, ~np.isfinite(groups.energy_wh).all(axis=1)] = np.inf
    for place in np.flatnonzero(plan.short_w > 1.0).tolist():
        limit_wh = (rising_wh if window.want_w[place] < 0 else left_wh)[place:].min(axis=0)
        spare_w = np.minimum(able_w[place] - plan.power_w[place], limit_wh / window.length_h[place])
        idle_w = min(float(np.maximum(spare_w, 0.0).sum()), float(plan.short_w[place]))
        if idle_w > _EFFORT * abs(float(window.want_w[place])) + 1.0:
            return (
                f"{power(idle_w)} are missing in interval {place + 1} while devices could give it"
            )
    return ""


def _able_w(groups: Groups, window: Window) -> Floats:
    """Return what each group can do in the direction of each interval. [W]"""
    able_w: Floats = groups.power_w[:, (window.want_w < 0).astype(np.intp)].T
    return able_w


def _left_wh(plan: Ahead, groups: Groups, window: Window) -> Floats:
    """Return what each group can still give after each interval. [Wh]"""
    given_wh = plan.power_w * (np.sign(window.want_w) * window.length_h)[:, None]
    left_wh: Floats = groups.energy_wh[:, 0] - np.cumsum(given_wh, axis=0)
    return left_wh


def _first(wrong: Flags) -> int:
    """Return the number, from 1, of the first interval in which something is wrong."""
    return int(np.argwhere(wrong)[0][0]) + 1


def _far(values: Floats) -> float:
    """Return the value that is furthest from one half."""
    return float(values[np.argmax(np.abs(values - 0.5))])
