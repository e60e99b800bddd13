"""The system clock behind the Clock port."""

import asyncio
import logging
import time

from kapelle.model.ids import NS_PER_S

_SLEW_PER_S = 0.0005
"""A wall clock that is a little off is approached this fast."""
_BACK_PER_S = 0.05
"""One that was set back further than `_STEP_NS` is approached this fast: an hour in twenty."""
_STEP_NS = NS_PER_S
"""A wall clock this far ahead is followed at once: it has just been set, and is right."""

log = logging.getLogger(__name__)


class SystemClock:
    """UTC that advances with the monotonic clock, keeps to the wall clock and never goes back."""

    def __init__(self) -> None:
        self._utc_ns = time.time_ns()
        self._monotonic_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        """Return UTC in ns; it never goes back, whatever happens to the wall clock.

        A wall clock set forward is followed at once: what expires by it has expired. One that was
        set back is approached slowly, so that nothing expired comes to life again.
        """
        monotonic_ns = time.monotonic_ns()
        elapsed_ns = monotonic_ns - self._monotonic_ns
        if elapsed_ns <= 0:
            return self._utc_ns
        reached_ns = self._utc_ns + elapsed_ns
        off_ns = time.time_ns() - reached_ns
        if abs(off_ns) <= _STEP_NS:
            most_ns = int(elapsed_ns * _SLEW_PER_S)
            off_ns = max(-most_ns, min(most_ns, off_ns))
        elif off_ns < 0:
            off_ns = -int(elapsed_ns * _BACK_PER_S)
        self._utc_ns = reached_ns + off_ns
        self._monotonic_ns = monotonic_ns
        return self._utc_ns

    def not_before(self, utc_ns: int) -> None:
        """See `ports.Clock`. Says so where the clock lies behind by a second or more."""
        behind_ns = utc_ns - self.now_ns()
        if behind_ns >= _STEP_NS:
            log.warning(
                "the clock of this host lies behind the journal; time goes on from there",
                extra={"behind_s": behind_ns / NS_PER_S},
            )
        self._utc_ns += max(0, behind_ns)

    def ahead_s(self) -> float:
        """Return how far our time is ahead of the wall clock: more than a moment where that was
        set back. [s]"""
        return (self.now_ns() - time.time_ns()) / NS_PER_S

    async def sleep(self, seconds: float) -> None:
        """Wait this long in elapsed time."""
        await asyncio.sleep(seconds)
