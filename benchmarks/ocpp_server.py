"""The OCPP endpoint with ingest and the SQLite journal; a line on stdin has it command everybody.

python -m benchmarks.ocpp_server --stations 2000
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import uvloop

from kapelle.adapters.ocpp.endpoint import OcppEndpoint
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.ingest.service import Ingest
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.blocks import Commands
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Link
from kapelle.registry.credentials import hash_secret
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.limits import allow_files
from kapelle.sim.peers.process import stdin_lines

PARTITIONS = 4


def commands(stations: int, revision: int, now_ns: int) -> Commands:
    """Return one command for every station."""
    filled = {name: np.zeros(stations, kind) for name, kind in Commands.COLUMNS.items()}
    filled["device_no"][:] = np.arange(stations)
    filled["revision"][:] = revision
    filled["epoch"][:] = 1
    filled["setpoint_w"][:] = -3_000.0 - revision
    filled["not_after_ns"][:] = now_ns + 60 * NS_PER_S
    filled["revert_s"][:] = 300.0
    return Commands(**filled)


async def _obey(endpoint: OcppEndpoint, link: Link, stations: int) -> None:
    lines, clock = await stdin_lines(), endpoint.clock
    revision = 0
    while await lines.readline():
        revision += 1
        before, began_ns = endpoint.counters.commands_received, clock.now_ns()
        written = await link.send(commands(stations, revision, began_ns))
        # A profile and the schedule that shows it: two answers each.
        wanted = before + 2 * int(written.sum())
        while endpoint.counters.commands_received < wanted:
            if clock.now_ns() - began_ns > 60 * NS_PER_S:
                break
            await asyncio.sleep(0.01)
        told = {
            "written": int(written.sum()),
            "answers": endpoint.counters.commands_received - before,
            "seconds": (clock.now_ns() - began_ns) / NS_PER_S,
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


async def _main(asked: argparse.Namespace) -> None:
    clock = SystemClock()
    secret = hash_secret(asked.secret)
    directory = Directory.build(
        PARTITIONS,
        [
            Bearer(number, f"cp-{number}", True, 0.0, 11e3, secret, adapter="ocpp")
            for number in range(asked.stations)
        ],
    )
    settings = OcppSettings(port=0, sample_s=0, messages_per_s=1e6, messages_burst=1_000_000)
    endpoint = OcppEndpoint(settings=settings, directory=directory, clock=clock)
    with tempfile.TemporaryDirectory(dir=asked.directory) as folder:
        journal_settings = JournalSettings(directory=Path(folder))
        async with (
            open_journal(journal_settings, clock) as journal,
            endpoint.open() as link,
            background() as beside,
        ):
            ingest = Ingest(journal=journal, directory=directory, clock=clock)
            beside.start(ingest.run(link), "ingest")
            sys.stdout.write(f"{endpoint.port}\n")
            sys.stdout.flush()
            await _obey(endpoint, link, asked.stations)


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stations", type=int, default=2000)
    parser.add_argument("--secret", default="benchmark-secret")
    parser.add_argument("--directory", default=None, help="where the journal's disk is")
    asked = parser.parse_args()
    allow_files(asked.stations)
    uvloop.run(_main(asked))


if __name__ == "__main__":
    main()
