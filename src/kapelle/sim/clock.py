"""The virtual loop's time as UTC, behind the Clock port."""

import asyncio
from collections.abc import Callable

from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock

NOON_NS = 1_782_043_200 * NS_PER_S
"""2026-06-21T12:00:00Z: a summer noon, when every kind of device has something to do."""


class VirtualClock:
    """UTC that starts where it is told and advances with the running loop."""

    def __init__(self, start_ns: int = NOON_NS) -> None:
        self._start_ns = start_ns
        self._last_ns = start_ns

    def now_ns(self) -> int:
        """Return UTC in ns; a step back makes it stand still until the time has caught up."""
        elapsed_ns = round(asyncio.get_running_loop().time() * NS_PER_S)
        self._last_ns = max(self._last_ns, self._start_ns + elapsed_ns)
        return self._last_ns

    def not_before(self, utc_ns: int) -> None:
        """Go on from this moment where it is later."""
        self._start_ns += max(0, utc_ns - self.now_ns())

    async def sleep(self, seconds: float) -> None:
        """Wait this long in virtual time."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call something after a while, whoever lives then."""
        asyncio.get_running_loop().call_later(seconds, call)

    def step(self, seconds: float) -> None:
        """Set the host's clock forward (or back), as an operator or a bad time server would."""
        self._start_ns += round(seconds * NS_PER_S)


class PausedClock:
    """The clock of a process that may be stopped: its waits do not end while it does not run."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running = asyncio.Event()
        self._running.set()

    def pause(self) -> None:
        """Let no wait end any more."""
        self._running.clear()

    def resume(self) -> None:
        """Let waits that are over end."""
        self._running.set()

    def now_ns(self) -> int:
        """See `ports.Clock`."""
        return self._clock.now_ns()

    def not_before(self, utc_ns: int) -> None:
        """See `ports.Clock`."""
        self._clock.not_before(utc_ns)

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock`."""
        await self._clock.sleep(seconds)
        await self._running.wait()


class HostClock:
    """The wall clock of a simulated host, which somebody sets."""

    def __init__(self, clock: VirtualClock) -> None:
        self.set_by_ns = 0
        """How far it is from the true time."""
        self._clock = clock

    def wall_ns(self) -> int:
        """Return what it shows."""
        return self._clock.now_ns() + self.set_by_ns
