"""Other people's topics with ingest and the SQLite journal: `python -m benchmarks.topics_server`.

The first line on stdout says what it takes before it listens. Each line on stdin is answered with
one line of JSON: `see` with memory and processor time, `tell` once everybody was commanded.
"""

import argparse
import tempfile
from pathlib import Path

import uvloop

from benchmarks.sparkplug_server import PARTITIONS, say, see, tell_all
from kapelle.adapters.topics.endpoint import TopicsEndpoint
from kapelle.adapters.topics.settings import TopicsSettings
from kapelle.ingest.service import Ingest
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock
from kapelle.sim.peers.process import stdin_lines
from kapelle.sim.peers.topics import SCHEME


async def _main(asked: argparse.Namespace) -> None:
    clock = SystemClock()
    bearers = [
        Bearer(
            number, f"dev-{number}", True, 5e3, 5e3, b"",
            adapter="topics", address=f"{SCHEME.name}/dev-{number}",
        )
        for number in range(asked.devices)
    ]  # fmt: skip
    directory = Directory.build(PARTITIONS, bearers)
    settings = TopicsSettings(port=asked.port, schemes=(SCHEME,), settle_s=600.0)
    endpoint = TopicsEndpoint(settings=settings, directory=directory, clock=clock)
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
