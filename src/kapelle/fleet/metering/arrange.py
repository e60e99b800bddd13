"""The order reports were made in, whatever order they came in."""

import numpy as np
from numpy.typing import NDArray

from kapelle.model.enums import Quality
from kapelle.model.ids import NS_PER_S, Bytes, Ints, Longs

_OUT_OF_TURN_NS = 3600 * NS_PER_S
_ZERO_ORDER = -(2**63)

Places = NDArray[np.intp]


def arrange(
    device_no: Ints, order: Longs, measured_at_ns: Longs, received_at_ns: Longs, quality: Bytes
) -> Places:
    """Return which reports count, each once, by device and in the order they were made.

    Reports that carry counters are put in order by them, from one start of the device to its next
    by when each began, so that neither a clock that was set back nor a counter that begins anew
    turns them round. Where a device counts only sometimes, or its counters contradict its clock
    by hours, its clock decides. A report that came several times counts once.
    """
    if len(device_no) == 0:
        return np.zeros(0, np.intp)
    counted = order < 0
    by_time = _sorted(device_no, measured_at_ns, order, received_at_ns)
    if counted.any():
        places = _by_counters(device_no, order, measured_at_ns, received_at_ns, by_time)
    else:
        places = by_time
    device, number, at_ns = device_no[places], order[places], measured_at_ns[places]
    again = np.zeros(len(places), np.bool_)
    # Where arrival stands for the time, the same report bears another one each time it comes.
    unstamped = (quality[places] & Quality.UNSTAMPED) != 0
    same = (device[1:] == device[:-1]) & (number[1:] == number[:-1])
    again[1:] = same & ((at_ns[1:] == at_ns[:-1]) | (unstamped[1:] & counted[places][1:]))
    return places[~again]


def _by_counters(
    device_no: Ints, order: Longs, measured_at_ns: Longs, received_at_ns: Longs, by_time: Places
) -> Places:
    """Return all rows in order, taking each device's word for it where it counts its reports."""
    places = _sorted(device_no, order, measured_at_ns, received_at_ns)
    device, number, at_ns = device_no[places], order[places], measured_at_ns[places]
    boot = boots(number)
    first = np.ones(len(places), np.bool_)
    first[1:] = (device[1:] != device[:-1]) | (boot[1:] != boot[:-1])
    run = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    # An uncounted report among counted ones, and a run whose time falls by hours.
    owner = device[starts]
    mixed = np.isin(owner, np.intersect1d(owner[boot[starts] < 0], owner[boot[starts] >= 0]))
    falls = np.zeros(len(places), np.bool_)
    falls[1:] = ~first[1:] & (at_ns[1:] < at_ns[:-1] - _OUT_OF_TURN_NS)
    by_clock = (mixed | np.logical_or.reduceat(falls, starts))[run]
    began_ns = np.minimum.reduceat(at_ns, starts)[run]
    key_ns = np.where(by_clock, at_ns, began_ns)
    if not by_clock.any() and _ascends(device, key_ns):
        return places
    # Stable: within a run, and at equal times, the order by counters stays.
    return places[np.lexsort((key_ns, device))]


def _sorted(device_no: Ints, *keys: Longs) -> Places:
    """Return the stable order of rows by device and keys."""
    # Reports mostly come in the order they were made in: one sort by device is enough then.
    places = np.argsort(device_no, kind="stable")
    is_level = device_no[places[1:]] == device_no[places[:-1]]
    for key in keys:
        ordered = key[places]
        if (is_level & (ordered[1:] < ordered[:-1])).any():
            columns: list[Ints | Longs] = [*reversed(keys), device_no]
            return np.lexsort(columns)
        is_level &= ordered[1:] == ordered[:-1]
    return places


def _ascends(device: Ints, key_ns: Longs) -> bool:
    return not ((device[1:] == device[:-1]) & (key_ns[1:] < key_ns[:-1])).any()


def boots(order: Longs) -> Longs:
    """Return the start of the device each report belongs to; -1 where it does not count them."""
    starts: Longs = np.where(order < 0, (order ^ _ZERO_ORDER) >> 32, -1)
    return starts
