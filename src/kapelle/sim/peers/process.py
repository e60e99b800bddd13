"""Thousands of simulated MQTT devices in one process: `python -m kapelle.sim.peers.process`.

The first line on stdin is a `Start` as JSON, every later one a `Do`. On stdout comes one JSON
object per line: `ready`, then `truth` twice a second, `done` for each order, and `end`. The process
ends when stdin does, when it is told to, or when its parent dies.
"""

import asyncio
import ctypes
import math
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from kapelle.model.ids import Ints
from kapelle.runtime.limits import allow_files
from kapelle.sim.devices import make_fleet
from kapelle.sim.measured import read_measured
from kapelle.sim.peers import packets, wire
from kapelle.sim.peers.messages import Do, Start, Truth
from kapelle.sim.peers.mqtt import Client
from kapelle.sim.peers.swarm import Swarm
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
        devices = make_fleet(start.plan, np.random.default_rng(start.seed))
        self._start = start
        self._rng = random.Random(start.seed)
        self._world = World(
            devices,
            start.faults,
            np.random.default_rng(start.seed + 1),
            time.time_ns(),
            measured=read_measured(Path(start.measured)) if start.measured else None,
        )
        self._swarm = Swarm(
            (start.host, start.port),
            self._rng,
            connects_per_s=start.connects_per_s,
            back_off_s_max=start.back_off_s_max,
            now=time.monotonic,
        )
        self._unreadable = 0
        self._reports = 0
        self._stop = asyncio.Event()
        names = [name.decode() for name in devices.enrolled.device_id]
        self._clients = [self._client(index, name) for index, name in enumerate(names)]

    def _client(self, index: int, name: str) -> Client:
        v5 = self._rng.random() < self._start.v5_share
        return Client(
            index,
            name,
            self._start.secrets.get(name, ""),
            self._swarm,
            version=packets.V5 if v5 else packets.V311,
            keep_alive_s=self._start.keep_alive_s,
            now=time.monotonic,
        )

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Play until told to stop; stdin is the leash."""
        self._swarm.call_all([c for c in self._clients if c.name in self._start.secrets])
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._swarm.run()),
                group.create_task(self._step()),
                group.create_task(self._obey(orders)),
            ]
            await self._stop.wait()
            for task in tasks:
                task.cancel()
        for client in self._clients:
            client.leave()
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
        world, swarm = self._world, self._swarm
        acting = world.step(now_ns)
        swarm.lose(self._of(world.lost), _DEAF)
        swarm.bring_back(self._of(world.back), _RETURN_S)
        self._say(wire.answers(acting, now_ns))
        if arrived := swarm.take_commands():
            rows, block, unreadable = wire.commands(arrived)
            self._unreadable += unreadable
            self._say(wire.answers(world.agents.receive_commands(rows, block, now_ns), now_ns))
        for row, payload in wire.telemetry(world.reports(now_ns)):
            self._clients[row].publish(payload)
            self._reports += 1

    def _say(self, said: Iterator[tuple[int, bytes]]) -> None:
        for row, payload in said:
            if self._world.faults.reachable[row]:
                self._clients[row].publish(payload, ack=True)

    def _of(self, rows: Ints) -> list[Client]:
        return [self._clients[row] for row in rows.tolist()]

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
            self._swarm.lose(self._of(members.astype(np.int32)), share_deaf=0.0)
        return len(members)

    def truth(self) -> Truth:
        """Return what is true now."""
        world, swarm, agents = self._world, self._swarm, self._world.agents
        waits_s, swarm.waits_s = swarm.waits_s, []
        median, worst = np.percentile(waits_s, [50, 99]).tolist() if waits_s else (0.0, 0.0)
        return Truth(
            at_ns=world.physics.now_ns,
            power_w=world.sum_w(),
            own_w=float(world.physics.own_w.sum()),
            connected=swarm.up,
            reachable=int(world.faults.reachable.sum()),
            following=int(agents.commanded().sum()),
            reports=self._reports,
            published=sum(client.published for client in self._clients),
            acked=swarm.counts.acked,
            repeated=sum(client.repeated for client in self._clients),
            forgotten=sum(client.forgotten for client in self._clients),
            commands=swarm.counts.commands,
            unreadable=self._unreadable,
            effects=int(agents.effects.sum()),
            double_effects=agents.double_effects,
            stale_effects=agents.stale_effects,
            reverted=agents.reverted,
            expired=agents.expired,
            fenced=agents.fenced,
            connects=swarm.counts.connects,
            refused=swarm.counts.refused,
            drops=swarm.counts.drops,
            ack_ms=(median * 1e3, worst * 1e3),
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
    # Ctrl-C in a terminal reaches the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_blocking(sys.stdout.fileno(), False)
    uvloop.run(play())


if __name__ == "__main__":
    main()
