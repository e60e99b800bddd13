"""What is sure of an order as it is promised, and what is said of every window of its delivery."""

from dataclasses import dataclass
from math import copysign, inf, isnan, nan

import numpy as np

from kapelle.dispatch.firm.assembly import portfolio_of
from kapelle.dispatch.firm.capacity import promises
from kapelle.dispatch.firm.mixture import mix
from kapelle.dispatch.firm.within import caps_within
from kapelle.dispatch.memory import ControlState, Cycle, Running
from kapelle.dispatch.promise import parts_of, room_of
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.capacity.kept import WINDOW_S, WINDOW_S_MIN
from kapelle.fleet.capacity.recalibration import LEVELS
from kapelle.fleet.plant import OrderState, PlantView
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Order, Plan, Prospect
from kapelle.model.plant import Direction, Notice
from kapelle.words import power

_P95 = LEVELS.index(0.95)
_LEVEL_OF = {"p90": 0.9, "p95": 0.95, "p99": 0.99}
_NOTHING_W = 1.0


@dataclass(frozen=True, slots=True)
class Assurance:
    """What is sure of an order for its time."""

    firm_w: float | None
    """P95, signed as the target is; None where nobody can say yet. [W]"""
    limit_w: float
    """No more is promised, where promises are bound to a level; else infinite. >= 0 [W]"""
    level: float
    """The level that binds; NaN where none does."""

    def bounded_w(self, power_w: float) -> float:
        """Return the part of a promise that may be made."""
        return min(max(power_w, -self.limit_w), self.limit_w)

    def reason(self, target_w: float, committed_w: float) -> str:
        """Say that the level binds; empty where it does not."""
        if abs(committed_w) < self.limit_w - _NOTHING_W or abs(target_w) <= self.limit_w:
            return ""
        asked = f"of {power(target_w)} asked {power(committed_w)}"
        return f"promise: {asked} are {self.level * 100:.0f} % sure"


UNKNOWN = Assurance(None, inf, nan)


def assurance(
    view: PlantView, settings: DispatchSettings, asked: Order, now_ns: int
) -> Assurance | None:
    """Say what is sure of an order from its start, or from now, to its end.

    None where promises are bound to a level and partitions have not told what it rests on: within a
    minute of the plant's start they will have.
    """
    level = _LEVEL_OF.get(settings.promise, nan)
    length_s = (asked.ends_at_ns - max(asked.starts_at_ns, now_ns)) / NS_PER_S
    if not _has_told(view, asked.resource) or length_s <= 0:
        return UNKNOWN if isnan(level) else None
    way = _way(asked.target_w)
    portfolio = portfolio_of(view.rooms, view.firmness, asked.resource, way, length_s)
    sure_w = promises(mix(portfolio), view.firmness.kept.recalibration)
    # Devices that follow other orders are not to be had.
    room = room_of(parts_of(view, asked.resource))
    free_w = room.up_w if way == "up" else room.down_w
    caps = caps_within(view, asked.resource, way, length_s)
    if caps is not None:
        most_w = caps.reach_w()
        sure_w = [min(each_w, most_w) for each_w in sure_w]
    firm_w = copysign(min(sure_w[_P95], free_w), asked.target_w)
    return Assurance(firm_w, inf if isnan(level) else sure_w[LEVELS.index(level)], level)


def at_risk(asked: Order, plan: Plan) -> list[Notice]:
    """Return a notice where more was committed than is 95 % sure."""
    if plan.firm_w is None:
        return []
    over_w = abs(plan.committed_w) - abs(plan.firm_w)
    if over_w <= _NOTHING_W:
        return []
    size = f"{power(plan.committed_w)} are committed, {power(plan.firm_w)} are 95 % sure"
    text = f"order {asked.order_no} is at risk: {size}"
    over_w = copysign(over_w, plan.committed_w)
    return [Notice(plan.at_ns, "at-risk", text, asked.order_no, over_w)]


def step_prospects(state: ControlState, cycle: Cycle) -> list[Prospect]:
    """Say what could be promised for the window that begins, of one order a cycle.

    Each takes some milliseconds, and a window that begins a few cycles later is as good a trial.
    """
    if cycle.view.held:
        return []
    for order_no, order in sorted(cycle.view.orders.items()):
        running = state.running.get(order_no)
        if running is None or cycle.now_ns < running.window_ends_ns or not _is_steady(order):
            continue
        told = _prospect(cycle, order, running)
        if told is not None:
            return [told]
    return []


def _is_steady(order: OrderState) -> bool:
    """Tell whether one target is asked for and promised. Profiles change within a window."""
    is_active = order.status == OrderStatus.ACTIVE and order.plan is not None
    return is_active and not order.order.profile and not order.cancelled_at_ns


def _prospect(cycle: Cycle, order: OrderState, running: Running) -> Prospect | None:
    asked, view = order.order, cycle.view
    under_way = view.firmness.kept.windows.get(asked.order_no)
    if under_way is not None:
        running.window_ends_ns = under_way.told.ends_at_ns
        return None
    ends_at_ns = min(asked.ends_at_ns, cycle.now_ns + int(WINDOW_S * NS_PER_S))
    length_s = (ends_at_ns - cycle.now_ns) / NS_PER_S
    if length_s < WINDOW_S_MIN or not _has_told(view, asked.resource):
        return None
    # Within its tolerance an order is kept.
    asked_w = order.committed_w * (1.0 - asked.tolerance)
    portfolio = portfolio_of(view.rooms, view.firmness, asked.resource, _way(asked_w), length_s)
    mixture = mix(portfolio)
    promise_w = promises(mixture, view.firmness.kept.recalibration)
    odds = mixture.short(np.minimum(promise_w, abs(asked_w)))
    running.window_ends_ns = ends_at_ns
    return Prospect(asked.order_no, cycle.now_ns, ends_at_ns, asked_w, promise_w, odds.tolist())


def _has_told(view: PlantView, resource: str) -> bool:
    """Tell whether what a promise rests on is known from every partition."""
    if len(view.rooms) < view.partitions:
        return False
    return any(rooms.get(resource) for rooms in view.rooms.values())


def _way(power_w: float) -> Direction:
    return "up" if power_w >= 0 else "down"
