"""Walking through a page of docs/adapters as it stands there: its commands, and what they show."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-m", "kapelle.cli"]


def page(name: str) -> str:
    """Return a page of docs/adapters."""
    return (ROOT / "docs" / "adapters" / name).read_text()


def steps(text: str) -> list[tuple[str, str]]:
    """Return each command of a page, and what the page shows below it."""
    found: list[tuple[str, str]] = []
    for line in "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            found[-1] = found[-1][0], found[-1][1] + line + "\n"
    return found


@asynccontextmanager
async def running(
    arguments: list[str], folder: Path, environment: dict[str, str]
) -> AsyncIterator[None]:
    """Run a command of `kapelle` as long as the block lasts."""
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
    """Run a command to its end; return its exit code and all it said."""
    process = await asyncio.create_subprocess_exec(
        *words, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def listens(port: int) -> bool:
    """Tell whether somebody listens on a port of the loopback."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
