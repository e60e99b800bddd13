"""Starts the process of simulated devices, talks to it, and never leaves it behind."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec

from kapelle.errors import KapelleError
from kapelle.sim.peers.messages import Do, Start, Truth

_END_S = 3.0
_LINE_MAX = 1 << 16


class PeersLost(KapelleError):
    """The process of simulated devices ended by itself."""


class Peers:
    """A running process of simulated devices."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.truth: Truth | None = None
        """The last thing it said about itself."""

    async def run(self, tell: Callable[[Truth], None]) -> None:
        """Hand over every truth until cancelled. Raises PeersLost."""
        stdout = self._process.stdout
        assert stdout is not None
        while line := await stdout.readline():
            with suppress(msgspec.ValidationError):
                self.truth = msgspec.json.decode(line, type=Truth)
                tell(self.truth)
        raise PeersLost(f"the simulated devices ended with {await self._process.wait()}")

    def order(self, order: Do | Start) -> None:
        """Send an order; what became of it shows in the truth."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(msgspec.json.encode(order) + b"\n")

    async def end(self) -> None:
        """End the process: kindly first, then for good."""
        if self._process.returncode is not None:
            return
        with suppress(OSError, RuntimeError):
            self.order(Do("stop"))
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                # Reading on keeps it from waiting for room in the pipe.
                await self._process.communicate()
        except (TimeoutError, ValueError, asyncio.CancelledError):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def started(start: Start) -> AsyncIterator[Peers]:
    """Run a process of simulated devices as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kapelle.sim.peers.process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_MAX,
        # A group of its own: Ctrl-C in the terminal is for us, and we end it.
        start_new_session=True,
    )
    peers = Peers(process)
    try:
        peers.order(start)
        yield peers
    finally:
        await peers.end()
