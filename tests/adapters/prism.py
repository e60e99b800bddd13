"""A mock server nobody here wrote: Prism serves an OpenAPI document and holds requests to it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.adapters.conformance.plant import until
from tests.adapters.foreign import node_environment

_FOLDER = Path(__file__).parents[1] / "peers" / "prism"


@asynccontextmanager
async def prism(document: Path, port: int) -> AsyncIterator[list[str]]:
    """Serve a document on the loopback; yields, as they come, the lines it logs."""
    modules = await asyncio.to_thread(node_environment, _FOLDER)
    node = shutil.which("node")
    assert node is not None
    process = await asyncio.create_subprocess_exec(
        node,
        str(modules / "@stoplight" / "prism-cli" / "dist" / "index.js"),
        "mock",
        "--errors",
        "--port",
        str(port),
        str(document),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=2**20,
    )
    lines: list[str] = []

    async def listen() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            lines.append(line.decode())

    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen())
        try:
            await until(lambda: any("Prism is listening" in line for line in lines), 60.0)
            yield lines
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            listening.cancel()
