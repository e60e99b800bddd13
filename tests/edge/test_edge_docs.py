"""The walk-through of docs/adapters/sunspec.md, as it stands there, and its list of settings."""

import asyncio
import json
import os
import re
import shlex
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import fields
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import until
from tests.adapters.sunspec.inverter import Inverter, served

from kapelle.adapters.sunspec.settings import DeviceSettings
from kapelle.edge.settings import BufferSettings, UplinkSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adapters" / "sunspec.md").read_text()
CLI = [sys.executable, "-m", "kapelle.cli"]


def steps() -> list[tuple[str, str]]:
    """Return each command of the walk-through, and what the page shows below it."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    found: list[tuple[str, str]] = []
    for line in "".join(blocks).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            found[-1] = found[-1][0], found[-1][1] + line + "\n"
    return found


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(
    arguments: list[str], folder: Path, environment: dict[str, str]
) -> AsyncIterator[None]:
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *CLI, *arguments, cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def ended(arguments: list[str], folder: Path, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *CLI, *arguments, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, (arguments, err)
    return out.decode()


@pytest.mark.integration
def test_a_first_device(tmp_path: Path) -> None:
    async def run() -> None:
        mqtt, api = free_port(), free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
        environment |= {"KAPELLE_MQTT__PORT": str(mqtt), "KAPELLE_API__PORT": str(api)}
        async with AsyncExitStack() as stack:
            modbus = await stack.enter_async_context(served({1: Inverter()}))
            for command, shown in steps():
                words = shlex.split(command)
                if words[0] == "cat":
                    # Only ports and addresses are another.
                    here = shown.replace('"192.168.1.20"', f'"127.0.0.1"\nport = {modbus}')
                    (tmp_path / words[1]).write_text(here.replace("1883", str(mqtt)))
                elif words[-1] == "&":
                    await stack.enter_async_context(running(words[1:-1], tmp_path, environment))
                else:
                    said = await ended(words[1:], tmp_path, environment)
                    assert not shown or json.loads(said) == json.loads(shown)

            async def arrived() -> bool:
                with suppress(AssertionError):
                    told = await ended(
                        ["devices", "show", "bat-1", "--json"], tmp_path, environment
                    )
                    return "-2000.0" in told
                return False

            await until(arrived, patience_s=90.0)

    asyncio.run(run())


def test_every_setting_is_on_the_page() -> None:
    tables = PAGE[PAGE.index("## Settings") :]
    for settings in (UplinkSettings, BufferSettings, DeviceSettings):
        for field in fields(settings):
            assert f"`{field.name}" in tables or f"{field.name}`" in tables, field.name
