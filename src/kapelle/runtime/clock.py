"""The system clock behind the Clock port."""

import asyncio
import time

_SLEW_PER_S = 0.0005
"""A wall clock that was stepped is approached this fast: our time never jumps or goes back."""


class SystemClock:
    """UTC that advances with the monotonic clock and slews towards the wall clock."""

    def __init__(self) -> None:
        self._utc_ns = time.time_ns()
        self._monotonic_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        """Return UTC in ns; it never goes back, whatever happens to the wall clock."""
        monotonic_ns = time.monotonic_ns()
        elapsed_ns = monotonic_ns - self._monotonic_ns
        if elapsed_ns <= 0:
            return self._utc_ns
        reached_ns = self._utc_ns + elapsed_ns
        most_ns = int(elapsed_ns * _SLEW_PER_S)
        off_ns = time.time_ns() - reached_ns
        self._utc_ns = reached_ns + max(-most_ns, min(most_ns, off_ns))
        self._monotonic_ns = monotonic_ns
        return self._utc_ns

    async def sleep(self, seconds: float) -> None:
        """Wait this long in elapsed time."""
        await asyncio.sleep(seconds)
