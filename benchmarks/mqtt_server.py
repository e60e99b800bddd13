"""The MQTT endpoint alone (`sink`: confirms at once) or with ingest and the SQLite journal.

python -m benchmarks.mqtt_server --mode journal --devices 1000
"""

import argparse
import asyncio
import cProfile
import resource
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import uvloop

from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.ingest.service import Ingest
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.ports import Link
from kapelle.registry.credentials import hash_secret
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock

PARTITIONS = 4


async def _sink(link: Link) -> None:
    async for batch in link.receive():
        link.confirm(batch, {})


async def _main(asked: argparse.Namespace) -> None:
    clock = SystemClock()
    directory = Directory.build(
        PARTITIONS,
        [
            Bearer(number, f"dev-{number}", True, 5e3, 5e3, hash_secret(asked.secret))
            for number in range(asked.devices)
        ],
    )
    settings = MqttSettings(
        port=0,
        publishes_per_s=1e6,
        publishes_burst=1_000_000,
        connects_per_s=10_000,
        connects_burst=20_000,
    )
    endpoint = MqttEndpoint(settings=settings, directory=directory, clock=clock)
    async with endpoint.open() as link:
        sys.stdout.write(f"{endpoint.port}\n")
        sys.stdout.flush()
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with suppress(asyncio.CancelledError):
            if asked.mode == "sink":
                await _sink(link)
            with tempfile.TemporaryDirectory(dir=asked.directory) as folder:
                journal_settings = JournalSettings(directory=Path(folder))
                async with open_journal(journal_settings, clock) as journal:
                    ingest = Ingest(journal=journal, directory=directory, clock=clock)
                    try:
                        await ingest.run(link)
                    finally:
                        sys.stderr.write(f"{ingest.counters}\n")
    sys.stderr.write(f"{endpoint.counters}\n")


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=("sink", "journal"), default="journal")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--secret", default="benchmark-secret")
    parser.add_argument("--directory", default=None, help="where the journal's disk is")
    parser.add_argument("--profile", default="", help="write a cProfile here")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    profile = cProfile.Profile() if asked.profile else None
    if profile:
        profile.enable()
    uvloop.run(_main(asked))
    if profile:
        profile.disable()
        profile.dump_stats(asked.profile)


if __name__ == "__main__":
    main()
