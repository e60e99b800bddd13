"""What each new reading teaches about estimating: how far off we were, for one device at a time.

Two lessons come free with every reading. The *surprise* is the reading less what was estimated
just before it. The *anchor* is an old reading kept as if the device had been silent since: what it
does now tells how far a silent one would have strayed by that age. Both depend on that device
alone; what many teach together the plant learns from sums (`evidence`, `learned`).
"""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, Floats32, is_heard
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints, Longs

_DIAL_S = 65_535
_ANCHOR_S = 64.0
"""The shortest anchors are kept for about this long; others 8, 64 and 512 times as long. [s]"""
_GAP_S_MAX = 60_000.0
_SHARE_MAX = 60_000.0

Places = NDArray[np.intp]


def step_news(fleet: Fleet, rows: Places, gap_s: Floats32, flying: Places) -> None:
    """Note gap and surprise of the readings that came since the tick before.

    Called while freshness, estimates and hearing times are still those of the tick before.

    Args:
        fleet: The partition.
        rows: Devices whose newest power reading advanced.
        gap_s: By how much; NaN where nothing can be said.
        flying: Places in `rows` of devices that had a command on its way.
    """
    fleet.gap_s[: fleet.size] = 0
    if not len(rows):
        return
    heard = is_heard(fleet.freshness[rows])
    noted = np.where(heard & (gap_s > 0), np.clip(gap_s, 1e-3, _GAP_S_MAX), np.float32(np.inf))
    noted[flying] = -np.clip(np.abs(noted[flying]), 0.0, _GAP_S_MAX)
    off_w = fleet.value[Metric.POWER_W, rows] - fleet.estimate_w[rows]
    share = off_w / np.maximum(nameplate_w(fleet, rows), 1.0)
    fleet.gap_s[rows] = noted
    fleet.surprise[rows] = np.clip(share, -_SHARE_MAX, _SHARE_MAX)


def news(fleet: Fleet, at: slice | Ints | Places) -> Places:
    """Return which of these rows have a reading that came since the tick before."""
    # As whole numbers, half-precision floats compare at once.
    return np.flatnonzero(fleet.gap_s[at].view(np.uint16))


def is_free(fleet: Fleet, rows: Places) -> Flags:
    """Tell which of the rows with news are on their own schedule, as `step_estimate` found."""
    free: Flags = np.isnan(fleet.desired_w[rows])
    free &= fleet.own_w[rows] == fleet.value[Metric.POWER_W, rows]
    return free


def step_anchors(fleet: Fleet) -> None:
    """Set a new anchor where there is none, or where the old one has served its time.

    How long it serves is drawn from the device's number, evenly over the octaves of age, so
    that at any moment some devices tell about each age.
    """
    rows = news(fleet, slice(0, fleet.size))
    rows = rows[is_free(fleet, rows)]
    if not len(rows):
        return
    mixed = _mixed(fleet, rows)
    serves_s = _ANCHOR_S * 8.0 ** (mixed >> 30) * (0.75 + 0.5 * (mixed >> 14 & 0xFFFF) / 65_536)
    over = (fleet.anchored_at[rows] == 0) | (anchor_age_s(fleet, rows) >= serves_s)
    rows = rows[over]
    value_w = fleet.value[Metric.POWER_W, rows]
    share = value_w / np.maximum(nameplate_w(fleet, rows), 1.0)
    fleet.anchor[rows] = np.clip(share, -_SHARE_MAX, _SHARE_MAX)
    fleet.anchored_at[rows] = fleet.heard_at_ns[rows] // NS_PER_S % _DIAL_S + 1


def anchor_age_s(fleet: Fleet, rows: Places) -> Longs:
    """Return the time from the anchor to the newest reading of rows that have one. [s]"""
    heard_s = fleet.heard_at_ns[rows] // NS_PER_S
    age_s: Longs = (heard_s - fleet.anchored_at[rows].astype(np.int64) + 1) % _DIAL_S
    return age_s


def is_sampled(fleet: Fleet, rows: Places) -> Flags:
    """Tell whose anchors are told: all of a small plant, 1 in 16 of what a large one has more."""
    device_no = rows * fleet.partitions + fleet.partition
    sampled: Flags = (device_no < 16_384) | (_mixed(fleet, rows) & 15 == 0)
    return sampled


def nameplate_w(fleet: Fleet, rows: Places) -> Floats:
    """Return the larger of nameplate up and down. [W]"""
    larger_w: Floats = np.maximum(fleet.nameplate_up_w[rows], fleet.nameplate_down_w[rows])
    return larger_w


def _mixed(fleet: Fleet, rows: Places) -> Longs:
    """Return 32 well mixed bits of each device number (Knuth's multiplicative hash)."""
    device_no = rows.astype(np.int64) * fleet.partitions + fleet.partition
    mixed = (device_no + 1) * 2_654_435_761 & 0xFFFF_FFFF
    mixed ^= mixed >> 15
    bits: Longs = mixed * 2_246_822_519 & 0xFFFF_FFFF
    return bits
