"""`kapelle up`: the plant for real."""

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
import uvloop

from kapelle.cli.configuration import File, config_of
from kapelle.cli.output import say
from kapelle.config import Config
from kapelle.ports import Listener
from kapelle.runtime import logs
from kapelle.runtime.limits import allow_files

if TYPE_CHECKING:
    from kapelle.app import Plant

T = TypeVar("T")
_FILES_ADVISED = 4096
_LISTEN_LOOKS = 200
_LISTEN_LOOK_S = 0.05


def up(
    config: File = None,
    log: Annotated[logs.Form, typer.Option(help="Form of the log on stderr.")] = "text",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the plant: devices over MQTT and HTTP, journal, dispatch and API in one process."""
    settings = config_of(config)
    logs.set_up(log, logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        # They report every request and migration; the plant has counters for that.
        for chatty in ("httpx", "uvicorn", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    files = allow_files()
    say(f"plant {settings.plant.name} in {settings.plant.data_dir}")
    if files < _FILES_ADVISED:
        say(f"only {files:,} open files are allowed, one per device: see kapelle doctor")
    run_until_signal(lambda: _run(settings))


def run_until_signal(make: Callable[[], Coroutine[None, None, T]]) -> T | None:
    """Run to the end and return the result; None when SIGINT or SIGTERM ended it early."""

    async def watched() -> T | None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await make()
        except asyncio.CancelledError:
            return None

    return uvloop.run(watched())


async def _run(settings: Config) -> None:
    # Costly to import, and only needed here.
    from kapelle.app import open_plant

    async with open_plant(settings) as plant, asyncio.TaskGroup() as tasks:
        stop = partial(plant.doors.stop, "SIGUSR1", "signal")
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop)
        tasks.create_task(_tell_addresses(plant, settings), name="addresses")
        await plant.run()


async def _tell_addresses(plant: "Plant", settings: Config) -> None:
    """Say where the plant listens, once it does: port 0 in the configuration is any free one."""
    await plant.api.ready.wait()
    listeners = [one for one in plant.doors.adapters if isinstance(one, Listener)]
    for _ in range(_LISTEN_LOOKS):
        if all(one.port for one in listeners):
            break
        await asyncio.sleep(_LISTEN_LOOK_S)
    told = [f"{one.name} {one.host}:{one.port or 'not yet'}" for one in listeners]
    scheme = "https" if settings.api.tls_certificate else "http"
    say(f"listening: {', '.join(told)}, API {scheme}://{settings.api.host}:{plant.api.port}")
