"""What status and metrics are drawn from besides the plant view: whatever this process has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kapelle.api.capacity_book import CapacityBook
from kapelle.api.requests import Requests
from kapelle.fleet.timings import Timings
from kapelle.history.counters import Counters as HistoryCounters
from kapelle.history.quarantine import Quarantine
from kapelle.ingest.breaker import Mute
from kapelle.journal.metrics import JournalMetrics


class Breaker(Protocol):
    """Who is muted (`ingest.breaker.Breaker`)."""

    def muted(self, now_ns: int) -> Sequence[Mute]:
        """Return who is muted now."""


class Follower(Protocol):
    """Keeps the quarantine as new as the journal (`history.quarantine_service`)."""

    quarantine: Quarantine
    trouble: str

    async def turn(self) -> None:
        """Read all there is."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system under the data directory."""

    free: int
    """For us, without what is kept for the administrator. [bytes]"""
    total: int


@dataclass(slots=True)
class LinkState:
    """Whether an adapter's link is open."""

    is_open: bool
    since_ns: int


@dataclass(slots=True)
class Sources:
    """Everything may be absent: where roles are apart, each process tells what it knows."""

    timings: Timings | None = None
    """Of the owners in this process."""
    blocked: Mapping[str, int] | None = None
    """Commands the safety envelope stopped, by rule; None without a last hop here."""
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    """By protocol."""
    quarantine: Follower | None = None
    history: HistoryCounters | None = None
    """None where no record is written."""
    links: Mapping[str, LinkState] = field(default_factory=dict)
    """By adapter."""
    unserved: Callable[[], Mapping[str, int]] | None = None
    """Devices by adapter, for adapters they are enrolled under and this plant does not have."""
    outages: Callable[[], Mapping[str, str]] | None = None
    """Of the vendors' clouds that do not answer, by name, why."""
    requests: Requests = field(default_factory=Requests)
    capacity: CapacityBook = field(default_factory=CapacityBook)
    """What resources can promise."""
    journal: Callable[[], JournalMetrics] | None = None
    """What the embedded journal measures."""
    disk: Callable[[], Disk] | None = None
    clock_ahead_s: Callable[[], float] | None = None
    """How far the plant's time is ahead of the host's clock. [s]"""
    snapshot_at_ns: Callable[[], int | None] | None = None
    """When the oldest of the topics' newest snapshots was written; None where one has none."""
    backup_at_ns: Callable[[], int | None] | None = None
    """When the newest backup was made; None where none is known."""
    backup_age_s_max: float = 0.0
    """How old it may become; 0: nobody asks. [s]"""
