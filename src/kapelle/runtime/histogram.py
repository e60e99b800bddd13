"""Counts of values by size, as metrics tell them: cheap to note, of a fixed size."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Histogram:
    """How many values were at most each bound, and how many beyond the last."""

    bounds: Sequence[float]
    """Rising."""
    counts: list[int] = field(default_factory=list)
    """Per bucket, not summed up; one more than `bounds`."""
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def note(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values were noted."""
        return sum(self.counts)
