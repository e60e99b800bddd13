"""Numbers of reports: what is new, what fills a gap, what repeats, and whose counters restarted.

Each device that counts its reports has a high-water mark and, while some of its last 4,096 are
missing, a window of bits (`fleet.gaps`). Without counters the newest device time is the mark.
"""

from dataclasses import dataclass
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet import gaps
from kapelle.fleet.columns import Fleet
from kapelle.fleet.conditions import mark
from kapelle.fleet.gaps import WINDOW
from kapelle.fleet.settings import FleetSettings
from kapelle.model.enums import Condition, Metric
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Floats, Longs

Places = NDArray[np.intp]
_LOWEST = -(2**63)
_SEQ = 0xFFFF_FFFF
_U4_MAX = 0xFFFF_FFFF
_AHEAD_NS = -NS_PER_S
"""A report counts as live although it seems to come from this little in the future."""
_SHOWN_NS = 3600 * NS_PER_S
"""A restart of counters is told for one to two of these."""


@unique
class Counting(IntEnum):
    """Bits of the `counting` column: what must be looked at beside the mark."""

    COUNTS = 1
    """It numbers its reports."""
    BLIND = 2
    """Its window was given up: what lies below `began` may have come or not."""
    GAPPED = 4
    """It has a window."""
    FLOORED = 8
    """Its counters restarted, or its clock ran ahead: old reports are told by their time."""
    SUSPECT = 16
    """Its counters may have restarted; see `restart_count`."""


_SLOW = np.uint8(Counting.GAPPED | Counting.FLOORED | Counting.SUSPECT)
_PLAIN = np.uint8(0xFF & ~Counting.BLIND)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Reports of known devices, in the order of arrival."""

    row: Places
    order: Longs
    measured_at_ns: Longs
    received_at_ns: Longs
    values: dict[Metric, Floats]

    def __len__(self) -> int:
        return len(self.row)

    def at(self, which: Flags | Places | slice) -> "Rows":
        """Return some of them."""
        return Rows(
            self.row[which],
            self.order[which],
            self.measured_at_ns[which],
            self.received_at_ns[which],
            {metric: value[which] for metric, value in self.values.items()},
        )


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """What the counters say of some reports; None where it is the same for all of them."""

    news: Flags | None = None
    """New, or filling a gap; None: all are."""
    bygone: Flags | None = None
    """Of a life of the device that is over, or a clock that ran ahead; None: none is."""
    restarts_at: int = -1
    """Before this one its device's counters must begin anew, and nothing was counted; -1: no."""


def apply_counts(fleet: Fleet, settings: FleetSettings, rows: Rows) -> Counted:
    """Count reports against the marks. Call it before their values are applied.

    The outcome is that of one report after the other, in the order of arrival, however they are cut
    into blocks.
    """
    row, order, measured_at_ns = rows.row, rows.order, rows.measured_at_ns
    flags = fleet.counting[row]
    counted = order < 0
    is_mixed = False
    if counted.all():
        fast = (flags & _PLAIN) == Counting.COUNTS
        fast &= order - fleet.mark[row] == 1
    elif not counted.any():
        fast = (flags == 0) & (measured_at_ns > fleet.newest_ns[row])
    else:
        is_mixed = True
        fast = np.where(
            counted,
            ((flags & _PLAIN) == Counting.COUNTS) & (order - fleet.mark[row] == 1),
            (flags == 0) & (measured_at_ns > fleet.newest_ns[row]),
        )
    # Whose ticket is still there was alone; ten times cheaper than sorting, and it needs no memory.
    before = fleet.received[row]
    ticket = np.arange(len(row), dtype=np.uint32)
    fleet.received[row] = ticket
    alone = fleet.received[row] == ticket
    if not alone.all():
        fleet.received[row[~alone]] = _U4_MAX
        alone = fleet.received[row] == ticket
        fast &= alone
    if fast.all():
        fleet.received[row] = before + np.uint32(1)
        told = Counted()
    else:
        fleet.received[row] = before
        told = _count_slow(fleet, settings, rows, np.flatnonzero(~fast), alone)
        if told.restarts_at >= 0:
            return told
        row, order, measured_at_ns = row[fast], order[fast], measured_at_ns[fast]
        counted = counted[fast]
        fleet.received[row] += np.uint32(1)
    if is_mixed:
        fleet.mark[row[counted]] = order[counted]
        fleet.newest_ns[row[~counted]] = measured_at_ns[~counted]
    elif len(counted) and counted[0]:
        fleet.mark[row] = order
    else:
        fleet.newest_ns[row] = measured_at_ns
    return told


def _count_slow(
    fleet: Fleet, settings: FleetSettings, rows: Rows, slow: Places, alone: Flags
) -> Counted:
    """Count what is not simply the next report of its device.

    Args:
        fleet: The partition.
        settings: Bounds.
        rows: All reports.
        slow: Places of these, with all others of their devices.
        alone: Which of all are the only ones of their device.
    """
    some = rows.at(slow)
    flags = fleet.counting[some.row]
    if _count_in_step(fleet, some, flags):
        return Counted()
    simple = ((flags & _SLOW) == Counting.GAPPED) & (some.order < 0) & alone[slow]
    simple &= some.order - fleet.mark[some.row] == 1
    hard = np.flatnonzero(~simple)
    if not len(hard):
        _add_next(fleet, some)
        return Counted()
    story = _Story(fleet, some.at(hard))
    restarts_at = story.find_restart(settings)
    if restarts_at >= 0:
        # Those before it are counted first, then the device begins anew.
        return Counted(restarts_at=int(slow[hard[restarts_at]]))
    if len(hard) < len(slow):
        _add_next(fleet, some.at(simple))
    story.apply(settings)
    news, bygone = np.ones(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    news[slow[hard]] = story.news
    bygone[slow[hard]] = story.bygone
    return Counted(news, bygone if bygone.any() else None)


def _count_in_step(fleet: Fleet, some: Rows, flags: Bytes) -> bool:
    """Count several reports per device where each simply follows the one before; else do nothing.

    So come batches of devices that store and forward.
    """
    if not flags.any() and (some.order >= 0).all():
        came, of, devices = _by_device(some.row)
        at_ns = some.measured_at_ns[came]
        if not (at_ns > _running(fleet.newest_ns[devices], of, at_ns)).all():
            return False
    elif ((flags & _PLAIN) == Counting.COUNTS).all() and (some.order < 0).all():
        came, of, devices = _by_device(some.row)
        order = some.order[came]
        if not (order - _running(fleet.mark[devices], of, order) == 1).all():
            return False
        fleet.mark[devices] += np.bincount(of)
    else:
        return False
    np.add.at(fleet.received, some.row, np.uint32(1))
    np.maximum.at(fleet.newest_ns, some.row, some.measured_at_ns)
    return True


def _add_next(fleet: Fleet, some: Rows) -> None:
    row = some.row
    fleet.mark[row] = some.order
    fleet.received[row] += np.uint32(1)
    number = (some.order - _LOWEST) & _SEQ
    whole = fleet.gaps.add_next(fleet.gaps.slots(row), number, fleet.began[row].astype(np.int64))
    _close(fleet, row[whole])


def _close(fleet: Fleet, row: Places) -> None:
    fleet.gaps.drop(row)
    fleet.counting[row] &= np.uint8(0xFF & ~Counting.GAPPED)


class _Story:
    """Some reports, told device by device, each in the order of arrival.

    Numbers are `order + 2**63`, so boot << 32 | seq, and -1 before the first.
    """

    def __init__(self, fleet: Fleet, rows: Rows) -> None:
        self._fleet = fleet
        self._came, self._of, self.devices = _by_device(rows.row)
        self._rows = told = rows.at(self._came)
        self._flags = fleet.counting[self.devices]
        high = fleet.mark[self.devices]
        self._mark = np.where(high < 0, high - _LOWEST, -1)
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
        self._number = np.where(self._counted, told.order - _LOWEST, -1)
        self._high = _running(self._mark, of, self._number)
        """The mark as it was before each report."""
        self._high_ns = _running(self._newest_ns, of, np.where(self._bygone, 0, at))
        # What becomes of each: exactly one of these, or an advance.
        self._advance = self._counted & (self._number > self._high)
        self._timed = ~self._counted & ~self._bygone
        same_boot = (self._number >> 32 == self._high >> 32) & self._counted & (self._high >= 0)
        self._same_boot = same_boot
        near = same_boot & ~self._advance & (self._high - self._number < WINDOW)
        self._late = near & self._is_missing(near)
        repeated = near & ~self._late & ~self._is_unknown()
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
        unknown: Flags = blind & same & ((self._number & _SEQ) < began)
        return unknown

    def _is_missing(self, near: Flags) -> Flags:
        """Tell which numbers below the mark have not come before, nor earlier here."""
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
        row, seq = self._rows.row[old], number[old] & _SEQ
        came = seq >= self._began[of[old]]
        gapped = (self._flags[of[old]] & Counting.GAPPED) != 0
        asked = np.flatnonzero(gapped & came)
        came[asked] = self._fleet.gaps.has(self._fleet.gaps.slots(row[asked]), seq[asked])
        missing[old[came]] = False
        return missing & ~self._is_unknown()

    def _is_repeated(self) -> Flags:
        """Tell which reports say nothing that was not said of the same moment."""
        fleet, rows = self._fleet, self._rows
        same = np.ones(len(rows), np.bool_)
        for metric, value in rows.values.items():
            held_ns = fleet.measured_at_ns[metric, rows.row]
            held = fleet.value[metric, rows.row]
            same &= (value != value) | ((held_ns == rows.measured_at_ns) & (held == value))
        # Or by an earlier one of this moment: that is not in the columns yet.
        by = np.lexsort((np.arange(len(rows)), rows.measured_at_ns, self._of))
        of, at_ns = self._of[by], rows.measured_at_ns[by]
        alike = (of[1:] == of[:-1]) & (at_ns[1:] == at_ns[:-1])
        for value in rows.values.values():
            said = value[by]
            alike &= (said[1:] == said[:-1]) | np.isnan(said[1:])
        before = np.zeros(len(rows), np.bool_)
        before[by[1:]] = alike
        told: Flags = same | before
        return told

    def find_restart(self, settings: FleetSettings) -> int:
        """Return the place in arrival of the first report that proves a restart; -1: none does.

        Where none does, the suspicions are noted.
        """
        rows, of = self._rows, self._of
        delay_ns = rows.received_at_ns - rows.measured_at_ns
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
            fleet.counting[row] &= np.uint8(0xFF & ~Counting.SUSPECT)
            if count:
                fleet.counting[row] |= np.uint8(Counting.SUSPECT)
        return -1

    def apply(self, settings: FleetSettings) -> None:
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
            self._move_marks(settings, news)

    def _move_marks(self, settings: FleetSettings, news: Flags) -> None:
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
        began = np.where(goes_on, self._began[whose], number[first] & _SEQ)
        begins = np.minimum(began, number[by[starts]] & _SEQ)
        np.add.at(lost, whose, began - begins)

        told = np.unique(of)
        last = np.searchsorted(whose, told, side="right") - 1
        fleet.lost[devices] = np.clip(fleet.lost[devices] + lost, 0, _U4_MAX).astype(np.uint32)
        fleet.mark[devices[told]] = high[told] + _LOWEST
        fleet.began[devices[told]] = begins[last].astype(np.uint32)
        flags = self._flags[told] | np.uint8(Counting.COUNTS)
        # Restarted: what we lost sight of belongs to the boot before.
        flags[~goes_on[last]] &= np.uint8(0xFF & ~Counting.BLIND)
        fleet.counting[devices[told]] = (
            fleet.counting[devices[told]] & np.uint8(0xFF & ~Counting.BLIND)
        ) | (flags & np.uint8(0xFF & ~Counting.SUSPECT))
        # Only where something is missing, or was.
        ragged = (self._flags & Counting.GAPPED) != 0
        ragged[self._of[opened & (self._number - self._high > 1)]] = True
        ragged[self._of[self._late]] = True
        if ragged.any():
            some, which = ragged[told], ragged[of]
            told, last, of, number = told[some], last[some], of[which], number[which]
            self._move_windows(settings, told, high[told], begins[last], goes_on[last], of, number)

    def _move_windows(
        self,
        settings: FleetSettings,
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
        seq, seq_was, began_was = high & _SEQ, was & _SEQ, self._began[told]
        gapped = (self._flags[told] & Counting.GAPPED) != 0
        bits = np.zeros((len(told), WINDOW // 64), np.uint64)
        held = np.flatnonzero(gapped & goes_on)
        bits[held] = fleet.gaps.bits(fleet.gaps.slots(row[held]))
        whole = np.flatnonzero(~gapped & goes_on)
        lowest = np.maximum(began_was[whole], seq_was[whole] - WINDOW + 1)
        bits[whole] = gaps.ring(lowest, seq_was[whole] - lowest + 1)
        moved = np.flatnonzero(goes_on)
        bits[moved] &= ~gaps.ring(seq_was[moved] + 1, seq[moved] - seq_was[moved])
        place = np.searchsorted(told, of)
        inside = (number >> 32 == high[place] >> 32) & (high[place] - number < WINDOW)
        gaps.add(bits, place[inside], number[inside] & _SEQ)
        missing = np.minimum(seq - began + 1, WINDOW).astype(np.int32) - gaps.count(bits)
        _close(fleet, row[gapped & (missing == 0)])
        some = np.flatnonzero(missing > 0)
        if len(some):
            fleet.counting[row[some]] |= np.uint8(Counting.GAPPED)
            gone = fleet.gaps.put(row[some], bits[some], missing[some], settings.gap_windows_max)
            if len(gone):
                _lose_sight(fleet, gone)


def _lose_sight(fleet: Fleet, row: Places) -> None:
    """Forget which reports of some devices are missing: from here on they are counted anew."""
    keep = np.uint8(0xFF & ~Counting.GAPPED)
    fleet.counting[row] = (fleet.counting[row] & keep) | np.uint8(Counting.BLIND)
    fleet.began[row] = ((fleet.mark[row] - _LOWEST) & _SEQ).astype(np.uint32)


def _any_of(of: Places, which: Flags, groups: int) -> Flags:
    found: Flags = np.bincount(of[which], minlength=groups) > 0
    return found


def _by_device(row: Places) -> tuple[Places, Places, Places]:
    """Group reports by device: their places in order, the group of each, and each group's row."""
    shift = len(row).bit_length()
    # One sort of numbers, vectorised: a stable argsort takes four times as long.
    both = np.sort(row << shift | np.arange(len(row)))
    came, row = both & ((1 << shift) - 1), both >> shift
    edge = np.ones(len(row), np.bool_)
    edge[1:] = row[1:] != row[:-1]
    return came, np.cumsum(edge) - 1, row[edge]


def _running(first: Longs, of: Places, value: Longs) -> Longs:
    """Return for each value the highest before it in its group, `first` of the group included.

    Args:
        first: One for each group.
        of: Group of each value, ascending.
        value: In order of arrival within its group.
    """
    highest = first[of]
    same = of[1:] == of[:-1]
    if not same.any():
        return highest
    highest[1:] = np.where(same, np.maximum(highest[1:], value[:-1]), highest[1:])
    step = 1
    while True:
        # Each has seen `step` before it; its neighbour that far away saw as many more.
        same = of[step:] == of[:-step]
        if not same.any():
            return highest
        seen = np.where(same, highest[:-step], highest[step:])
        highest[step:] = np.maximum(highest[step:], seen)
        step *= 2


def apply_restart(fleet: Fleet, row: int) -> None:
    """Let a device whose counters restarted in again; its next report is its first."""
    held = fleet.order[:, row] < 0
    fleet.order[held, row] = _LOWEST
    if fleet.counting[row] & Counting.GAPPED:
        fleet.gaps.drop(np.array([row]))
    fleet.mark[row] = fleet.began[row] = 0
    fleet.counting[row] = Counting.FLOORED
    fleet.newest_ns[row] = max(fleet.newest_ns[row], fleet.measured_at_ns[:, row].max())
    # With the reports that proved it: sent again, they are as old as all before.
    fleet.floor_ns[row] = fleet.newest_ns[row]
    fleet.restart_count[row] = fleet.restart_order[row] = 0
    mark(fleet, np.array([row]), Condition.COUNTER_RESTARTED, np.ones(1, np.bool_))


def step_counts(fleet: Fleet, before_ns: int) -> None:
    """Let a restart of counters be over after a while, and no time that is to come shut out one
    that is: where a device without counters has claimed one, its mark is the present."""
    newest_ns = fleet.measured_at_ns[Metric.POWER_W, : fleet.size]
    ahead = np.flatnonzero(newest_ns > fleet.now_ns)
    ahead = ahead[fleet.order[Metric.POWER_W, ahead] >= 0]
    if len(ahead):
        fleet.ahead_ns[ahead] = np.maximum(fleet.ahead_ns[ahead], newest_ns[ahead])
        fleet.newest_ns[ahead] = np.minimum(fleet.newest_ns[ahead], fleet.now_ns)
        fleet.order[:, ahead] = np.minimum(fleet.order[:, ahead], fleet.now_ns)
        fleet.counting[ahead] |= np.uint8(Counting.FLOORED)
    if fleet.now_ns // _SHOWN_NS != before_ns // _SHOWN_NS:
        bit = np.uint16(Condition.COUNTER_RESTARTED)
        told = np.flatnonzero(fleet.condition[: fleet.size] & bit)
        if len(told):
            changed_ns = fleet.condition_at_s[told].astype(np.int64) * NS_PER_S
            still = fleet.now_ns - changed_ns < _SHOWN_NS
            mark(fleet, told, Condition.COUNTER_RESTARTED, still)
