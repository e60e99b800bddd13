"""Plays a scenario: the plant's own rooms against simulated devices, in virtual time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import nan
from random import Random

import numpy as np

from kapelle.app import Doors
from kapelle.config import Config, PlantSettings
from kapelle.dispatch.firm.capacity import firm_capacity
from kapelle.fleet.curve.limits import HOLD_S
from kapelle.fleet.plant import PlantView
from kapelle.fleet.profiles import parts
from kapelle.fleet.settings import FleetSettings
from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import Body
from kapelle.model.ids import ALL, NS_PER_S, partition_topic
from kapelle.model.orders import Order, Plan
from kapelle.ports import Clock
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock
from kapelle.sim.air import index_of
from kapelle.sim.audit import Audit, audit, audit_commands
from kapelle.sim.clock import HostClock, VirtualClock
from kapelle.sim.devices import Devices, make_fleet
from kapelle.sim.disk import Disk
from kapelle.sim.faults import ClockStep, Restart, Rival
from kapelle.sim.link import SimAdapter
from kapelle.sim.loop import run_virtual
from kapelle.sim.measured import Measured
from kapelle.sim.operator import give_order, observe
from kapelle.sim.overshoot import worst_pct
from kapelle.sim.play import Play
from kapelle.sim.resources import NetPower, told
from kapelle.sim.result import (
    IntervalResult,
    Ordered,
    OrderResult,
    Result,
    Track,
    counted,
    measure_aggregate,
    measure_order,
    measure_redispatch,
)
from kapelle.sim.scenario import Scenario
from kapelle.sim.stage import ROLES, Stage
from kapelle.sim.world import World
from kapelle.sim.worst import worst_w

_FIRM = ("p50_w", "p90_w", "p95_w", "p99_w")


Act = Callable[[Play, Stage], Awaitable[None]]
"""Something else that goes on during a run: a test's watcher, a fault of its own."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Performance:
    """A run that is over."""

    play: Play
    audit: Audit
    result: Result


def run_scenario(scenario: Scenario, seed: int, *, measured: Measured | None = None) -> Result:
    """Play a scenario to its end and return what it was like.

    Args:
        scenario: What to play.
        seed: Of everything random: fleet, weather, faults.
        measured: Homes and sessions to drive the devices; parametric without.
    """
    return perform(scenario, seed, measured=measured).result


def perform(
    scenario: Scenario,
    seed: int,
    *,
    measured: Measured | None = None,
    act: Act | None = None,
    fleet: FleetSettings | None = None,
    shuffle: bool = False,
    thorough: bool = True,
) -> Performance:
    """Play a scenario and return everything there is to look at.

    Args:
        scenario: What to play.
        seed: Of everything random.
        measured: As for `run_scenario`.
        act: Runs beside the play and ends with it.
        fleet: Settings of the owners of partitions, where they are not the usual ones.
        shuffle: Let tasks that are ready together run in a random order, too.
        thorough: Hold every reading, what was published and what might have been obeyed against the
            truth as well. Without, only what became of commands is audited, in two thirds of the
            time.
    """
    started = time.perf_counter()
    played = run_virtual(
        lambda: _play(scenario, seed, measured, act, fleet, thorough), seed if shuffle else None
    )
    played.result.wall_s = round(time.perf_counter() - started, 3)
    return played


def prepare(
    scenario: Scenario,
    seed: int,
    measured: Measured | None = None,
    fleet: FleetSettings | None = None,
    *,
    thorough: bool = True,
) -> Play:
    """Make the fleet, its world and an empty plant. Needs a running loop."""
    fleet_rng, world_rng, link_rng = np.random.default_rng(seed).spawn(3)
    devices = make_fleet(scenario.fleet, fleet_rng).rolling(scenario.faults.register_rollover_wh)
    clock = VirtualClock(scenario.start_ns)
    start_ns = clock.now_ns()
    world = World(devices, scenario.faults, world_rng, start_ns, measured=measured)
    at_s: list[float] = []
    power_w: list[float] = []
    worst: list[float] = []
    view = PlantView(scenario.fleet.partitions)
    net = NetPower(devices, scenario.resources) if scenario.resources else None

    def watch(now_ns: int) -> None:
        at_s.append((now_ns - start_ns) / NS_PER_S)
        power_w.append(world.sum_w())
        worst.append(worst_w(world, adapter.asked, now_ns) if thorough else nan)
        if net is not None:
            net.note(view, world.physics)

    adapter = SimAdapter(world, clock, link_rng, on_step=watch)
    # Where the host's clock is set, the plant's own keeps the time for it; else both are one.
    host = HostClock(clock) if scenario.faults.clock_step else None
    plant_clock: Clock = (
        clock
        if host is None
        else SystemClock(wall_ns=host.wall_ns, elapsed_ns=clock.now_ns, boot_id="simulated")
    )
    journal = MemoryJournal(plant_clock)
    partitions = scenario.fleet.partitions
    return Play(
        scenario=scenario,
        seed=seed,
        devices=devices,
        clock=clock,
        world=world,
        adapter=adapter,
        journal=journal,
        disk=Disk(journal, clock, Random(seed)),
        doors=Doors(
            config=Config(
                plant=PlantSettings(partitions=partitions), fleet=fleet or FleetSettings()
            ),
            clock=plant_clock,
            journal=journal,
            directory=_directory(devices, partitions),
            adapters=[adapter],
            holder="simulated",
        ),
        view=view,
        net=net,
        start_ns=start_ns,
        registers_wh=float((world.physics.export_wh - world.physics.import_wh).sum()),
        at_s=at_s,
        power_w=power_w,
        worst_w=worst,
        thorough=thorough,
        host=host,
    )


async def _play(
    scenario: Scenario,
    seed: int,
    measured: Measured | None,
    act: Act | None,
    fleet: FleetSettings | None,
    thorough: bool,
) -> Performance:
    play = prepare(scenario, seed, measured, fleet, thorough=thorough)
    await enrol(play)
    try:
        async with asyncio.timeout(scenario.duration_s), asyncio.TaskGroup() as group:
            stage = Stage(play.doors, play.disk, group)
            group.create_task(play.adapter.drive(), name="world")
            group.create_task(observe(play), name="observer")
            # Whoever dies of something else as the run ends is not started again.
            play.clock.call_later(scenario.duration_s, stage.close)
            stage.start()
            for role in sorted({rival.role for rival in scenario.faults.rival}):
                stage.stand_by(role)
            for number, plan in enumerate(scenario.orders, 1):
                group.create_task(give_order(play, number, plan), name=f"order {number}")
            for fault in scenario.faults.restart:
                group.create_task(_restart(play, stage, fault), name="restart")
            for rival in scenario.faults.rival:
                group.create_task(_silence(play, stage, rival), name="rival")
            for step in scenario.faults.clock_step:
                group.create_task(_step_clock(play, step), name="clock step")
            if act is not None:
                group.create_task(_as_coroutine(act(play, stage)), name="act")
    except TimeoutError:
        play.restarts = stage.restarts
    settings = play.doors.config.fleet
    places = index_of(play.devices.enrolled.device_no)
    kept = play.adapter.ledger.kept
    if thorough:
        found = await audit(play.disk, scenario.fleet.partitions, kept, places, settings)
    else:
        found = await audit_commands(play.disk, scenario.fleet.partitions, settings)
    return Performance(play, found, _result(play, found))


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def enrol(play: Play) -> None:
    """Write the whole fleet to the journal, as the registry does."""
    partitions = play.scenario.fleet.partitions
    for partition in range(partitions):
        part = play.devices.part(partition, partitions)
        if len(part):
            resources = told(play.devices, play.scenario.resources, partition, partitions)
            bodies: list[Body] = [part, *resources]
            await play.journal.append(partition_topic(partition), bodies, writer="registry")


def _directory(devices: Devices, partitions: int) -> Directory:
    block = devices.enrolled
    return Directory.build(
        partitions,
        [
            Bearer(
                device_no=int(block.device_no[row]),
                device_id=block.device_id[row].decode(),
                active=True,
                nameplate_up_w=float(block.nameplate_up_w[row]),
                nameplate_down_w=float(block.nameplate_down_w[row]),
                kind=int(block.kind[row]),
                site=block.site[row].decode(),
                feeder=block.feeder[row].decode(),
                zone=block.zone[row].decode(),
            )
            for row in range(len(block))
        ],
    )


async def _restart(play: Play, stage: Stage, fault: Restart) -> None:
    roles = ROLES if fault.role == "all" else (fault.role,)
    await play.wait_until(fault.at_s)
    stage.kill(roles)
    await play.clock.sleep(fault.down_s)
    stage.start(roles)


async def _silence(play: Play, stage: Stage, rival: Rival) -> None:
    await play.wait_until(rival.at_s)
    life = stage.acting(rival.role)
    life.silence(paused=rival.how == "paused")
    await play.clock.sleep(rival.for_s)
    life.resume()


async def _step_clock(play: Play, step: ClockStep) -> None:
    await play.wait_until(step.at_s)
    assert play.host is not None
    play.host.set_by_ns += round(step.by_s * NS_PER_S)


def _result(play: Play, found: Audit) -> Result:
    scenario, ledger, agents = play.scenario, play.adapter.ledger, play.world.agents
    track = Track(np.array(play.at_s), np.array(play.power_w))
    firm_w = firm_capacity(play.view, ALL, "up", HOLD_S).promise_w
    from_s = 2 * scenario.fleet.telemetry_period_s + 5.0
    return Result(
        seed=play.seed,
        virtual_s=scenario.duration_s,
        wall_s=0.0,
        orders=[_order_result(play, track, order) for order in play.orders],
        aggregate=measure_aggregate(track, play.published, from_s),
        firm=dict(zip(_FIRM, firm_w, strict=True)),
        commands=counted(("completed", "unknown", "expired"), found.commands()),
        double_effects=agents.double_effects + agents.stale_effects,
        stranded=found.stranded,
        readings={
            "sent": ledger.sent,
            "arrived": ledger.arrived,
            "accepted": ledger.accepted,
            "quarantined": ledger.quarantined,
            "lost_after_accept": found.lost,
            "applied_twice": found.applied_twice,
        },
        state_hash=found.state_hash,
        devices={
            "devices": len(play.devices),
            "dead": int(play.world.faults.dead.sum()),
            "reverted": agents.reverted,
            "fenced": agents.fenced,
            "repeated": agents.repeated,
            "expired": agents.expired,
            "effects": int(agents.effects.sum()),
        },
        notices=[
            f"{play.elapsed_s(notice.at_ns):.0f} s {notice.code}: {notice.text}"
            for notice in play.notices
        ],
        restarts=play.restarts,
        problems=found.problems,
        redispatch=measure_redispatch(play.doors.timings.redispatch.latest_s),
        commands_per_device_hour=_commands_per_device_hour(play, found),
    )


def _commands_per_device_hour(play: Play, found: Audit) -> float:
    ended_ns = play.ended_ns
    ordered_ns = sum(min(o.ends_at_ns, ended_ns) - o.starts_at_ns for o in play.orders)
    hours = ordered_ns / NS_PER_S / 3600
    return round(found.tries / (len(play.devices) * hours), 1) if hours > 0 else 0.0


def _order_result(play: Play, track: Track, order: Order) -> OrderResult:
    if play.net is not None:
        track = Track(track.at_s, np.array(play.net.power_w[order.resource]))
    state = play.view.orders.get(order.order_no)
    plan = state.plan if state is not None else None
    faults, duration_s = play.scenario.faults, play.scenario.duration_s
    turns_s = [loss.return_s for loss in faults.group_loss if loss.return_s is not None]
    turns_s += [each.at_s for each in play.scenario.orders if each.at_s]
    turns_s += [fault.at_s for fault in faults.restart]
    turns_s += [rival.at_s for rival in faults.rival]
    ordered = Ordered(
        starts_s=play.elapsed_s(order.starts_at_ns),
        ends_s=min(duration_s, play.elapsed_s(order.ends_at_ns)),
        target_w=order.target_w,
        committed_w=plan.committed_w if plan else 0.0,
        declined_w=plan.declined_w if plan else order.target_w,
        baseline_w=plan.baseline_w if plan else float("nan"),
        notices_s=[
            play.elapsed_s(notice.at_ns)
            for notice in play.notices
            if notice.code == "shortfall" and notice.order_no in (0, order.order_no)
        ],
        intervals=_intervals(play, order, plan),
    )
    losses_s = [loss.at_s for loss in faults.group_loss]
    measured = measure_order(track, ordered, losses_s, turns_s)
    measured.worst_pct = worst_pct(play, order, plan)
    return measured


def _intervals(play: Play, order: Order, plan: Plan | None) -> list[IntervalResult]:
    promised = plan.profile if plan and plan.profile else ()
    committed_w = {step.starts_at_ns: step.committed_w for step in promised}
    return [
        IntervalResult(
            starts_s=play.elapsed_s(part.starts_at_ns),
            ends_s=min(play.scenario.duration_s, play.elapsed_s(part.ends_at_ns)),
            target_w=part.target_w,
            committed_w=committed_w.get(part.starts_at_ns, 0.0),
            delivered_mean=None,
        )
        for part in (parts(order) if order.profile else ())
    ]
