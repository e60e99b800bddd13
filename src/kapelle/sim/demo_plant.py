"""Sets up the plant the demo plays on: a place, free ports, and every device enrolled."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.api.settings import ApiSettings
from kapelle.app import Plant
from kapelle.config import Config, PlantSettings
from kapelle.errors import KapelleError
from kapelle.history.settings import HistorySettings
from kapelle.ports import Listener
from kapelle.registry.importing import import_devices
from kapelle.sim.devices import Devices

_OPEN_S_MAX = 60.0


@contextmanager
def place(directory: Path | None) -> Iterator[Path]:
    """Return a directory for the plant's data; one that was made here goes away again."""
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="kapelle-demo-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def config_in(directory: Path) -> Config:
    """Return a configuration on free loopback ports."""
    config = Config(
        plant=PlantSettings(name="demo", data_dir=directory),
        # Nobody comes back to look at the record of a demonstration.
        history=HistorySettings(enabled=False),
    )
    return replace(
        config,
        journal=replace(config.journal, directory=directory / "journal"),
        mqtt=replace(config.mqtt, host="127.0.0.1", port=0),
        api=ApiSettings(port=0),
    )


async def enrol(plant: Plant, devices: Devices) -> dict[str, str]:
    """Register every device as an operator would, and return their credentials."""
    rows = [{k: v for k, v in row.items() if v is not None} for row in devices.rows()]
    document = msgspec.json.encode(rows)
    done = await asyncio.to_thread(
        import_devices, plant.registry, document, "json", plant.doors.clock.now_ns()
    )
    if len(done.credentials) < len(rows):
        raise KapelleError("these devices are enrolled already: choose an empty directory")
    return done.credentials


@asynccontextmanager
async def running(plant: Plant) -> AsyncIterator[None]:
    """Run the plant around a block; its failure ends the block, the block's end stops it."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(plant.run(), name="plant")
            yield
            task.cancel()
    except ExceptionGroup as errors:
        raise first_error(errors) from errors


async def wait_ready(plant: Plant, first: str) -> int:
    """Wait until a device would be let in; return the port."""
    endpoint = next(a for a in plant.doors.adapters if isinstance(a, MqttEndpoint))
    async with asyncio.timeout(_OPEN_S_MAX):
        await plant.api.ready.wait()
        # The adapter port has no event for it, and the directory neither: ask now and then.
        while not endpoint.port or plant.doors.directory.resolve([first])[0] < 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return endpoint.port


async def ports_of(plant: Plant, protocols: Iterable[str]) -> dict[str, int]:
    """Wait until those of these protocols listen whose devices call; return where."""
    wanted = set(protocols)
    called = [a for a in plant.doors.adapters if a.name in wanted and isinstance(a, Listener)]
    async with asyncio.timeout(_OPEN_S_MAX):
        while not all(adapter.port for adapter in called):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.02)
    return {adapter.name: adapter.port for adapter in called}


def journal_size(directory: Path) -> int:
    """Return how much the journal in a directory has written. [bytes]"""
    with contextlib.suppress(OSError):
        files = [file for file in directory.rglob("*") if file.is_file()]
        # What the journal keeps back for a full disk says nothing about what was written.
        return sum(file.stat().st_size for file in files if file.name != "RESERVE")
    return 0


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error inside nested groups: the reason of all the others."""
    inner = errors.exceptions[0]
    return first_error(inner) if isinstance(inner, BaseExceptionGroup) else inner
