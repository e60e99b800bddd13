"""What a plan is made of: groups of devices by how long they last, and the intervals to be met."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kapelle.fleet.curve import rations
from kapelle.fleet.profiles import Part
from kapelle.fleet.stores import FREE
from kapelle.model.ids import NS_PER_S, Floats, Ints

Way = Literal["up", "down", "both"]
_SUMS = 4
_CELLS_MAX = 1000
"""Groups times intervals, about: neighbours are joined until a plan costs no more."""
_GROUPS_MIN = 8
_GROUPS_MAX = 48
"""Each is asked by itself how much it could do: many groups would hold dispatch up."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Devices that last about equally long, as one store each. Rows: groups; columns: up, down."""

    knot: Ints
    """Knot of duration in each direction, shape (groups, 2)."""
    power_w: Floats
    """How far they can move, shape (groups, 2). [W]"""
    energy_wh: Floats
    """What they can give and take, shape (groups, 2); infinite where nothing limits it. [Wh]"""

    free_from: int
    """Who lasts for the time of this knot or longer has energy enough, and is in the last group."""

    def __len__(self) -> int:
        return len(self.knot)

    def part(self, part: float) -> "Groups":
        """Return the same groups with only a part of their power and energy."""
        return Groups(self.knot, self.power_w * part, self.energy_wh * part, self.free_from)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The intervals that are left, in their order, and the change of power each asks for."""

    length_h: Floats
    want_w: Floats
    """Positive towards export. [W]"""

    @property
    def lasts_s(self) -> float:
        """Return how long the window is. [s]"""
        return float(self.length_h.sum()) * 3600.0


def way_of(wants_w: Iterable[float]) -> Way:
    """Return in which directions a profile goes."""
    wanted = list(wants_w)
    if min(wanted) < 0:
        return "both" if max(wanted) > 0 else "down"
    return "up"


def window(parts: Sequence[Part], from_ns: int, besides_w: float = 0.0) -> Window:
    """Return what is left of a profile from a moment on.

    Args:
        parts: What is promised, by interval.
        from_ns: Where planning begins, within an interval.
        besides_w: What the devices that follow have to do more than is promised, because others
            do less; never so little that it turns the direction round. [W]
    """
    left = [part for part in parts if part.ends_at_ns > from_ns]
    seconds = [(part.ends_at_ns - max(part.starts_at_ns, from_ns)) / NS_PER_S for part in left]
    wanted = np.array([part.target_w for part in left])
    moved = wanted + besides_w
    same_way = np.where(wanted > 0, np.maximum(moved, 0.0), np.minimum(moved, 0.0))
    return Window(np.array(seconds) / 3600.0, np.where(wanted == 0, 0.0, same_way))


def groups(
    told: Iterable[Mapping[str, Sequence[float]]], lasts_s: float, way: Way, intervals: int = 1
) -> Groups:
    """Add up what partitions told of their stores (`fleet.stores`).

    Who can hold all his power for `lasts_s`, the rest of the window, has energy enough: they are
    all one group, the last, with those who have no store. [s]
    """
    nothing: Floats = np.zeros(_SUMS)
    free, summed = nothing.copy(), dict[tuple[int, int], Floats]()
    for table in told:
        for name, said in table.items():
            sums = np.array(said, np.float64)
            if name == FREE:
                free += sums
                continue
            up, down = (int(knot) for knot in name.split("/"))
            key = up if way != "down" else 0, down if way != "up" else 0
            if _lasts(key, way, lasts_s):
                free += sums
            else:
                summed[key] = summed.get(key, nothing) + sums
    most, wide = min(max(_CELLS_MAX // intervals, _GROUPS_MIN), _GROUPS_MAX), 1
    fewer = summed
    while len(fewer) > most:
        wide *= 2
        fewer = _coarser(summed, wide)
    rows = sorted(fewer.items())
    every = np.array([*(each for _, each in rows), free])
    energy_wh = every[:, 2:].copy()
    energy_wh[-1] = np.inf
    free_from = int(np.searchsorted(rations.KNOTS_S, lasts_s))
    knots = [*(key for key, _ in rows), (rations.KNOTS - 1, rations.KNOTS - 1)]
    return Groups(np.array(knots, np.int32), every[:, :2], energy_wh, free_from)


def _lasts(key: tuple[int, int], way: Way, lasts_s: float) -> bool:
    up, down = (rations.KNOTS_S[knot] >= lasts_s for knot in key)
    return bool((up or way == "down") and (down or way == "up"))


def _coarser(summed: Mapping[tuple[int, int], Floats], wide: int) -> dict[tuple[int, int], Floats]:
    """Leave only every so manieth knot: what lies between counts in part at each beside it."""
    joined: dict[tuple[int, int], Floats] = {}
    for (up, down), sums in summed.items():
        for at_up, part_up in _between(up, wide):
            for at_down, part_down in _between(down, wide):
                part = part_up * part_down
                moved = sums[:2] * part
                hours = rations.KNOTS_S[[at_up, at_down]] / 3600.0
                known = joined.setdefault((at_up, at_down), np.zeros(_SUMS))
                known += np.concatenate([moved, moved * hours])
    return {key: sums for key, sums in joined.items() if sums.any()}


def _between(knot: int, wide: int) -> list[tuple[int, float]]:
    """Return the kept knots beside one, and the part of it that counts at each."""
    low = knot // wide * wide
    high = min(low + wide, rations.KNOTS - 1)
    if low == knot or high == low:
        return [(knot, 1.0)]
    from_s, to_s = rations.KNOTS_S[low], rations.KNOTS_S[high]
    part = float((rations.KNOTS_S[knot] - from_s) / (to_s - from_s))
    return [(low, 1.0 - part), (high, part)]
