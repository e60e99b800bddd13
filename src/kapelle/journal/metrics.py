"""What the journal tells of itself: how long the disk takes, how much it holds, who lags behind."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the classes of a histogram; one more is open. [s]"""


@dataclass(slots=True)
class Histogram:
    """How often something took how long. One thread writes; others read what is nearly so."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """By class, not added up."""
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    @property
    def count(self) -> int:
        """Return how many were counted."""
        return sum(self.counts)


@dataclass(slots=True)
class Timings:
    """How long the writer's work takes."""

    fsync_s: Histogram = field(default_factory=Histogram)
    """The end of a transaction: writing the log and flushing it. With `synchronous = off`, and
    for this alone, writing."""
    commit_s: Histogram = field(default_factory=Histogram)
    """A whole group: rules, rows and that end."""
    checkpoint_s: Histogram = field(default_factory=Histogram)
    """Moving the log into the database."""
    snapshot_s: Histogram = field(default_factory=Histogram)
    """A snapshot from the first byte until it is durable."""


@dataclass(frozen=True, slots=True)
class JournalMetrics:
    """The journal at this moment."""

    timings: Timings
    file_bytes: int
    """Database and log. [bytes]"""
    snapshot_bytes: int
    free_bytes: int
    """On its disk, for us. [bytes]"""
    reserve_bytes: int
    """Of the space kept back for shutting down, what is held now: 0 says the disk is full."""
    waiting: int
    """Requests that wait for the disk."""
    waiting_bytes: int
    damage: int
    """Things found damaged since it was opened."""
    lags: Mapping[str, int]
    """Reader of `mark` -> entries of all topics it has not taken over."""
    held: int
    """Entries of all topics that are kept."""
