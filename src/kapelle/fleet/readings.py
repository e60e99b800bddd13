"""How measured values reach the columns: newest wins, whatever the order of arrival."""

from typing import NamedTuple

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.counting.reports import LOWEST, Places, Rows
from kapelle.fleet.counting.sequence import Counted, apply_counts, apply_restart
from kapelle.fleet.settings import FleetSettings
from kapelle.model.blocks import Readings
from kapelle.model.enums import Metric
from kapelle.model.ids import Flags, Floats, Longs

_DEFAULTS = FleetSettings()


def apply_readings(fleet: Fleet, block: Readings, settings: FleetSettings = _DEFAULTS) -> None:
    """Write each value whose `order` is not below the one it replaces.

    Metric by metric, the newest `order` of a device wins; at equal `order` the later arrival does.
    Where a device changes between counting its reports and not, `measured_at_ns` decides, and at
    equal times the counted one wins: so it is never shut out by what it did before. NaN says
    nothing and overwrites nothing. So cutting a stream changes no value, and repeating or
    shuffling distinct reports changes no value (where a device changes its ways: as long as
    counters and clock agree). What is sent again changes nothing but `duplicates` and `undecided`.
    Rows of devices never enrolled here are left out.
    """
    row = block.device_no.astype(np.intp)
    if fleet.partitions > 1:
        row //= fleet.partitions
    values = dict(block.values)
    rows = Rows(row, block.order, block.measured_at_ns, block.received_at_ns, values)
    # As unsigned, a negative number is large: one comparison finds both kinds of strangers.
    known = row.view(np.uintp) < fleet.size
    if not known.all():
        rows = rows.at(known)
    while len(rows):
        counted = apply_counts(fleet, settings, rows)
        first = counted.restarts_at
        if first < 0:
            _apply_rows(fleet, counted)
            break
        if first == 0:
            apply_restart(fleet, int(rows.row[0]))
            continue
        # Its counters restart within this block: what came before is applied first.
        before = rows.at(slice(0, first))
        _apply_rows(fleet, apply_counts(fleet, settings, before))
        rows = rows.at(slice(first, None))


def _apply_rows(fleet: Fleet, counted: Counted) -> None:
    if counted.next is not None:
        _apply_next(fleet, counted.next)
    rows = counted.others
    if rows is None:
        return
    news = rows if counted.news is None else rows.at(counted.news)
    # What is sent again is no sign of life and says nothing about the clock.
    np.maximum.at(fleet.received_at_ns, news.row, news.received_at_ns)
    np.minimum.at(fleet.skew_ns, news.row, news.received_at_ns - news.measured_at_ns)
    if counted.bygone is not None:
        rows = rows.at(~counted.bygone)
    for metric, value in rows.values.items():
        told = _said(_Told(rows.row, rows.order, rows.measured_at_ns, value))
        _apply_metric(fleet, metric, told)


def _apply_next(fleet: Fleet, rows: Rows) -> None:
    """Apply reports that are alone of their device and newer than all it ever sent.

    Each column is read and written as seldom as may be: of a million devices it lies far from the
    processor. `take` costs a fifth of `ufunc.at`.
    """
    row, order, at_ns = rows.row, rows.order, rows.measured_at_ns
    received_at_ns = rows.received_at_ns
    earlier = received_at_ns < fleet.received_at_ns.take(row)
    if earlier.any():
        later = np.flatnonzero(~earlier)
        fleet.received_at_ns[row[later]] = received_at_ns[later]
    else:
        fleet.received_at_ns[row] = received_at_ns
    delay_ns = received_at_ns - at_ns
    least = np.flatnonzero(delay_ns < fleet.skew_ns.take(row))
    if len(least):
        fleet.skew_ns[row[least]] = delay_ns[least]
    for metric, value in rows.values.items():
        told = _said(_Told(row, order, at_ns, value))
        back = told.measured_at_ns <= fleet.measured_at_ns[metric].take(told.row)
        if back.any():
            # Its clock went back, or it begins to count or ceases to.
            _apply_metric(fleet, metric, told.at(back))
            told = told.at(~back)
        fleet.value[metric][told.row] = told.value
        fleet.order[metric][told.row] = told.order
        fleet.measured_at_ns[metric][told.row] = told.measured_at_ns


class _Told(NamedTuple):
    """Values of one metric, in the order of arrival."""

    row: Places
    order: Longs
    measured_at_ns: Longs
    value: Floats

    def at(self, which: Flags | Places) -> "_Told":
        return _Told(
            self.row[which], self.order[which], self.measured_at_ns[which], self.value[which]
        )


def _said(told: _Told) -> _Told:
    said = told.value == told.value  # False for NaN alone, at half the cost of isnan
    return told if said.all() else told.at(np.flatnonzero(said))


def _apply_metric(fleet: Fleet, metric: Metric, told: _Told) -> None:
    """Write one metric of reports whose devices may come more than once, in any order."""
    # Where signs differ, one report was counted and the other was not.
    crossing = (fleet.order[metric].take(told.row) ^ told.order) < 0
    if crossing.any():
        changing = np.isin(told.row, told.row[crossing])
        _write_changing(fleet, metric, told.at(changing))
        told = told.at(~changing)
    _write(fleet, metric, told)


def _write_changing(fleet: Fleet, metric: Metric, told: _Told) -> None:
    """Write values of devices that count their reports now and then: one of each at a time."""
    while len(told.row):
        first = np.unique(told.row, return_index=True)[1]
        some = told.at(first)
        crossing = (fleet.order[metric][some.row] ^ some.order) < 0
        held_ns = fleet.measured_at_ns[metric][some.row]
        is_counted = some.order < 0
        newer = (some.measured_at_ns > held_ns) | (is_counted & (some.measured_at_ns == held_ns))
        # Let go of what is older and of the other kind.
        gone = crossing & newer
        fleet.order[metric][some.row[gone]] = np.where(is_counted[gone], LOWEST, 0)
        _write(fleet, metric, some.at(newer | ~crossing))
        rest = np.ones(len(told.row), np.bool_)
        rest[first] = False
        told = told.at(rest)


def _write(fleet: Fleet, metric: Metric, told: _Told) -> None:
    into_order, into_at_ns = fleet.order[metric], fleet.measured_at_ns[metric]
    np.maximum.at(into_order, told.row, told.order)
    newest = into_order.take(told.row) == told.order
    if not newest.all():
        told = told.at(newest)
    held_ns = into_at_ns.take(told.row)
    back = told.measured_at_ns < held_ns
    if back.any():
        back &= told.order < 0
        # The clock went back: how far it had been must not be forgotten. (Without counters it
        # was ahead, and `step_counts` knows.)
        np.maximum.at(fleet.newest_ns, told.row[back], held_ns[back])
    # NumPy assigns repeated places in order, so of equals the later arrival stays.
    fleet.value[metric][told.row] = told.value
    into_at_ns[told.row] = told.measured_at_ns
