"""Ingest end to end over the journal in memory: everything that comes in is accounted for."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np
import pytest

from kapelle.errors import JournalFailed, JournalFull, LinkLost
from kapelle.ingest.service import Ingest
from kapelle.ingest.settings import IngestSettings
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Acks, Commands, Quarantined, Readings, Sessions
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S, DeviceId, DeviceNo, Flags, Floats, Ints
from kapelle.ports import Batch
from kapelle.runtime.clock import SystemClock

NOW = 1_790_000_000 * NS_PER_S


class FixedDirectory:
    """Devices 0..n-1, each 5 kW both ways."""

    def __init__(self, devices: int, partitions: int) -> None:
        self.partitions = partitions
        self.version = 0
        self.devices = devices

    def resolve(self, names: Sequence[str]) -> Ints:
        return np.array(
            [int(n[1:]) if n[1:].isdigit() and int(n[1:]) < self.devices else -1 for n in names],
            np.int32,
        )

    def name(self, device_no: int) -> DeviceId:
        return DeviceId(f"d{device_no}")

    def authenticate(self, name: str, secret: str) -> DeviceNo | None:
        return None

    def generation(self, device_no: Ints) -> Ints:
        return np.zeros(len(device_no), np.int32)

    def nameplate(self, device_no: Ints) -> tuple[Floats, Floats]:
        known = (device_no >= 0) & (device_no < self.devices)
        watts = np.where(known, 5_000.0, np.nan)
        return watts, watts


class ListLink:
    """Yields batches, then ends or is lost; remembers what it was told."""

    def __init__(self, batches: Sequence[Batch], lost: bool = False) -> None:
        self.batches = batches
        self.lost = lost
        self.confirmed: list[tuple[Batch, dict[int, str]]] = []
        self.declined: list[tuple[Batch, str]] = []

    async def receive(self) -> AsyncIterator[Batch]:
        for batch in self.batches:
            yield batch
            await asyncio.sleep(0)
        if self.lost:
            raise LinkLost("test", "cable cut")

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        self.confirmed.append((batch, dict(refused)))

    def decline(self, batch: Batch, reason: str) -> None:
        self.declined.append((batch, reason))

    async def send(self, commands: Commands) -> Flags:
        return np.zeros(len(commands), np.bool_)


def some_readings(device_no: Sequence[int], power_w: Sequence[float]) -> Readings:
    count = len(device_no)
    return Readings(
        device_no=np.array(device_no, np.int32),
        order=np.arange(1, count + 1, dtype=np.int64),
        measured_at_ns=np.full(count, NOW, np.int64),
        received_at_ns=np.full(count, NOW, np.int64),
        quality=np.zeros(count, np.uint8),
        values={Metric.POWER_W: np.array(power_w, np.float64)},
    )


def run(journal: MemoryJournal, link: ListLink, partitions: int = 2, **settings: float) -> Ingest:
    ingest = Ingest(
        journal=journal,
        directory=FixedDirectory(10, partitions),
        clock=SystemClock(),
        settings=IngestSettings(**settings),  # type: ignore[arg-type]  # settings by name
    )
    asyncio.run(ingest.run(link))
    return ingest


def stored(journal: MemoryJournal, partitions: int = 2) -> list[object]:
    async def read() -> list[object]:
        return [
            entry.body
            for k in range(partitions)
            for entry in await journal.read(f"p/{k}", 0, 1_000)
        ]

    return asyncio.run(read())


def test_good_rows_are_stored_bad_ones_quarantined_and_both_confirmed() -> None:
    journal = MemoryJournal(SystemClock())
    batch = Batch(
        readings=some_readings([0, 1, -1, 3], [100.0, 5e6, 1.0, -200.0]),
        raw=lambda row: f"row {row}".encode(),
        source="test",
    )
    link = ListLink([batch])
    ingest = run(journal, link)
    ((_, refused),) = link.confirmed
    assert {row: reason.partition(":")[0] for row, reason in refused.items()} == {
        1: "power-unit",
        2: "device-unknown",
    }
    bodies = stored(journal)
    kept = {n for b in bodies if isinstance(b, Readings) for n in b.device_no.tolist()}
    raw = {r for b in bodies if isinstance(b, Quarantined) for r in b.raw}
    assert kept == {0, 3}
    assert raw == {b"row 1", b"row 2"}
    assert ingest.counters.accepted == 2
    assert ingest.counters.quarantined == {"power-unit": 1, "device-unknown": 1}


def test_acks_and_sessions_go_to_their_partitions() -> None:
    journal = MemoryJournal(SystemClock())
    nos = np.array([4, 5], np.int32)
    longs = np.array([1, 2], np.int64)
    batch = Batch(
        acks=Acks(nos, longs, longs, np.ones(2, np.uint8), longs, (b"", b"")),
        sessions=Sessions(nos, np.ones(2, np.uint8), longs, longs),
    )
    link = ListLink([batch])
    run(journal, link)
    bodies = stored(journal)
    for kind in (Acks, Sessions):
        assert [b.device_no.tolist() for b in bodies if isinstance(b, kind)] == [[4], [5]]
    assert len(link.confirmed) == 1


def test_full_journal_declines_and_later_accepts() -> None:
    journal = MemoryJournal(SystemClock())
    journal.refusing = JournalFull("no space")
    link = ListLink([Batch(readings=some_readings([0], [1.0]))])
    ingest = run(journal, link)
    assert link.confirmed == []
    assert [reason for _, reason in link.declined] == ["no space"]
    assert ingest.counters.declined == 1
    journal.refusing = None
    link = ListLink([Batch(readings=some_readings([0], [1.0]))])
    run(journal, link)
    assert len(link.confirmed) == 1


def test_a_full_journal_is_said_once_and_once_that_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "kapelle.ingest")
    journal = MemoryJournal(SystemClock())
    ingest = run(journal, ListLink([]))

    def offer(*batches: Batch) -> list[str]:
        caplog.clear()
        asyncio.run(ingest.run(ListLink(batches)))
        return [record.message for record in caplog.records]

    def readings() -> Batch:
        return Batch(readings=some_readings([0], [1.0]))

    journal.refusing = JournalFull("no space")
    assert offer(readings()) == ["journal full, batches declined"]
    assert offer(readings()) == []
    journal.refusing = None
    # Nothing to write tells nothing about the space there is.
    assert offer(Batch()) == []
    assert offer(readings()) == ["journal takes batches again"]
    assert offer(readings()) == []
    journal.refusing = JournalFull("no space")
    assert offer(readings()) == ["journal full, batches declined"]


def test_failed_journal_ends_it_unconfirmed() -> None:
    journal = MemoryJournal(SystemClock())
    journal.refusing = JournalFailed("fsync: EIO")
    link = ListLink([Batch(readings=some_readings([0, 1], [1.0, 2.0]))])
    with pytest.raises(JournalFailed):
        run(journal, link)
    assert link.confirmed == []


def test_lost_link_leaves_as_link_lost() -> None:
    link = ListLink([Batch(readings=some_readings([0], [1.0]))], lost=True)
    with pytest.raises(LinkLost):
        run(MemoryJournal(SystemClock()), link)


def test_every_batch_is_confirmed_with_its_own_rows() -> None:
    batches = [
        Batch(readings=some_readings([n % 10, 1], [1.0, 9e9 if n % 3 == 0 else 2.0]))
        for n in range(30)
    ]
    link = ListLink(batches)
    journal = MemoryJournal(SystemClock())
    run(journal, link, bad_per_minute=1_000)
    assert [batch for batch, _ in link.confirmed] == batches
    assert [sorted(refused) for _, refused in link.confirmed] == [
        [1] if n % 3 == 0 else [] for n in range(30)
    ]
    bodies = stored(journal)
    rows = sum(len(b) for b in bodies if isinstance(b, Readings | Quarantined))
    assert rows == 60


def test_poison_at_one_percent_stalls_nobody_and_is_accounted_for() -> None:
    draw = np.random.default_rng(7)
    batches, bad = [], 0
    for _ in range(50):
        device_no = draw.integers(0, 10, 200)
        power = draw.uniform(-5_000, 5_000, 200)
        poison = draw.random(200) < 0.01
        bad += int(poison.sum())
        power[poison] = draw.choice([np.inf, 1e308, -9e9], int(poison.sum()))
        batches.append(Batch(readings=some_readings(device_no.tolist(), power.tolist())))
    link = ListLink(batches)
    journal = MemoryJournal(SystemClock())
    ingest = run(journal, link, bad_per_minute=5)
    counters = ingest.counters
    assert len(link.confirmed) == 50
    assert counters.accepted == 10_000 - bad
    assert sum(counters.quarantined.values()) + counters.muted == bad
    assert counters.muted > 0
    bodies = stored(journal)
    assert sum(len(b) for b in bodies if isinstance(b, Readings)) == counters.accepted
