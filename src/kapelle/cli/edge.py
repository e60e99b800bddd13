"""`kapelle edge`: the agent that runs beside devices."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from kapelle.cli.output import Exit, Json, complain, print_json, print_table, say
from kapelle.cli.running import run_until_signal
from kapelle.edge.settings import EdgeConfig, secrets_of
from kapelle.errors import Invalid, KapelleError, Problem
from kapelle.runtime import logs
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.sections import read
from kapelle.words import counted

_COLUMNS = ("device", "maker", "model", "serial", "models", "setpoints", "revert_timer", "power_w")


def edge(
    config: Annotated[Path, typer.Option("--config", "-c", help="The agent's TOML file.")] = Path(
        "edge.toml"
    ),
    look: Annotated[
        bool, typer.Option("--look", help="Say what the devices are, read each once, and end.")
    ] = False,
    log: Annotated[logs.Form, typer.Option(help="Form of the log on stderr.")] = "text",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    json: Json = False,
) -> None:
    """Run beside SunSpec devices: poll, keep what the plant has not got, carry out its commands."""
    settings = _settings(config)
    logs.set_up(log, logging.DEBUG if verbose else logging.INFO)
    # aiomqtt and paho say again what we say.
    logging.getLogger("mqtt").setLevel(logging.CRITICAL)
    if look:
        rows = run_until_signal(lambda: _look(settings)) or []
        print_json(rows) if json else print_table(rows, _COLUMNS, "no device answered")
        raise typer.Exit(
            Exit.OK if len(rows) == len(settings.sunspec.devices) else Exit.UNREACHABLE
        )
    secrets = secrets_of(settings, os.environ)
    plant = f"{settings.plant.host}:{settings.plant.port}"
    say(f"{counted(len(secrets), 'device')}, plant at {plant}")
    run_until_signal(lambda: _run(settings, secrets))


def _settings(config: Path) -> EdgeConfig:
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "name a readable TOML file with --config"
        raise Invalid("no configuration", [Problem(str(config), str(error), remedy)]) from error
    settings, _ = read(EdgeConfig, text, {}, str(config))
    return settings


async def _run(settings: EdgeConfig, secrets: dict[str, str]) -> None:
    # Costly to import, and only needed here.
    from kapelle.edge.buffer import Buffer
    from kapelle.edge.service import Agent

    clock = SystemClock(settings.buffer.file.with_suffix(".clock"))
    buffer = Buffer(settings.buffer, clock.now_ns())
    try:
        clock.not_before(buffer.latest_ns)
        agent = Agent(settings, secrets, buffer, clock)
        clock.free = agent.is_free
        await agent.run()
    finally:
        buffer.close(clock.now_ns())


async def _look(settings: EdgeConfig) -> list[dict[str, object]]:
    from kapelle.adapters.sunspec.unit import Unit
    from kapelle.edge.service import lines_of
    from kapelle.model.enums import Metric

    clock = SystemClock()
    lines = lines_of(settings.sunspec.devices)
    rows: list[dict[str, object]] = []
    for device in settings.sunspec.devices:
        unit = Unit(lines[device.host, device.port], device, clock)
        try:
            values, _ = await unit.poll(float("nan"))
        except KapelleError as error:
            complain(f"{device.id}: {error}")
            continue
        found = unit.found
        assert found is not None
        rows.append(
            {
                "device": device.id,
                "maker": found.maker,
                "model": found.model,
                "serial": found.serial,
                "models": " ".join(map(str, sorted(found.places))),
                "setpoints": found.way.name if found.way else "none",
                "revert_timer": found.has_timer,
                "power_w": values.get(Metric.POWER_W),
            }
        )
    for line in lines.values():
        line.close()
    await asyncio.sleep(0)
    return rows
