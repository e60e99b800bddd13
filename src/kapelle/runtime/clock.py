"""The system clock behind the Clock port: the plant's own time, which no step of a host moves."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from kapelle.model.ids import NS_PER_S

_SLEW_PER_S = 0.0005
"""A wall clock that is off is approached this fast while anything depends on the time."""
_BACK_PER_S = 0.05
"""One that was set back is approached this fast while nothing does: an hour in twenty."""
_STEP_NS = NS_PER_S
"""A wall clock this far off has been set."""
_LOOK_NS = 5 * NS_PER_S
"""While a wall clock is off, it is asked so often whether it may be followed."""
_NOTED_NS = NS_PER_S // 10
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


class _Noted(msgspec.Struct, frozen=True):
    """What a later process on this host goes on from."""

    boot_id: str
    offset_ns: int
    """Our time less the time since the host was switched on."""


def _elapsed_ns() -> int:
    # Time asleep has passed, too; the same for every process until the host starts again.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class SystemClock:
    """UTC that advances with elapsed time, approaches the wall clock and never goes back.

    A wall clock that is set while orders run moves nothing, however far: what was to last ten
    seconds lasts ten seconds. It is taken over when `free` says that nothing depends on the time.
    With a file, that holds over restarts as well, until the host itself starts again. Only one that
    began behind the journal, and so was wrong, is believed at once when it is put right.
    """

    def __init__(
        self,
        noted: Path | None = None,
        *,
        wall_ns: Callable[[], int] | None = None,
        elapsed_ns: Callable[[], int] | None = None,
        boot_id: str | None = None,
    ) -> None:
        self.free: Callable[[int], bool] = _never
        """Tells whether a wall clock that was set may be followed at a time: no order runs then, no
        command is out."""
        self._is_free = False
        self._look_ns = 0
        self._is_wrong = False
        """Whether the wall clock began behind what was journalled, and still lies behind."""
        self._noted = noted
        self._wall_ns = wall_ns or (lambda: time.time_ns())
        self._elapsed_ns = elapsed_ns or _elapsed_ns
        self._boot_id = boot_id or _boot_id()
        self._at_ns = self._elapsed_ns()
        self._utc_ns = self._wall_ns()
        self._noted_offset_ns = 0
        self._is_told = False
        kept = _read(noted)
        if kept is not None and kept.boot_id and kept.boot_id == self._boot_id:
            self._utc_ns = kept.offset_ns + self._at_ns
            self._noted_offset_ns = kept.offset_ns
        self._note()

    def now_ns(self) -> int:
        """Return UTC in ns; it never goes back, whatever happens to the wall clock."""
        at_ns = self._elapsed_ns()
        elapsed_ns = at_ns - self._at_ns
        if elapsed_ns <= 0:
            return self._utc_ns
        reached_ns = self._utc_ns + elapsed_ns
        off_ns = self._wall_ns() - reached_ns
        self._tell(off_ns)
        is_step = abs(off_ns) > _STEP_NS
        is_free = is_step and self._may_follow(at_ns, reached_ns, off_ns)
        is_believed = is_step and off_ns > 0 and (is_free or self._is_wrong)
        self._is_wrong = self._is_wrong and off_ns < -_STEP_NS
        if not is_believed:
            rate = _BACK_PER_S if is_free else _SLEW_PER_S
            most_ns = int(elapsed_ns * rate)
            off_ns = max(-most_ns, min(most_ns, off_ns))
        self._utc_ns = reached_ns + off_ns
        self._at_ns = at_ns
        self._note()
        return self._utc_ns

    def not_before(self, utc_ns: int) -> None:
        """See `ports.Clock`. Says so where the clock lies behind by a second or more."""
        behind_ns = utc_ns - self.now_ns()
        if behind_ns >= _STEP_NS:
            log.warning(
                "the clock of this host lies behind the journal; time goes on from there",
                extra={"behind_s": behind_ns / NS_PER_S},
            )
            self._is_wrong = utc_ns - self._wall_ns() >= _STEP_NS
        self._utc_ns += max(0, behind_ns)
        self._note()

    def ahead_s(self) -> float:
        """Return how far our time is ahead of the wall clock: more than a moment where that was
        set back, less than zero where it was set forward. [s]"""
        return (self.now_ns() - self._wall_ns()) / NS_PER_S

    async def sleep(self, seconds: float) -> None:
        """Wait this long in elapsed time."""
        await asyncio.sleep(seconds)

    def _may_follow(self, at_ns: int, utc_ns: int, off_ns: int) -> bool:
        # Before a jump at the very moment: an order may be younger than any answer that was kept.
        # On the way back an answer of some seconds ago costs a tenth of a second at most.
        if at_ns >= self._look_ns or (self._is_free and off_ns > 0):
            self._is_free, self._look_ns = self.free(utc_ns), at_ns + _LOOK_NS
        return self._is_free

    def _tell(self, off_ns: int) -> None:
        """Say once that the wall clock was set, and once that we agree again."""
        if abs(off_ns) > _STEP_NS and not self._is_told:
            log.warning(
                "the clock of this host was set; the plant keeps its own time while orders run",
                extra={"set_by_s": off_ns / NS_PER_S},
            )
            self._is_told = True
        elif self._is_told and abs(off_ns) < _STEP_NS // 2:
            log.info("the plant's time and the clock of this host agree again")
            self._is_told = False

    def _note(self) -> None:
        offset_ns = self._utc_ns - self._at_ns
        if self._noted is None or abs(offset_ns - self._noted_offset_ns) < _NOTED_NS:
            return
        self._noted_offset_ns = offset_ns
        beside = self._noted.with_suffix(".new")
        try:
            beside.write_bytes(msgspec.json.encode(_Noted(self._boot_id, offset_ns)))
            os.replace(beside, self._noted)
        except OSError as error:
            # Worth a restart's accuracy, not the plant's life: the journal says what time it was.
            log.warning("the plant's time was not noted", extra={"reason": str(error)})


def _never(_utc_ns: int) -> bool:
    return False


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _read(noted: Path | None) -> _Noted | None:
    if noted is None:
        return None
    try:
        return msgspec.json.decode(noted.read_bytes(), type=_Noted)
    except (OSError, msgspec.MsgspecError):
        return None
