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


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Devices that last about equally long, as one store each. Rows: groups; columns: up, down."""

    step: Ints
    """Step of duration in each direction, shape (groups, 2)."""
    wide: int
    """A group has this many steps, from `step` on."""
    power_w: Floats
    """How far they can move, shape (groups, 2). [W]"""
    energy_wh: Floats
    """What they can give and take, shape (groups, 2); infinite where nothing limits it. [Wh]"""

    def __len__(self) -> int:
        return len(self.step)


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
    free = nothing.copy()
    summed: dict[tuple[int, int], Floats] = {}
    for table in told:
        for name, said in table.items():
            sums = np.array(said, np.float64)
            if name == FREE:
                free += sums
                continue
            up, down = (int(step) for step in name.split("/"))
            key = up if way != "down" else 0, down if way != "up" else 0
            if _lasts(key, way, lasts_s):
                free += sums
            else:
                summed[key] = summed.get(key, nothing) + sums
    most, wide = max(_CELLS_MAX // intervals, _GROUPS_MIN), 1
    while len({_coarse(key, wide) for key in summed}) > most:
        wide *= 2
    joined: dict[tuple[int, int], Floats] = {}
    for key, sums in summed.items():
        coarse = _coarse(key, wide)
        joined[coarse] = joined.get(coarse, nothing) + sums
    rows = sorted(joined.items())
    last = rations.STEPS - 1
    every = np.array([*(each for _, each in rows), free])
    energy_wh = every[:, 2:].copy()
    energy_wh[-1] = np.inf
    return Groups(
        np.array([*(key for key, _ in rows), (last, last)], np.int32), wide, every[:, :2], energy_wh
    )


def _lasts(key: tuple[int, int], way: Way, lasts_s: float) -> bool:
    up, down = (rations.shortest_s(step) >= lasts_s for step in key)
    return (up or way == "down") and (down or way == "up")


def _coarse(key: tuple[int, int], wide: int) -> tuple[int, int]:
    return key[0] // wide * wide, key[1] // wide * wide
