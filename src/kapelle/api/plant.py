"""What the routes work on, joined by `server.build`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kapelle.api.desk import OrderDesk
from kapelle.api.history_desk import HistoryDesk
from kapelle.api.metrics import IngestCounters, SessionCounters
from kapelle.api.quarantine_desk import QuarantineDesk
from kapelle.api.watch import Watch
from kapelle.fleet.plant import PlantView
from kapelle.ports import Clock


@dataclass(frozen=True, slots=True)
class Plant:
    """The doors behind the API."""

    watch: Watch
    desk: OrderDesk
    clock: Clock
    token: str
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

    @property
    def view(self) -> PlantView:
        """The plant now."""
        return self.watch.view
