"""The walk-through of docs/adapters/sparkplug.md, as it stands there, and its list of settings."""

import asyncio
import csv
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import until
from tests.adapters.foreign import node_environment

from kapelle.adapters.sparkplug.settings import SparkplugMetric, SparkplugSettings
from kapelle.registry.fields import Reader
from kapelle.sim.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "adapters" / "sparkplug.md").read_text()
PEER = ROOT / "tests" / "peers" / "sparkplug-client"
CLI = [sys.executable, "-m", "kapelle.cli"]


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
        process = await asyncio.create_subprocess_exec(
            *words, cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def ended(words: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *words, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return said.decode() + f"exit {process.returncode}"


@pytest.mark.integration
def test_a_first_device_is_measured_told_and_released(tmp_path: Path) -> None:
    """In a plant of its own, over mosquitto, by the edge node on the page."""
    if shutil.which("mosquitto") is None:
        pytest.skip("needs the mosquitto broker (Debian: mosquitto)")
    (edge,) = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)
    broker = str(free_port())
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
    environment |= {"KAPELLE_MQTT__PORT": str(free_port()), "KAPELLE_API__PORT": str(free_port())}
    environment["NODE_PATH"] = str(node_environment(PEER))
    (tmp_path / "edge.js").write_text(edge.replace("1883", broker))

    def words(command: str) -> list[str]:
        # Only the port is another.
        name, *rest = shlex.split(command.removesuffix(" &").replace("1883", broker))
        return [*(CLI if name == "kapelle" else [name]), *rest]

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


def test_every_setting_is_on_the_page() -> None:
    table = PAGE[PAGE.index("## Settings") :]
    missing = [field.name for field in fields(SparkplugSettings) if f"`{field.name}`" not in table]
    assert missing == []


def test_its_device_can_be_enrolled_and_has_no_revert_timer() -> None:
    (row,) = csv.DictReader(next(shown for command, shown in steps() if "fleet.csv" in command))
    device, problems = Reader().device("line 2", row)
    assert not problems
    assert device is not None
    assert device.adapter == "sparkplug"
    assert math.isnan(device.revert_s)


@pytest.mark.parametrize(
    ("metric", "unit", "positive"),
    [
        ("power_w", "W", ""),
        ("soc", "percent", "export"),
        ("power_w", "kWh", "export"),
        ("x", "W", ""),
    ],
)
def test_a_mapping_without_a_sign_or_of_another_unit_is_refused(
    metric: str, unit: str, positive: str
) -> None:
    with pytest.raises(ValueError):
        SparkplugMetric("name", metric, unit, positive)


def test_settings_that_cannot_be_meant_are_refused() -> None:
    power = SparkplugMetric("P", "power_w", "W", "export")
    for wrong in (
        {"metrics": ()},
        {"metrics": (power, power)},
        {"metrics": (power,), "host_id": "a/b"},
        {"metrics": (power,), "groups": ("#",)},
        {"metrics": (power,), "rebirth_s": 0.0},
    ):
        with pytest.raises(ValueError):
            SparkplugSettings(**wrong)  # type: ignore[arg-type]  # test data
