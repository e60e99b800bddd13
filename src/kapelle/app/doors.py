"""What a role stands on: its settings, and who is behind each port."""

import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kapelle.api.sources import LinkState
from kapelle.config import Config
from kapelle.fleet.service import PartitionOwner
from kapelle.fleet.timings import Timings
from kapelle.history.counters import Counters as HistoryCounters
from kapelle.history.quarantine_service import QuarantineFollower
from kapelle.ingest.breaker import Breaker
from kapelle.ingest.service import Counters
from kapelle.ports import Adapter, Clock, Directory, Journal
from kapelle.runtime.progress import Progress
from kapelle.safety.service import LastHop


@dataclass(frozen=True, slots=True)
class Doors:
    """What a role stands on: its settings, and who is behind each port."""

    config: Config
    clock: Clock
    journal: Journal
    directory: Directory
    adapters: Sequence[Adapter]
    counters: dict[str, Counters] = field(default_factory=dict)
    """What ingest counted, by adapter."""
    breakers: dict[str, Breaker] = field(default_factory=dict)
    """Who is muted, by adapter."""
    quarantine: QuarantineFollower | None = None
    """None where this process keeps no quarantine."""
    timings: Timings = field(default_factory=Timings)
    """How long commands took, of the owners here."""
    blocked: Counter[str] = field(default_factory=Counter)
    """Commands the safety envelope stopped, by rule."""
    opened: dict[str, LinkState] = field(default_factory=dict)
    """Whether each adapter's link is open."""
    owners: dict[int, PartitionOwner] = field(default_factory=dict)
    """Who keeps each partition, where this process does."""
    history: HistoryCounters = field(default_factory=HistoryCounters)
    """What the recorder counted."""
    ledger: Progress = field(default_factory=Progress)
    """A step for each time the recorder let the ledger work."""
    hold_file: Path | None = None
    """While it is there, the plant is held."""
    last_hops: list[LastHop] = field(default_factory=list)
    """Those that run in this process."""
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}/{os.getpid()}")
    """Named to whoever finds our leases taken."""

    def stop(self, reason: str, by: str, *, told: bool = False) -> bool:
        """Hold the plant at once, without waiting for the journal; see `LastHop.stop`.

        Returns:
            Whether a last hop of this process took it; others hear of it from the journal.
        """
        for last_hop in self.last_hops:
            last_hop.stop(reason, by, told=told)
        return bool(self.last_hops)
