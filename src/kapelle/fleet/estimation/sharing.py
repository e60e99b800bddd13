"""How much of their scatter devices under one sky, or of one vendor, share; and who reports."""

from collections.abc import Mapping
from math import exp

import msgspec

from kapelle.fleet.estimation.evidence import PV_CLUSTER
from kapelle.fleet.estimation.levels import Level
from kapelle.model.enums import DeviceKind
from kapelle.model.summaries import Evidence

_GROUP_S = 1800.0
_FREE = 0.9
"""Where fewer of those who report are on their own schedule they are no fair sample of a kind."""
_GONE_W = 1e-3
"""A group with less nameplate has nobody left who reports. [W]"""


class Group(msgspec.Struct):
    """Pairs of devices of one kind that share something."""

    product: float = 0.0
    pairs: float = 0.0
    square: float = 0.0
    count: float = 0.0
    groups: float = 0.0

    @property
    def variance(self) -> float:
        """Return the variance between devices at one moment, as a share of nameplate."""
        return self.square / self.count if self.count else 0.0

    def shared(self, devices: float) -> float:
        """Return the part of the scatter that devices of one group share, 0-1.

        What so many devices show by chance is taken away: devices stay what they are, so that no
        number of looks averages it out (positive-part shrinkage, James and Stein 1961).
        """
        if not self.pairs or self.variance <= 0.0:
            return 0.0
        part = self.product / self.pairs / self.variance
        if part <= 0.0:
            return 0.0
        # Of two devices that share nothing the products of all pairs vary by so much.
        chance2 = 2.0 * self.count / (self.pairs * max(devices, 1.0))
        return min(part * max(1.0 - chance2 / (part * part), 0.0), 1.0)


def kind_of(name: str) -> int:
    """Return the `DeviceKind` of a group."""
    return int(DeviceKind.PV) if name.startswith(PV_CLUSTER) else int(name.partition("/")[0])


def family_of(name: str) -> str:
    """Return what all groups of this sort are known by: PV under one sky, or a kind's vendors."""
    return PV_CLUSTER if name.startswith(PV_CLUSTER) else f"{kind_of(name)}/"


def learn_groups(
    groups: dict[str, Group], levels: Mapping[int, Level], told: Evidence, dt_s: float
) -> None:
    """Learn from the sums one tick told of, by group."""
    sums: dict[str, list[float]] = {}
    free: dict[int, float] = {}
    for name, (count, _, _) in told.groups.items():
        if not name.startswith(PV_CLUSTER):
            kind = kind_of(name)
            free[kind] = free.get(kind, 0.0) + count
    for name, (count, total, square) in told.groups.items():
        kind = kind_of(name)
        level = levels.get(kind)
        reports = told.levels.get(kind, [0.0] * 5)[4]
        if level is None or free.get(kind, 0.0) < _FREE * reports:
            # Whom an order leaves differ from their kind all alike: nothing they share by nature.
            continue
        off = total - count * level.level
        square += count * level.level**2 - 2.0 * level.level * total
        whole = sums.setdefault(family_of(name), [0.0] * 5)
        part = (off * off - square, count * (count - 1.0), square, count, 1.0)
        for place, value in enumerate(part):
            whole[place] += value
    fade = exp(-dt_s / _GROUP_S)
    for name, whole in sums.items():
        group = groups.setdefault(name, Group())
        group.product = group.product * fade + whole[0]
        group.pairs = group.pairs * fade + whole[1]
        group.square = group.square * fade + whole[2]
        group.count = group.count * fade + whole[3]
        group.groups = max(group.groups * fade, whole[4])


def learn_weights(
    weights: dict[str, dict[str, float]],
    levels: Mapping[int, Level],
    told: Mapping[str, float],
    dt_s: float,
) -> None:
    """Follow the nameplate of those who report, by family and group, as their level does. [W]"""
    heard: dict[str, dict[str, float]] = {}
    for name, plate_s in told.items():
        heard.setdefault(family_of(name), {})[name] = plate_s
    for family in weights.keys() | heard.keys():
        now = heard.get(family, {})
        level = levels.get(kind_of(family))
        fade = exp(-dt_s / level.follow_s) if level is not None else 0.0
        before = weights.get(family, {})
        weights[family] = {
            name: weight
            for name in sorted(before.keys() | now.keys())
            if (weight := before.get(name, 0.0) * fade + now.get(name, 0.0) * (1.0 - fade) / dt_s)
            > _GONE_W
        }


def apart_w2(silent_w: Mapping[str, float], heard_w: Mapping[str, float]) -> float:
    """Return by how much groups weigh more, or less, among the silent than among those who report.

    What a group's sky does the level shows as far as the group is in it, so only the difference can
    err: the sum over groups of its square.

    Args:
        silent_w: Nameplate of the silent by group, of one family. [W]
        heard_w: The same of those who report.
    """
    whole_w = sum(silent_w.values())
    heard = sum(heard_w.values())
    total = 0.0
    for name in sorted(silent_w.keys() | heard_w.keys()):
        expected_w = whole_w * heard_w.get(name, 0.0) / heard if heard else 0.0
        total += (silent_w.get(name, 0.0) - expected_w) ** 2
    return total


def alone(heard_w: Mapping[str, float]) -> float:
    """Return how many groups of equal weight would be as many (Kish); 1 where nobody reports."""
    squares = sum(weight * weight for weight in heard_w.values())
    return sum(heard_w.values()) ** 2 / squares if squares else 1.0
