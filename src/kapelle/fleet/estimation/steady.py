"""How far the sum of those who report regularly runs ahead of what was said of it.

The formulas and where they come from: `docs/estimation.md`, "Those who report".
"""

from collections.abc import Mapping, Sequence
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
_FORGET = 0.735
"""A sum of surprises that forgets over this part of a cadence, and twice the delay, weighs what
devices do alone and what they do together as the error of the estimate does."""
_TOGETHER = 2.0 / 3.0
"""Part of a cadence by which looks at what devices do together follow each other more slowly."""
_LEAST_LEFT = 0.3
_GONE_W = 1e-6
"""Of a cadence with less nameplate nobody is left. [W]"""


class Steady(msgspec.Struct):
    """Those of one resource who report at about one cadence."""

    ahead_w: float = 0.0
    """Surprises, forgotten over `forget_s`. [W]"""
    ahead_s: float = 0.0
    """Time, forgotten alike. [s]"""
    unit_s: float = 0.0
    """What the square of `ahead_w` would be on average, were the sum to move by a variance of 1 W²
    in each second. [s]"""
    rates: float = 0.0
    """By what variance per second it seemed to move, times the time it did, forgotten slowly."""
    looked_s: float = 0.0
    """How long, in effect, that has been collected. [s]"""
    plate: float = 0.0
    gap: float = 0.0
    gap2: float = 0.0
    delay: float = 0.0
    behind: float = 0.0
    """By how much receipt follows the device's own stamp at the least."""
    tick_s: float = 0.0
    """Mean time between two ticks. [s]"""
    elapsed_s: float = 0.0
    moved_w: float = 0.0
    """Surprises, forgotten over `drift_s`: where it goes on the whole. [W]"""
    moved_s: float = 0.0

    @property
    def gap_s(self) -> float:
        """Return the time between two reports, as a random moment finds it. [s]"""
        return self.gap2 / self.gap if self.gap > 0 else 1.0

    @property
    def delay_s(self) -> float:
        """Return the mean age of a reading at the tick that has it first. [s]

        One device's constant delay cannot be told from a slow clock. Clocks of many are as often
        fast as slow, links only ever delay: so the mean, where positive, is delay.
        """
        return (self.delay + max(self.behind, 0.0)) / self.plate if self.plate > 0 else 0.0

    @property
    def age_s(self) -> float:
        """Return the mean age of the readings in the sum, at a tick. [s]"""
        return self.delay_s + 0.5 * max(self.gap_s - self.tick_s, 0.0)

    @property
    def forget_s(self) -> float:
        """Return how long surprises stay in `ahead_w`. [s]"""
        return _FORGET * self.gap_s + 2.0 * max(self.delay_s - 0.5 * self.tick_s, 0.0)

    @property
    def memory_s(self) -> float:
        """Return over how long the liveliness is averaged. [s]"""
        return max(MEMORY_S, _CADENCES_KEPT * self.gap_s)

    @property
    def drift_s(self) -> float:
        """Return over how long the direction is averaged. [s]"""
        return max(DRIFT_S, CADENCES_DRIFT * self.gap_s)

    @property
    def drift_w_per_s(self) -> float:
        """Return how fast their sum moves on the whole. [W/s]"""
        return self.moved_w / self.moved_s if self.moved_s else 0.0

    @property
    def drifted_w(self) -> float:
        """Return how far it has moved since the readings were taken. [W]"""
        return self.drift_w_per_s * self.age_s if self.looked_s else 0.0

    @property
    def drift_per_s(self) -> float:
        """Return the variance of the drift, were the sum to move by 1 W² per second. [1/s]"""
        return max(1.0 / self.moved_s - 0.5 / self.drift_s, 0.0) if self.moved_s else 0.0

    @property
    def variance_w2(self) -> float:
        """Return the variance of the error of their sum."""
        if not self.looked_s:
            return 0.0
        rate = self.rates / self.looked_s
        return rate * self.age_s * (1.0 + self.age_s * self.drift_per_s)

    @property
    def freedom(self) -> float:
        """Return how many independent looks that rests on."""
        # The older ones count less, so that in effect there are up to twice as many.
        in_effect_s = self.looked_s / max(1.0 - 0.5 * self.looked_s / self.memory_s, 0.5)
        return in_effect_s / (self.forget_s + _TOGETHER * self.gap_s)

    def hear(self, told: Sequence[float], dt_s: float) -> None:
        """Learn who reports how often and how late."""
        # Evidence of older versions does not tell what receipt follows.
        plate, gap, gap2, delay, _, behind = (*told, 0.0)[:6]
        fade = exp(-dt_s / max(LEVEL_S, 10.0 * self.gap_s))
        self.plate = self.plate * fade + plate
        self.gap = self.gap * fade + gap
        self.gap2 = self.gap2 * fade + gap2
        self.delay = self.delay * fade + delay
        self.behind = self.behind * fade + behind
        self.tick_s += (dt_s - self.tick_s) * (1.0 - fade if self.tick_s else 1.0)

    def look(self, off_w: float, dt_s: float) -> None:
        """Learn from the sum of one tick's surprises how it moves."""
        keep = exp(-dt_s / self.forget_s)
        self.ahead_w = self.ahead_w * keep + off_w
        self.ahead_s = self.ahead_s * keep + dt_s
        self.unit_s = self.unit_s * keep * keep + dt_s
        self.elapsed_s += dt_s
        if self.elapsed_s <= self.gap_s:
            return
        fade = exp(-dt_s / self.drift_s)
        self.moved_w = self.moved_w * fade + off_w
        self.moved_s = self.moved_s * fade + dt_s
        if self.elapsed_s <= 2.0 * self.gap_s:
            return
        # What it does on the whole is made up for, and no error; but it was learned from the same
        # surprises, so part of any error looks like it.
        ahead_w = self.ahead_w - self.drift_w_per_s * self.ahead_s
        taken_s = self.ahead_s**2 * (1.0 / self.moved_s + 0.5 / self.drift_s)
        left_s = max(self.unit_s - taken_s, _LEAST_LEFT * self.unit_s)
        fade = exp(-dt_s / self.memory_s)
        self.rates = self.rates * fade + ahead_w**2 / left_s * dt_s
        self.looked_s = self.looked_s * fade + dt_s


def learn_steady(
    states: dict[int, Steady], told: Mapping[int, Sequence[float]], dt_s: float, broken: bool
) -> None:
    """Learn from what one tick told of one resource, by cadence."""
    for cadence in sorted(states.keys() | told.keys()):
        state = states.setdefault(cadence, Steady())
        part = told.get(cadence, (0.0,) * 6)
        if broken:
            state.ahead_w = state.ahead_s = state.unit_s = state.elapsed_s = 0.0
            dt_s = 1.0
        state.hear(part, dt_s)
        if state.plate < _GONE_W:
            del states[cadence]
        else:
            state.look(part[4], dt_s)
