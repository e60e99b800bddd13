"""The plant's roles on a simulated stage: started, killed and started again from the journal."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from kapelle.dispatch.delivery import decide
from kapelle.dispatch.service import Dispatcher
from kapelle.dispatch.settings import DispatchSettings
from kapelle.errors import JournalConflict
from kapelle.fleet.columns import Fleet
from kapelle.fleet.service import PartitionOwner
from kapelle.fleet.settings import FleetSettings
from kapelle.ingest.service import Ingest
from kapelle.ingest.settings import IngestSettings
from kapelle.model.entries import Body
from kapelle.ports import Adapter, Clock, Directory, Link
from kapelle.runtime.supervise import keep_open
from kapelle.safety.service import LastHop
from kapelle.safety.settings import SafetySettings
from kapelle.sim.disk import Disk, Door

ROLES = ("gateway", "fleet", "dispatch")
_PAUSE_S = 1.0
"""A role that lost its lease is started again after this. [s]"""


@dataclass(frozen=True, slots=True)
class Plant:
    """What every life of a role is made from."""

    partitions: int
    directory: Directory
    adapter: Adapter
    clock: Clock
    draw: Random
    ingest: IngestSettings = field(default_factory=IngestSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    safety: SafetySettings = field(default_factory=SafetySettings)


async def run_gateway(plant: Plant, journal: Door, holder: str) -> None:
    """Take telemetry in and let commands out, until cancelled."""
    ingest = Ingest(
        journal=journal,
        directory=plant.directory,
        clock=plant.clock,
        settings=plant.ingest,
    )
    last_hop = LastHop(
        journal=journal,
        directory=plant.directory,
        clock=plant.clock,
        settings=plant.safety,
        partitions=plant.partitions,
    )

    async def use(link: Link) -> None:
        last_hop.links.append(link)
        try:
            await ingest.run(link)
        finally:
            last_hop.links.remove(link)

    async with asyncio.TaskGroup() as group:
        group.create_task(last_hop.run(), name="last hop")
        group.create_task(keep_open(plant.adapter, use, clock=plant.clock, draw=plant.draw))


async def run_fleet(plant: Plant, journal: Door, holder: str) -> None:
    """Own every partition, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for partition in range(plant.partitions):
            owner = PartitionOwner(
                partition=partition,
                partitions=plant.partitions,
                journal=journal,
                clock=plant.clock,
                settings=plant.fleet,
                decide=functools.partial(_decide, plant.dispatch),
                holder=holder,
            )
            group.create_task(owner.run(), name=f"owner {partition}")


async def run_dispatch(plant: Plant, journal: Door, holder: str) -> None:
    """Turn targets into signals, until cancelled."""
    await Dispatcher(
        journal=journal,
        clock=plant.clock,
        settings=plant.dispatch,
        partitions=plant.partitions,
        holder=holder,
    ).run()


_RUNS: dict[str, Callable[[Plant, Door, str], Awaitable[None]]] = {
    "gateway": run_gateway,
    "fleet": run_fleet,
    "dispatch": run_dispatch,
}


def _decide(settings: DispatchSettings, fleet: Fleet, epoch: int) -> Sequence[Body]:
    return decide(fleet, settings, epoch)


class Stage:
    """Keeps each role alive, but for the times it is made to be dead."""

    def __init__(self, plant: Plant, disk: Disk, group: asyncio.TaskGroup) -> None:
        self.restarts = 0
        """Lives that ended, by kill or by losing a lease."""
        self._plant = plant
        self._disk = disk
        self._group = group
        self._lives: dict[str, tuple[Door, asyncio.Task[None]]] = {}

    def start(self, roles: Iterable[str] = ROLES) -> None:
        """Give roles a new life; one that lives already keeps the one it has."""
        for role in roles:
            if role not in self._lives:
                door = Door(self._disk)
                task = self._group.create_task(self._live(role, door), name=role)
                self._lives[role] = (door, task)

    def kill(self, roles: Iterable[str] = ROLES) -> None:
        """End roles as SIGKILL does: from here on nothing of them reaches the journal."""
        for role in roles:
            life = self._lives.pop(role, None)
            if life is not None:
                self.restarts += 1
                door, task = life
                door.shut()
                task.cancel()

    def alive(self) -> list[str]:
        """Return the roles that live now."""
        return [role for role in ROLES if role in self._lives]

    async def _live(self, role: str, door: Door) -> None:
        holder = f"{role}-{self.restarts}"
        while True:
            try:
                await _RUNS[role](self._plant, door, holder)
            except* JournalConflict:
                # Another took over, or the lease ran out: stand down, then apply again.
                self.restarts += 1
            await self._plant.clock.sleep(_PAUSE_S)
