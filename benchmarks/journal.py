"""How many readings a second are durable in the SQLite journal, beside what the disk allows.

Every row is measured in rounds that alternate with its two limits: the same bytes appended to a
plain file with one fdatasync per group, and inserted into a plain SQLite table with one
transaction per group. A group is one block of each concurrent writer.
"""

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import uvloop

from kapelle.journal.codec import decode, encode
from kapelle.journal.damage import Damage
from kapelle.journal.memory import MemoryJournal
from kapelle.journal.settings import JournalSettings
from kapelle.journal.snapshots import SnapshotFiles
from kapelle.journal.sqlite import SqliteJournal, durability, open_journal
from kapelle.model.blocks import Readings
from kapelle.model.entries import Kind
from kapelle.model.enums import Metric
from kapelle.ports import Snapshot
from kapelle.runtime.clock import SystemClock

ROUNDS = 3
TOPICS = 8
DEVICE_BYTES = 430


def run(quick: bool) -> list[dict[str, object]]:
    """Measure and return the results, one dictionary each."""
    seconds = 0.3 if quick else 1.0
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("KAPELLE_BENCH_DIR", ".")) as name:
        directory = Path(name)
        disk = durability(directory).text.removeprefix(f"{directory} is ")
        for rows in (100, 1000):
            for writers in (1, 8, 64):
                results += _durable(directory, rows, writers, seconds, disk)
        results += _snapshots(directory, 100_000 if quick else 1_000_000)
    results += _codec()
    results += _memory(2_000 if quick else 20_000)
    return results


def _result(
    name: str, value: float, unit: str, ratio: float | None = None, peer: str = "", note: str = ""
) -> dict[str, object]:
    found: dict[str, object] = {"name": name, "value": value, "unit": unit, "ratio": ratio}
    return found | {"peer": peer, "note": note}


def _block(rows: int) -> Readings:
    draw = np.random.default_rng(1)
    times = np.arange(rows, dtype=np.int64) + 1_700_000_000_000_000_000
    return Readings(
        device_no=draw.integers(0, 100_000, rows, dtype=np.int32),
        order=times,
        measured_at_ns=times,
        received_at_ns=times,
        quality=np.zeros(rows, np.uint8),
        values={Metric.POWER_W: draw.normal(0, 5000, rows), Metric.SOC: draw.random(rows)},
    )


def _durable(
    directory: Path, rows: int, writers: int, seconds: float, disk: str
) -> list[dict[str, object]]:
    block = _block(rows)
    encoded = encode(block)
    measured: dict[str, list[float]] = {"journal": [], "file": [], "sqlite": []}
    waits: list[float] = []
    for turn in range(ROUNDS):
        own = directory / f"{rows}-{writers}-{turn}"
        rate, waited = uvloop.run(_journal_rate(own, block, writers, seconds))
        waits += waited
        measured["journal"].append(rate)
        measured["file"].append(_file_rate(own / "plain", encoded, writers, seconds))
        measured["sqlite"].append(_sqlite_rate(own / "plain.sqlite", encoded, writers, seconds))
        for file in own.iterdir():
            if file.is_file():
                file.unlink()
    rate, file_rate, sqlite_rate = (median(measured[key]) for key in ("journal", "file", "sqlite"))
    name = f"journal sqlite, {rows} readings a block, {writers} writers"
    waits.sort()
    p50, p99 = (waits[int(len(waits) * part)] * 1e3 for part in (0.5, 0.99))
    note = f"append takes {p50:.2f} ms, p99 {p99:.2f} ms; {disk}"
    file_peer, sqlite_peer = "plain file, fdatasync per group", "plain SQLite table, same groups"
    return [
        _result(name, rate, "blocks/s", rate / file_rate, file_peer, note),
        _result(name, rate * rows, "readings/s", rate / sqlite_rate, sqlite_peer, note),
        _result(f"limit: {file_peer}, {rows} × {writers}", file_rate, "blocks/s"),
        _result(f"limit: {sqlite_peer}, {rows} × {writers}", sqlite_rate, "blocks/s"),
    ]


async def _journal_rate(
    directory: Path, block: Readings, writers: int, seconds: float
) -> tuple[float, list[float]]:
    waits: list[float] = []

    async def write(journal: SqliteJournal, topic: str, until: float) -> None:
        while (started := time.perf_counter()) < until:
            await journal.append(topic, [block], writer="ingest")
            waits.append(time.perf_counter() - started)

    async with open_journal(JournalSettings(directory, reserve_bytes=0), SystemClock()) as journal:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for n in range(writers):
                tasks.create_task(write(journal, f"p/{n % TOPICS}", started + seconds))
        took = time.perf_counter() - started
    return len(waits) / took, waits


def _file_rate(path: Path, encoded: bytes, group: int, seconds: float) -> float:
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        return _rate(lambda: _append(file, encoded, group), group, seconds)
    finally:
        os.close(file)


def _append(file: int, encoded: bytes, group: int) -> None:
    for _ in range(group):
        os.write(file, encoded)
    os.fdatasync(file)


def _sqlite_rate(path: Path, encoded: bytes, group: int, seconds: float) -> float:
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE plain (place INTEGER PRIMARY KEY, body BLOB)")

        def insert() -> None:
            db.execute("BEGIN")
            db.executemany("INSERT INTO plain (body) VALUES (?)", [(encoded,)] * group)
            db.execute("COMMIT")

        rate = _rate(insert, group, seconds)
    db.close()
    return rate


def _rate(work: Callable[[], object], count: int, seconds: float) -> float:
    done, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        work()
        done += count
    return done / took


def _snapshots(directory: Path, devices: int) -> list[dict[str, object]]:
    columns = {f"c{n}": np.arange(devices, dtype=np.float64) for n in range(DEVICE_BYTES // 8)}
    size = sum(column.nbytes for column in columns.values())
    files = SnapshotFiles(directory / "snapshots", Damage())
    started = time.perf_counter()
    files.save("p/0", Snapshot(1, columns, b""))
    saved = time.perf_counter() - started
    started = time.perf_counter()
    found = files.load("p/0")
    loaded = time.perf_counter() - started
    assert found is not None
    started = time.perf_counter()
    with (directory / "plain").open("wb", buffering=0) as file:
        for column in columns.values():
            file.write(column.data)
        os.fsync(file.fileno())
    plain = time.perf_counter() - started
    size_mb = f"{size / 1e6:.0f} MB, {devices} devices × {DEVICE_BYTES} bytes"
    return [
        _result("snapshot, save", saved, "s", saved / plain, "plain write + fsync", size_mb),
        _result("snapshot, load and check", loaded, "s", loaded / plain, "its write", size_mb),
    ]


def _codec() -> list[dict[str, object]]:
    results = []
    for rows in (100, 1000):
        block = _block(rows)
        encoded = encode(block)
        for verb, work in (
            ("encode", lambda block=block: encode(block)),
            ("decode", lambda encoded=encoded: decode(Kind.READINGS, encoded)),
        ):
            cost = 1e6 / _rate(work, 1, 0.2) / rows
            results.append(_result(f"{verb}, {rows} readings a block", cost, "µs/reading"))
    return results


def _memory(count: int) -> list[dict[str, object]]:
    async def work() -> float:
        journal, block = MemoryJournal(SystemClock()), _block(100)
        started = time.perf_counter()
        for _ in range(count):
            await journal.append("p/0", [block], writer="ingest")
        return count / (time.perf_counter() - started)

    return [_result("journal memory, 100 readings a block", uvloop.run(work()), "blocks/s")]


if __name__ == "__main__":
    for result in run("--quick" in sys.argv):
        print(json.dumps(result, ensure_ascii=False))
