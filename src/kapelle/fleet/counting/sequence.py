"""Numbers of reports: what is new, what fills a gap, what repeats, and whose counters restarted.

Each device that counts its reports has a high-water mark and, while some of its last 4,096 are
missing, a window of bits (`counting.gaps`). Without counters the newest device time is the mark.
Nearly every report is the next of its device; `counting.story` tells what becomes of the others.
"""

from dataclasses import dataclass

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.counting.reports import (
    LOWEST,
    SEQ,
    Counting,
    Places,
    Rows,
    by_device,
    close_windows,
    lose_sight,
    running,
)
from kapelle.fleet.counting.story import Story
from kapelle.fleet.reconciliation.conditions import mark
from kapelle.fleet.settings import FleetSettings
from kapelle.model.enums import Condition, Metric
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Longs

_U4_MAX = 0xFFFF_FFFF
_SHOWN_NS = 3600 * NS_PER_S
"""A restart of counters is told for one to two of these."""
_SLOW = Counting.GAPPED | Counting.FLOORED | Counting.SUSPECT
_PLAIN = ~Counting.BLIND


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """What the counters say of some reports."""

    next: Rows | None = None
    """Those that are alone of their device and its next."""
    others: Rows | None = None
    """All others; devices are in one of both."""
    news: Flags | None = None
    """Which of the others are new, or fill a gap; None: all."""
    bygone: Flags | None = None
    """Which of the others are of a life of the device that is over, or of a clock that ran ahead;
    None: none."""
    restarts_at: int = -1
    """Before this report its device's counters must begin anew, and nothing was counted; -1: no."""


def apply_counts(fleet: Fleet, settings: FleetSettings, rows: Rows) -> Counted:
    """Count reports against the marks. Call it before their values are applied.

    The outcome is that of one report after the other, in the order of arrival, however they are cut
    into blocks. Only `newest_ns` may then lack what a device that counts its reports has in
    `measured_at_ns`; nobody asks for one without the other, and snapshots hold `newest_told`.
    Where a device counts its reports now and then and its clock errs, a cut may also show in its
    `received` and `duplicates`.
    """
    row, order, at_ns = rows.row, rows.order, rows.measured_at_ns
    flags = fleet.counting.take(row)
    counted = order < 0
    is_mixed = False
    if counted.all():
        fast = _is_counted_next(fleet, row, order, flags)
    elif not counted.any():
        fast = (flags == 0) & (at_ns > fleet.newest_ns.take(row))
    else:
        is_mixed = True
        fast = (flags == 0) & (at_ns > fleet.newest_ns.take(row))
        fast = np.where(counted, _is_counted_next(fleet, row, order, flags), fast)
    # Whose ticket is still there was alone; ten times cheaper than sorting, and it needs no memory.
    before = fleet.received.take(row)
    ticket = np.arange(len(row), dtype=np.uint32)
    fleet.received[row] = ticket
    alone = fleet.received.take(row) == ticket
    if not alone.all():
        fleet.received[row[~alone]] = _U4_MAX
        alone = fleet.received.take(row) == ticket
        fast &= alone
    fleet.received[row] = before + fast
    if fast.all():
        told, simple = Counted(next=rows), rows
    else:
        slow = np.flatnonzero(~fast)
        told = _count_slow(fleet, settings, rows.at(slow), alone[slow])
        if told.restarts_at >= 0:
            fleet.received[row] = before
            return Counted(restarts_at=int(slow[told.restarts_at]))
        if len(slow) == len(rows):
            return told
        simple = rows.at(fast)
        told = Counted(simple, told.others, told.news, told.bygone)
    if is_mixed:
        counted = simple.order < 0
        fleet.mark[simple.row[counted]] = simple.order[counted]
        fleet.newest_ns[simple.row[~counted]] = simple.measured_at_ns[~counted]
    elif len(counted) and counted[0]:
        fleet.mark[simple.row] = simple.order
    else:
        fleet.newest_ns[simple.row] = simple.measured_at_ns
    return told


def _is_counted_next(fleet: Fleet, row: Places, order: Longs, flags: Bytes) -> Flags:
    fast: Flags = (flags & _PLAIN) == Counting.COUNTS
    fast &= order - fleet.mark.take(row) == 1
    return fast


def _count_slow(fleet: Fleet, settings: FleetSettings, some: Rows, alone: Flags) -> Counted:
    """Count what is not simply the next report of its device.

    Args:
        fleet: The partition.
        settings: Bounds.
        some: These reports, with all others of their devices.
        alone: Which are the only ones of their device.
    """
    flags = fleet.counting.take(some.row)
    if _count_in_step(fleet, some, flags):
        return Counted(others=some)
    simple = ((flags & _SLOW) == Counting.GAPPED) & (some.order < 0) & alone
    simple &= some.order - fleet.mark.take(some.row) == 1
    hard = np.flatnonzero(~simple)
    if not len(hard):
        _add_next(fleet, some)
        return Counted(others=some)
    story = Story(fleet, some.at(hard))
    restarts_at = story.find_restart(settings)
    if restarts_at >= 0:
        # Those before it are counted first, then the device begins anew.
        return Counted(restarts_at=int(hard[restarts_at]))
    if len(hard) < len(some):
        _add_next(fleet, some.at(simple))
    story.apply()
    news, bygone = np.ones(len(some), np.bool_), np.zeros(len(some), np.bool_)
    news[hard] = story.news
    bygone[hard] = story.bygone
    return Counted(None, some, news, bygone if bygone.any() else None)


def _count_in_step(fleet: Fleet, some: Rows, flags: Bytes) -> bool:
    """Count several reports per device where each simply follows the one before; else do nothing.

    So come batches of devices that store and forward.
    """
    if not flags.any() and (some.order >= 0).all():
        came, of, devices = by_device(some.row)
        at_ns = some.measured_at_ns[came]
        if not (at_ns > running(fleet.newest_ns[devices], of, at_ns)).all():
            return False
    elif ((flags & _PLAIN) == Counting.COUNTS).all() and (some.order < 0).all():
        came, of, devices = by_device(some.row)
        order = some.order[came]
        if not (order - running(fleet.mark[devices], of, order) == 1).all():
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
    number = (some.order - LOWEST) & SEQ
    whole = fleet.gaps.add_next(fleet.gaps.slots(row), number, fleet.began[row].astype(np.int64))
    close_windows(fleet, row[whole])


def apply_restart(fleet: Fleet, row: int) -> None:
    """Let a device whose counters restarted in again; its next report is its first."""
    held = fleet.order[:, row] < 0
    fleet.order[held, row] = LOWEST
    if fleet.counting[row] & Counting.GAPPED:
        fleet.gaps.drop(np.array([row]))
    fleet.mark[row] = fleet.began[row] = 0
    fleet.counting[row] = Counting.FLOORED
    fleet.newest_ns[row] = max(fleet.newest_ns[row], fleet.measured_at_ns[:, row].max())
    # With the reports that proved it: sent again, they are as old as all before.
    fleet.floor_ns[row] = fleet.newest_ns[row]
    fleet.restart_count[row] = fleet.restart_order[row] = 0
    mark(fleet, np.array([row]), Condition.COUNTER_RESTARTED, np.ones(1, np.bool_))


def step_counts(fleet: Fleet, settings: FleetSettings, before_ns: int) -> None:
    """Let a restart of counters be over after a while, and no time that is to come shut out one
    that is: where a device without counters has claimed one, its mark is the present.

    Of too many windows those go whose devices were heard from longest ago.
    """
    over = fleet.gaps.trim(settings.gap_windows_max, fleet.received_at_ns)
    if len(over):
        lose_sight(fleet, over)
    newest_ns = fleet.measured_at_ns[Metric.POWER_W, : fleet.size]
    ahead = np.flatnonzero(newest_ns > fleet.now_ns)
    ahead = ahead[fleet.order[Metric.POWER_W, ahead] >= 0]
    if len(ahead):
        fleet.ahead_ns[ahead] = np.maximum(fleet.ahead_ns[ahead], newest_ns[ahead])
        fleet.newest_ns[ahead] = np.minimum(fleet.newest_ns[ahead], fleet.now_ns)
        fleet.order[:, ahead] = np.minimum(fleet.order[:, ahead], fleet.now_ns)
        fleet.counting[ahead] |= Counting.FLOORED
    if fleet.now_ns // _SHOWN_NS != before_ns // _SHOWN_NS:
        bit = np.uint16(Condition.COUNTER_RESTARTED)
        told = np.flatnonzero(fleet.condition[: fleet.size] & bit)
        if len(told):
            changed_ns = fleet.condition_at_s[told].astype(np.int64) * NS_PER_S
            still = fleet.now_ns - changed_ns < _SHOWN_NS
            mark(fleet, told, Condition.COUNTER_RESTARTED, still)


def newest_told(fleet: Fleet) -> Longs:
    """Return `newest_ns` as it would be if every time in `measured_at_ns` had come to it, too."""
    newest_ns = fleet.newest_ns[: fleet.size]
    counting = np.flatnonzero(fleet.counting[: fleet.size] & Counting.COUNTS)
    if len(counting):
        newest_ns = newest_ns.copy()
        for held_ns in fleet.measured_at_ns:
            newest_ns[counting] = np.maximum(newest_ns[counting], held_ns[counting])
    return newest_ns
