"""Reports that are not simply the next of their device, told device by device.

Late ones, repeats, gaps, new boots, and counters that may have restarted: what becomes of each.
"""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.fleet.counting import gaps
from kapelle.fleet.counting.gaps import WINDOW
from kapelle.fleet.counting.reports import (
    LOWEST,
    SEQ,
    Counting,
    Places,
    Rows,
    by_device,
    close_windows,
    running,
)
from kapelle.fleet.settings import FleetSettings
from kapelle.model.ids import NS_PER_S, Flags, Longs

_U4_MAX = 0xFFFF_FFFF
_NO_SKEW = np.iinfo(np.int64).max
_AHEAD_NS = -NS_PER_S
"""A report counts as live although it seems to come from this little in the future."""


class Story:
    """Some reports, told device by device, each in the order of arrival.

    Numbers are `order + 2**63`, so boot << 32 | seq, and -1 before the first.
    """

    def __init__(self, fleet: Fleet, rows: Rows) -> None:
        self._fleet = fleet
        self._came, self._of, self.devices = by_device(rows.row)
        self._rows = told = rows.at(self._came)
        self._flags = fleet.counting[self.devices]
        high = fleet.mark[self.devices]
        self._mark = np.where(high < 0, high - LOWEST, -1)
        self._began = fleet.began[self.devices].astype(np.int64)
        self._newest_ns = fleet.newest_ns[self.devices]
        counting = np.flatnonzero(self._flags & Counting.COUNTS)
        if len(counting):
            held_ns = fleet.measured_at_ns[:, self.devices[counting]].max(axis=0)
            self._newest_ns[counting] = np.maximum(self._newest_ns[counting], held_ns)
        at, of = told.measured_at_ns, self._of
        self._bygone = (self._flags[of] & Counting.FLOORED) != 0
        if self._bygone.any():
            self._bygone &= self._is_bygone()
        self._counted = (told.order < 0) & ~self._bygone
        self._number = np.where(self._counted, told.order - LOWEST, -1)
        self._high = running(self._mark, of, self._number)
        """The mark as it was before each report."""
        self._high_ns = running(self._newest_ns, of, np.where(self._bygone, 0, at))
        # What becomes of each: exactly one of these, or an advance.
        self._advance = self._counted & (self._number > self._high)
        self._timed = ~self._counted & ~self._bygone
        same_boot = (self._number >> 32 == self._high >> 32) & self._counted & (self._high >= 0)
        self._same_boot = same_boot
        near = same_boot & ~self._advance & (self._high - self._number < WINDOW)
        unknown = self._is_unknown()
        self._late = near & self._is_missing(near) & ~unknown
        repeated = near & ~self._late & ~unknown
        newer = self._timed & (at > self._high_ns)
        part = self._timed & (at == self._high_ns)
        if part.any():
            again = part & self._is_repeated()
            repeated |= again
            part &= ~again
        self._repeated = repeated
        self._new = self._advance | self._late | newer | part
        self._undecided = ~(self._new | repeated)

    @property
    def news(self) -> Flags:
        """Which reports are new, in the order of arrival."""
        return self._in_order(self._new)

    @property
    def bygone(self) -> Flags:
        """Which are of a life that is over, in the order of arrival."""
        return self._in_order(self._bygone)

    def _in_order(self, flags: Flags) -> Flags:
        told = np.empty(len(flags), np.bool_)
        told[self._came] = flags
        return told

    def _is_bygone(self) -> Flags:
        fleet, row, rows = self._fleet, self._rows.row, self._rows
        at = rows.measured_at_ns
        bygone = at <= fleet.floor_ns[row]
        # A time that was claimed ahead of its day is claimed once; those below it must be live.
        delay_ns = rows.received_at_ns - at
        live = (delay_ns >= _AHEAD_NS) & (delay_ns <= 30 * NS_PER_S)
        ahead_ns = fleet.ahead_ns[row]
        bygone |= (rows.order >= 0) & ((at == ahead_ns) | ((at < ahead_ns) & ~live))
        told: Flags = bygone
        return told

    def _is_unknown(self) -> Flags:
        """Tell which numbers lie where we have lost sight."""
        blind = (self._flags[self._of] & Counting.BLIND) != 0
        began = self._began[self._of]
        same = self._number >> 32 == self._mark[self._of] >> 32
        unknown: Flags = blind & same & ((self._number & SEQ) < began)
        return unknown

    def _is_missing(self, near: Flags) -> Flags:
        """Tell which numbers below the mark did not come before, nor here, as far as we know."""
        missing = near.copy()
        if not near.any():
            return missing
        of, number = self._of, self._number
        told = np.flatnonzero(near | self._advance)
        by = told[np.lexsort((told, number[told], of[told]))]
        again = np.zeros(len(by), np.bool_)
        again[1:] = (of[by[1:]] == of[by[:-1]]) & (number[by[1:]] == number[by[:-1]])
        missing[by[again]] = False
        # What lies below the mark of before may have come before this story.
        held = self._mark[of]
        old = np.flatnonzero(near & (number <= held) & (number >> 32 == held >> 32))
        if not len(old):
            return missing
        row, seq = self._rows.row[old], number[old] & SEQ
        came = seq >= self._began[of[old]]
        gapped = (self._flags[of[old]] & Counting.GAPPED) != 0
        asked = np.flatnonzero(gapped & came)
        came[asked] = self._fleet.gaps.has(self._fleet.gaps.slots(row[asked]), seq[asked])
        missing[old[came]] = False
        return missing

    def _is_repeated(self) -> Flags:
        """Tell which reports say nothing that was not said of the same moment."""
        fleet, rows = self._fleet, self._rows
        # Said by an earlier one that is not in the columns yet counts as well.
        tells = self._timed | self._advance
        by = np.lexsort((np.arange(len(rows)), rows.measured_at_ns, self._of))
        of, at_ns = self._of[by], rows.measured_at_ns[by]
        edge = np.ones(len(by), np.bool_)
        edge[1:] = (of[1:] != of[:-1]) | (at_ns[1:] != at_ns[:-1])
        first = np.maximum.accumulate(np.where(edge, np.arange(len(by)), 0))
        repeated = np.ones(len(rows), np.bool_)
        for metric, value in rows.values.items():
            says = ~np.isnan(value)
            so_far = np.cumsum((says & tells)[by])
            earlier = so_far - (says & tells)[by]
            before = np.zeros(len(rows), np.bool_)
            before[by] = earlier > earlier[first]
            held_ns = fleet.measured_at_ns[metric, rows.row]
            repeated &= ~says | before | (held_ns == rows.measured_at_ns)
        return repeated

    def find_restart(self, settings: FleetSettings) -> int:
        """Return the place in arrival of the first report that proves a restart; -1: none does.

        Where none does, the suspicions are noted.
        """
        rows, of = self._rows, self._of
        # By its own clock, as far as we know that: one that errs shall not be shut out for ever.
        off_ns = self._fleet.skew_before_ns[rows.row]
        off_ns = np.where(off_ns == _NO_SKEW, 0, off_ns)
        delay_ns = rows.received_at_ns - rows.measured_at_ns - off_ns
        lower = self._counted & ~self._advance & (self._high >= 0)
        # Nothing sent again can be newer than all that was ever measured.
        lower &= (rows.measured_at_ns > self._high_ns) & (delay_ns >= _AHEAD_NS)
        lower &= delay_ns <= int(settings.restart_live_s * NS_PER_S)
        suspect = (self._flags & Counting.SUSPECT) != 0
        if not lower.any() and not suspect.any():
            return -1
        fleet, first = self._fleet, len(rows)
        noted: dict[int, tuple[int, int]] = {}
        telling = lower | (self._advance & (suspect[of] | _any_of(of, lower, len(suspect))[of]))
        for place in np.flatnonzero(telling).tolist():
            row = int(rows.row[place])
            if row in noted:
                count, order = noted[row]
            else:
                count, order = int(fleet.restart_count[row]), int(fleet.restart_order[row])
            if not lower[place]:
                # The old counter lives on.
                noted[row] = (0, 0)
                continue
            if count == 0 or int(rows.order[place]) <= order:
                count = 0
            count += 1
            if count >= settings.restart_reports:
                first = min(first, int(self._came[place]))
                count = 0
            noted[row] = (count, int(rows.order[place]))
        if first < len(rows):
            return first
        for row, (count, order) in noted.items():
            fleet.restart_count[row], fleet.restart_order[row] = count, order
            fleet.counting[row] &= ~Counting.SUSPECT
            if count:
                fleet.counting[row] |= Counting.SUSPECT
        return -1

    def apply(self) -> None:
        """Write what was found."""
        fleet, of, devices = self._fleet, self._of, self.devices

        def add(column: NDArray[np.uint32], which: Flags) -> None:
            if which.any():
                column[devices] += np.bincount(of[which], minlength=len(devices)).astype(np.uint32)

        add(fleet.received, self._new)
        add(fleet.late, self._late)
        add(fleet.duplicates, self._repeated)
        add(fleet.undecided, self._undecided)
        heard = ~self._bygone & (self._rows.measured_at_ns > self._newest_ns[of])
        np.maximum.at(fleet.newest_ns, self._rows.row[heard], self._rows.measured_at_ns[heard])
        news = self._advance | self._late
        if news.any():
            self._move_marks(news)

    def _move_marks(self, news: Flags) -> None:
        fleet, devices = self._fleet, self.devices
        of, number = self._of[news], self._number[news]
        high = self._mark.copy()
        np.maximum.at(high, of, number)
        lost = np.zeros(len(devices), np.int64)
        opened = self._advance & self._same_boot
        np.add.at(lost, self._of[opened], (self._number - self._high)[opened] - 1)
        lost -= np.bincount(self._of[self._late], minlength=len(devices))

        # By device and boot: where counting began, and where it begins now.
        came = np.arange(len(number))
        by = came
        if ((of[1:] == of[:-1]) & (number[1:] <= number[:-1])).any():
            by = np.lexsort((number, of))
        boot = number >> 32
        edge = np.ones(len(by), np.bool_)
        edge[1:] = (of[by[1:]] != of[by[:-1]]) | (boot[by[1:]] != boot[by[:-1]])
        starts = np.flatnonzero(edge)
        first = np.minimum.reduceat(came[by], starts)
        whose, its_boot = of[by[starts]], boot[by[starts]]
        goes_on = its_boot == self._mark[whose] >> 32
        began = np.where(goes_on, self._began[whose], number[first] & SEQ)
        begins = np.minimum(began, number[by[starts]] & SEQ)
        np.add.at(lost, whose, began - begins)

        last = np.flatnonzero(np.append(whose[1:] != whose[:-1], True))
        told = whose[last]
        lost = np.minimum(np.maximum(fleet.lost[devices] + lost, 0), _U4_MAX)
        fleet.lost[devices] = lost.astype(np.uint32)
        fleet.mark[devices[told]] = high[told] + LOWEST
        fleet.began[devices[told]] = begins[last].astype(np.uint32)
        flags = self._flags[told] | Counting.COUNTS
        # Restarted: what we lost sight of belongs to the boot before.
        flags[~goes_on[last]] &= ~Counting.BLIND
        fleet.counting[devices[told]] = (fleet.counting[devices[told]] & ~Counting.BLIND) | (
            flags & ~Counting.SUSPECT
        )
        # Only where something is missing, or was.
        ragged = (self._flags & Counting.GAPPED) != 0
        ragged[self._of[opened & (self._number - self._high > 1)]] = True
        ragged[self._of[self._late]] = True
        if ragged.any():
            some, which = ragged[told], ragged[of]
            told, last, of, number = told[some], last[some], of[which], number[which]
            self._move_windows(told, high[told], begins[last], goes_on[last], of, number)

    def _move_windows(
        self,
        told: Places,
        high: Longs,
        began: Longs,
        goes_on: Flags,
        of: Places,
        number: Longs,
    ) -> None:
        """Bring the windows up to the marks: `told` are devices, `of` and `number` their news."""
        fleet = self._fleet
        row = self.devices[told].astype(np.intp)
        was = self._mark[told]
        seq, seq_was, began_was = high & SEQ, was & SEQ, self._began[told]
        gapped = (self._flags[told] & Counting.GAPPED) != 0
        bits = np.zeros((len(told), WINDOW // 64), np.uint64)
        held = np.flatnonzero(gapped & goes_on)
        bits[held] = fleet.gaps.bits(fleet.gaps.slots(row[held]))
        bits[held] &= ~gaps.ring(seq_was[held] + 1, seq[held] - seq_was[held])
        whole = np.flatnonzero(~gapped & goes_on)
        lowest = np.maximum(began_was[whole], seq[whole] - WINDOW + 1)
        bits[whole] = gaps.ring(lowest, seq_was[whole] - lowest + 1)
        place = np.searchsorted(told, of)
        inside = (number >> 32 == high[place] >> 32) & (high[place] - number < WINDOW)
        gaps.add(bits, place[inside], number[inside] & SEQ)
        missing = np.minimum(seq - began + 1, WINDOW).astype(np.int32) - gaps.count(bits)
        close_windows(fleet, row[gapped & (missing == 0)])
        some = np.flatnonzero(missing > 0)
        if len(some):
            fleet.counting[row[some]] |= Counting.GAPPED
            fleet.gaps.put(row[some], bits[some], missing[some])


def _any_of(of: Places, which: Flags, groups: int) -> Flags:
    found: Flags = np.bincount(of[which], minlength=groups) > 0
    return found
