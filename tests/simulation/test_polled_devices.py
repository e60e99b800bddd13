"""Devices that look for commands every ten seconds deliver beside those that are told at once."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from kapelle.model.blocks import Commands, Phases
from kapelle.model.enums import Phase
from kapelle.model.ids import Flags, partition_topic
from kapelle.ports import Batch, Link
from kapelle.registry.directory import Bearer, Directory
from kapelle.sim.arrivals import cut
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan
from kapelle.sim.play import Play
from kapelle.sim.run import Performance, perform
from kapelle.sim.scenario import OrderPlan, Scenario
from kapelle.sim.stage import Stage

POLL_S = 10.0
ADAPTER = "polled"
FLEET = FleetPlan(devices=100, partitions=2)
ORDER = OrderPlan(at_s=25.0, duration_s=45.0, fraction=0.5)
_STEP_S = 0.5


class Nobody:
    """A link on which nothing comes and nobody is."""

    async def receive(self) -> AsyncIterator[Batch]:
        await asyncio.Event().wait()
        yield Batch()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None: ...

    def decline(self, batch: Batch, reason: str) -> None: ...

    async def send(self, commands: Commands) -> Flags:
        return np.zeros(len(commands), np.bool_)


@dataclass
class Declared:
    """An adapter that says how often its devices look; the simulated one carries what is said."""

    told_within_s: float
    name: str = ADAPTER

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        yield Nobody()


@dataclass
class Polled:
    """Lets every fifth device fetch its newest command every ten seconds, each at its moment."""

    said: bool
    """Whether the plant is told that they poll."""
    waiting: dict[int, Commands] = field(default_factory=dict)

    async def act(self, play: Play, stage: Stage) -> None:
        deliver = play.adapter.take

        def take(commands: Commands) -> Flags:
            polled = commands.device_no % 5 == 0
            taken = np.ones(len(commands), np.bool_)
            for row in np.flatnonzero(polled).tolist():
                only = np.arange(len(commands)) == row
                self.waiting[int(commands.device_no[row])] = cut(commands, only)
            if not polled.all():
                taken[~polled] = deliver(cut(commands, ~polled))
            return taken

        play.adapter.take = take  # type: ignore[method-assign]  # a spy
        if self.said:
            stage.kill()
            play.doors.adapters.append(Declared(POLL_S))  # type: ignore[attr-defined]  # a list, in truth
            assert isinstance(play.doors.directory, Directory)
            play.doors.directory.apply(bearers(play))
            stage.start()
        turn = 0
        while True:
            await play.clock.sleep(_STEP_S)
            turn += 1
            for number in sorted(self.waiting):
                if (turn + number) % (POLL_S / _STEP_S) == 0:
                    deliver(self.waiting.pop(number))


def bearers(play: Play) -> list[Bearer]:
    block = play.devices.enrolled
    return [
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
            adapter=ADAPTER,
        )
        for row in range(len(block))
        if block.device_no[row] % 5 == 0
    ]


def played(*, said: bool) -> Performance:
    scenario = Scenario(72.0, FLEET, FaultPlan(), (ORDER,))
    return perform(scenario, 3, act=Polled(said).act, thorough=False)


def given_up(done: Performance) -> int:
    """Return how many polled devices were not counted on for want of an answer."""

    async def read() -> set[int]:
        found: set[int] = set()
        for partition in range(FLEET.partitions):
            for entry in await done.play.journal.read(partition_topic(partition), 0, 100_000):
                if isinstance(entry.body, Phases):
                    rows = entry.body.phase == Phase.UNKNOWN
                    found |= set(entry.body.device_no[rows].tolist())
        return found

    return sum(number % 5 == 0 for number in asyncio.run(read()))


def test_they_are_waited_for_and_the_order_is_delivered() -> None:
    done = played(said=True)
    assert given_up(done) == 0
    (order,) = done.result.orders
    assert order.delivered_mean is not None
    assert abs(order.delivered_mean - 1.0) < 0.02
    assert order.settle_5pct_s is not None
    assert order.settle_5pct_s <= POLL_S + 2.0
    assert done.result.double_effects == 0


def test_unsaid_they_are_given_up_for_nothing() -> None:
    """What keeps the test above honest."""
    assert given_up(played(said=False)) >= 5
