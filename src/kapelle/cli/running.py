"""`kapelle up`: the plant for real."""

import logging
from typing import Annotated

import typer
import uvloop

from kapelle.cli.configuration import File, config_of
from kapelle.cli.output import say
from kapelle.runtime import logs


def up(
    config: File = None,
    log: Annotated[logs.Form, typer.Option(help="Form of the log on stderr.")] = "text",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the plant: devices over MQTT and HTTP, journal, dispatch and API in one process."""
    # Costly to import, and only needed here.
    from kapelle import app

    settings = config_of(config)
    logs.set_up(log, logging.DEBUG if verbose else logging.INFO)
    say(
        f"plant {settings.plant.name} in {settings.plant.data_dir}: "
        f"MQTT {settings.mqtt.host}:{settings.mqtt.port}, "
        f"API http://{settings.api.host}:{settings.api.port}"
    )
    uvloop.run(app.run(settings))
