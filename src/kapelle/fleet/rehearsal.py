"""What the entries of a topic make, played again from a snapshot: for those who check a journal."""

from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.snapshots import (
    digest,
    digest_view,
    fold_mark,
    from_snapshot,
    mark_of,
    view_from_snapshot,
)
from kapelle.model.entries import Entry
from kapelle.ports import Snapshot


class PartitionRehearsal:
    """A partition's fleet, as its owner would make it."""

    def __init__(self, partition: int, partitions: int, settings: FleetSettings) -> None:
        self.fleet = Fleet.empty(partition, partitions)
        self._settings = settings

    def begin(self, snapshot: Snapshot | None) -> None:
        """Begin at a snapshot, or at nothing. Raises JournalDamaged."""
        if snapshot is None:
            self.fleet = Fleet.empty(self.fleet.partition, self.fleet.partitions)
        else:
            self.fleet = from_snapshot(snapshot)

    def apply(self, entry: Entry) -> None:
        """Apply the next entry."""
        apply_entry(self.fleet, entry, self._settings)

    def digest(self) -> str:
        """Return a fingerprint of the state."""
        return digest(self.fleet)

    def made_alike(self, snapshot: Snapshot) -> bool:
        """Tell whether a snapshot was made with these settings, by this version."""
        return mark_of(snapshot) == fold_mark(self._settings)


class PlantRehearsal:
    """The plant's own topic, as dispatch and the API take it up."""

    def __init__(self, partitions: int) -> None:
        self.view = PlantView(partitions)

    def begin(self, snapshot: Snapshot | None) -> None:
        """Begin at a snapshot, or at nothing. Raises JournalDamaged."""
        if snapshot is None:
            self.view = PlantView(self.view.partitions)
        else:
            self.view = view_from_snapshot(snapshot, self.view.partitions)

    def apply(self, entry: Entry) -> None:
        """Apply the next entry."""
        apply_plant(self.view, entry)

    def digest(self) -> str:
        """Return a fingerprint of orders, holds and notices."""
        return digest_view(self.view)

    def made_alike(self, snapshot: Snapshot) -> bool:
        """Tell whether a snapshot was made by this version."""
        return mark_of(snapshot) == fold_mark(None)
