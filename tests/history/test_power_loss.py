"""The power goes at any step on disk: afterwards the record holds what it has committed, once."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.history.conftest import START_NS, stored

from kapelle.history.catalog import Catalog
from kapelle.history.compaction import Merge, due
from kapelle.history.files import Files
from kapelle.history.reader import Reader
from kapelle.history.retention import expire, sweep
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Rows, Store
from kapelle.history.tables import DAY_NS, HOUR_NS, TABLES
from kapelle.model.ids import NS_PER_S

SETTINGS = HistorySettings(compact_files=2, late_s=0.0, grace_s=60.0)


class PowerCut(BaseException):
    """Nothing after this happens."""


class FailingFiles(Files):
    """Counts the steps on disk, cuts the power at one of them, and loses what was not durable."""

    def __init__(self, cut_at: int) -> None:
        self.steps = 0
        self._cut_at = cut_at
        self._named: dict[Path, list[tuple[Path, Path]]] = {}
        """Renames that are not durable, by directory."""
        self._unfinished: list[Path] = []

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._cut_at:
            for path in self._unfinished:
                # Of what was not forced to disk some arrives and some does not.
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            for draft, final in itertools.chain.from_iterable(self._named.values()):
                if final.exists():
                    final.rename(draft)
            raise PowerCut

    def open(self, path: Path, schema: pa.Schema, **options: object) -> pq.ParquetWriter:
        self.step()
        self._unfinished.append(path)
        return super().open(path, schema, **options)

    def write(self, writer: pq.ParquetWriter, rows: pa.Table) -> None:
        self.step()
        super().write(writer, rows)

    def finish(self, writer: pq.ParquetWriter, path: Path) -> int:
        writer.close()
        self.step()
        self._unfinished.remove(path)
        size = path.stat().st_size
        self.step()
        return size

    def rename(self, draft: Path, final: Path) -> None:
        self.step()
        super().rename(draft, final)
        self._named.setdefault(final.parent, []).append((draft, final))

    def sync(self, directory: Path) -> None:
        self.step()
        self._named.pop(directory, None)

    def make(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)

    def remove(self, path: Path) -> None:
        self.step()
        super().remove(path)


class FailingCatalog(Catalog):
    """Cuts the power before and after what it commits."""

    files_: FailingFiles

    def commit(self, *args, **more) -> None:
        self.files_.step()
        super().commit(*args, **more)
        self.files_.step()

    def forget(self, numbers) -> None:
        self.files_.step()
        super().forget(numbers)
        self.files_.step()


FLUSHES: list[tuple[int, list[tuple[int, int]]]] = [
    # (hours since the start, [(device, second of its time)])
    (0, [(1, 0), (2, 0), (1, 10)]),
    (0, [(1, 20), (1, 0)]),  # the first one again
    (2, [(2, 7200), (1, 30)]),  # the hour before is over, and has a late row
    (30, [(1, 108_000), (2, 0), (3, 5)]),  # a day is over; late, and again
    (31, [(3, 111_600)]),
]
ROWS = {(d, START_NS + s * NS_PER_S) for _, rows in FLUSHES for d, s in rows}


def play(directory: Path, files: FailingFiles) -> None:
    """Go on from where the catalog stands to the end, as the recorder does."""
    store = Store(directory, SETTINGS, files)
    store.catalog.__class__ = FailingCatalog
    store.catalog.files_ = files
    store.catalog._db.execute("PRAGMA synchronous = OFF")  # the cuts are ours
    try:
        store.recover()
        done = store.catalog.positions().get("p/0", 0)
        for position, (hours, rows) in enumerate(FLUSHES, start=1):
            now_ns = START_NS + hours * HOUR_NS
            if position > done:
                part = Rows("readings", 0, table_of(rows, now_ns))
                store.commit([part], now_ns=now_ns, positions={"p/0": position})
            for job in due(store.catalog.unmerged(), now_ns, SETTINGS):
                merge = Merge(store, job, now_ns, chunk_rows=2)
                while merge.step():
                    pass
            expire(store, now_ns)
            sweep(store, now_ns)
        sweep(store, START_NS + 10 * DAY_NS)
    finally:
        store.close()


def table_of(rows: list[tuple[int, int]], now_ns: int) -> pa.Table:
    times = [START_NS + second * NS_PER_S for _, second in rows]
    columns: dict[str, list[object]] = {
        "device_no": [device for device, _ in rows],
        "order": list(times),
        "measured_at_ns": list(times),
        "received_at_ns": [now_ns] * len(rows),
        "quality": [0] * len(rows),
        "power_w": [float(second) for _, second in rows],
    }
    schema = TABLES["readings"].schema
    arrays = [pa.array(columns.get(f.name, [None] * len(rows)), f.type) for f in schema]
    return pa.table(arrays, schema=schema)


def found_in(directory: Path) -> list[tuple[int, int]]:
    store = Store(directory, SETTINGS)
    rows = store.read("readings")
    on_disk = {str(p.relative_to(directory)) for p in directory.glob("*/*/*")}
    assert {file.path for file in store.catalog.files()} <= on_disk
    store.close()
    return list(zip(rows["device_no"].to_pylist(), rows["measured_at_ns"].to_pylist(), strict=True))


def steps() -> int:
    with tempfile.TemporaryDirectory() as name:
        files = FailingFiles(0)
        play(Path(name), files)
        return files.steps


@pytest.mark.parametrize("part", range(4))
def test_the_power_goes_at_every_step(tmp_path: Path, part: int) -> None:
    count = steps()
    assert count > 80
    for cut_at in range(1 + part, count + 1, 4):
        directory = tmp_path / str(cut_at)
        with pytest.raises(PowerCut):
            play(directory, FailingFiles(cut_at))
        # Right after the cut: what was committed is there, once, and can be read.
        between = found_in(directory)
        assert len(set(between)) == len(between)
        assert set(between) <= ROWS
        play(directory, FailingFiles(0))
        assert sorted(found_in(directory)) == sorted(ROWS), f"cut at step {cut_at}"
        catalog = Catalog(directory, read_only=True)
        on_disk = {str(p.relative_to(directory)) for p in directory.glob("*/*/*")}
        assert on_disk == catalog.paths(), f"cut at step {cut_at}"
        catalog.close()
        shutil.rmtree(directory)


def test_every_query_sees_it_so(tmp_path: Path) -> None:
    play(tmp_path, FailingFiles(0))
    assert [(d, at) for d, at, _ in stored(tmp_path)] == sorted(ROWS)
    minutes = Reader(tmp_path).sql("SELECT sum(readings) AS n FROM minutes")
    assert minutes["n"][0].as_py() == len(ROWS)


CHILD = """
import asyncio, sys
from pathlib import Path
from kapelle.history.service import Recorder
from kapelle.history.settings import HistorySettings
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.runtime.clock import SystemClock
from tests.history.conftest import make_readings

async def main(place: Path) -> None:
    clock = SystemClock()
    async with open_journal(JournalSettings(place / "journal", reserve_bytes=0), clock) as journal:
        recorder = Recorder(
            journal=journal, clock=clock, directory=place / "history", partitions=1,
            settings=HistorySettings(
                flush_s=0.02, compact_files=2, late_s=0.0, grace_s=0.0, raw_days=3000,
                minute_days=3000, quarter_days=3000,
            ),
        )
        async def write() -> None:
            print("writing", flush=True)
            while True:
                second = await journal.last("p/0")
                await journal.append(
                    "p/0", [make_readings([(0, float(second), 1.0)])], writer="ingest"
                )
                # A device that repeats itself, out of order.
                await journal.append(
                    "p/0", [make_readings([(0, float(second // 2), 1.0)])], writer="ingest"
                )
        async with asyncio.TaskGroup() as group:
            group.create_task(recorder.run())
            group.create_task(write())

asyncio.run(main(Path(sys.argv[1])))
"""


def killed_after(place: Path, seconds: float) -> None:
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(place)],
        cwd=root,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"writing\n"
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        child.wait(10)


@pytest.mark.integration
def test_killed_again_and_again_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    for seconds in (0.05, 0.2, 0.4, 0.7):
        killed_after(tmp_path, seconds)
    wanted = list(_taken_over(tmp_path))
    found = [at for _, at, _ in stored(tmp_path / "history")]
    assert len(wanted) > 10
    assert found == wanted


def _taken_over(place: Path) -> Iterator[int]:
    """Yield the time of each reading in the journal up to where the record says it is."""
    import asyncio

    from kapelle.journal.settings import JournalSettings
    from kapelle.journal.sqlite import open_journal
    from kapelle.model.blocks import Readings
    from kapelle.runtime.clock import SystemClock

    catalog = Catalog(place / "history", read_only=True)
    through = catalog.positions()["p/0"]
    catalog.close()

    async def read() -> set[int]:
        settings = JournalSettings(place / "journal", reserve_bytes=0)
        async with open_journal(settings, SystemClock()) as journal:
            marked = (await journal.marks("p/0"))["history"]
            assert marked <= through
            entries = await journal.read("p/0", 0, through)
            bodies = [entry.body for entry in entries]
            return {
                int(at)
                for body in bodies
                if isinstance(body, Readings)
                for at in body.measured_at_ns
            }

    yield from sorted(asyncio.run(read()))
