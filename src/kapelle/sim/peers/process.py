"""Thousands of simulated devices in one process: `python -m kapelle.sim.peers.process`.

The first line on stdin is a `Start` as JSON, every later one a `Do`. On stdout comes one JSON
object per line: `ready`, then `truth` twice a second, `done` for each order, and `end`. The process
ends when stdin does, when it is told to, or when its parent dies.
"""

import asyncio
import ctypes
import logging
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from kapelle.model.ids import Ints
from kapelle.runtime import logs
from kapelle.runtime.limits import allow_files
from kapelle.sim.agents import Answers
from kapelle.sim.devices import Devices
from kapelle.sim.measured import read_measured
from kapelle.sim.peers.messages import Do, Part, Start, Truth
from kapelle.sim.peers.party import Ground
from kapelle.sim.protocols import PROTOCOLS, speaking
from kapelle.sim.world import World

_STEP_S = 0.1
_TRUTH_EVERY = 5
_DEAF = 0.5
"""Share of devices whose connection stays half open when they fall silent."""
_RETURN_S = 4.0
_PR_SET_PDEATHSIG = 1


class Playing:
    """A fleet being played over the network."""

    def __init__(self, start: Start) -> None:
        devices, spoken = speaking(start.plan, start.seed, start.mix)
        self._rng = random.Random(start.seed)
        self._world = World(
            devices,
            start.faults,
            np.random.default_rng(start.seed + 1),
            time.time_ns(),
            measured=read_measured(Path(start.measured)) if start.measured else None,
        )
        self._reports = 0
        self._stop = asyncio.Event()
        words = np.array(spoken)
        self._speaks = {name: words == name for name in dict.fromkeys(spoken)}
        """Which devices speak a protocol."""
        self._parties = {
            name: PROTOCOLS[name].side().party(self._ground(start, name, devices))
            for name in self._speaks
        }

    def _ground(self, start: Start, name: str, devices: Devices) -> Ground:
        # One stream for all: who is silenced depends on it, and so on who connected how.
        rows = np.flatnonzero(self._speaks[name]).astype(np.int32)
        return Ground(start, name, devices, rows, self._rng, time.time_ns)

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Play until told to stop; stdin is the leash."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                *(group.create_task(party.run()) for party in self._parties.values()),
                group.create_task(self._step()),
                group.create_task(self._obey(orders)),
            ]
            await self._stop.wait()
            for party in self._parties.values():
                party.leave()
            for task in tasks:
                task.cancel()
        # One turn of the loop, so that the goodbyes are written.
        await asyncio.sleep(0.05)
        tell({"event": "end"})

    async def _step(self) -> None:
        turn, next_s = 0, time.monotonic()
        while True:
            self._play(time.time_ns())
            turn += 1
            if turn % _TRUTH_EVERY == 0:
                tell(self.truth())
            next_s = max(next_s + _STEP_S, time.monotonic())
            await asyncio.sleep(next_s - time.monotonic())

    def _play(self, now_ns: int) -> None:
        world = self._world
        acting = world.step(now_ns)
        for name, party in self._parties.items():
            party.lose(self._own(name, world.lost), _DEAF)
            party.bring_back(self._own(name, world.back), _RETURN_S)
        self._answer(acting, now_ns)
        for party in self._parties.values():
            rows, block = party.take(now_ns)
            if len(rows):
                self._answer(world.agents.receive_commands(rows, block, now_ns), now_ns)
        reports = world.reports(now_ns)
        self._reports += len(reports)
        for name, party in self._parties.items():
            if party.is_read:
                rows = np.flatnonzero(self._speaks[name] & world.faults.reachable).astype(np.int32)
                party.say(world.telemetry.read(rows, world.physics))
            else:
                party.say(reports.where(self._speaks[name][reports.rows]))

    def _answer(self, answers: Answers, now_ns: int) -> None:
        can_speak = self._world.faults.reachable[answers.rows]
        for name, party in self._parties.items():
            party.answer(answers.where(can_speak & self._speaks[name][answers.rows]), now_ns)

    def _own(self, name: str, rows: Ints) -> list[int]:
        own: list[int] = rows[self._speaks[name][rows]].tolist()
        return own

    async def _obey(self, orders: asyncio.StreamReader) -> None:
        while line := await orders.readline():
            order = msgspec.json.decode(line, type=Do)
            if order.do == "stop":
                break
            tell({"event": "done", "do": order.do, "devices": self._do(order)})
        self._stop.set()

    def _do(self, order: Do) -> int:
        """Change who is out of reach; return how many that concerns."""
        dead = self._world.faults.dead
        groups = np.array(self._world.devices.groups(order.by))
        if order.do == "silence":
            able = np.flatnonzero(~dead & (groups != order.spare))
            count = min(len(able), math.ceil(order.fraction * len(dead)))
            rows = np.array(sorted(self._rng.sample(able.tolist(), count)), np.int64)
            dead[rows] = True
            return count
        members = np.flatnonzero(groups == order.name)
        dead[members] = order.do == "lose"
        if order.do == "lose":
            # A cloud that fails takes every connection down with it at the same moment.
            for name, party in self._parties.items():
                party.lose(self._own(name, members.astype(np.int32)), share_deaf=0.0)
        return len(members)

    def truth(self) -> Truth:
        """Return what is true now."""
        world, agents = self._world, self._world.agents
        tallies = [party.tally() for party in self._parties.values()]
        waits_s = [wait_s for tally in tallies for wait_s in tally.waits_s]
        median, worst = np.percentile(waits_s, [50, 99]).tolist() if waits_s else (0.0, 0.0)
        parts = {name: self._part(name) for name in self._parties}
        return Truth(
            at_ns=world.physics.now_ns,
            power_w=world.sum_w(),
            own_w=float(world.physics.own_w.sum()),
            connected=sum(part.connected for part in parts.values()),
            reachable=int(world.faults.reachable.sum()),
            following=int(agents.commanded().sum()),
            reports=self._reports,
            published=sum(tally.published for tally in tallies),
            acked=sum(tally.acked for tally in tallies),
            repeated=sum(tally.repeated for tally in tallies),
            forgotten=sum(tally.forgotten for tally in tallies),
            commands=sum(tally.commands for tally in tallies),
            unreadable=sum(tally.unreadable for tally in tallies),
            effects=int(agents.effects.sum()),
            double_effects=agents.double_effects,
            stale_effects=agents.stale_effects,
            reverted=agents.reverted,
            expired=agents.expired,
            fenced=agents.fenced,
            connects=sum(tally.connects for tally in tallies),
            refused=sum(tally.refused for tally in tallies),
            drops=sum(tally.drops for tally in tallies),
            ack_ms=(median * 1e3, worst * 1e3),
            parts=parts,
        )

    def _part(self, name: str) -> Part:
        physics, own = self._world.physics, self._speaks[name]
        return Part(
            devices=int(own.sum()),
            connected=self._parties[name].connected(),
            power_w=float(physics.power_w[own].sum()),
            own_w=float(physics.own_w[own].sum()),
        )


async def stdin_lines() -> asyncio.StreamReader:
    """Return the lines of stdin; it ends when the parent closes it or dies."""
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def tell(said: object) -> None:
    """Write a line to the parent; one that does not keep up misses some, and devices go on."""
    try:
        os.write(sys.stdout.fileno(), msgspec.json.encode(said) + b"\n")
    except BlockingIOError:
        return
    except BrokenPipeError:
        os._exit(0)


def die_with_parent() -> None:
    """Have the kernel end this process when its parent dies, however that dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def play() -> None:
    """Read the start, play the fleet."""
    orders = await stdin_lines()
    start = msgspec.json.decode(await orders.readline(), type=Start)
    allow_files(start.plan.devices)
    playing = Playing(start)
    tell({"event": "ready", "devices": start.plan.devices})
    await playing.run(orders)


def main() -> None:
    """Run as a process of its own."""
    die_with_parent()
    # Losing and finding again is what devices are made to do here: it is no news on stderr.
    logs.set_up(level=logging.ERROR)
    # Ctrl-C in a terminal reaches the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_blocking(sys.stdout.fileno(), False)
    uvloop.run(play())


if __name__ == "__main__":
    main()
