"""The walk-through of docs/adapters/openadr.md, as it stands there, and its list of settings."""

import asyncio
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

from kapelle.adapters.openadr.settings import OpenAdrSettings, UpstreamSettings

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "adapters" / "openadr.md").read_text()
CLI = [sys.executable, "-m", "kapelle.cli"]


def steps() -> list[tuple[str, str]]:
    """Return each command of the walk-through, and what the page shows below it."""
    found: list[tuple[str, str]] = []
    for line in "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)).splitlines():
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
    with (folder / "up.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *CLI, *arguments, cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def ended(words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *words, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.integration
def test_a_first_gateway(tmp_path: Path) -> None:
    (gateway,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    async def run() -> None:
        vtn, mqtt, api = free_port(), free_port(), free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
        environment |= {"KAPELLE_MQTT__PORT": str(mqtt), "KAPELLE_API__PORT": str(api)}
        (tmp_path / "gateway.py").write_text(gateway.replace("9443", str(vtn)))
        async with AsyncExitStack() as stack:
            *before, show = steps()
            for command, shown in before:
                words = shlex.split(command)
                if words[0] == "cat":
                    # Only the port is another.
                    (tmp_path / words[1]).write_text(shown.replace("9443", str(vtn)))
                elif words[-1] == "&":
                    await stack.enter_async_context(running(words[1:-1], tmp_path, environment))
                else:
                    code, said = await ended([*CLI, *words[1:]], tmp_path, environment)
                    assert code == 0, said
            await until(lambda: listens(vtn), patience_s=90.0)
            code, said = await ended([sys.executable, "gateway.py"], tmp_path, environment)
            assert code == 0, said

            async def arrived() -> bool:
                words = shlex.split(show[0])
                code, said = await ended([*CLI, *words[1:]], tmp_path, environment)
                return code == 0 and "-2000.0" in said

            await until(arrived, patience_s=90.0)

    asyncio.run(run())


def test_every_setting_is_on_the_page() -> None:
    table = PAGE[PAGE.index("## Settings") :]
    every = [*fields(OpenAdrSettings), *fields(UpstreamSettings)]
    missing = [field.name for field in every if f"`{field.name}`" not in table]
    assert missing == []
