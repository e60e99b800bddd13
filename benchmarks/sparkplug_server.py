"""The Sparkplug host with ingest and the SQLite journal: `python -m benchmarks.sparkplug_server`.

The first line on stdout says what it takes before it listens. Each line on stdin is answered with
one line of JSON: `see` with memory and processor time, `tell` once everybody was commanded.
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.ocpp_server import commands
from benchmarks.sparkplug_load import DEVICES
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.sparkplug.endpoint import SparkplugEndpoint
from kapelle.adapters.sparkplug.settings import SparkplugMetric, SparkplugSettings
from kapelle.ingest.service import Ingest
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.ports import Link
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock
from kapelle.sim.peers.process import stdin_lines

PARTITIONS = 4
METRICS = (
    SparkplugMetric("Power", "power_w", "W", "export"),
    SparkplugMetric("SoC", "soc", "fraction"),
    SparkplugMetric("Setpoint", "setpoint_w", "W", "export"),
)


def see() -> dict[str, float]:
    """Return this process's resident memory and the processor time it has used."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"resident_kb": pages * resource.getpagesize() / 1024, "cpu_s": time.process_time()}


async def tell_all(counters: Counters, link: Link, devices: int, revision: int) -> dict[str, float]:
    """Command every device, and wait until all have echoed it."""
    began_s, before = time.monotonic(), counters.commands_received
    written = await link.send(commands(devices, revision, time.time_ns()))
    while counters.commands_received < before + int(written.sum()):
        assert time.monotonic() - began_s < 60.0
        await asyncio.sleep(0.01)
    return {"written": int(written.sum()), "seconds": time.monotonic() - began_s}


def say(said: object) -> None:
    """Answer with one line."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


async def _main(asked: argparse.Namespace) -> None:
    clock = SystemClock()
    bearers = [
        Bearer(
            number, f"dev-{number}", True, 5e3, 5e3, b"",
            adapter="sparkplug", address=f"bench/edge-{number // DEVICES}/dev-{number}",
        )
        for number in range(asked.devices)
    ]  # fmt: skip
    directory = Directory.build(PARTITIONS, bearers)
    settings = SparkplugSettings(port=asked.port, metrics=METRICS, rebirths_per_s=1_000)
    endpoint = SparkplugEndpoint(settings=settings, directory=directory, clock=clock)
    orders, revision = await stdin_lines(), 0
    with tempfile.TemporaryDirectory(dir=asked.directory) as folder:
        say(see())
        async with (
            open_journal(JournalSettings(directory=Path(folder)), clock) as journal,
            endpoint.open() as link,
            background() as beside,
        ):
            ingest = Ingest(journal=journal, directory=directory, clock=clock)
            beside.start(ingest.run(link), "ingest")
            while order := (await orders.readline()).decode().strip():
                revision += order == "tell"
                say(
                    await tell_all(endpoint.counters, link, asked.devices, revision)
                    if order == "tell"
                    else see()
                )


def main() -> None:
    """Listen until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=4000)
    parser.add_argument("--directory", default=None, help="where the journal's disk is")
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
