"""How measured values reach the columns: newest wins, whatever the order of arrival."""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.model.blocks import Readings
from kapelle.model.ids import Flags, Floats, Longs

Places = NDArray[np.intp]
_LOWEST = -(2**63)


def apply_readings(fleet: Fleet, block: Readings) -> None:
    """Write each value whose `order` is not below the one it replaces.

    Metric by metric, the newest `order` of a device wins; at equal `order` the later arrival does.
    Where a device changes between counting its reports and not, `measured_at_ns` decides, and at
    equal times the counted one wins: so it is never shut out by what it did before. NaN says
    nothing and overwrites nothing. So cutting, repeating or shuffling a stream of distinct reports
    changes nothing (where a device changes its ways: as long as counters and clock agree). Rows
    of devices never enrolled here are left out.
    """
    rows: Places = (block.device_no // fleet.partitions).astype(np.intp)
    order, measured_at_ns = block.order, block.measured_at_ns
    received_at_ns, values = block.received_at_ns, dict(block.values)
    # As unsigned, a negative number is large: one comparison finds both kinds of strangers.
    known = rows.view(np.uintp) < fleet.size
    if not known.all():
        rows, order, measured_at_ns = rows[known], order[known], measured_at_ns[known]
        received_at_ns = received_at_ns[known]
        values = {metric: value[known] for metric, value in values.items()}

    # `ufunc.at` needs neither sorting nor unique devices: measured 5 ns a row, a sort 50.
    np.maximum.at(fleet.received_at_ns, rows, received_at_ns)
    np.minimum.at(fleet.skew_ns, rows, received_at_ns - measured_at_ns)
    for metric, value in values.items():
        _apply_metric(
            fleet.value[metric],
            fleet.order[metric],
            fleet.measured_at_ns[metric],
            rows,
            order,
            measured_at_ns,
            value,
        )


def _apply_metric(
    into_value: Floats,
    into_order: Longs,
    into_measured_at_ns: Longs,
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
                rows[some],
                order[some],
                measured_at_ns[some],
                value[some],
            )
        return
    _write(into_value, into_order, into_measured_at_ns, rows, order, measured_at_ns, value)


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
    rows: Places,
    order: Longs,
    measured_at_ns: Longs,
    value: Floats,
) -> None:
    np.maximum.at(into_order, rows, order)
    newest = into_order[rows] == order
    if not newest.all():
        rows, measured_at_ns, value = rows[newest], measured_at_ns[newest], value[newest]
    # NumPy assigns repeated places in order, so of equals the later arrival stays.
    into_value[rows] = value
    into_measured_at_ns[rows] = measured_at_ns
