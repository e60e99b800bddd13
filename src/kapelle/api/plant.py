"""What the routes work on, joined by `server.build`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan

from kapelle.api.desk import OrderDesk
from kapelle.api.energy_desk import EnergyDesk
from kapelle.api.envelope_desk import EnvelopeDesk
from kapelle.api.health import Health, Watchman, judge
from kapelle.api.history_desk import HistoryDesk
from kapelle.api.metrics import IngestCounters, SessionCounters
from kapelle.api.quarantine_desk import QuarantineDesk
from kapelle.api.sources import Sources
from kapelle.api.watch import Watch
from kapelle.fleet.columns import Fleet
from kapelle.fleet.plant import PlantView
from kapelle.ports import Clock, Directory
from kapelle.registry.persons import People


@dataclass(frozen=True, slots=True)
class Plant:
    """The doors behind the API."""

    watch: Watch
    desk: OrderDesk
    clock: Clock
    token: str
    """Of the person called `routes.ISSUED_BY`."""
    counters: Mapping[str, IngestCounters]
    """What ingest counted, by protocol."""
    sessions: Mapping[str, SessionCounters]
    """What adapters that keep sessions counted, by protocol."""

    damage: Callable[[], Sequence[str]]
    """Returns what was found damaged in the journal since it was opened (`Journal.damage`)."""
    quarantine: QuarantineDesk | None = None
    """None where this process keeps none."""
    history: HistoryDesk | None = None
    """None where there is no long record here."""
    energy: EnergyDesk | None = None
    """The same."""
    envelopes: EnvelopeDesk | None = None
    directory: Directory | None = None
    persons: Mapping[str, str] = field(default_factory=dict)
    """Tokens of further persons, by name."""
    people: People = field(default_factory=People)
    """Those who have tokens in the registry."""
    fleets: Callable[[], Mapping[int, Fleet]] = dict
    """The live picture of each partition this process keeps: to read at once, and let go."""

    sources: Sources = field(default_factory=Sources)
    """What else status and metrics are drawn from."""
    watchman: Watchman = field(default_factory=Watchman)

    def health(self) -> Health:
        """Say how the plant is now, and since when."""
        now_ns, flush_s = self.clock.now_ns(), nan
        if self.sources.journal is not None:
            fsync = self.sources.journal().timings.fsync_s
            flush_s = self.watchman.flush_s(now_ns, fsync.count, fsync.sum_s)
        health = judge(self.view, now_ns, self.sources, self.damage(), flush_s)
        return self.watchman.step(health, now_ns)

    @property
    def view(self) -> PlantView:
        """The plant now."""
        return self.watch.view
