"""What the ledger reads of the record: readings, what it has said itself, and registers."""

import pyarrow as pa

from kapelle.fleet.metering.accounts import Meters
from kapelle.history.energy import (
    LEDGERED,
    REPORTED,
    Grid,
    Reported,
    ledgered,
    meters_of,
    newest,
)
from kapelle.history.settings import LATE_DAYS
from kapelle.history.store import Store
from kapelle.history.tables import DAY_NS, QUARTER_NS
from kapelle.model.ids import Ints

_FEW = 1000


class LedgerReads:
    """Reads one partition at a time; keeps only what is enrolled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._meters: dict[int, tuple[tuple[int, ...], Meters]] = {}

    def rows(
        self, partition: int, device_no: Ints | None, starts_ns: int, ends_ns: int
    ) -> pa.Table:
        """Return readings of some devices or all, as they came."""
        return self._store.scan(
            "readings", partition, starts_ns, ends_ns, device_nos=device_no, columns=REPORTED
        )

    def reported(self, partition: int, device_no: Ints, starts_ns: int, ends_ns: int) -> Reported:
        """Return readings of some devices, each report once."""
        return Reported.of(self.rows(partition, device_no, starts_ns, ends_ns))

    def has_readings(self, partition: int, starts_ns: int, ends_ns: int) -> bool:
        """Tell whether there may be any; cheap."""
        return self._store.catalog.holds("readings", partition, starts_ns, ends_ns)

    def ledgered(self, partition: int, device_no: Ints, starts_at_ns: int, ends_at_ns: int) -> Grid:
        """Return what the ledger says of some devices."""
        # Whoever is left out costs more than whoever is read in vain.
        few = device_no if len(device_no) <= _FEW else None
        rows = self._store.scan(
            "energy", partition, starts_at_ns, ends_at_ns, device_nos=few, columns=LEDGERED
        )
        return ledgered(device_no, starts_at_ns, ends_at_ns, rows)

    def first_ns(self, partition: int, through_ns: int) -> int:
        """Return the edge before the first reading of a partition; 0 where there is none yet."""
        files = self._store.catalog.files("readings", partition, None, through_ns)
        if not files:
            return 0
        earliest_ns = min(file.first_ns for file in files)
        return max(earliest_ns, through_ns - LATE_DAYS * DAY_NS) // QUARTER_NS * QUARTER_NS

    def meters_of(self, partition: int, device_no: Ints) -> Meters:
        """Return the registers of some devices as they were last enrolled."""
        files = tuple(file.file_no for file in self._store.catalog.files("devices", partition))
        known = self._meters.get(partition)
        if known is None or known[0] != files:
            known = files, newest(self._store.read("devices", partition))
            self._meters[partition] = known
        return meters_of(known[1], device_no)
