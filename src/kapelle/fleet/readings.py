"""How measured values reach the columns: newest wins, whatever the order of arrival."""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.fleet.sequence import Counted, Rows, apply_counts, apply_restart
from kapelle.fleet.settings import FleetSettings
from kapelle.model.blocks import Readings
from kapelle.model.ids import Flags, Floats, Longs

Places = NDArray[np.intp]
_LOWEST = -(2**63)
_DEFAULTS = FleetSettings()


def apply_readings(fleet: Fleet, block: Readings, settings: FleetSettings = _DEFAULTS) -> None:
    """Write each value whose `order` is not below the one it replaces.

    Metric by metric, the newest `order` of a device wins; at equal `order` the later arrival does.
    Where a device changes between counting its reports and not, `measured_at_ns` decides, and at
    equal times the counted one wins: so it is never shut out by what it did before. NaN says
    nothing and overwrites nothing. So cutting, repeating or shuffling a stream of distinct reports
    changes nothing (where a device changes its ways: as long as counters and clock agree). What
    is sent again changes nothing but `duplicates` and `undecided`. Rows of devices never enrolled
    here are left out.
    """
    row: Places = (block.device_no // fleet.partitions).astype(np.intp)
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
            _apply_rows(fleet, rows, counted)
            break
        if first == 0:
            apply_restart(fleet, int(rows.row[0]))
            continue
        # Its counters restart within this block: what came before is applied first.
        before = rows.at(slice(0, first))
        _apply_rows(fleet, before, apply_counts(fleet, settings, before))
        rows = rows.at(slice(first, None))


def _apply_rows(fleet: Fleet, rows: Rows, counted: Counted) -> None:
    news = rows if counted.news is None else rows.at(counted.news)
    # What is sent again is no sign of life and says nothing about the clock. `ufunc.at` needs
    # neither sorting nor unique devices: measured 5 ns a row, a sort 50.
    np.maximum.at(fleet.received_at_ns, news.row, news.received_at_ns)
    np.minimum.at(fleet.skew_ns, news.row, news.received_at_ns - news.measured_at_ns)
    if counted.bygone is not None:
        rows = rows.at(~counted.bygone)
    for metric, value in rows.values.items():
        _apply_metric(
            fleet.value[metric],
            fleet.order[metric],
            fleet.measured_at_ns[metric],
            fleet.newest_ns,
            rows.row,
            rows.order,
            rows.measured_at_ns,
            value,
        )


def _apply_metric(
    into_value: Floats,
    into_order: Longs,
    into_measured_at_ns: Longs,
    into_newest_ns: Longs,
    rows: Places,
    order: Longs,
    measured_at_ns: Longs,
    value: Floats,
) -> None:
    said = value == value  # False for NaN alone, at half the cost of isnan
    if not said.all():
        rows, order, measured_at_ns = rows[said], order[said], measured_at_ns[said]
        value = value[said]
    # Where signs differ, one report was counted and the other was not.
    if ((into_order[rows] ^ order) < 0).any():
        for kind, lowest in ((order >= 0, 0), (order < 0, _LOWEST)):
            some = np.flatnonzero(kind)
            some = some[
                _cross(
                    into_order,
                    into_measured_at_ns,
                    lowest,
                    rows[some],
                    order[some],
                    measured_at_ns[some],
                )
            ]
            _write(
                into_value,
                into_order,
                into_measured_at_ns,
                into_newest_ns,
                rows[some],
                order[some],
                measured_at_ns[some],
                value[some],
            )
        return
    _write(
        into_value,
        into_order,
        into_measured_at_ns,
        into_newest_ns,
        rows,
        order,
        measured_at_ns,
        value,
    )


def _cross(
    into_order: Longs,
    into_measured_at_ns: Longs,
    lowest: int,
    rows: Places,
    order: Longs,
    measured_at_ns: Longs,
) -> Flags:
    """Let go of what is older and of the other kind; return which rows may then compete."""
    crossing = (into_order[rows] ^ order) < 0
    held_ns = into_measured_at_ns[rows]
    newer = measured_at_ns > held_ns if lowest == 0 else measured_at_ns >= held_ns
    into_order[rows[crossing & newer]] = lowest
    kept: Flags = newer | ~crossing
    return kept


def _write(
    into_value: Floats,
    into_order: Longs,
    into_measured_at_ns: Longs,
    into_newest_ns: Longs,
    rows: Places,
    order: Longs,
    measured_at_ns: Longs,
    value: Floats,
) -> None:
    np.maximum.at(into_order, rows, order)
    newest = into_order[rows] == order
    if not newest.all():
        rows, order, measured_at_ns = rows[newest], order[newest], measured_at_ns[newest]
        value = value[newest]
    held_ns = into_measured_at_ns[rows]
    back = measured_at_ns < held_ns
    if back.any():
        back &= order < 0
        # The clock went back: how far it had been must not be forgotten. (Without counters it
        # was ahead, and `step_counts` knows.)
        np.maximum.at(into_newest_ns, rows[back], held_ns[back])
    # NumPy assigns repeated places in order, so of equals the later arrival stays.
    into_value[rows] = value
    into_measured_at_ns[rows] = measured_at_ns
