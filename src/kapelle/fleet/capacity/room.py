"""What one partition knows about a promise of capacity, as sums: a few numbers per vendor.

Headrooms are told every `ROOM_EVERY_S`, for one length of window at a time, so that the cost (about
that of a curve) is spread: each length is at most a minute old.
"""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.capacity.trials import cell_name
from kapelle.fleet.columns import Fleet, is_heard, span
from kapelle.fleet.curve import division, trust
from kapelle.model.enums import DeviceKind, Freshness
from kapelle.model.ids import NS_PER_S, Floats, Ints
from kapelle.model.summaries import Reach, Room

WINDOWS_S = (900.0, 3600.0, 14400.0)
"""Headroom is told for these lengths; in between, `dispatch.firm` interpolates over 1 / length."""
EVERY_S = 10
"""Who is heard is told at ticks that are multiples of this …"""
ROOM_EVERY_S = 20
"""… and headrooms at these. [s]"""
REGIONS = 8
"""Regions fall into this many groups, and the feeders of each into `FEEDERS`: bounded."""
FEEDERS = 8
PLACES = REGIONS * FEEDERS
PROVIDERS = 16
"""Internet providers fall into so many groups; who has none is in none."""
OWN_WEIGHT = 10.0
"""A device's own record counts as much as what is known of its like after so many commands."""
DELAYS = 8
"""Octaves of delay from command to answer: up to 1 s, 2 s, … 64 s, and beyond."""

_PRIOR_FOLLOWED = 9.0
"""What the columns begin with, and forget with every command."""
_PRIOR = 10.0
_MEMORY = 50.0
"""1 / (1 - 0.98): what a record weighs in the end."""
_CHUNK = 1 << 15
_KINDS = len(DeviceKind)
_SUMS = 4
_NETS = PROVIDERS + 1


def window_due_s(now_ns: int) -> float | None:
    """Return the length that is told at this tick; None where none is. [s]"""
    now_s = now_ns // NS_PER_S
    if now_s % ROOM_EVERY_S:
        return None
    return WINDOWS_S[now_s // ROOM_EVERY_S % len(WINDOWS_S)]


def room(fleet: Fleet, rows: Ints, window_s: float) -> Room:
    """Sum up how far the controllable rows can move and hold it for a window, and how surely.

    A device that has followed `s` of `n` commands follows with (k·m + s) / (k + n), where `m` is
    what the plant knows of its kind and vendor: linear in `m`, so that the plant can put in what it
    has learned since (Beta–Bernoulli with prior weight k = `OWN_WEIGHT`). Headrooms are those of
    `division.shares` with E / Δt: who cannot hold a power to the end of the window has not got it.
    """
    vendors = len(fleet.names["vendor"])
    sums = np.zeros((2 * _SUMS, vendors * _KINDS))
    places = np.zeros((2, vendors * PLACES))
    devices = np.zeros(vendors * _KINDS, np.int64)
    zones, nets = _zone_groups(fleet), _net_groups(fleet)
    through = np.zeros((2, vendors * _NETS))
    for start in range(0, len(rows), _CHUNK):
        piece = rows[start : start + _CHUNK]
        counted = trust.controllable(fleet, piece)
        if not counted.any():
            continue
        # To leave out the few who do not count costs less than to pick all others.
        at = span(piece)
        part = division.shares(fleet, piece, window_s)
        vendor = fleet.vendor[at].astype(np.intp)
        cell = vendor * _KINDS + fleet.kind[at]
        place = _places(fleet, at, zones, vendor)
        net = vendor * _NETS + nets[fleet.provider[at]]
        prior, own = _record(fleet, at)
        devices += np.bincount(cell[counted], minlength=len(devices))
        for way, could_w in enumerate((part.up_w, part.down_w)):
            head_w = np.where(counted, could_w, 0.0)
            if not head_w.any():
                continue
            parts = (head_w, head_w * prior, head_w * own, head_w * head_w)
            for total, each in zip(sums[way * _SUMS : (way + 1) * _SUMS], parts, strict=True):
                total += np.bincount(cell, each, len(total))
            places[way] += np.bincount(place, head_w, places.shape[1])
            through[way] += np.bincount(net, head_w, through.shape[1])
    names = fleet.names["vendor"]
    used = np.flatnonzero(devices)
    return Room(
        window_s=window_s,
        cells={
            cell_name(at % _KINDS, names[at // _KINDS]): [float(devices[at]), *sums[:, at].tolist()]
            for at in used.tolist()
        },
        places=_by_vendor(names, places, PLACES),
        providers=_by_provider(names, through),
    )


def reach(fleet: Fleet) -> Reach | None:
    """Count who is heard, by vendor and place, with the outcomes of commands.

    None where it is not told at this tick.
    """
    if fleet.now_ns // NS_PER_S % EVERY_S:
        return None
    vendors = len(fleet.names["vendor"])
    counts = np.zeros((2, vendors * PLACES))
    through = np.zeros((2, vendors * _NETS))
    delays = np.zeros(DELAYS, np.int64)
    zones, nets = _zone_groups(fleet), _net_groups(fleet)
    for start in range(0, fleet.size, _CHUNK):
        at = slice(start, min(start + _CHUNK, fleet.size))
        freshness = fleet.freshness[at]
        known = fleet.active[at] & (freshness != np.uint8(Freshness.NEVER))
        heard = known & is_heard(freshness)
        vendor = fleet.vendor[at].astype(np.intp)
        place = _places(fleet, at, zones, vendor)
        net = vendor * _NETS + nets[fleet.provider[at]]
        for way, each in enumerate((known, heard)):
            counts[way] += np.bincount(place[each], minlength=counts.shape[1])
            through[way] += np.bincount(net[each], minlength=through.shape[1])
        delays += _delays(fleet, at)
    names = fleet.names["vendor"]
    return Reach(
        heard=_by_vendor(names, counts, PLACES),
        trials=fleet.trials.told(names),
        delays=delays.tolist() if delays.any() else [],
        providers=_by_provider(names, through),
    )


def _record(fleet: Fleet, at: slice | Ints) -> tuple[Floats, Floats]:
    """Return each device's weight of the prior, and what its own record adds to it.

    The columns hold their first prior beside the record. It has shrunk by the same factor at every
    command, so that the sum of both columns tells what is left of it.
    """
    followed = fleet.responses[at].astype(np.float64)
    weight = followed + fleet.refusals[at]
    left = np.clip((_MEMORY - weight) / (_MEMORY - _PRIOR), 0.0, 1.0)
    followed = np.maximum(followed - _PRIOR_FOLLOWED * left, 0.0)
    count = np.maximum(weight - _PRIOR * left, 0.0)
    per = 1.0 / (OWN_WEIGHT + count)
    return OWN_WEIGHT * per, np.minimum(followed, count) * per


def _delays(fleet: Fleet, at: slice) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Count answers since the last telling by octave of their delay."""
    applied_ns = fleet.applied_at_ns[at]
    new = np.flatnonzero(applied_ns > fleet.now_ns - EVERY_S * NS_PER_S)
    new = new[fleet.order_no[at][new] != 0]
    took_s = (applied_ns[new] - fleet.planned_at_ns[at][new]) / NS_PER_S
    octave = np.ceil(np.log2(np.maximum(took_s, 1.0))).astype(np.intp)
    return np.bincount(np.minimum(octave, DELAYS - 1), minlength=DELAYS).astype(np.int64)


def _places(
    fleet: Fleet, at: slice | Ints, zones: Ints, vendor: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return vendor and place of each device as one number."""
    place: NDArray[np.intp] = vendor * PLACES
    place += zones[fleet.zone[at]]
    place += fleet.cluster[at] % np.uint8(FEEDERS)
    return place


def _zone_groups(fleet: Fleet) -> Ints:
    """Return the first place of each zone's group, by code."""
    groups = [crc32(name.encode()) % REGIONS * FEEDERS for name in fleet.names["zone"]]
    return np.array(groups, np.int32)


def _net_groups(fleet: Fleet) -> Ints:
    """Return the group of each internet provider, by code; the last one is that of none."""
    names = fleet.names["provider"]
    groups = [crc32(name.encode()) % PROVIDERS if name else PROVIDERS for name in names]
    return np.array(groups, np.int32)


def _by_vendor(names: list[str], sums: Floats, width: int) -> dict[str, dict[int, list[float]]]:
    told: dict[str, dict[int, list[float]]] = {}
    for at in np.flatnonzero(sums.any(axis=0)).tolist():
        told.setdefault(names[at // width], {})[at % width] = sums[:, at].tolist()
    return told


def _by_provider(names: list[str], sums: Floats) -> dict[str, dict[int, list[float]]]:
    sums.reshape(2, -1, _NETS)[:, :, PROVIDERS] = 0.0
    return _by_vendor(names, sums, _NETS)
