"""Charge points that report: as often as asked, or again as soon as they were acknowledged.

python -m benchmarks.ocpp_load --port 9000 --stations 2000 --every 10
"""

import argparse
import asyncio
import json
import sys
import time
from contextlib import suppress

import numpy as np
import uvloop

from kapelle.runtime.limits import allow_files
from kapelle.sim.peers.ocpp import ChargePoint
from kapelle.sim.peers.process import stdin_lines

CONNECTS_AT_ONCE = 64


class Load:
    """All charge points, and what the plant acknowledged."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self.acked = 0
        self.told = 0
        self.lost = 0
        self.waits_s: list[float] = []
        self.points = [
            ChargePoint(number, f"cp-{number}", asked.secret, self, now_ns=time.time_ns)
            for number in range(asked.stations)
        ]
        self._door = asyncio.Semaphore(CONNECTS_AT_ONCE)
        self._ready = [asyncio.Event() for _ in self.points]
        self.is_flat_out = False

    def on_up(self, index: int) -> None:
        """Let the next one connect."""
        self._ready[index].set()

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        """Count it."""
        self.told += 1

    def on_acked(self, index: int, waited_s: float) -> None:
        """Count it, and report again where there is no pace."""
        self.acked += 1
        self.waits_s.append(waited_s)
        if self.is_flat_out:
            self.points[index].measure(-3_000.0, float(self.acked))

    async def wait_ready(self) -> None:
        """Wait until all are connected, and what follows a boot is done."""
        for ready in self._ready:
            await ready.wait()
        await asyncio.sleep(1.0)

    async def live(self, point: ChargePoint) -> None:
        """Keep one connected until the end."""
        async with self._door:
            running = asyncio.ensure_future(point.run("127.0.0.1", self._asked.port))
            await self._ready[point.index].wait()
        with suppress(OSError):
            await running
        self.lost += 1

    async def pace(self, seconds: float) -> None:
        """Have every charge point report every so often, each at its own moment."""
        end_s, every_s = time.monotonic() + seconds, self._asked.every
        turn_s = every_s / len(self.points)
        next_s, number = time.monotonic(), 0
        while time.monotonic() < end_s:
            while next_s <= time.monotonic():
                self.points[number % len(self.points)].measure(-3_000.0, float(number))
                number, next_s = number + 1, next_s + turn_s
            await asyncio.sleep(0.005)

    def flat_out(self) -> None:
        """Have every charge point report as often as it is acknowledged."""
        self.is_flat_out = True
        for point in self.points:
            point.measure(-3_000.0, 0.0)

    def say(self, seconds: float) -> None:
        """Tell what was acknowledged since it was last asked."""
        waits_s, self.waits_s = self.waits_s or [float("nan")], []
        median_s, worst_s = np.percentile(waits_s, [50, 99]).tolist()
        told = {
            "acked": self.acked,
            "seconds": seconds,
            "median_ms": median_s * 1e3,
            "p99_ms": worst_s * 1e3,
            "told": self.told,
            "lost": self.lost,
        }
        self.acked = self.told = 0
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


async def _main(asked: argparse.Namespace) -> None:
    load, lines = Load(asked), await stdin_lines()
    tasks = [asyncio.ensure_future(load.live(point)) for point in load.points]
    await load.wait_ready()
    load.say(0.0)
    for work in ("pace", "wait", "flat out"):
        if not await lines.readline():
            break
        began_s = time.monotonic()
        if work == "pace":
            await load.pace(asked.seconds)
        elif work == "flat out":
            load.flat_out()
            await asyncio.sleep(asked.seconds)
        load.say(time.monotonic() - began_s)
    for task in tasks:
        task.cancel()
    await asyncio.sleep(0)


def main() -> None:
    """Load until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stations", type=int, default=2000)
    parser.add_argument("--every", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--secret", default="benchmark-secret")
    asked = parser.parse_args()
    allow_files(asked.stations)
    uvloop.run(_main(asked))


if __name__ == "__main__":
    main()
