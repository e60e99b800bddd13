"""How far the sum of those who report regularly runs ahead of what was said of it."""

from collections.abc import Mapping
from math import exp

import msgspec

MEMORY_S = 300.0
"""The liveliness of the plant is averaged over about this long (or 40 cadences). [s]"""
_CADENCES_KEPT = 40.0
DRIFT_S = 300.0
"""Over about this long (or 10 cadences) the direction of the whole is averaged. [s]"""
CADENCES_DRIFT = 10.0
LEVEL_S = 60.0
"""Over about this long (or 10 cadences) it is averaged who reports how often. [s]"""
_BOX = 0.735
"""A sum that forgets over this part of a cadence weighs what devices do alone and what they do
together as the error of the estimate does (`docs/estimation.md`)."""
_TOGETHER = 1.2
"""Delays weigh more than their part of the age where many devices move as one."""


class Steady(msgspec.Struct):
    """Those of one resource who report at about one cadence."""

    ahead_w: float = 0.0
    """Surprises, forgotten over `_BOX` of a cadence. [W]"""
    squares: float = 0.0
    seconds: float = 0.0
    """How long, in effect, squares have been collected. [s]"""
    plate: float = 0.0
    gap: float = 0.0
    gap2: float = 0.0
    delay: float = 0.0
    elapsed_s: float = 0.0
    moved_w: float = 0.0
    """Surprises, forgotten over `_DRIFT_S`: where it goes on the whole. [W]"""
    moved_s: float = 0.0

    @property
    def gap_s(self) -> float:
        """Return the mean time between two reports. [s]"""
        return self.gap / self.plate if self.plate > 0 else 1.0

    @property
    def variance_w2(self) -> float:
        """Return the variance of the error of their sum."""
        if not self.seconds or not self.gap:
            return 0.0
        age_s = 0.5 * self.gap2 / self.gap + _TOGETHER * self.delay / self.plate
        return self.squares / self.seconds * age_s / (0.5 * _BOX * self.gap_s)

    @property
    def drift_w_per_s(self) -> float:
        """Return how fast their sum moves on the whole. [W/s]"""
        return self.moved_w / self.moved_s if self.moved_s else 0.0

    @property
    def drifted_w(self) -> float:
        """Return how far it has moved since the readings were taken. [W]"""
        if not self.seconds or not self.gap:
            return 0.0
        return self.drift_w_per_s * (0.5 * self.gap2 / self.gap + self.delay / self.plate)

    @property
    def freedom(self) -> float:
        """Return how many independent looks that rests on."""
        return self.seconds / self.gap_s


def learn_steady(
    states: dict[int, Steady], told: Mapping[int, list[float]], dt_s: float, broken: bool
) -> None:
    """Learn from what one tick told of one resource, by cadence."""
    for cadence in sorted(states.keys() | told.keys()):
        state = states.setdefault(cadence, Steady())
        plate, gap, gap2, delay, off_w = told.get(cadence, (0.0,) * 5)
        if broken:
            state.ahead_w = state.elapsed_s = 0.0
            dt_s = 1.0
        fade = exp(-dt_s / max(LEVEL_S, 10.0 * state.gap_s))
        state.plate = state.plate * fade + plate
        state.gap = state.gap * fade + gap
        state.gap2 = state.gap2 * fade + gap2
        state.delay = state.delay * fade + delay
        gap_s = state.gap_s
        state.elapsed_s += dt_s
        state.ahead_w = state.ahead_w * exp(-dt_s / (_BOX * gap_s)) + off_w
        if state.elapsed_s > 2.0 * gap_s:
            fade = exp(-dt_s / max(DRIFT_S, CADENCES_DRIFT * gap_s))
            state.moved_w = state.moved_w * fade + off_w
            state.moved_s = state.moved_s * fade + dt_s
            # What it does on the whole is made up for, and no error.
            ahead_w = state.ahead_w - state.drift_w_per_s * _BOX * gap_s
            fade = exp(-dt_s / max(MEMORY_S, _CADENCES_KEPT * gap_s))
            state.squares = state.squares * fade + ahead_w**2 * dt_s
            state.seconds = state.seconds * fade + dt_s
