"""A broker nobody here wrote: mosquitto, on a free port of this machine."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest


@asynccontextmanager
async def mosquitto() -> AsyncIterator[int]:
    """Run it without persistence; yields its port."""
    if shutil.which("mosquitto") is None:
        pytest.skip("needs the mosquitto broker (Debian: mosquitto)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    broker = await asyncio.create_subprocess_exec(
        "mosquitto", "-p", str(port),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(500):
            try:
                _, out = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                out.close()
                await out.wait_closed()
                break
        yield port
    finally:
        broker.terminate()
        await broker.wait()
