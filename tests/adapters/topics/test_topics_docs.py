"""The walk-through of docs/adapters/topics.md, as it stands there, and its list of settings."""

import asyncio
import csv
import math
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import until
from tests.adapters.foreign import python_environment
from tests.adapters.topics.test_topics_discoverable import REQUIREMENTS

from kapelle.adapters.topics.settings import (
    TopicAvailability,
    TopicCommand,
    TopicDiscovery,
    TopicEntity,
    TopicScheme,
    TopicsSettings,
    TopicValue,
)
from kapelle.registry.fields import Reader
from kapelle.sim.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "adapters" / "topics.md").read_text()
CLI = [sys.executable, "-m", "kapelle.cli"]
FILES = {"sh": "battery.sh", "python": "battery.py"}


def steps() -> list[tuple[str, list[str]]]:
    """Return each command of the walk-through, and the lines the page shows below it."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


@asynccontextmanager
async def running(
    words: Sequence[str], folder: Path, environment: dict[str, str]
) -> AsyncIterator[None]:
    with (folder / "log").open("ab") as log:
        # In a session of its own: a script has children.
        process = await asyncio.create_subprocess_exec(
            *words, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


async def ended(words: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *words, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return said.decode() + f"exit {process.returncode}"


@pytest.mark.integration
def test_first_devices_are_measured_told_and_released(tmp_path: Path) -> None:
    """In a plant of its own, over mosquitto, by the devices on the page."""
    if shutil.which("mosquitto") is None or shutil.which("mosquitto_pub") is None:
        pytest.skip("needs mosquitto and its tools (Debian: mosquitto, mosquitto-clients)")
    broker = str(free_port())
    for language, file in FILES.items():
        (device,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
        (tmp_path / file).write_text(device.replace("1883", broker))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
    environment |= {"KAPELLE_MQTT__PORT": str(free_port()), "KAPELLE_API__PORT": str(free_port())}
    python = python_environment("ha-mqtt-discoverable", REQUIREMENTS)
    programs = {"kapelle": CLI, "python": [str(python)]}

    def words(command: str) -> list[str]:
        # Only the port is another.
        name, *rest = shlex.split(command.removesuffix(" &").replace("1883", broker))
        return [*programs.get(name, [name]), *rest]

    async def shows(command: str, lines: list[str]) -> bool:
        said = await ended(words(command), tmp_path, environment)
        return said.endswith("exit 0") and all(line in said for line in lines)

    async def run() -> None:
        async with asyncio.timeout(240), AsyncExitStack() as stack:
            for command, shown in steps():
                if command.startswith("cat "):
                    text = "\n".join(shown).replace("1883", broker)
                    (tmp_path / command.split()[1]).write_text(text)
                elif command.endswith(" &"):
                    await stack.enter_async_context(running(words(command), tmp_path, environment))
                    if command.startswith("kapelle up"):
                        await until(lambda: "listening" in (tmp_path / "log").read_text(), 90.0)
                elif command.startswith("kapelle devices show"):
                    # Until it does, which takes a moment.
                    await until(lambda c=command, s=shown: shows(c, s), patience_s=60.0)
                else:
                    assert await shows(command, shown), command

    asyncio.run(run())


@pytest.mark.parametrize(
    "kind",
    [
        TopicsSettings, TopicScheme, TopicValue, TopicAvailability, TopicCommand, TopicDiscovery,
        TopicEntity,
    ],
)  # fmt: skip
def test_every_setting_is_on_the_page(kind: type) -> None:
    table = PAGE[PAGE.index("## Settings") :]
    assert [field.name for field in fields(kind) if f"`{field.name}`" not in table] == []


def test_its_devices_can_be_enrolled_and_have_no_revert_timer() -> None:
    table = next(shown for command, shown in steps() if "fleet.csv" in command)
    for row in csv.DictReader(table):
        device, problems = Reader().device("line 2", row)
        assert not problems
        assert device is not None
        assert device.adapter == "topics"
        assert math.isnan(device.revert_s)
