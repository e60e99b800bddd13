"""Accounts of energy divided over intervals that add up to them exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kapelle.fleet.metering.accounts import Account, by_device
from kapelle.fleet.metering.arrange import Places
from kapelle.fleet.metering.registers import Mark
from kapelle.model.enums import EnergyQuality
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Ints, Longs

GAP_S = 900.0
"""Readings further apart than this tell the sum between them and only guess its course. [s]"""

_LEFT_OUT = np.zeros(256, np.bool_)
_LEFT_OUT[[Mark.SUSPECT, Mark.PENDING]] = True
_DOUBTED = np.zeros(256, np.bool_)
_DOUBTED[[Mark.RESET, Mark.REPLACED]] = True


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Energy of devices in consecutive intervals; shapes are (devices, intervals)."""

    device_no: Ints
    """Ascending, shape (devices,)."""
    mwh: Longs
    """0 where not known. [mWh]"""
    quality: Bytes
    """Bits of `EnergyQuality`; 0 where not known."""
    known: Flags


def intervals(
    counted: Account, edges_ns: Sequence[int] | Longs, *, gap_s: float = GAP_S
) -> Intervals:
    """Divide accounts over intervals, interpolating at their edges.

    Each edge gets one whole number per device, so consecutive intervals add up exactly to the
    account between the outer ones. Nothing is known before a device's first reading or after
    its last. An interval is estimated where one of its edges lies between readings further apart
    than `gap_s`, and where a segment begins in it: what the old register last counted is lost.

    Args:
        counted: What `account` or `integrate` returned.
        edges_ns: Ascending; n + 1 of them bound n intervals.
        gap_s: The longest distance of readings whose course in between is taken as known. [s]
    """
    edges = np.asarray(edges_ns, np.int64)
    kept = np.flatnonzero(~_LEFT_OUT[counted.mark])
    device_no, at_ns, mwh = counted.device_no[kept], counted.at_ns[kept], counted.mwh[kept]
    starts, at = by_device(device_no)
    devices, count = len(starts), len(edges)
    shape = (devices, max(count - 1, 0))
    if devices == 0 or count < 2:
        none = np.zeros(shape, np.int64)
        return Intervals(device_no[starts], none, none.astype(np.uint8), np.zeros(shape, np.bool_))
    # Rows up to and including each edge, per device: counted once, added up along the edges.
    bucket = np.searchsorted(edges, at_ns, side="left")
    in_bucket = np.bincount(at * (count + 1) + bucket, minlength=devices * (count + 1))
    through = np.cumsum(in_bucket.reshape(devices, count + 1)[:, :count], axis=1)
    last = starts[:, np.newaxis] + through - 1
    begun = through > 0
    before = np.where(begun, last, starts[:, np.newaxis])
    after = np.minimum(before + 1, len(device_no) - 1)
    exact = begun & (at_ns[before] == edges)
    is_inside = exact | (
        begun & (at[after] == np.arange(devices)[:, np.newaxis]) & (after > before)
    )
    width_ns = np.where(exact | ~is_inside, 1, at_ns[after] - at_ns[before])
    share = np.where(exact | ~is_inside, 0.0, (edges - at_ns[before]) / width_ns)
    rise_mwh = mwh[after] - mwh[before]
    at_edge_mwh = mwh[before] + np.rint(np.where(is_inside, rise_mwh, 0) * share).astype(np.int64)
    guessed = ~exact & (width_ns > int(gap_s * NS_PER_S))

    known = is_inside[:, 1:] & is_inside[:, :-1]
    estimated = guessed[:, 1:] | guessed[:, :-1]
    mark = counted.mark[kept]
    _spread(estimated, True, np.flatnonzero(_DOUBTED[mark]), at, at_ns, edges)
    _spread(known, False, np.flatnonzero(mark == Mark.GAP), at, at_ns, edges)
    found = np.where(estimated, np.uint8(EnergyQuality.ESTIMATED), np.uint8(counted.basis))
    return Intervals(
        device_no[starts],
        np.where(known, np.diff(at_edge_mwh, axis=1), 0),
        np.where(known, found, np.uint8(0)),
        known,
    )


def _spread(into: Flags, value: bool, rows: Places, at: Places, at_ns: Longs, edges: Longs) -> None:
    """Say something of all intervals that the way from the row before to each of these touches."""
    for row in rows.tolist():
        if row and at[row] == at[row - 1]:
            first = int(np.searchsorted(edges, at_ns[row - 1], side="right")) - 1
            last = int(np.searchsorted(edges, at_ns[row], side="left"))
            into[at[row], max(first, 0) : last] = value
