"""Where merges fail for long, what was made of them before stays, and so do loose rows."""

import errno
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from tests.history.test_merging import MIDNIGHT_NS, Report, rows_of

from kapelle.history.compaction import Merge, due
from kapelle.history.files import Files
from kapelle.history.postponed import Postponed
from kapelle.history.reader import Reader
from kapelle.history.retention import expire
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Store
from kapelle.history.tables import DAY_NS, HOUR_NS, MINUTE_NS

SETTINGS = HistorySettings(grace_s=0.0)
PER_HOUR = HOUR_NS // (20 * 10**9)


class Keeper:
    """Tidies a record up as the recorder does."""

    def __init__(self, directory: Path, files: Files | None = None) -> None:
        self.store = Store(directory, SETTINGS, files or Files())
        self.postponed = Postponed()

    def tidy(self, now_ns: int) -> int:
        """Return how many files went."""
        jobs = due(self.store.catalog.unmerged(), now_ns, SETTINGS)
        for job in self.postponed.due(jobs, now_ns):
            merge = Merge(self.store, job, now_ns)
            try:
                while merge.step():
                    pass
            except (OSError, pa.ArrowException) as error:
                self.postponed.failed(job, str(error), now_ns)
                self.store.recover()
                continue
            self.postponed.done(job)
        return expire(self.store, now_ns, self.postponed.hopeless(now_ns))

    def rows(self, table: str) -> int:
        return sum(file.rows for file in self.store.catalog.files(table))


def hour(number: int) -> list[Report]:
    return [Report(1, number * PER_HOUR + minute * 3, 7.0) for minute in range(60)]


@pytest.mark.parametrize("harmed", [0, 10, 23])
def test_a_day_with_a_harmed_hour_keeps_its_tiers_when_its_raw_hours_go(
    tmp_path: Path, harmed: int
) -> None:
    keeper = Keeper(tmp_path)
    for number in range(24):
        ends_ns = MIDNIGHT_NS + (number + 1) * HOUR_NS
        keeper.store.commit([rows_of(hour(number), ends_ns)], now_ns=ends_ns)
        keeper.tidy(ends_ns + 150 * 10**9)
    assert keeper.rows("minutes") == 24 * 60
    file = keeper.store.catalog.files("readings")[harmed]
    path = tmp_path / file.path
    path.write_bytes(path.read_bytes()[:-20])
    now_ns = MIDNIGHT_NS + DAY_NS
    while now_ns < MIDNIGHT_NS + (SETTINGS.raw_days + 2) * DAY_NS:
        now_ns += 2 * HOUR_NS
        keeper.tidy(now_ns)
        assert keeper.rows("minutes") == 24 * 60
    assert keeper.rows("readings") == 0, "kept as long as any other, and no longer"


class Full(Files):
    """A disk that is full for a while."""

    is_full = True

    def open(self, path: Path, schema: pa.Schema, **options: object) -> object:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().open(path, schema, **options)


def test_rows_that_were_left_loose_for_months_outlast_a_full_disk(tmp_path: Path) -> None:
    before = Keeper(tmp_path)
    before.store.commit([rows_of(hour(0), MIDNIGHT_NS + HOUR_NS)], now_ns=MIDNIGHT_NS + HOUR_NS)
    before.store.close()
    disk = Full()
    keeper = Keeper(tmp_path, disk)
    now_ns = MIDNIGHT_NS + (SETTINGS.raw_days + 1) * DAY_NS
    assert keeper.tidy(now_ns) == 0
    disk.is_full = False
    keeper.tidy(now_ns + 5 * MINUTE_NS)
    assert keeper.rows("minutes") == 60


def test_a_reader_kept_open_over_a_restore_reads_what_was_restored(tmp_path: Path) -> None:
    place, backup = tmp_path / "history", tmp_path / "backup"

    def write(reports: list[Report], hours: int) -> None:
        store = Store(place, SETTINGS)
        ends_ns = MIDNIGHT_NS + hours * HOUR_NS
        store.commit([rows_of(reports, ends_ns)], now_ns=ends_ns)
        store.close()

    def told(reader: Reader) -> list[int]:
        ends_ns = MIDNIGHT_NS + 3 * HOUR_NS
        return [len(reader.device(device, MIDNIGHT_NS, ends_ns, "raw")) for device in (0, 1, 2)]

    write(hour(0), 1)
    shutil.copytree(place, backup)
    write(hour(1), 2)
    kept = Reader(place)
    assert told(kept) == [0, 120, 0]
    place.rename(tmp_path / "lost")
    backup.rename(place)
    write([Report(2, PER_HOUR + minute, 1.0) for minute in range(30)], 2)
    assert told(kept) == told(Reader(place)) == [0, 60, 30]
