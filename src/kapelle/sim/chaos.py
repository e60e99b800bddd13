"""Random bad days, one per seed: `python -m kapelle.sim.chaos --seeds 200 [--from S]`.

Each seed draws a small plant, its faults and its orders, plays them in virtual time with tasks in a
random order, and checks what must hold after any run. A failure prints the seed and the scenario.
"""

import argparse
import asyncio
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from kapelle.errors import JournalFull
from kapelle.fleet.settings import FleetSettings
from kapelle.model.ids import PLANT
from kapelle.model.orders import Hold
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import By, ClockStep, FaultPlan, GroupLoss, Restart, Role
from kapelle.sim.hush import hushed
from kapelle.sim.invariants import broken, released_after_death, unsettled
from kapelle.sim.play import Play
from kapelle.sim.run import Performance, perform
from kapelle.sim.scenario import OrderPlan, Scenario
from kapelle.sim.stage import Stage

_REVERT_S = 30.0
_CALM_S = 60.0
"""Time to come together again; R-19. [s]"""
_HEARD_S = 0.5
"""A hold is heard by everybody within this. [s]"""
_KINDS = ("battery", "pv", "ev", "heat_pump", "water_heater", "load", "generator")


@dataclass(frozen=True, slots=True)
class Stall:
    """A role is stopped without its knowing; another takes over; then it wakes."""

    role: str
    at_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Chaos:
    """A bad day: a scenario, and what a scenario file cannot say."""

    scenario: Scenario
    stalls: Sequence[Stall] = ()
    full: Sequence[tuple[float, float]] = ()
    """When the disk is full, and for how long. [s]"""
    dies_s: float | None = None
    """When the plant dies for good. [s]"""
    calm_s: float = 0.0
    """How long all is well again at the end. [s]"""
    holds: Sequence[tuple[float, float]] = ()
    """When an operator holds the plant, and for how long. [s]"""
    fleet: FleetSettings = field(default_factory=FleetSettings)


def draw_chaos(seed: int) -> Chaos:
    """Draw the bad day of a seed."""
    chaos = _draw_day(seed)
    # What came later draws from a stream of its own, so that the old seeds stay what they were.
    draw = Random(f"more of {seed}")
    fleet = FleetSettings(
        snapshot_every_s=draw.uniform(5, 30), retain_s=draw.choice((0.0, 5.0, 20.0))
    )
    ends_s = chaos.dies_s or chaos.scenario.duration_s - chaos.calm_s
    holds = [
        (at_s, min(draw.uniform(2, 40), ends_s - at_s))
        for at_s in [draw.uniform(10, ends_s - 5)][: draw.choice((0, 0, 1))]
    ]
    no_revert = draw.choice((0.0, 0.0, 0.0, 0.2, 1.0))
    plan = replace(chaos.scenario.fleet, no_revert_fraction=no_revert)
    faults = _more_faults(Random(f"bad company of {seed}"), chaos.scenario.faults, ends_s)
    scenario = replace(chaos.scenario, fleet=plan, faults=faults)
    return replace(chaos, scenario=scenario, holds=holds, fleet=fleet)


def _more_faults(draw: Random, faults: FaultPlan, ends_s: float) -> FaultPlan:
    """Let some days have devices, senders and hosts that misbehave; most have none of them."""

    def seldom(*values: float) -> float:
        return draw.choice(values) if draw.random() < 0.25 else 0.0

    if draw.random() < 0.6:
        return faults
    steps = []
    if draw.random() < 0.2:
        by_s = draw.choice((-3600.0, -5.0, 5.0, 3600.0))
        steps.append(ClockStep(draw.uniform(10, ends_s - 10), by_s))
    return replace(
        faults,
        sign_turned_fraction=seldom(0.1, 0.3),
        kw_fraction=seldom(0.1, 0.3),
        one_way_fraction=seldom(0.1, 0.3),
        contested_fraction=seldom(0.1, 0.3),
        flapping_fraction=seldom(0.1, 0.3),
        flap_s=draw.choice((5.0, 15.0, 40.0)),
        poison=seldom(0.01, 0.1),
        # Whose clock errs is let in again once its error is known: in ten minutes.
        reset_fraction=seldom(0.2, 1.0) if faults.skew_s == 0 else 0.0,
        reset_s=draw.uniform(10, ends_s),
        local_fraction=seldom(0.1, 0.3),
        local_s=draw.uniform(10, ends_s),
        register_reset_fraction=seldom(0.2, 1.0),
        register_jitter_wh=seldom(1.0, 5.0),
        register_rollover_wh=seldom(100.0, 1e6),
        clock_step=steps,
    )


def _draw_day(seed: int) -> Chaos:
    draw = Random(seed)
    duration_s = float(draw.randint(90, 150))
    devices = draw.choice((3, 12, 25, 40))
    kinds = draw.sample(_KINDS, draw.randint(1, 4))
    fleet = FleetPlan(
        devices=devices,
        partitions=draw.randint(1, 3),
        telemetry_period_s=draw.choice((2.0, 4.0, 10.0)),
        mix=dict.fromkeys(kinds, 1 / len(kinds)),
        devices_per_feeder=10,
        devices_per_gateway=15,
        revert_s=_REVERT_S,
    )
    scenario = Scenario(duration_s, fleet, _faults(draw, duration_s), _orders(draw, duration_s))
    stalls = [
        Stall(draw.choice(("fleet", "dispatch")), draw.uniform(20, duration_s - 40), 20.0)
        for _ in range(draw.choice((0, 0, 0, 1)))
    ]
    full = [
        (draw.uniform(10, duration_s - 20), draw.uniform(1, 12))
        for _ in range(draw.choice((0, 0, 1)))
    ]
    dies_s = draw.uniform(30, 60) if draw.random() < 0.2 else None
    if dies_s is not None:
        scenario = replace(scenario, duration_s=max(duration_s, dies_s + _REVERT_S + 45))
        return Chaos(scenario, stalls, full, dies_s)
    return Chaos(replace(scenario, duration_s=duration_s + _CALM_S), stalls, full, None, _CALM_S)


def _faults(draw: Random, duration_s: float) -> FaultPlan:
    def sometimes(*values: float) -> float:
        return draw.choice(values) if draw.random() < 0.5 else 0.0

    outages = draw.random() < 0.3
    bys: tuple[tuple[By, str], ...] = (
        ("vendor", "acme"),
        ("vendor", "bolt"),
        ("provider", "telko"),
        ("feeder", "feeder-000"),
        ("gateway", "gateway-00"),
    )
    losses = []
    for _ in range(draw.choice((0, 0, 1, 2))):
        by, name = draw.choice(bys)
        at_s = draw.uniform(5, duration_s * 0.7)
        back_s = at_s + draw.uniform(1, 60) if draw.random() < 0.8 else None
        losses.append(GroupLoss(by, name, at_s, back_s))
    roles: tuple[Role, ...] = ("all", "gateway", "fleet", "dispatch")
    restarts = [
        Restart(draw.choice(roles), draw.uniform(1, duration_s * 0.9), draw.uniform(0, 15))
        for _ in range(draw.choice((0, 1, 1, 2, 4)))
    ]
    return FaultPlan(
        dead_fraction=sometimes(0.1, 0.4),
        command_loss=sometimes(0.05, 0.3, 0.9),
        ack_loss=sometimes(0.05, 0.3, 0.9),
        command_latency_s=draw.choice((0.1, 0.5, 1.5, 4.0)),
        telemetry_delay_s=draw.choice((0.05, 0.5, 2.0)),
        telemetry_loss=sometimes(0.05, 0.5),
        duplicate=sometimes(0.05, 0.5),
        late_fraction=sometimes(0.1, 0.5),
        late_s=draw.choice((5.0, 40.0)),
        skew_s=sometimes(1.0, 60.0),
        frozen_fraction=sometimes(0.2),
        mtbf_s=60.0 if outages else 0.0,
        mttr_s=15.0 if outages else 0.0,
        opt_out=sometimes(0.05, 0.3),
        group_loss=losses,
        restart=restarts,
    )


def _orders(draw: Random, duration_s: float) -> list[OrderPlan]:
    orders: list[OrderPlan] = []
    at_s = draw.uniform(5, 25)
    while at_s < duration_s - 20 and len(orders) < 3:
        lasts_s = draw.uniform(10, 90)
        fraction = draw.choice((0.2, 0.6, 0.95, 1.5))
        direction = draw.choice(("up", "down"))
        orders.append(
            OrderPlan(at_s, lasts_s, fraction, direction="up" if direction == "up" else "down")
        )
        at_s += lasts_s + draw.uniform(0, 20)
    return orders


def play_chaos(chaos: Chaos, seed: int) -> Performance:
    """Play a bad day."""

    async def act(play: Play, stage: Stage) -> None:
        async with asyncio.TaskGroup() as group:
            for stall in chaos.stalls:
                group.create_task(_stall(play, stage, stall))
            for at_s, for_s in chaos.full:
                group.create_task(_fill(play, at_s, for_s))
            for at_s, for_s in chaos.holds:
                group.create_task(_hold(play, at_s, for_s))
            if chaos.calm_s:
                group.create_task(_calm(play, chaos.scenario.duration_s - chaos.calm_s))
            if chaos.dies_s is not None:
                group.create_task(_die(play, stage, chaos.dies_s))

    return perform(chaos.scenario, seed, act=act, fleet=chaos.fleet, shuffle=True)


async def _stall(play: Play, stage: Stage, stall: Stall) -> None:
    await play.wait_until(stall.at_s)
    if stall.role in stage.alive():
        door = stage.stall(stall.role)
        await play.clock.sleep(stall.for_s)
        door.resume()


async def _fill(play: Play, at_s: float, for_s: float) -> None:
    await play.wait_until(at_s)
    play.journal.refusing = JournalFull("simulated")
    await play.clock.sleep(for_s)
    play.journal.refusing = None


async def _hold(play: Play, at_s: float, for_s: float) -> None:
    """Hold the plant as an operator does, and see that nothing leaves it meanwhile."""
    await play.wait_until(at_s)
    await _say_hold(play, True)
    await play.clock.sleep(_HEARD_S)
    before = play.adapter.ledger.commands
    await play.clock.sleep(max(0.0, for_s - _HEARD_S))
    left = play.adapter.ledger.commands - before
    if left:
        play.problems.append(f"{left} commands left the plant while it was held")
    await _say_hold(play, False)


async def _say_hold(play: Play, held: bool) -> None:
    while True:
        hold = Hold(held, play.clock.now_ns(), "chaos", "scenario")
        try:
            await play.journal.append(PLANT, [hold], writer="api")
        except JournalFull:
            await play.clock.sleep(1.0)
        else:
            return


async def _calm(play: Play, at_s: float) -> None:
    await play.wait_until(at_s)
    play.world.faults.calm()


async def _die(play: Play, stage: Stage, at_s: float) -> None:
    await play.wait_until(at_s)
    stage.kill()
    stage.close()


def trouble(seed: int) -> list[str]:
    """Play the day of a seed; return what it broke."""
    chaos = draw_chaos(seed)
    try:
        with hushed():
            done = play_chaos(chaos, seed)
    except Exception as error:  # noqa: BLE001 - whatever a role dies of is what we look for
        return _causes(error)
    found = broken(done)
    if chaos.dies_s is not None:
        found += released_after_death(done, chaos.dies_s)
    if chaos.calm_s:
        found += unsettled(done, chaos.calm_s / 2)
    return found


def _causes(error: BaseException) -> list[str]:
    """Return what is at the bottom of nested groups: the error and the last places it passed."""
    if isinstance(error, BaseExceptionGroup):
        return [line for each in error.exceptions for line in _causes(each)]
    places = traceback.extract_tb(error.__traceback__)[-6:]
    passed = [f"    {Path(at.filename).name}:{at.lineno} {at.name}" for at in places]
    return [f"{type(error).__name__}: {error}", *passed]


def described(seed: int) -> str:
    """Return the options of a seed's day, one to a line."""
    chaos = draw_chaos(seed)
    scenario = chaos.scenario
    lines = [f"seed {seed}: {scenario.duration_s:.0f} s"]
    lines += [f"  {part}" for part in (scenario.fleet, scenario.faults, *scenario.orders)]
    every_s, retain_s = chaos.fleet.snapshot_every_s, chaos.fleet.retain_s
    lines.append(f"  snapshots every {every_s:.1f} s; entries kept for {retain_s:.1f} s")
    lines += [f"  {stall}" for stall in chaos.stalls]
    lines += [f"  disk full at {at_s:.1f} s for {for_s:.1f} s" for at_s, for_s in chaos.full]
    lines += [f"  held at {at_s:.1f} s for {for_s:.1f} s" for at_s, for_s in chaos.holds]
    if chaos.dies_s is not None:
        lines.append(f"  the plant dies at {chaos.dies_s:.1f} s")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play many seeds; return 1 if any broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m kapelle.sim.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--only", type=Path, help="play the seeds listed in this file instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    seeds: Sequence[int] = range(options.first, options.first + options.seeds)
    if options.only is not None:
        seeds = read_seeds(options.only)
    started = time.monotonic()
    failed = 0
    for number, (seed, found) in enumerate(_played(seeds, options.jobs), 1):
        if found:
            failed += 1
            _say("\n  ".join([f"FAILED {described(seed)}", *found]))
            _say(f"  again: python -m kapelle.sim.chaos --seeds 1 --from {seed}")
        elif number % 10 == 0:
            _say(f"{number} of {len(seeds)}, {failed} failed")
    took_s = time.monotonic() - started
    _say(f"{len(seeds)} seeds, {failed} failed, {took_s:.0f} s")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def read_seeds(path: Path) -> list[int]:
    """Return the seeds of a list, one to a line; what follows `#` is said about them."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [int(line) for line in lines if line]


def _played(seeds: Sequence[int], jobs: int) -> Iterator[tuple[int, list[str]]]:
    if jobs <= 1 or len(seeds) == 1:
        yield from ((seed, trouble(seed)) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from zip(seeds, pool.map(trouble, seeds), strict=True)


if __name__ == "__main__":
    sys.exit(main())
