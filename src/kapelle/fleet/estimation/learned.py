"""What the plant has learned about its own estimates, from sums over all devices, tick by tick.

Three things, all from readings that came anyway (the model and its formulas: `docs/estimation.md`):

- how far the sum of those who report regularly runs ahead of what was said of it;
- for each kind, where it stands as a whole now and stood some time ago, and by age how much of an
  old reading's distance from its kind is left (`keep`) and how widely the outcomes scatter;
- how much of that scatter devices under one sky, or of one vendor, share.
"""

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import TypeVar

import msgspec

from kapelle.fleet.estimation.levels import Level, Moments, learn_levels, remember
from kapelle.fleet.estimation.scatter import Cell, Moves, learn_cells, learn_moves
from kapelle.fleet.estimation.sharing import Group, learn_groups, learn_weights
from kapelle.fleet.estimation.steady import Steady, learn_steady
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.summaries import Evidence, Summary

Key = TypeVar("Key", int, str)

_BREAK_S = 60.0
"""After a longer pause in the summaries what ran before is not gone on with. [s]"""


class Learned(msgspec.Struct):
    """All of it: part of the plant's state."""

    now_ns: int = 0
    pending_ns: int = 0
    pending: dict[str, Evidence] = {}
    """What the partitions have told of the newest tick, summed."""
    steady: dict[str, dict[int, Steady]] = {}
    levels: dict[int, Level] = {}
    history: Moments = []
    cells: dict[int, Cell] = {}
    moves: dict[int, Moves] = {}
    groups: dict[str, Group] = {}
    weights: dict[str, dict[str, float]] = {}
    """Nameplate of those who report, by family of groups and group. [W]"""
    ticks: int = 0


def hear(learned: Learned, summary: Summary) -> None:
    """Take in one partition's evidence; the tick before is learned from once a newer one begins."""
    if summary.tick_ns > learned.pending_ns:
        _learn(learned)
        learned.pending, learned.pending_ns = {}, summary.tick_ns
    for part in summary.resources:
        before = learned.pending.get(part.resource)
        told = part.evidence
        learned.pending[part.resource] = told if before is None else merged((before, told))


def merged(parts: Iterable[Evidence]) -> Evidence:
    """Return the sums of several."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    return Evidence(
        steady=_added(p.steady for p in parts),
        silent=_added(p.silent for p in parts),
        silent_groups=_added_numbers(p.silent_groups for p in parts),
        levels=_added(p.levels for p in parts),
        anchors=_added(p.anchors for p in parts),
        groups=_added(p.groups for p in parts),
        moves=_added(p.moves for p in parts),
        fourths=_added_numbers(p.fourths for p in parts),
        heard=_added_numbers(p.heard for p in parts),
    )


def _added_numbers(tables: Iterable[Mapping[Key, float]]) -> dict[Key, float]:
    total: dict[Key, float] = {}
    for table in tables:
        for key, number in table.items():
            total[key] = total.get(key, 0.0) + number
    return dict(sorted(total.items()))


def _added(tables: Iterable[Mapping[Key, list[float]]]) -> dict[Key, list[float]]:
    total: dict[Key, list[float]] = {}
    for table in tables:
        for key, sums in table.items():
            # A partition of an older Kapelle tells fewer sums.
            both = zip_longest(total.get(key, ()), sums, fillvalue=0.0)
            total[key] = [before + more for before, more in both]
    return dict(sorted(total.items()))


def _learn(learned: Learned) -> None:
    told = learned.pending
    if not told:
        return
    dt_s = (learned.pending_ns - learned.now_ns) / NS_PER_S
    broken = learned.now_ns == 0 or dt_s > _BREAK_S
    learned.now_ns = learned.pending_ns
    now_s = learned.now_ns / NS_PER_S
    for resource in [name for name in learned.steady if name not in told]:
        del learned.steady[resource]
    for resource, part in told.items():
        learn_steady(learned.steady.setdefault(resource, {}), part.steady, dt_s, broken)
    all_ = told.get(ALL, Evidence())
    if not broken:
        learn_levels(learned.levels, all_.levels, dt_s)
    learn_groups(learned.groups, learned.levels, all_, 1.0 if broken else dt_s)
    learn_weights(learned.weights, learned.levels, all_.heard, 1.0 if broken else dt_s)
    learn_moves(learned.moves, learned.levels, all_, now_s)
    learn_cells(learned.cells, all_, now_s)
    remember(learned.history, learned.levels, learned.ticks, now_s)
    learned.ticks += 1
