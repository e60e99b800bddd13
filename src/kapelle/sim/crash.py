"""Kill the plant at one append of its journal, before or after it is durable, and start it again.

R-12: a restart at any point never loses, duplicates or strands a command.
"""

from dataclasses import dataclass
from typing import Literal

from kapelle.fleet.settings import FleetSettings
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan
from kapelle.sim.play import Play
from kapelle.sim.run import Performance, perform
from kapelle.sim.scenario import OrderPlan, Scenario
from kapelle.sim.stage import Stage

ORDER_S = 6.0
"""When the order of the dispatch starts. [s]"""
_ENDS_S = 42.0


@dataclass(frozen=True, slots=True)
class Kill:
    """The moment of death: an append of the whole plant, counted from the start."""

    append: int
    moment: Literal["before", "after"]
    """`after`: it is durable, and nobody has been told."""
    down_s: float = 0.5


def dispatch_of(devices: int) -> Scenario:
    """Return a dispatch of some devices, from before the order until its devices are released."""
    fleet = FleetPlan(
        devices=devices,
        partitions=2,
        telemetry_period_s=2.0,
        mix={"battery": 0.7, "ev": 0.2, "water_heater": 0.1},
        revert_s=60.0,
    )
    faults = FaultPlan(command_latency_s=0.2, telemetry_delay_s=0.1)
    order = OrderPlan(at_s=ORDER_S, duration_s=18.0, fraction=0.5)
    return Scenario(_ENDS_S, fleet, faults, (order,))


def perform_killed(scenario: Scenario, seed: int, kill: Kill | None) -> tuple[Performance, int]:
    """Play a scenario, killing all roles once; return it and how many appends were begun."""
    counted = 0

    async def act(play: Play, stage: Stage) -> None:
        nonlocal counted
        disk = play.disk

        def strike(number: int) -> None:
            if kill is not None and number == kill.append:
                stage.kill()
                # Whoever dies in the middle of its own append cannot start the next life.
                play.clock.call_later(kill.down_s, stage.start)

        if kill is not None:
            setattr(disk, kill.moment, strike)
        await play.wait_until(scenario.duration_s - 0.01)
        counted = disk.appends

    # Some lives begin with a snapshot, some of those with entries already forgotten.
    fleet = FleetSettings(snapshot_every_s=7.0, retain_s=5.0)
    done = perform(scenario, seed, act=act, fleet=fleet)
    return done, counted
