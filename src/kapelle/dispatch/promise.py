"""How much of a target can be promised, and what binds where it is not all."""

from collections.abc import Sequence
from dataclasses import dataclass

from kapelle.dispatch.allocation import (
    Solution,
    power_at,
    power_at_stairs,
    solve_with_blocks,
)
from kapelle.fleet.plant import Aggregate, PlantView
from kapelle.model.plant import ResourceSummary

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


def room_of(parts: Sequence[ResourceSummary]) -> Room:
    """Return the ends of the summed curves, and where they are at λ = 0."""
    own_w = sum(power_at(p.continuous, 0.0) + power_at_stairs(p.blocks, 0.0) for p in parts)
    lowest_w = sum(p.continuous.power_w[0] + p.blocks.power_w[0] for p in parts)
    highest_w = sum(p.continuous.power_w[-1] + p.blocks.power_w[-1] for p in parts)
    return Room(own_w, lowest_w, highest_w)


def levels_for(
    parts: Sequence[ResourceSummary], power_w: float, block_level: float = 0.0
) -> Solution:
    """Return the levels that bring the controllable devices of a resource to a power."""
    return solve_with_blocks(
        [p.continuous for p in parts], [p.blocks for p in parts], power_w, block_level
    )


def binding(known: Aggregate, target_w: float, committed_w: float) -> str:
    """Say what keeps part of a target from being promised; empty where nothing does."""
    if abs(target_w - committed_w) <= _NOTHING_W:
        return ""
    way = "up" if target_w > committed_w else "down"
    said = f"headroom {way}: of {target_w:.0f} W asked {committed_w:.0f} W can be held"
    left_out = ", ".join(f"{count} {why}" for why, count in sorted(known.excluded.items()))
    return f"{said}; not counted on: {left_out}" if left_out else said
