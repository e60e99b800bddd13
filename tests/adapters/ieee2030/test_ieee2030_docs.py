"""The walk-through of docs/adapters/ieee2030.md, as it stands there, and its list of settings."""

import asyncio
import os
import re
import shlex
import shutil
import sys
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import until
from tests.adapters.ocpp.test_ocpp_docs import CLI, ended, free_port, listens, running

from kapelle.adapters.ieee2030.settings import Ieee2030Settings

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "adapters" / "ieee2030.md").read_text()


def steps() -> list[tuple[str, str]]:
    """Return each command of the walk-through, and what the page shows below it."""
    found: list[tuple[str, str]] = []
    for line in "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            found[-1] = found[-1][0], found[-1][1] + line + "\n"
    return found


@pytest.mark.integration
def test_a_first_client(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command: it makes the certificates")
    (client,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    async def run() -> None:
        utility, mqtt, api = free_port(), free_port(), free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KAPELLE_")}
        environment |= {"KAPELLE_MQTT__PORT": str(mqtt), "KAPELLE_API__PORT": str(api)}
        (tmp_path / "client.py").write_text(client.replace("8443", str(utility)))
        async with AsyncExitStack() as stack:
            *before, show = steps()
            for command, shown in before:
                words = shlex.split(command)
                if words[0] == "cat":
                    # Only the port is another.
                    (tmp_path / words[1]).write_text(shown.replace("8443", str(utility)))
                elif words[-1] == "&":
                    await stack.enter_async_context(running(words[1:-1], tmp_path, environment))
                else:
                    line = [*CLI, *words[1:]] if words[0] == "kapelle" else ["sh", "-c", command]
                    code, said = await ended(line, tmp_path, environment)
                    assert code == 0, said
            await until(lambda: listens(utility), patience_s=90.0)
            code, said = await ended([sys.executable, "client.py"], tmp_path, environment)
            assert code == 0, said

            async def arrived() -> bool:
                words = shlex.split(show[0])
                code, said = await ended([*CLI, *words[1:]], tmp_path, environment)
                return code == 0 and "-2000.0" in said

            await until(arrived, patience_s=90.0)

    asyncio.run(run())


def test_every_setting_is_on_the_page() -> None:
    table = PAGE[PAGE.index("## Settings") :]
    missing = [field.name for field in fields(Ieee2030Settings) if f"`{field.name}`" not in table]
    assert missing == []
