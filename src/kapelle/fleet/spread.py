"""How old reports are and how far clocks are off, as counts: a few numbers, whatever the fleet's.

Buckets are octaves, so that a bucket is the exponent of a floating-point number: no search, no
logarithm, 5 ns a device.
"""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.model.enums import DeviceKind, Freshness
from kapelle.model.ids import NS_PER_S, Floats
from kapelle.model.summaries import Spread

AGE_BOUNDS_S = tuple(2.0**n for n in range(17))
"""1 s to 18 hours; a bucket holds what is above the bound before and at most its own."""
SKEW_BOUNDS_S = tuple(2.0**n for n in range(-4, 13))
"""A sixteenth of a second to more than an hour, either way."""
EVERY_S = 10
"""Told at ticks that are multiples of this. [s]"""
_CHUNK = 1 << 15
_NO_SKEW = np.iinfo(np.int64).max
_STATES = len(Freshness)
_S_PER_NS = 1e-9 * (1 - 1e-15)
"""So little less that what equals a bound falls below it, and 1 ns more does not."""
Counts = NDArray[np.int64]


def spread(fleet: Fleet) -> Spread | None:
    """Count all active devices as of the last tick; None where it is not told at this tick."""
    if fleet.now_ns // NS_PER_S % EVERY_S:
        return None
    ages: Counts = np.zeros(len(AGE_BOUNDS_S) + 2, np.intp)
    skews: Counts = np.zeros(2 * (len(SKEW_BOUNDS_S) + 1) + 1, np.intp)
    states: Counts = np.zeros(len(DeviceKind) * _STATES + 1, np.intp)
    half = len(SKEW_BOUNDS_S) + 1
    age_s = skew_ahead_s = skew_behind_s = 0.0
    for start in range(0, fleet.size, _CHUNK):
        at = slice(start, min(start + _CHUNK, fleet.size))
        # Whoever does not count goes into a last bucket that nobody looks at.
        idle = ~fleet.active[at]
        state = fleet.kind[at] * np.uint8(_STATES) + fleet.freshness[at]
        state[idle] = len(states) - 1
        states += np.bincount(state, minlength=len(states))

        received_ns = fleet.received_at_ns[at]
        old_s = (fleet.now_ns - received_ns).astype(np.float64) * _S_PER_NS
        np.maximum(old_s, 0.0, out=old_s)
        place = _octaves(old_s, AGE_BOUNDS_S)
        out = idle | (received_ns == 0)
        place[out], old_s[out] = len(ages) - 1, 0.0
        ages += np.bincount(place, minlength=len(ages))
        age_s += float(old_s.sum())

        skew_ns = np.minimum(fleet.skew_ns[at], fleet.skew_before_ns[at])
        off_s = skew_ns.astype(np.float64) * _S_PER_NS
        size_s = np.abs(off_s)
        place = _octaves(size_s, SKEW_BOUNDS_S)
        place += (off_s >= 0) * half
        out = idle | (skew_ns == _NO_SKEW)
        place[out], size_s[out], off_s[out] = len(skews) - 1, 0.0, 0.0
        skews += np.bincount(place, minlength=len(skews))
        both_s, difference_s = float(size_s.sum()), float(off_s.sum())
        skew_ahead_s += (both_s - difference_s) / 2
        skew_behind_s += (both_s + difference_s) / 2
    return Spread(
        ages=ages[:-1].tolist(),
        age_s=age_s,
        ahead=skews[:half].tolist(),
        ahead_s=skew_ahead_s,
        behind=skews[half:-1].tolist(),
        behind_s=skew_behind_s,
        states={
            kind.name.lower(): states[kind * _STATES : (kind + 1) * _STATES].tolist()
            for kind in DeviceKind
            if states[kind * _STATES : (kind + 1) * _STATES].any()
        },
    )


def _octaves(seconds: Floats, bounds_s: tuple[float, ...]) -> Counts:
    """Return the bucket of each value (>= 0): at most its bound, or beyond the last. [s]"""
    # Half the first bound and the last are in the outermost buckets; floats are clipped at once.
    within_s = np.clip(seconds, bounds_s[0] / 2, bounds_s[-1])
    lowest = int(np.float64(bounds_s[0]).view(np.int64) >> 52)
    place: Counts = within_s.view(np.int64) >> 52
    place -= lowest - 1
    return place
