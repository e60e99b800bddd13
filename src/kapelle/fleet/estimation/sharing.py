"""How much of their scatter devices under one sky, or of one vendor, share."""

from collections.abc import Mapping
from math import exp

import msgspec

from kapelle.fleet.estimation.evidence import PV_CLUSTER
from kapelle.fleet.estimation.levels import Level
from kapelle.model.enums import DeviceKind
from kapelle.model.plant import Evidence

_GROUP_S = 1800.0
_FREE = 0.9
"""Where fewer of those who report are on their own schedule they are no fair sample of a kind."""


class Group(msgspec.Struct):
    """Pairs of devices of one kind that share something."""

    product: float = 0.0
    pairs: float = 0.0
    square: float = 0.0
    count: float = 0.0
    groups: float = 0.0


def learn_groups(
    groups: dict[str, Group], levels: Mapping[int, Level], told: Evidence, dt_s: float
) -> None:
    """Learn from the sums one tick told of, by group."""
    sums: dict[str, list[float]] = {}
    free: dict[int, float] = {}
    for name, (count, _, _) in told.groups.items():
        if not name.startswith(PV_CLUSTER):
            kind = int(name.partition("/")[0])
            free[kind] = free.get(kind, 0.0) + count
    for name, (count, total, square) in told.groups.items():
        pv = name.startswith(PV_CLUSTER)
        kind = int(DeviceKind.PV) if pv else int(name.partition("/")[0])
        level = levels.get(kind)
        reports = told.levels.get(kind, [0.0] * 5)[4]
        if level is None or free.get(kind, 0.0) < _FREE * reports:
            # Whom an order leaves differ from their kind all alike: nothing they share by nature.
            continue
        off = total - count * level.level
        square += count * level.level**2 - 2.0 * level.level * total
        whole = sums.setdefault(PV_CLUSTER if pv else f"{kind}/", [0.0] * 5)
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


def shared(groups: Mapping[str, Group], name: str) -> float:
    """Return the part of the scatter that devices of one group share, 0-1."""
    group = groups.get(name)
    if group is None or not group.pairs or group.square <= 0.0:
        return 0.0
    part = (group.product / group.pairs) / (group.square / group.count)
    return min(max(part, 0.0), 1.0)
