"""The walk-through of docs/adapters/cloud.md, as it stands there, and its list of settings."""

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path

import pytest
from tests.adapters.cloud.vendors import free_port
from tests.adapters.conformance.plant import until

from kapelle.adapters.cloud import documents, settings

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "adapters" / "cloud.md").read_text()
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


@asynccontextmanager
async def running(
    words: list[str], folder: Path, environment: dict[str, str]
) -> AsyncIterator[None]:
    with (folder / "out.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *words, cwd=folder, env=environment, stdout=log, stderr=log
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
    return process.returncode or 0, said.decode()


@pytest.mark.integration
def test_a_first_device(tmp_path: Path) -> None:
    (vendor,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    async def run() -> None:
        ports = {"9100": str(free_port()), "8080": str(free_port())}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
        environment |= {"KAPELLE_MQTT__PORT": str(free_port()), "KAPELLE_API__PORT": ports["8080"]}

        def here(text: str) -> str:
            # Only the ports are others.
            return text.replace("9100", ports["9100"]).replace("8080", ports["8080"])

        def words(command: str) -> list[str]:
            first, *rest = shlex.split(command.removesuffix("&"))
            found = {"kapelle": CLI, "python": [sys.executable]}.get(first, [first])
            return [*found, *rest]

        (tmp_path / "vendor.py").write_text(here(vendor))
        async with AsyncExitStack() as stack:
            for command, shown in steps():
                if command.startswith("cat "):
                    (tmp_path / command.split()[1]).write_text(here(shown))
                elif command.endswith("&"):
                    await stack.enter_async_context(running(words(command), tmp_path, environment))
                else:

                    async def succeeds(command: str = command, shown: str = shown) -> bool:
                        code, said = await ended(words(command), tmp_path, environment)
                        told = " ".join(said.split())
                        lines = [" ".join(line.split()) for line in shown.splitlines()]
                        return code == 0 and all(line in told for line in lines)

                    await until(succeeds, patience_s=90.0)

    asyncio.run(run())


def test_every_setting_is_on_the_page() -> None:
    table = PAGE[PAGE.index("## Settings") :]
    found = vars(documents) | vars(settings)
    kinds = [kind for name, kind in found.items() if name.startswith("Cloud")]
    every = {field.name for kind in kinds for field in fields(kind)} - {"cloud"}
    assert len(every) > 40
    assert sorted(name for name in every if f"`{name}`" not in table) == []


def test_every_reason_is_on_the_page() -> None:
    source = (ROOT / "src/kapelle/adapters/cloud/mapping.py").read_text()
    source += (ROOT / "src/kapelle/adapters/cloud/intake.py").read_text()
    source += (ROOT / "src/kapelle/adapters/cloud/polling.py").read_text()
    told = set(re.findall(r'f?"([a-z-]+): ', source))
    assert len(told) > 5
    assert {code for code in told if f"`{code}`" not in PAGE} == set()
