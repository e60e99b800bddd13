"""A utility nobody here wrote: Prism serves the official document and checks each request by it."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import until
from tests.adapters.foreign import node_environment, python_environment
from tests.adapters.openadr.orders import PaperOrders

from kapelle.adapters.openadr.settings import UpstreamSettings
from kapelle.adapters.openadr.upstream import Ven
from kapelle.runtime.clock import SystemClock

_HERE = Path(__file__).parent
_PINNED = ("python-oa3-client==0.5.0", "openadr3==0.5.0")


@asynccontextmanager
async def prism(shared: Path, folder: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve the document; yields its address and, as they come, the lines it logs."""
    python = python_environment("python-oa3-client", _PINNED)
    modules = node_environment(_HERE.parents[1] / "peers" / "prism")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    source = shared / "specs" / "openadr-3.1.0" / "openadr3.yaml"
    target = folder / "openadr3.yaml"
    command = [str(python), str(_HERE / "document.py"), str(source), str(target), base]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
    node = shutil.which("node")
    assert node is not None
    process = await asyncio.create_subprocess_exec(
        node,
        str(modules / "@stoplight" / "prism-cli" / "dist" / "index.js"),
        "mock",
        "--errors",
        "--port",
        str(port),
        str(target),
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
            yield base, lines
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            listening.cancel()


@pytest.mark.integration
def test_an_event_becomes_an_order_and_its_report_is_as_the_document_says(
    shared: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        orders = PaperOrders()
        async with prism(shared, tmp_path) as (base, lines):
            settings = UpstreamSettings(
                url=base, client_id="kapelle", client_secret="s", program="balancing"
            )
            ven = Ven(settings=settings, orders=orders, clock=SystemClock())
            async with ven.open() as following:
                await following.turn()
                await following.turn()
        (order,) = orders.orders
        assert order.ask.steps[0][1] == -2_000.0
        assert order.key.startswith("openadr:event-1:")
        assert orders.calls == ["place"]
        said = "".join(lines)
        assert "post /reports" in said.lower()
        assert "did not pass the validation" not in said
        assert "violation" not in said.lower()

    asyncio.run(run())
