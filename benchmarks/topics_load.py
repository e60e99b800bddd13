"""Devices on topics of their own on a small broker: `python -m benchmarks.topics_load`.

The first line on stdout is the broker's port. Each line on stdin begins a phase and each phase
answers with one line of JSON: `come` once the plant has heard everybody come, `flat` has devices
measure again as soon as one of them is acknowledged.
"""

import argparse
import asyncio
import json
import sys
import time

import uvloop

from kapelle.sim.peers.broker import Broker
from kapelle.sim.peers.process import stdin_lines

AT_ONCE = 800
"""Measurements that are not acknowledged yet; below the plant's Receive Maximum."""


class Load:
    """All devices. Listener of their broker; everything is at QoS 1, so that it is answered."""

    def __init__(self, devices: int) -> None:
        self.broker = Broker(self)
        self.devices = devices
        self.acked = self.next = self.come = 0
        self.is_flat_out = False
        self._came = asyncio.Event()

    def on_published(self, topic: str, payload: bytes) -> None:
        """Be told, and show it."""
        self.broker.publish(topic.removesuffix("set") + "setpoint", payload)

    def on_acked(self, waited_s: float) -> None:
        """Count it, and have the next device come, or measure."""
        self.acked += 1
        self.come_next()
        if self.acked == self.devices:
            self._came.set()
        if self.is_flat_out:
            self.measure()

    def measure(self) -> None:
        """Have the next device in turn say what it measures."""
        self.next += 1
        device = self.next % self.devices
        said = {"at": time.time_ns() // 1_000_000, "power": self.next % 5_000, "soc": 0.5}
        self.broker.publish(f"home/dev-{device}/state", json.dumps(said).encode(), 1)

    def come_next(self) -> None:
        """Have the next device say that it is there."""
        if self.come < self.devices:
            self.broker.publish(f"home/dev-{self.come}/online", b"true", 1, retain=True)
            self.come += 1

    async def all_come(self) -> dict[str, float]:
        """Have everybody come to a plant that is there; done when all of it is acknowledged."""
        begun_s = time.monotonic()
        for _ in range(AT_ONCE):
            self.come_next()
        await self._came.wait()
        return {"seconds": time.monotonic() - begun_s}

    async def flat(self, seconds: float) -> dict[str, float]:
        """Measure as fast as that is acknowledged."""
        before, begun_s = self.acked, time.monotonic()
        self.is_flat_out = True
        for _ in range(AT_ONCE):
            self.measure()
        await asyncio.sleep(seconds)
        self.is_flat_out = False
        took_s = time.monotonic() - begun_s
        return {
            "seconds": took_s, "acked": self.acked - before, "dropped": self.broker.dropped,
        }  # fmt: skip


async def _main(asked: argparse.Namespace) -> None:
    load, orders = Load(asked.devices), await stdin_lines()
    async with load.broker.serve():
        sys.stdout.write(f"{load.broker.port}\n")
        sys.stdout.flush()
        while order := (await orders.readline()).decode().strip():
            said = await (load.all_come() if order == "come" else load.flat(asked.seconds))
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


def main() -> None:
    """Play until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=15.0)
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
