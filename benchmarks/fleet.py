"""How fast the live picture is: readings into columns, the whole tick, restart, and its memory."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import sums
from kapelle.fleet.enrol import apply_enrolled
from kapelle.fleet.estimation.estimate import step_estimate
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.freshness import step_freshness
from kapelle.fleet.readings import apply_readings
from kapelle.fleet.reconciliation.conditions import step_conditions
from kapelle.fleet.reconciliation.standing import step_standing
from kapelle.fleet.reconciliation.verify import step_verification
from kapelle.fleet.service import PartitionOwner
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.snapshots import from_snapshot, to_snapshot
from kapelle.fleet.summary import summarise
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.blocks import Enrolled, Readings
from kapelle.model.entries import Entry, Kind
from kapelle.model.enums import DeviceKind, Metric, Phase
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Tick
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.limits import give_back_memory

T0 = 1_700_000_100 * NS_PER_S
SETTINGS = FleetSettings()
EVERY_S = 60
RARE_S = 20
"""At whole multiples a summary tells all it ever tells; `T0` is one. [s]"""
Row = dict[str, object]


def run(quick: bool) -> list[Row]:
    """Return the numbers; `quick` leaves out the million."""
    devices = 100_000 if quick else 1_000_000
    rows = [
        _readings(devices, count, metrics)
        for count in (10_000, 100_000)
        for metrics in ((Metric.POWER_W,), (Metric.POWER_W, Metric.SOC))
    ]
    rows += [_readings(devices, 10_000, (Metric.POWER_W,), counted) for counted in Counted]
    rows += [_small(500)]
    for size in (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000):
        rows += _aggregate(size)
    return [*rows, _restart(devices), _standstill(devices // 4), _memory(devices)]


class Counted(Enum):
    """How devices that number their reports do it."""

    PERFECTLY = "counted"
    LOSSY = "counted, 1 % lost and 1 % repeated"


def _best_s(
    call: Callable[[], object], times: int, prepare: Callable[[], object] | None = None
) -> float:
    """Return the least time of this core that a call took: what else runs here does not count."""
    best = np.inf
    for _ in range(times):
        if prepare is not None:
            prepare()
        began = time.thread_time()
        call()
        best = min(best, time.thread_time() - began)
    return float(best)


def _enrolled(start: int, stop: int) -> Enrolled:
    count = stop - start
    nothing = (b"",) * count
    nos = np.arange(start, stop, dtype=np.int32)
    return Enrolled(
        device_no=nos,
        active=np.ones(count, np.uint8),
        kind=(nos % 6).astype(np.uint8),
        device_id=nothing,
        site=tuple(b"site-%d" % no for no in range(start, stop)),
        vendor=tuple(b"maker-%d" % (no % 8) for no in range(start, stop)),
        model=nothing,
        zone=nothing,
        feeder=tuple(b"feeder-%d" % (no // 200) for no in range(start, stop)),
        provider=nothing,
        adapter=nothing,
        address=nothing,
        nameplate_up_w=np.full(count, 5000.0),
        nameplate_down_w=np.full(count, 5000.0),
        energy_wh=np.where(nos % 6 == DeviceKind.BATTERY, 10_000.0, np.nan),
        reserve_soc=np.full(count, 0.1),
        ramp_w_per_s=np.full(count, np.nan),
        revert_s=np.full(count, 120.0),
        report_every_s=np.full(count, float(EVERY_S)),
    )


def _report(nos: np.ndarray, at_ns: np.ndarray, draw: np.random.Generator, *metrics: Metric):
    values = {metric: draw.normal(0.0, 1000.0, len(nos)) for metric in metrics}
    if Metric.SOC in values:
        values[Metric.SOC] = draw.random(len(nos))
    quality = np.zeros(len(nos), np.uint8)
    return Readings(nos.astype(np.int32), at_ns, at_ns, at_ns + NS_PER_S // 10, quality, values)


def _fleet(devices: int, draw: np.random.Generator) -> Fleet:
    """Return a fleet that has reported, a tenth of it long ago, all of it under command."""
    fleet = Fleet.empty()
    for start in range(0, devices, 50_000):
        apply_enrolled(fleet, _enrolled(start, min(start + 50_000, devices)))
    at_ns = T0 - draw.integers(0, EVERY_S * NS_PER_S, devices)
    at_ns[draw.random(devices) < 0.1] -= 1000 * NS_PER_S
    metrics = (Metric.POWER_W, Metric.SOC)
    apply_readings(fleet, _report(np.arange(devices), at_ns, draw, *metrics))
    fleet.connected[:devices] = True
    fleet.own_w[:devices] = fleet.value[Metric.POWER_W, :devices]
    fleet.desired_w[:devices] = draw.normal(0.0, 2000.0, devices)
    fleet.order_no[:devices] = fleet.revision[:devices] = 1
    fleet.phase[:devices] = Phase.APPLIED
    fleet.applied_at_ns[:devices] = T0 - 100 * NS_PER_S
    fleet.reverts_at_ns[:devices] = T0 + 3600 * NS_PER_S
    fleet.now_ns = T0
    return fleet


def _readings(
    devices: int, count: int, metrics: tuple[Metric, ...], counted: Counted | None = None
) -> Row:
    draw = np.random.default_rng(1)
    fleet = _fleet(devices, draw)
    repeats = max(1, devices // count)
    nos = [draw.integers(0, devices, count) for _ in range(repeats)]
    if counted is not None:
        # A round of reports: each device once.
        nos = np.array_split(draw.permutation(devices)[: repeats * count], repeats)
    seq = np.zeros(devices, np.int64)
    blocks: list[Readings] = []
    rounds = 0

    def later() -> None:
        """Make the next round: nobody sends the same again and again."""
        nonlocal rounds
        rounds += 1
        blocks[:] = [
            _report(each, T0 + (rounds * repeats + i) * NS_PER_S + np.arange(count), draw, *metrics)
            for i, each in enumerate(nos)
        ]
        if counted is not None:
            blocks[:] = [_numbered(block, seq, counted, draw) for block in blocks]

    readings = repeats * count * len(metrics)

    def apply() -> None:
        for block in blocks:
            apply_readings(fleet, block)

    def scatter() -> None:
        for block in blocks:
            for metric, value in block.values.items():
                fleet.value[metric][block.device_no] = value

    later()
    apply()
    reached = readings / _best_s(apply, 5, later)
    limit = readings / _best_s(scatter, 5)
    how = f", {counted.value}" if counted is not None else ""
    return {
        "name": f"apply_readings {devices:,} devices, blocks of {count:,}, {len(metrics)} metric"
        + how,
        "value": reached,
        "unit": "readings/s",
        "ratio": reached / limit,
        "peer": "NumPy writing the values alone",
        "note": f"{reached / 10e6:.1f} x the aim of 10 M/s/core; the peer {limit / 1e6:.0f} M/s",
    }


def _numbered(
    block: Readings, seq: np.ndarray, counted: Counted, draw: np.random.Generator
) -> Readings:
    nos = block.device_no
    seq[nos] += 1
    number, at_ns = seq[nos].copy(), block.measured_at_ns.copy()
    if counted is Counted.LOSSY:
        fate = draw.random(len(nos))
        seq[nos[fate < 0.01]] += 1
        again = (fate >= 0.01) & (fate < 0.02)
        number[again] = np.maximum(number[again] - 1, 0)
        at_ns[again] -= 1000 * NS_PER_S
    order = (1 << 32 | number) + np.iinfo(np.int64).min
    return replace(block, order=order, measured_at_ns=at_ns)


def _small(devices: int) -> Row:
    draw = np.random.default_rng(1)
    fleet = _fleet(devices, draw)
    blocks = [
        _report(draw.integers(0, devices, 100), np.full(100, T0 + i), draw, Metric.POWER_W)
        for i in range(100)
    ]
    block_s = _best_s(lambda: [apply_readings(fleet, block) for block in blocks], 5) / 100
    tick_s = _best_s(lambda: _tick(fleet), 50)
    summary_s = _best_s(lambda: summarise(fleet, SETTINGS), 50)
    return {
        "name": f"tick and summary of {devices} devices",
        "value": (tick_s + summary_s) * 1e3,
        "unit": "ms",
        "ratio": 1e-3 / (tick_s + summary_s),
        "peer": "aim 1 ms",
        "note": f"tick {tick_s * 1e3:.2f}, summary {summary_s * 1e3:.2f}, "
        f"block of 100 {block_s * 1e3:.3f} ms",
    }


def _tick(fleet: Fleet) -> None:
    fleet.now_ns += 1
    news = step_freshness(fleet, SETTINGS, fleet.now_ns)
    step_estimate(fleet, SETTINGS)
    step_verification(fleet)
    step_conditions(fleet, news)
    step_standing(fleet)


def _aggregate(devices: int) -> list[Row]:
    fleet = _fleet(devices, np.random.default_rng(1))
    # Twice: at the first every device is news, which it is once in its life.
    _tick(fleet)
    _tick(fleet)
    rows = np.arange(devices, dtype=np.int32)
    news = np.arange(0, devices, EVERY_S)
    times = 3 if devices >= 1_000_000 else 10
    # A tick like most: every tenth and every twentieth tells more (`RARE_S`).
    fleet.now_ns = T0 + NS_PER_S
    parts_s = {
        "freshness": _best_s(lambda: step_freshness(fleet, SETTINGS, fleet.now_ns), times),
        "estimate": _best_s(lambda: step_estimate(fleet, SETTINGS), times),
        "verification": _best_s(lambda: step_verification(fleet), times),
        "conditions": _best_s(lambda: step_conditions(fleet, news), times),
        "standing": _best_s(lambda: step_standing(fleet), times),
        "curve": _best_s(lambda: sums.summed(fleet, rows), times),
        "summary": _best_s(lambda: summarise(fleet, SETTINGS), times),
    }
    summary_s = parts_s.pop("summary")
    parts_s["sums"] = summary_s - parts_s["curve"]
    aggregate_s = parts_s["freshness"] + parts_s["estimate"] + parts_s["sums"]
    fleet.now_ns = T0
    rare_s = _best_s(lambda: summarise(fleet, SETTINGS), times) - summary_s
    whole_s = sum(parts_s.values())
    split = ", ".join(f"{name} {part_s * 1e3:.1f}" for name, part_s in parts_s.items())
    aim_ms = 50.0 * devices / 1e6
    return [
        {
            "name": f"aggregate of {devices:,} devices (freshness, estimate, sums)",
            "value": aggregate_s * 1e3,
            "unit": "ms",
            "ratio": aim_ms / (aggregate_s * 1e3),
            "peer": f"aim {aim_ms:g} ms",
            "note": f"once in {RARE_S} s, with spreads, reach and room, {rare_s * 1e3:.1f} ms more",
        },
        {
            "name": f"whole tick of {devices:,} devices, with verification and curve",
            "value": whole_s * 1e3,
            "unit": "ms",
            "ratio": 1.0 / whole_s,
            "peer": "1 s, the time between ticks",
            "note": f"{split} ms",
        },
    ]


def _restart(devices: int) -> Row:
    with tempfile.TemporaryDirectory() as directory:
        times = asyncio.run(_restarted(devices, Path(directory)))
    whole_s = times["load"] + times["replay"]
    return {
        "name": f"restart with {devices:,} devices: snapshot, and a minute to replay",
        "value": whole_s,
        "unit": "s",
        "ratio": 10.0 / whole_s,
        "peer": "aim 10 s",
        "note": f"load {times['load']:.2f}, replay of {EVERY_S} ticks and {devices:,} readings "
        f"{times['replay']:.2f}; saving {times['save']:.2f} s",
    }


async def _restarted(devices: int, directory: Path) -> dict[str, float]:
    draw = np.random.default_rng(1)
    clock = SystemClock()
    topic = "p/0"
    async with open_journal(JournalSettings(directory=directory), clock) as journal:
        fleet = _fleet(devices, draw)
        began = time.perf_counter()
        await journal.save_snapshot(topic, to_snapshot(fleet))
        save_s = time.perf_counter() - began
        del fleet
        mixed = draw.permutation(devices)
        for second in range(EVERY_S):
            nos = mixed[second::EVERY_S]
            at_ns = np.full(len(nos), T0 + second * NS_PER_S)
            for start in range(0, len(nos), 10_000):
                piece = slice(start, start + 10_000)
                block = _report(nos[piece], at_ns[piece], draw, Metric.POWER_W)
                await journal.append(topic, [block], writer="ingest")
            await journal.append(topic, [Tick(T0 + (second + 1) * NS_PER_S)], writer="owner")
    async with open_journal(JournalSettings(directory=directory), clock) as journal:
        began = time.perf_counter()
        snapshot = await journal.load_snapshot(topic)
        load_s = time.perf_counter() - began
        assert snapshot is not None
        del snapshot
        owner = PartitionOwner(
            partition=0,
            partitions=1,
            journal=journal,
            clock=clock,
            settings=SETTINGS,
            decide=lambda fleet, epoch: [],
            holder="benchmark",
        )
        began = time.perf_counter()
        await owner._replay()
        replay_s = time.perf_counter() - began - load_s
        assert owner.fleet.now_ns == T0 + EVERY_S * NS_PER_S
    return {"save": save_s, "load": load_s, "replay": replay_s}


STILL_S = 0.2
"""A snapshot may hold up a tick for this long. [s]"""


def _standstill(devices: int) -> Row:
    """Measure how long a partition's columns must not change while its snapshot is taken."""
    with tempfile.TemporaryDirectory() as directory:
        still_s, whole_s = asyncio.run(_stood_still(devices, Path(directory)))
    return {
        "name": f"fold stands still for a snapshot of {devices:,} devices, worst of 5",
        "value": max(still_s) * 1e3,
        "unit": "ms",
        "ratio": STILL_S / max(still_s),
        "peer": f"aim {STILL_S * 1e3:g} ms",
        "note": f"median {sorted(still_s)[2] * 1e3:.0f} ms; durable after {max(whole_s):.2f} s",
    }


async def _stood_still(devices: int, directory: Path) -> tuple[list[float], list[float]]:
    fleet, still_s, whole_s = (
        _fleet(devices, np.random.default_rng(1)),
        list[float](),
        list[float](),
    )
    async with open_journal(JournalSettings(directory=directory), SystemClock()) as journal:
        for position in range(1, 6):
            fleet.position = position
            began = time.perf_counter()
            await journal.save_snapshot(
                "p/0",
                to_snapshot(fleet),
                released=lambda began=began: still_s.append(time.perf_counter() - began),
            )
            whole_s.append(time.perf_counter() - began)
    return still_s, whole_s


PARTITIONS = 8


def _memory(devices: int) -> Row:
    """Measure in a process of its own, restarted from snapshots as a plant's would be."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_saved(devices, Path(directory)))
        asked = subprocess.run(
            [sys.executable, __file__, directory], capture_output=True, text=True, check=True
        )
    measured = json.loads(asked.stdout)
    limit_mb = 600.0 * devices / 1e6
    return {
        "name": f"memory of {devices:,} devices under command in {PARTITIONS} partitions",
        "value": measured["mb"],
        "unit": "MB",
        "ratio": limit_mb / measured["mb"],
        "peer": f"aim {limit_mb:g} MB in all",
        "note": f"peak {measured['peak_mb']:.0f} MB; before the fleet {measured['base_mb']:.0f} MB",
    }


async def _saved(devices: int, directory: Path) -> None:
    draw = np.random.default_rng(1)
    async with open_journal(JournalSettings(directory=directory), SystemClock()) as journal:
        for partition in range(PARTITIONS):
            fleet = _fleet(devices // PARTITIONS, draw)
            await journal.save_snapshot(f"p/{partition}", to_snapshot(fleet))


async def _hold(directory: Path) -> None:
    """Be that process: restore, apply a minute of readings and ticks, say what is in use."""
    draw = np.random.default_rng(1)
    fleets = []
    async with open_journal(JournalSettings(directory=directory), SystemClock()) as journal:
        base_mb = _status_mb("VmRSS")
        for partition in range(PARTITIONS):
            snapshot = await journal.load_snapshot(f"p/{partition}")
            assert snapshot is not None
            fleets.append(from_snapshot(snapshot))
            del snapshot
            # As an owner does.
            give_back_memory()
    for second in range(EVERY_S):
        for fleet in fleets:
            nos = np.arange(fleet.size)[second::EVERY_S]
            at_ns = np.full(len(nos), T0 + second * NS_PER_S)
            report = _report(nos, at_ns, draw, Metric.POWER_W, Metric.SOC)
            tick = Tick(T0 + (second + 1) * NS_PER_S)
            for kind, body in ((Kind.READINGS, report), (Kind.TICK, tick)):
                entry = Entry("p", fleet.position + 1, kind, "", 0, 0, body)
                apply_entry(fleet, entry, SETTINGS)
            summarise(fleet, SETTINGS)
    held = {"mb": _status_mb("VmRSS"), "peak_mb": _status_mb("VmHWM"), "base_mb": base_mb}
    sys.stdout.write(json.dumps(held))


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    asyncio.run(_hold(Path(sys.argv[1])))
