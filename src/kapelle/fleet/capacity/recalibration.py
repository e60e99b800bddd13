"""Keeps promises honest where the world drifts: the risk that is taken follows what came of it.

Adaptive conformal inference (Gibbs and Candès, Adaptive conformal inference under distribution
shift, NeurIPS 2021): after each realised window risk += step · (expected - happened). In the long
run the promise is then missed as often as it says, whatever the model gets wrong. Slow and bounded,
so that one bad day neither empties nor inflates what is sold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

LEVELS = (0.5, 0.9, 0.95, 0.99)
"""With these probabilities a promise is kept."""

_STEP = 0.05
"""Part of the nominal risk by which a missed promise moves it."""
_LEAST, _MOST = 0.4, 1.5
"""Bounds, as parts of the nominal risk."""
_FORECAST = 0.5
"""The median is a forecast; nothing is sold on it."""


@dataclass(slots=True)
class Recalibration:
    """By level, the risk taken as a part of the nominal one."""

    parts: list[float] = field(default_factory=lambda: [1.0] * len(LEVELS))
    windows: int = 0

    def risk(self, at: int) -> float:
        """Return the risk to take at the level of this number: never more than at a lower one."""
        return min((1.0 - LEVELS[each]) * self.parts[each] for each in range(at + 1))

    def step(self, expected: Sequence[float], missed: Sequence[bool]) -> None:
        """Learn from one realised window.

        Args:
            expected: By level, the probability to fall short that was told of what was asked: the
                risk itself where the whole promise was called; less where less was asked.
            missed: By level, whether less was delivered than the promise, or than was asked
                where that was less.
        """
        for at, (told, is_missed) in enumerate(zip(expected, missed, strict=True)):
            if LEVELS[at] <= _FORECAST:
                continue
            # What was told is in terms of the risk taken; it shall come out as the nominal one.
            moved = self.parts[at] + _STEP * (told / self.parts[at] - is_missed)
            self.parts[at] = min(max(moved, _LEAST), _MOST)
        self.windows += 1
