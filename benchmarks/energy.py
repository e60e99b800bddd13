"""How fast registers become energy: a quarter-hour of a million devices into whole numbers."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from kapelle.fleet.columns import Fleet
from kapelle.fleet.metering.accounts import Meters, account
from kapelle.fleet.metering.arrange import arrange
from kapelle.fleet.metering.intervals import intervals
from kapelle.fleet.metering.live import step_energy
from kapelle.history.ledger import Ledger
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Rows, Store
from kapelle.history.tables import TABLES
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S

T0 = 1_700_000_100 // 900 * 900 * NS_PER_S
EVERY_S = 60
QUARTER_S = 900
LOOK_BACK = 2
"""Quarter-hours the ledger reads again beside the one it closes."""
PARTITIONS = 8
FLUSH_S = 30
WATERMARK_S = 120
Row = dict[str, object]


def run(quick: bool) -> list[Row]:
    """Return the numbers; `quick` takes a tenth of the devices."""
    devices = 100_000 if quick else 1_000_000
    computed = [_closing(devices, 0.0), _closing(devices, 0.01), _tick(devices)]
    return [*computed, _ledger(20_000 if quick else 100_000)]


def _best_s(call: Callable[[], object], times: int) -> float:
    best = np.inf
    for _ in range(times):
        began = time.thread_time()
        call()
        best = min(best, time.thread_time() - began)
    return float(best)


def _closing(devices: int, odd_share: float) -> Row:
    """Measure one partition, as the ledger works through them one after the other."""
    draw = np.random.default_rng(1)
    count = devices // PARTITIONS
    reports = (LOOK_BACK + 1) * QUARTER_S // EVERY_S + 2
    device_no = np.repeat(np.arange(count, dtype=np.int32), reports)
    at_ns = T0 + np.tile(np.arange(reports) * EVERY_S * NS_PER_S, count)
    risen_wh = draw.integers(0, 80, (count, reports)).cumsum(axis=1)
    register_wh = (risen_wh + draw.integers(0, 10_000_000, (count, 1))).astype(np.float64)
    odd = draw.random(count) < odd_share
    register_wh[odd, draw.integers(1, reports, int(odd.sum()))] = 0.0
    order = at_ns
    # As they come: by time, all devices in turn.
    mixed = np.argsort(at_ns, kind="stable")
    columns = [a[mixed] for a in (device_no, order, at_ns, register_wh.reshape(-1))]
    quality = np.zeros(len(at_ns), np.uint8)
    meters = Meters(
        np.arange(count, dtype=np.int32),
        np.full(count, 5000.0),
        np.zeros(count),
        np.ones(count),
    )
    edges_ns = T0 + np.arange(1, LOOK_BACK + 2) * QUARTER_S * NS_PER_S

    def settle() -> None:
        places = arrange(columns[0], columns[1], columns[2], columns[2], quality)
        device, number, time_ns, wh = (column[places] for column in columns)
        intervals(account(device, number, time_ns, wh, meters), edges_ns)

    def summed() -> None:
        np.add.at(np.zeros(count), columns[0], columns[3])

    rows = len(at_ns)
    took_s, peer_s = _best_s(settle, 3), _best_s(summed, 3)
    what = f", {odd_share:.0%} of them with a spike" if odd_share else ""
    return {
        "name": f"close a quarter-hour of {devices:,} devices, read every {EVERY_S} s{what}",
        "value": rows / took_s,
        "unit": "readings/s",
        "ratio": peer_s / took_s,
        "peer": "NumPy adding the registers up by device",
        "note": f"{took_s * PARTITIONS:.1f} s of computing for the whole fleet, look-back included",
    }


def _tick(devices: int) -> Row:
    draw = np.random.default_rng(1)
    fleet = Fleet.empty(capacity=devices)
    fleet.reserve(devices)
    fleet.nameplate_up_w[:devices] = 5000.0
    fleet.meter_resolution_wh[:devices] = 1.0
    fleet.value[Metric.EXPORT_WH, :devices] = draw.uniform(0, 1e6, devices)
    fleet.measured_at_ns[Metric.EXPORT_WH, :devices] = T0
    step_energy(fleet)
    second = 0

    def tick() -> None:
        nonlocal second
        second += 1
        some = slice(second % EVERY_S, devices, EVERY_S)
        fleet.value[Metric.EXPORT_WH, some] += 5.0
        fleet.measured_at_ns[Metric.EXPORT_WH, some] = T0 + second * 60 * NS_PER_S
        step_energy(fleet)

    took_s = _best_s(tick, 20)
    aim_ms = 10.0 * devices / 1e6
    return {
        "name": f"registers at a tick of {devices:,} devices, a {EVERY_S}th of them new",
        "value": took_s * 1e3,
        "unit": "ms",
        "ratio": aim_ms / (took_s * 1e3),
        "peer": f"aim {aim_ms:g} ms",
        "note": "40 bytes a device that has registers, none for others",
    }


def _ledger(devices: int) -> Row:
    """Measure the ledger on a record as the recorder leaves it: a flush every 30 s."""
    took = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("KAPELLE_BENCH_DIR", ".")) as name:
        store = Store(Path(name), HistorySettings())
        ledger = Ledger(store, PARTITIONS)
        for flush in range(3 * QUARTER_S // FLUSH_S + WATERMARK_S // FLUSH_S):
            rows = _flush(devices, flush * FLUSH_S)
            now_ns = T0 + (flush + 1) * FLUSH_S * NS_PER_S
            store.commit(rows, now_ns=now_ns, states=ledger.note(rows))
            began, made = time.perf_counter(), ledger.work(now_ns)
            if made >= 2 * devices:
                took.append(time.perf_counter() - began)
        store.close()
    aim_s = 10.0 * devices / 100_000
    return {
        "name": f"ledger: close a quarter-hour of {devices:,} devices from the record's files",
        "value": min(took),
        "unit": "s",
        "ratio": aim_s / min(took),
        "peer": f"aim {aim_s:g} s",
        "note": f"read every {EVERY_S} s, flushed every {FLUSH_S} s, {PARTITIONS} partitions",
    }


def _flush(devices: int, starts_s: int) -> list[Rows]:
    schema, number = TABLES["readings"].schema, np.arange(devices, dtype=np.int32)
    phase_s = number * 7919 % EVERY_S
    number = number[(phase_s - starts_s) % EVERY_S < FLUSH_S]
    within_s = (number * 7919 % EVERY_S - starts_s) % EVERY_S
    at_ns = T0 + (starts_s + within_s.astype(np.int64)) * NS_PER_S
    known = {
        "device_no": number,
        "order": at_ns,
        "measured_at_ns": at_ns,
        "received_at_ns": at_ns + 200_000_000,
        "quality": np.zeros(len(number), np.uint8),
        "power_w": np.full(len(number), 3000.0),
        "export_wh": np.rint(number * 13.0 + starts_s * 50 / 60),
    }
    rows = pa.table(
        [
            pa.array(known[field.name])
            if field.name in known
            else pa.nulls(len(number), field.type)
            for field in schema
        ],
        schema=schema,
    )
    return [
        Rows("readings", p, rows.filter(pa.array(number % PARTITIONS == p)))
        for p in range(PARTITIONS)
    ]
