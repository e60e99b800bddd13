"""Whether promises were kept: every window of an order's delivery is a trial of what was told.

Dispatch says as a window begins what could be promised for it (`Prospect`); here the least power of
the window is held against that. Folded from the journal, so that a restart forgets nothing. A
window that was cut short, held or amended, or of which too little was seen, tells nothing.
"""

from math import copysign

import msgspec

from kapelle.fleet.capacity.recalibration import LEVELS, Recalibration
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Prospect

WINDOW_S = 900.0
"""Longer deliveries are as many trials. [s]"""
WINDOW_S_MIN = 300.0
"""A rest shorter than this is none. [s]"""
SETTLE_S = 60.0
"""So long after a window's beginning its power need not stand yet. [s]"""
_MEAN_S = 60
"""The least power is that of means over so long: those who fall silent are replaced within it."""
_SEEN_MIN = 0.5
"""Part of a window's minutes that must have been seen."""
_OPEN_MAX = 1000


class Window(msgspec.Struct):
    """One that is under way."""

    told: Prospect
    minute: int = 0
    """Number of the minute under way; 0 before the first."""
    sum_w: float = 0.0
    count: int = 0
    least_w: float = float("inf")
    """Least mean so far, in the direction of what was asked. [W]"""
    minutes: int = 0

    def has(self, tick_ns: int) -> bool:
        """Tell whether power at this tick counts."""
        since_ns = self.told.at_ns + int(SETTLE_S * NS_PER_S)
        return since_ns <= tick_ns < self.told.ends_at_ns


class Kept(msgspec.Struct):
    """Windows under way by number of order, and what those that are over have taught."""

    windows: dict[int, Window] = {}
    recalibration: Recalibration = msgspec.field(default_factory=Recalibration)


def begin(kept: Kept, told: Prospect) -> None:
    """Take up a window; one of the same order that is under way goes on alone."""
    before = kept.windows.get(told.order_no)
    if before is not None and told.at_ns >= before.told.ends_at_ns:
        end(kept, told.order_no)
    if told.order_no in kept.windows or len(told.promise_w) != len(LEVELS):
        return
    if len(kept.windows) < _OPEN_MAX:
        kept.windows[told.order_no] = Window(told)


def watch(kept: Kept, order_no: int, changed_w: float, tick_ns: int) -> None:
    """Take in what an order has changed at one tick; a window that ended by then is judged.

    Args:
        kept: Written to.
        order_no: One with a window under way.
        changed_w: Power of the resource less its baseline, positive towards export. [W]
        tick_ns: When.
    """
    window = kept.windows[order_no]
    if window.has(tick_ns):
        minute = tick_ns // (_MEAN_S * NS_PER_S)
        if minute != window.minute:
            _end_minute(window)
            window.minute = minute
        window.sum_w += copysign(1.0, window.told.asked_w) * changed_w
        window.count += 1
    elif tick_ns >= window.told.ends_at_ns:
        end(kept, order_no)


def end(kept: Kept, order_no: int) -> None:
    """Judge a window that has run to its end."""
    window = kept.windows.pop(order_no, None)
    if window is None:
        return
    _end_minute(window)
    told = window.told
    whole = (told.ends_at_ns - told.at_ns) / NS_PER_S - SETTLE_S
    if window.minutes * _MEAN_S < _SEEN_MIN * whole:
        return
    asked_w = [min(each_w, abs(told.asked_w)) for each_w in told.promise_w]
    kept.recalibration.step(told.odds, [window.least_w < each_w for each_w in asked_w])


def drop(kept: Kept, order_no: int) -> None:
    """Forget a window that says nothing: what was asked is not what was told of."""
    kept.windows.pop(order_no, None)


def _end_minute(window: Window) -> None:
    if window.count:
        window.least_w = min(window.least_w, window.sum_w / window.count)
        window.minutes += 1
    window.sum_w, window.count = 0.0, 0
