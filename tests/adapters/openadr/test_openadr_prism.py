"""A utility nobody here wrote: Prism serves the official document and checks each request by it."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.adapters.foreign import python_environment
from tests.adapters.openadr.orders import PaperOrders
from tests.adapters.prism import prism

from kapelle.adapters.openadr.settings import UpstreamSettings
from kapelle.adapters.openadr.upstream import Ven
from kapelle.runtime.clock import SystemClock
from kapelle.sim.ports import free_port

_HERE = Path(__file__).parent
_PINNED = ("python-oa3-client==0.5.0", "openadr3==0.5.0")


@asynccontextmanager
async def utility(shared: Path, folder: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve the document; yields its address and, as they come, the lines Prism logs."""
    python = python_environment("python-oa3-client", _PINNED)
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    source = shared / "specs" / "openadr-3.1.0" / "openadr3.yaml"
    target = folder / "openadr3.yaml"
    command = [str(python), str(_HERE / "document.py"), str(source), str(target), base]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
    async with prism(target, port) as lines:
        yield base, lines


@pytest.mark.integration
def test_an_event_becomes_an_order_and_its_report_is_as_the_document_says(
    shared: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        orders = PaperOrders()
        async with utility(shared, tmp_path) as (base, lines):
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
