"""What the readings of one energy register mean where they do not simply count up.

Most registers do; `metering.accounts` adds those up by arrays. Only where one falls, or rises by
more than its device can have moved, do its readings come here, one after another. In short:

- A fall of at most two steps of the register is its last digit that wobbles: it holds.
- Where a rollover is declared and explains the fall, the register has counted on beyond its end.
- Everything else waits for the next readings. If they go on from before, what lay between was a
  spike and is left out. If they go on from the new level, that is a new segment: after a reset (a
  fall by half or more, or a restart of the device) its first value counts where the time allows
  it; a register that was replaced begins at its first value, and the step itself never counts.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import NamedTuple

LAG_NS = 900 * 1_000_000_000
"""A register that stood still may have been slow rather than idle for as long as this: some count
on only every quarter of an hour, however often they are reported."""
_RESET_CONFIRMED = 2
_LEVEL_CONFIRMED = 3
"""Readings that must agree before a new level is believed."""


@unique
class Mark(IntEnum):
    """What a reading of a register was found to be."""

    OK = 0
    JITTER = 1
    """A little below the one before: held."""
    ROLLOVER = 2
    """It counted past its end."""
    RESET = 3
    """First of a new segment: the register began anew."""
    REPLACED = 4
    """First of a new segment at another level: the step itself counts for nothing."""
    SUSPECT = 5
    """What cannot be, and later readings do not go on from it: left out."""
    PENDING = 6
    """What cannot be, unless the next readings agree: left out until then."""
    GAP = 7
    """First after a silence that nothing is known of."""


_COUNTS_ON = (Mark.OK, Mark.ROLLOVER)
_STANDS = (Mark.OK, Mark.ROLLOVER, Mark.RESET, Mark.REPLACED)


class Meter(NamedTuple):
    """What is known of one register."""

    mwh_per_ns: float
    """The most it can count. [mWh/ns]"""
    slack_mwh: int
    """Two steps of its last digit: so far it may wobble. [mWh]"""
    rollover_mwh: int
    """It counts from 0 to below this and begins anew; 0: it never does. [mWh]"""
    is_declared: bool = True
    """Whether its resolution is known; if not, numbers that are round show it."""


class _Step(NamedTuple):
    mark: Mark
    mwh: int
    level_mwh: int


@dataclass(slots=True)
class _Track:
    """Readings that go on from each other."""

    level_mwh: int
    since_ns: int
    """When it last showed that level, at the latest."""
    rows: list[int]
    steps: list[_Step]


ROUND_MWH = (1_000_000, 100_000)
"""Many registers count whole kilowatt-hours or tenths, whatever unit they are sent in. Two numbers
in a row that are so round are no accident."""


def _round_mwh(one_mwh: int, other_mwh: int) -> int:
    """Return two steps of a register, judged by how round two of its numbers are; 0: not at all."""
    for unit in ROUND_MWH:
        if one_mwh % unit == other_mwh % unit == 0:
            return 2 * unit
    return 0


def mend(
    register_mwh: Sequence[int],
    path_ns: Sequence[int],
    boot: Sequence[int],
    odd: Sequence[int],
    meter: Meter,
) -> dict[int, tuple[Mark, int]]:
    """Return mark and counted energy [mWh] of the readings around those that are odd.

    Args:
        register_mwh: Readings of one register in order.
        path_ns: Time on the way through them; never falls.
        boot: Start of the device each belongs to; -1 where it does not say.
        odd: Ascending places, none of them 0, whose step from the one before is negative or more
            than the meter can count. All other steps count as they are.
        meter: The register.
    """
    walk = _Walk(register_mwh, path_ns, boot, meter)
    at = 0
    while True:
        place = bisect_right(odd, at)
        if place == len(odd):
            return walk.found
        at = walk.settle(odd[place])


class _Walk:
    def __init__(
        self, register_mwh: Sequence[int], path_ns: Sequence[int], boot: Sequence[int], meter: Meter
    ) -> None:
        self.found: dict[int, tuple[Mark, int]] = {}
        self._register_mwh = register_mwh
        self._path_ns = path_ns
        self._boot = boot
        self._meter = meter

    def settle(self, at: int) -> int:
        """Walk from an odd reading to the next one that may be counted on from; return it."""
        register_mwh, found = self._register_mwh, self.found
        base = at - 1
        track = _Track(register_mwh[base], self._changed_ns(base, at), [base], [])
        waiting: _Track | None = None
        while at < len(register_mwh):
            step = self._step(track, at)
            if step is not None and waiting is not None and self._is_beyond(track, base, waiting):
                # What could not be reached, and is gone on from, was no spike: however far the
                # time since would let the old level rise by now.
                step = None if self._step(waiting, at) else step
            if step is not None:
                self._leave_out(waiting)
                waiting = None
                found[at] = (step.mark, step.mwh)
                if step.level_mwh == register_mwh[at]:
                    return at
                # Held: the track stays as it was, so that what comes next has risen since then.
            else:
                waiting = self._wait(waiting, at)
                spiked = self._without(base, waiting)
                if spiked is not None:
                    found[base] = (Mark.SUSPECT, 0)
                    waiting.steps[0] = spiked
                if spiked is not None or len(waiting.rows) >= self._needed(track, base, waiting):
                    track = self._begin(track, base, waiting, goes_on=spiked is not None)
                    at = base = track.rows[-1]
                    waiting = None
                    if track.level_mwh == register_mwh[at]:
                        return at
            at += 1
        for row in waiting.rows if waiting else ():
            found[row] = (Mark.PENDING, 0)
        return at

    def _step(self, track: _Track, at: int) -> _Step | None:
        """Return what a reading adds to a track; None where it does not go on from it."""
        reads_mwh = self._register_mwh[at]
        risen_mwh = reads_mwh - track.level_mwh
        meter, slack_mwh = self._meter, self._meter.slack_mwh
        if not meter.is_declared:
            slack_mwh = max(slack_mwh, _round_mwh(track.level_mwh, reads_mwh))
        most_mwh = (self._path_ns[at] - track.since_ns) * meter.mwh_per_ns + slack_mwh
        if 0 <= risen_mwh <= most_mwh:
            return _Step(Mark.OK, risen_mwh, reads_mwh)
        if -slack_mwh <= risen_mwh < 0:
            return _Step(Mark.JITTER, 0, track.level_mwh)
        if track.level_mwh < meter.rollover_mwh:
            on_mwh = risen_mwh + meter.rollover_mwh
            if risen_mwh < 0 <= on_mwh <= min(most_mwh, meter.rollover_mwh / 2):
                return _Step(Mark.ROLLOVER, on_mwh, reads_mwh)
            if -slack_mwh <= risen_mwh - meter.rollover_mwh < 0:
                return _Step(Mark.JITTER, 0, track.level_mwh)
        return None

    def _is_beyond(self, track: _Track, base: int, waiting: _Track) -> bool:
        """Tell whether what waits lies where no long interval of full power explains it."""
        first = waiting.rows[0]
        if self._has_restarted(base, first):
            return self._register_mwh[first] < track.level_mwh
        passed_ns = self._path_ns[first] - track.since_ns
        most_mwh = 2 * (passed_ns * self._meter.mwh_per_ns + self._meter.slack_mwh)
        return self._register_mwh[first] - track.level_mwh > most_mwh

    def _wait(self, waiting: _Track | None, at: int) -> _Track:
        """Let a reading wait, with those it goes on from if there are such."""
        step = self._step(waiting, at) if waiting else None
        if waiting is None or step is None:
            self._leave_out(waiting)
            level_mwh = self._register_mwh[at]
            first = _Step(Mark.REPLACED, 0, level_mwh)
            return _Track(level_mwh, self._path_ns[at], [at], [first])
        waiting.rows.append(at)
        waiting.steps.append(step)
        waiting.level_mwh, waiting.since_ns = step.level_mwh, self._path_ns[at]
        return waiting

    def _leave_out(self, waiting: _Track | None) -> None:
        for row in waiting.rows if waiting else ():
            self.found[row] = (Mark.SUSPECT, 0)

    def _without(self, base: int, waiting: _Track) -> _Step | None:
        """Return what a waiting reading adds if the one counted last was a spike; None if not.

        A spike small enough to be possible shows only in what comes after it.
        """
        if base < 1 or len(waiting.rows) < _RESET_CONFIRMED:
            return None
        first, path_ns = waiting.rows[0], self._path_ns
        if self._marked(base) not in _COUNTS_ON or self._marked(base - 1) not in _STANDS:
            return None
        falls = self._register_mwh[first] < self._register_mwh[base]
        if (
            self._has_restarted(base, first)
            if falls
            else (path_ns[base] - path_ns[base - 1] > LAG_NS)
        ):
            return None
        since_ns = self._changed_ns(base - 1, first)
        before = _Track(self._register_mwh[base - 1], since_ns, [base - 1], [])
        step = self._step(before, first)
        return step if step is not None and step.mark in _COUNTS_ON else None

    def _marked(self, row: int) -> Mark:
        return self.found[row][0] if row in self.found else Mark.OK

    def _is_reset(self, track: _Track, base: int, first: int) -> bool:
        reads_mwh = self._register_mwh[first]
        if reads_mwh >= track.level_mwh:
            return False
        return self._has_restarted(base, first) or 2 * reads_mwh <= track.level_mwh

    def _has_restarted(self, before: int, at: int) -> bool:
        return -1 != self._boot[at] != self._boot[before] != -1

    def _needed(self, track: _Track, base: int, waiting: _Track) -> int:
        is_reset = self._is_reset(track, base, waiting.rows[0])
        return _RESET_CONFIRMED if is_reset else _LEVEL_CONFIRMED

    def _begin(self, track: _Track, base: int, waiting: _Track, *, goes_on: bool) -> _Track:
        """Go on with what waited, as a new segment unless told otherwise; return it."""
        first, found = waiting.rows[0], self.found
        for row, step in zip(waiting.rows, waiting.steps, strict=True):
            found[row] = (step.mark, step.mwh)
        if goes_on or not self._is_reset(track, base, first):
            return waiting
        reads_mwh = self._register_mwh[first]
        most_mwh = (self._path_ns[first] - track.since_ns) * self._meter.mwh_per_ns
        # The very first reading may itself be a spike: nothing can be counted against it.
        is_from_zero = base > 0 and 2 * reads_mwh <= track.level_mwh
        counted_mwh = reads_mwh if is_from_zero and reads_mwh <= most_mwh else 0
        found[first] = (Mark.RESET, counted_mwh)
        return self._return(track, waiting, counted_mwh)

    def _return(self, track: _Track, segment: _Track, counted_mwh: int) -> _Track:
        """See through a reset that was none: the register shows 0 for a while (an inverter that
        wakes up, a gateway that has not asked yet) and then goes on where it was."""
        register_mwh, at = self._register_mwh, segment.rows[-1]
        flat_mwh = register_mwh[segment.rows[0]]
        if register_mwh[at] != flat_mwh or segment.level_mwh != flat_mwh:
            return segment
        while at + 1 < len(register_mwh) and register_mwh[at + 1] == flat_mwh:
            at += 1
            self.found[at] = (Mark.OK, 0)
        if at + 1 < len(register_mwh):
            step = self._step(track, at + 1)
            leaps = 2 * (register_mwh[at + 1] - flat_mwh) >= track.level_mwh
            if leaps and step is not None and step.mark is Mark.OK:
                at += 1
                self.found[at] = (Mark.OK, max(step.mwh - counted_mwh, 0))
        return _Track(register_mwh[at], self._path_ns[at], [at], [])

    def _changed_ns(self, base: int, at: int) -> int:
        """Return since when a register may have been counting unseen before a reading."""
        path_ns, register_mwh = self._path_ns, self._register_mwh
        earliest_ns = path_ns[at] - LAG_NS
        since = base
        while (
            since > 0
            and register_mwh[since - 1] == register_mwh[base]
            and path_ns[since - 1] >= earliest_ns
        ):
            since -= 1
        return path_ns[since]
