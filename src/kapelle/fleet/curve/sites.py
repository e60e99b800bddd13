"""What the envelope of a site leaves each of its devices: all of them share a partition.

The headrooms of a capped site's devices are cut so that their sum keeps the cap: earlier tiers come
first, within a tier those on or off that fit whole, then all others by the same part. Whatever λ
asks, the site keeps its cap, and at the end of λ it uses all of it.
"""

from typing import NamedTuple

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.envelopes import Caps
from kapelle.model.ids import Bytes, Flags, Floats, Ints


class Heads(NamedTuple):
    """The most each row may move, infinite where no site limits it. [W]"""

    up_w: Floats
    down_w: Floats


def capped_rows(fleet: Fleet, caps: Caps) -> Ints:
    """Return the rows of every device at a site with an envelope."""
    capped = np.minimum(caps.export_w, caps.import_w) < np.inf
    at_one = capped[fleet.site[: fleet.size]] & fleet.active[: fleet.size]
    return np.flatnonzero(at_one).astype(np.int32)


def cut_heads(site: Ints, tier: Bytes, switched: Flags, head_w: Floats, room_w: Floats) -> Floats:
    """Return headrooms cut down to what their sites have room for, one direction. [W]

    Args:
        site: Code of each device's site.
        tier: Earlier ones are served first.
        switched: Devices that move whole or not at all; of several the first that fit do.
        head_w: Headroom of each device, >= 0. [W]
        room_w: By site code, what its devices may move together, >= 0. [W]
    """
    left_w = room_w.copy()
    cut_w = head_w.copy()
    for each in np.unique(tier).tolist():
        mine = tier == each
        whole = np.flatnonzero(mine & switched & (head_w > 0.0))
        fits = _running(site[whole], head_w[whole]) <= left_w[site[whole]]
        cut_w[whole[~fits]] = 0.0
        left_w -= np.bincount(site[whole[fits]], head_w[whole[fits]], len(left_w))
        some = np.flatnonzero(mine & ~switched)
        wanted_w = np.bincount(site[some], head_w[some], len(left_w))
        part = np.divide(left_w, wanted_w, out=np.ones(len(left_w)), where=wanted_w > left_w)
        part = np.clip(part, 0.0, 1.0)
        cut_w[some] *= part[site[some]]
        left_w = np.maximum(left_w - wanted_w, 0.0)
    return cut_w


def _running(group: Ints, amount: Floats) -> Floats:
    """Return the sum of each group's amounts up to each row."""
    order = np.argsort(group, kind="stable")
    sums = np.cumsum(amount[order])
    first = np.append(True, np.diff(group[order]) != 0)[: len(order)]
    before = (sums - amount[order])[first]
    running = np.empty(len(order))
    running[order] = sums - before[np.cumsum(first) - 1]
    return running
