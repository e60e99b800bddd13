"""The walk-through of docs/adapters/ocpp.md, as it stands there, and its list of settings."""

import asyncio
import os
import re
import shlex
import sys
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import until
from tests.adapters.walk import CLI, ended, listens, page, running, steps

from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.sim.ports import free_port

PAGE = page("ocpp.md")


@pytest.mark.integration
def test_a_first_station(tmp_path: Path) -> None:
    (wallbox,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    async def run() -> None:
        stations, mqtt, api = free_port(), free_port(), free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
        environment |= {"KAPELLE_MQTT__PORT": str(mqtt), "KAPELLE_API__PORT": str(api)}
        (tmp_path / "wallbox.py").write_text(wallbox.replace("9000", str(stations)))
        async with AsyncExitStack() as stack:
            *before, show = steps(PAGE)
            for command, shown in before:
                words = shlex.split(command)
                if words[0] == "cat":
                    # Only the port is another.
                    (tmp_path / words[1]).write_text(shown.replace("9000", str(stations)))
                elif words[-1] == "&":
                    await stack.enter_async_context(running(words[1:-1], tmp_path, environment))
                else:
                    code, said = await ended([*CLI, *words[1:]], tmp_path, environment)
                    assert code == 0, said
            await until(lambda: listens(stations), patience_s=90.0)
            code, said = await ended([sys.executable, "wallbox.py"], tmp_path, environment)
            assert code == 0, said

            async def arrived() -> bool:
                words = shlex.split(show[0])
                code, said = await ended([*CLI, *words[1:]], tmp_path, environment)
                return code == 0 and "-2000.0" in said

            await until(arrived, patience_s=90.0)

    asyncio.run(run())


def test_every_setting_is_on_the_page() -> None:
    table = PAGE[PAGE.index("## Settings") :]
    missing = [field.name for field in fields(OcppSettings) if f"`{field.name}`" not in table]
    assert missing == []
