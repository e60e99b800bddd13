"""How much of a target can be promised, and what binds where it is not all."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from kapelle.dispatch.allocation import (
    Solution,
    power_at,
    power_at_stairs,
    solve_with_blocks,
)
from kapelle.dispatch.caps.binding import site_words, words_of
from kapelle.dispatch.caps.cells import Capped, Near, told_by
from kapelle.dispatch.caps.levels import capped
from kapelle.fleet.plant import Aggregate, PlantView
from kapelle.model.summaries import ResourceSummary
from kapelle.words import power

_NOTHING_W = 1.0
"""Targets are met to the watt."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the controllable devices of a resource do, and could do. [W]"""

    own_w: float
    lowest_w: float
    highest_w: float

    @property
    def up_w(self) -> float:
        """How far they can go towards export. [W]"""
        return self.highest_w - self.own_w

    @property
    def down_w(self) -> float:
        """How far they can go towards consumption. [W]"""
        return self.own_w - self.lowest_w

    def committed_w(self, target_w: float) -> float:
        """Return the nearest feasible change. [W]"""
        return min(max(target_w, -self.down_w), self.up_w)


def parts_of(view: PlantView, resource: str) -> list[ResourceSummary]:
    """Return what each partition last said about a resource."""
    return [
        part
        for _, summary in sorted(view.summaries.items())
        for part in summary.resources
        if part.resource == resource
    ]


def room_at_rest_w(parts: Sequence[ResourceSummary]) -> float:
    """Return what the controllable devices do at λ = 0. [W]"""
    return sum(power_at(p.continuous, 0.0) + power_at_stairs(p.blocks, 0.0) for p in parts)


def room_of(parts: Sequence[ResourceSummary]) -> Room:
    """Return the ends of the summed curves, and where they are at λ = 0."""
    own_w = room_at_rest_w(parts)
    lowest_w = sum(p.continuous.power_w[0] + p.blocks.power_w[0] for p in parts)
    highest_w = sum(p.continuous.power_w[-1] + p.blocks.power_w[-1] for p in parts)
    told = told_by(parts)
    if told:
        highest_w = own_w + min(highest_w - own_w, Capped(told, 1).reach_w())
        lowest_w = own_w - min(own_w - lowest_w, Capped(told, -1).reach_w())
    return Room(own_w, lowest_w, highest_w)


def levels_for(
    parts: Sequence[ResourceSummary],
    power_w: float,
    block_level: float = 0.0,
    near: Near | None = None,
    committed_w: float = inf,
) -> Solution:
    """Return the levels that bring the controllable devices of a resource to a power, and prices of
    groups that would exceed their caps at them.

    Args:
        parts: What each partition said.
        power_w: Wanted. [W]
        block_level: Where the blocks are now.
        near: Where the last solution lay; the one found is kept there.
        committed_w: What the order commits: of it vendors carry a part at most. [W]
    """
    free = solve_with_blocks(
        [p.continuous for p in parts], [p.blocks for p in parts], power_w, block_level
    )
    if not told_by(parts):
        return free
    own_w = room_at_rest_w(parts)
    return capped(parts, free, own_w, power_w, block_level, near or Near(), committed_w)


def binding(
    known: Aggregate, target_w: float, committed_w: float, parts: Sequence[ResourceSummary] = ()
) -> str:
    """Say what keeps part of a target from being promised; empty where nothing does."""
    if abs(target_w - committed_w) <= _NOTHING_W:
        return ""
    caps, sites = words_of(parts, target_w, committed_w), site_words(parts, target_w, committed_w)
    held = f"of {power(target_w)} asked {power(committed_w)} can be held"
    if caps:
        return "; ".join([f"{held}: {caps}", *sites])
    way = "up" if target_w > committed_w else "down"
    said = "; ".join([f"headroom {way}: {held}", *sites])
    left_out = [f"{count:,} {why}" for why, count in sorted(known.excluded.items())]
    left_out += [f"{count:,} follow order {number}" for number, count in known.claimed.items()]
    return f"{said}; not counted on: {', '.join(left_out)}" if left_out else said
