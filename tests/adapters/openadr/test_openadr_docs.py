"""The walk-through of docs/adapters/openadr.md, as it stands there, and its list of settings."""

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

from kapelle.adapters.openadr.settings import OpenAdrSettings, UpstreamSettings
from kapelle.sim.ports import free_port

PAGE = page("openadr.md")


@pytest.mark.integration
def test_a_first_gateway(tmp_path: Path) -> None:
    (gateway,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    async def run() -> None:
        vtn, mqtt, api = free_port(), free_port(), free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
        environment |= {"KAPELLE_MQTT__PORT": str(mqtt), "KAPELLE_API__PORT": str(api)}
        (tmp_path / "gateway.py").write_text(gateway.replace("9443", str(vtn)))
        async with AsyncExitStack() as stack:
            *before, show = steps(PAGE)
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
