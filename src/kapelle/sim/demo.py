"""`kapelle demo`: a plant on this machine, thousands of real clients, and a bad minute.

An order starts; 10 % of the devices fall silent; one vendor with 20 % of them is lost and returns.
The verdict counts what the devices really did, by their own physics, not what the plant believes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isnan, nan
from pathlib import Path

import numpy as np

from kapelle.api.client import Client
from kapelle.api.shapes import OrderTold
from kapelle.app import Plant, open_plant
from kapelle.errors import KapelleError
from kapelle.fleet.plant import OrderState, total
from kapelle.model.enums import Freshness, OrderStatus
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Notice
from kapelle.runtime.limits import SPARE, allow_files
from kapelle.sim.demo_gauge import Gauge
from kapelle.sim.demo_plant import (
    config_in,
    enrol,
    first_error,
    journal_size,
    place,
    ports_of,
    running,
    wait_ready,
)
from kapelle.sim.demo_record import Event, Record, Seen, Verdict, judge
from kapelle.sim.demo_view import Scene
from kapelle.sim.devices import Devices, FleetPlan
from kapelle.sim.measured import read_measured
from kapelle.sim.peers.leash import Peers, started
from kapelle.sim.peers.messages import Do, Start, Truth
from kapelle.sim.protocols import prepare, speaking
from kapelle.words import percent, power

VENDORS = {"alpen": 0.30, "borealis": 0.25, "cirrus": 0.20, "delta": 0.15, "eider": 0.10}
LOST = "cirrus"
SILENT = 0.10
REVERT_S = 30.0
"""Short, so that what silent devices stop doing shows within the demo. [s]"""
_CADENCE_S = 2.0
_REPORTS_PER_S = 2000.0
"""More devices report less often, so that a small machine keeps up. [1/s]"""
_ORDER_SHARE = 0.55
"""Of the headroom at that moment: the rest stands in for whoever falls silent."""
_DRAW_S = 0.25
_HEARD = 0.95
"""Share of the devices that must be heard before anything is ordered."""
_GATHER_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to show. The times of the script scale with `seconds`."""

    devices: int = 2000
    seconds: float = 90.0
    seed: int = 1
    directory: Path | None = None
    """Where the plant keeps its data; None: a temporary place, removed afterwards."""
    data: Path | None = None
    """Measured homes and charging sessions the devices follow; None: parametric ones."""
    tolerance: float = 0.02
    mix: Mapping[str, float] = field(default_factory=dict)
    """Protocol -> share of the devices that speak it; empty: all speak MQTT."""


@dataclass(frozen=True, slots=True)
class Script:
    """When what happens. [s]"""

    order: float
    silence: float
    lose: float
    back: float
    end: float

    @classmethod
    def scaled(cls, seconds: float) -> "Script":
        """Return the script of 90 s for another length."""
        part = seconds / 90.0
        return cls(*(round(at * part, 3) for at in (15.0, 35.0, 50.0, 70.0, 84.0)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo ends with."""

    options: Options
    verdict: Verdict
    readings: Mapping[str, int]
    commands: Mapping[str, int]
    latency_s: tuple[float, float]
    """Device to aggregate: median and 99th percentile. [s]"""
    ack_ms: tuple[float, float]
    """Publication to durable acknowledgement, seen by the devices, worst half second. [ms]"""
    journal_bytes: int
    truth: Truth
    events: tuple[Event, ...]
    started_ns: int

    @property
    def passed(self) -> bool:
        """Whether the promise was kept, and no command took effect twice."""
        return self.verdict.met and not self.truth.double_effects


@dataclass(slots=True)
class _Stage:
    """What the parts of the demo share."""

    options: Options
    script: Script
    devices: Devices
    plant: Plant
    gauge: Gauge
    scene: Scene
    notices: int = 0
    order_no: int = 0
    promise: OrderState | None = None
    ack_ms: list[tuple[float, float]] = field(default_factory=list)
    rates: list[tuple[int, int]] = field(default_factory=list)

    def now_ns(self) -> int:
        return self.plant.doors.clock.now_ns()


async def run_demo(options: Options, show: Callable[[Scene], None]) -> Outcome:
    """Play the demo; `show` is called a few times a second with what there is to see.

    Raises:
        KapelleError: Something that must not fail did; the message says what.
    """
    if options.data is not None:
        # The other process will read it: say now what is wrong with it.
        read_measured(options.data)
    allowed = allow_files(options.devices)
    if allowed < options.devices + SPARE:
        remedy = f"--devices {allowed - SPARE}, or raise it: ulimit -Hn"
        raise KapelleError(f"only {allowed:,} open files are allowed, one per device: {remedy}")
    record = Record(time.time_ns(), options.tolerance)
    scene = Scene(record, options.seconds, options.devices, now_ns=time.time_ns())
    scene.heading = "enrolling the devices …"
    show(scene)
    with place(options.directory) as directory:
        plan = FleetPlan(
            devices=options.devices,
            telemetry_period_s=max(_CADENCE_S, options.devices / _REPORTS_PER_S),
            vendors=VENDORS,
            revert_s=REVERT_S,
        )
        devices, spoken = speaking(plan, options.seed, options.mix)
        if options.mix:
            counts = Counter(spoken)
            scene.spoken = ", ".join(f"{counts[name]:,} {name}" for name in sorted(counts))
        prepared = prepare(config_in(directory), devices, spoken, directory)
        async with open_plant(prepared.config) as plant:
            secrets = await enrol(plant, prepared.devices)
            gauge = Gauge(plant.doors.journal, plan.partitions)
            stage = _Stage(options, Script.scaled(options.seconds), devices, plant, gauge, scene)
            async with running(plant):
                port = await wait_ready(plant, next(iter(secrets)))
                record.started_ns = stage.now_ns()
                start = Start(
                    host="127.0.0.1",
                    port=port,
                    plan=plan,
                    seed=options.seed,
                    secrets=secrets,
                    mix=dict(options.mix),
                    ports={**prepared.ports, **await ports_of(plant, options.mix)},
                    directory=str(directory),
                    measured=str(options.data or ""),
                )
                async with started(start) as peers:
                    await _play(stage, peers, show)
                    assert peers.truth is not None
                    return _outcome(stage, peers.truth, directory)


async def _play(stage: _Stage, peers: Peers, show: Callable[[Scene], None]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(peers.run(lambda truth: _take_truth(stage, truth))),
                group.create_task(stage.gauge.run(lambda: _take_summary(stage))),
                group.create_task(_draw(stage, show)),
            ]
            await _follow_script(stage, peers)
            for task in tasks:
                task.cancel()
    except ExceptionGroup as errors:
        raise first_error(errors) from errors


async def _draw(stage: _Stage, show: Callable[[Scene], None]) -> None:
    while True:
        scene, gauge = stage.scene, stage.gauge
        scene.now_ns = stage.now_ns()
        scene.readings = gauge.readings
        stage.rates.append((scene.now_ns, gauge.readings))
        del stage.rates[:-20]
        (then_ns, before), (now_ns, now) = stage.rates[0], stage.rates[-1]
        if now_ns > then_ns:
            scene.rate = (now - before) * NS_PER_S / (now_ns - then_ns)
        show(scene)
        await asyncio.sleep(_DRAW_S)


async def _follow_script(stage: _Stage, peers: Peers) -> None:
    script, n = stage.script, stage.options.devices
    await _until(stage, script.order)
    await _gathered(stage)
    await _order(stage)
    await _until(stage, script.silence)
    peers.order(Do("silence", fraction=SILENT, by="vendor", spare=LOST))
    _say(stage, "✕", f"{percent(SILENT)} of the devices fall silent ({round(SILENT * n):,})", True)
    await _until(stage, script.lose)
    peers.order(Do("lose", by="vendor", name=LOST))
    lost = stage.devices.groups("vendor").count(LOST)
    _say(stage, "✕", f"vendor {LOST} loses its cloud: {lost:,} devices at once", True)
    await _until(stage, script.back)
    peers.order(Do("return", by="vendor", name=LOST))
    _say(stage, "●", f"vendor {LOST} is back; its devices reconnect")
    await _until(stage, script.end)
    _say(stage, "■", "the order ends; devices are released")
    await _until(stage, stage.options.seconds)


async def _gathered(stage: _Stage) -> None:
    """Hold the clock until the plant hears nearly all devices: a busy machine takes longer."""
    record, begin_ns = stage.scene.record, stage.now_ns()
    before_ns = begin_ns
    while before_ns - begin_ns < _GATHER_S_MAX * NS_PER_S:
        aggregate = stage.scene.aggregate
        heard = 0
        if aggregate is not None:
            heard = aggregate.freshness[Freshness.LIVE] + aggregate.freshness[Freshness.LATE]
        if heard >= _HEARD * stage.options.devices:
            return
        await asyncio.sleep(_DRAW_S)
        now_ns = stage.now_ns()
        record.started_ns += now_ns - before_ns
        before_ns = now_ns


async def _until(stage: _Stage, seconds: float) -> None:
    left_s = seconds - stage.scene.record.seconds(stage.now_ns())
    await asyncio.sleep(max(0.0, left_s))


async def _order(stage: _Stage) -> None:
    """Order through the API, like everybody else."""
    aggregate = total(stage.gauge.view)
    target_w = round(_ORDER_SHARE * aggregate.headroom_up_w / 1e5) * 1e5
    if target_w <= 0:
        target_w = _ORDER_SHARE * aggregate.headroom_up_w
    length_s = stage.script.end - stage.script.order
    token = (Path(stage.plant.doors.config.plant.data_dir) / "api.token").read_text().strip()
    url = f"http://127.0.0.1:{stage.plant.api.port}"

    def post() -> OrderTold:
        with Client(url, token) as client:
            return client.create_order(target_w=target_w, duration_s=length_s, tolerance=0.02)

    told = await asyncio.to_thread(post)
    stage.order_no = told.order_no
    text = f"order {told.order_no}: {power(target_w, sign=True)} for {length_s:.0f} s"
    _say(stage, "▲", text, at_ns=round(told.starts_at.timestamp() * 1e6) * 1000)


def _say(stage: _Stage, mark: str, text: str, is_fault: bool = False, at_ns: int = 0) -> None:
    event = Event(at_ns or stage.now_ns(), mark, text, is_fault)
    stage.scene.record.events.append(event)
    stage.scene.log.append(event)


def _take_truth(stage: _Stage, truth: Truth) -> None:
    record = stage.scene.record
    record.true.append((truth.at_ns, truth.power_w))
    for name, part in truth.parts.items():
        record.devices[name] = part.devices
        record.moved.setdefault(name, []).append((truth.at_ns, part.power_w - part.own_w))
    stage.scene.connected = truth.connected
    if record.seconds(truth.at_ns) > stage.script.order:
        stage.ack_ms.append(truth.ack_ms)


def _take_summary(stage: _Stage) -> None:
    """Take the plant's own picture into the scene."""
    view, scene = stage.gauge.view, stage.scene
    aggregate = total(view, now_ns=stage.now_ns())
    if not aggregate.complete or not aggregate.devices:
        return
    scene.aggregate = aggregate
    order = view.orders.get(stage.order_no)
    is_active = order is not None and order.status == OrderStatus.ACTIVE
    if order is not None and is_active:
        stage.promise = stage.promise or replace(order)
        scene.baseline_w, scene.committed_w = order.baseline_w, order.committed_w
    scene.target_w = scene.baseline_w + scene.committed_w if is_active else nan
    seen = scene.record.seen
    if not seen or aggregate.tick_ns > seen[-1].at_ns:
        seen.append(
            Seen(
                aggregate.tick_ns,
                aggregate.power_w,
                aggregate.low_w,
                aggregate.high_w,
                scene.target_w,
            )
        )
    _take_notices(stage, list(view.notices))


def _take_notices(stage: _Stage, notices: list[Notice]) -> None:
    for notice in notices[stage.notices :]:
        mark = "●" if notice.code.endswith(("-back", "-over")) else "▲"
        stage.scene.log.append(Event(notice.at_ns, mark, notice.text))
    stage.notices = len(notices)


def _outcome(stage: _Stage, truth: Truth, directory: Path) -> Outcome:
    order = stage.promise
    if order is None or order.plan is None or isnan(order.baseline_w):
        raise KapelleError("the order never became active; see the timeline for what was said")
    record = stage.scene.record
    verdict = judge(
        record,
        order.committed_w,
        order.baseline_w,
        order.order.starts_at_ns,
        order.order.ends_at_ns,
    )
    gauge, counters = stage.gauge, stage.plant.doors.counters
    acks = {name: gauge.acks[name] for name in sorted(gauge.acks)}
    phases = {name: gauge.phases[name] for name in ("sent", "verified", "unknown", "diverged")}
    return Outcome(
        options=stage.options,
        verdict=verdict,
        readings={
            "sent": truth.reports,
            "accepted": gauge.readings,
            "quarantined": sum(sum(c.quarantined.values()) for c in counters.values()),
        },
        commands={"issued": gauge.commands, "retries": gauge.retries, **phases, **acks},
        latency_s=gauge.latency(),
        ack_ms=_worst(stage.ack_ms),
        journal_bytes=journal_size(directory / "journal"),
        truth=truth,
        events=tuple(stage.scene.log),
        started_ns=record.started_ns,
    )


def _worst(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the median of medians and the highest 99th percentile."""
    if not pairs:
        return nan, nan
    return float(np.median([median for median, _ in pairs])), max(worst for _, worst in pairs)
