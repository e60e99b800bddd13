"""A broker nobody here wrote: mosquitto, on a free port of this machine."""

import asyncio
import atexit
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache

import pytest

OPEN = ("allow_anonymous true",)


@asynccontextmanager
async def mosquitto(*settings: str) -> AsyncIterator[int]:
    """Run it without persistence, with lines of its configuration; yields its port."""
    if shutil.which("mosquitto") is None:
        pytest.skip("needs the mosquitto broker (Debian: mosquitto)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        # Started by root, it would take a user that cannot read files of the test.
        lines = ("user root", f"listener {port} 127.0.0.1", *(settings or OPEN), "")
        file.write("\n".join(lines))
        file.flush()
        async with _running(file.name, port):
            yield port


@asynccontextmanager
async def _running(file: str, port: int) -> AsyncIterator[None]:
    broker = await asyncio.create_subprocess_exec(
        "mosquitto", "-c", file,
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
        yield
    finally:
        broker.terminate()
        await broker.wait()


@cache
def lasting_mosquitto() -> int:
    """Run one broker for all trials, until the tests end; return its port."""
    if shutil.which("mosquitto") is None:
        pytest.skip("needs the mosquitto broker (Debian: mosquitto)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    quiet = subprocess.DEVNULL
    broker = subprocess.Popen(["mosquitto", "-p", str(port)], stdout=quiet, stderr=quiet)
    atexit.register(broker.wait)
    atexit.register(broker.terminate)
    for _ in range(500):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return port
        time.sleep(0.02)
    raise AssertionError("mosquitto does not listen")
