"""Edge nodes with devices on a small broker, for one host: `python -m benchmarks.sparkplug_load`.

The first line on stdout is the broker's port. Each line on stdin begins a phase and each phase
answers with one line of JSON: `born` waits until the host is there and everybody is born, `flat`
has devices measure again as soon as one of them is acknowledged.
"""

import argparse
import asyncio
import json
import sys
import time

import msgspec
import uvloop

from kapelle.sim.peers.broker import Broker
from kapelle.sim.peers.process import stdin_lines
from kapelle.sim.peers.sparkplug import SETPOINT, EdgeNode

DEVICES = 20
"""Behind each edge node."""
AT_ONCE = 800
"""Measurements that are not acknowledged yet; below the host's Receive Maximum."""


class Load:
    """All edge nodes. Listener of their broker; everything is at QoS 1, so that it is answered."""

    def __init__(self, nodes: int) -> None:
        self.broker = Broker(self)
        self.acked = self.told = self.next = 0
        self.is_flat_out = False
        self._host, self._births = asyncio.Event(), asyncio.Event()
        self.nodes = [
            EdgeNode(
                "bench",
                f"edge-{number}",
                [f"dev-{number * DEVICES + index}" for index in range(DEVICES)],
                metrics={"Power": 0.0, "SoC": 0.5, SETPOINT: None},
                publish=lambda topic, payload: self.broker.publish(topic, payload, 1),
                now_ms=lambda: time.time_ns() // 1_000_000,
            )
            for number in range(nodes)
        ]
        self._by_name = {f"edge-{number}": node for number, node in enumerate(self.nodes)}

    def on_published(self, topic: str, payload: bytes) -> None:
        """Be told, and echo it."""
        _, _, kind, *place = topic.split("/")
        if topic.startswith("spBv1.0/STATE/"):
            if msgspec.json.decode(payload)["online"]:
                self._host.set()
            return
        node = self._by_name[place[0]]
        device = place[1] if kind == "DCMD" else ""
        for setpoint in node.hear(kind, device, payload):
            self.told += 1
            index = int(device.removeprefix("dev-")) % DEVICES
            node.measure(index, {SETPOINT: setpoint}, time.time_ns() // 1_000_000)

    def on_acked(self, waited_s: float) -> None:
        """Count it, and have the next device measure."""
        self.acked += 1
        if self.acked == len(self.nodes) * (DEVICES + 1):
            self._births.set()
        if self.is_flat_out:
            self.measure()

    def measure(self) -> None:
        """Have the next device in turn say what it measures."""
        self.next += 1
        node = self.nodes[self.next % len(self.nodes)]
        values = {"Power": float(self.next % 5_000), "SoC": 0.5}
        place = self.next // len(self.nodes) % DEVICES
        node.measure(place, values, time.time_ns() // 1_000_000)

    async def born(self) -> dict[str, float]:
        """Wait for the host, be born when it asks; done when all births are acknowledged."""
        await self._host.wait()
        begun_s = time.monotonic()
        await self._births.wait()
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
    load, orders = Load(asked.nodes), await stdin_lines()
    async with load.broker.serve():
        sys.stdout.write(f"{load.broker.port}\n")
        sys.stdout.flush()
        while order := (await orders.readline()).decode().strip():
            said = await (load.born() if order == "born" else load.flat(asked.seconds))
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


def main() -> None:
    """Play until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15.0)
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
