"""What can be promised of each interval of a profile: the nearest that energy and power allow."""

from collections.abc import Callable, Mapping, Sequence

from kapelle.dispatch.planning.groups import Window, groups, way_of, window
from kapelle.dispatch.planning.lookahead import Unplanned, look_ahead
from kapelle.dispatch.planning.physics import checked
from kapelle.dispatch.promise import Room, room_of
from kapelle.fleet.profiles import parts
from kapelle.model.ids import Floats
from kapelle.model.orders import Order, Promised
from kapelle.model.summaries import ResourceSummary
from kapelle.words import power

_NOTHING = 1e-4
"""Of a target: what is missing by less is not missing."""
_NOTHING_W = 1.0
_NAMED_MAX = 5
"""Intervals that a reason names; the plan has all of them."""


def promise(
    asked: Order,
    told: Sequence[ResourceSummary],
    now_ns: int,
    besides_w: float = 0.0,
    was: Sequence[Promised] = (),
    bounded: Callable[[float], float] = lambda power_w: power_w,
    kept: float = 0.0,
    stores: Sequence[Mapping[str, Sequence[float]]] | None = None,
) -> tuple[Promised, ...]:
    """Return what is promised of each interval of an order; nothing for one without a profile.

    Per interval the largest feasible: first the largest part missing in any interval is made as
    small as can be, then all that is missing (`lookahead`). Where nobody can plan, each interval is
    promised what could be held to the order's end, as without a profile.

    Args:
        asked: The order.
        told: What partitions said of its resource, stores included.
        now_ns: Intervals that are over stay as they were promised.
        besides_w: As of `groups.window`.
        was: The promise before an amendment.
        bounded: What of a power may be promised at most.
        kept: The part of power and energy that is kept free. 0-1
        stores: What there is, where partitions have not been asked for it; None: what they told.
    """
    if not asked.profile:
        return ()
    left = window(parts(asked), now_ns, besides_w)
    if stores is None:
        stores = [part.stores for part in told if part.stores]
    short_w = _short_w(asked, stores, left, 1.0 - kept)
    over = len(asked.profile) - len(left.want_w)
    before = {step.starts_at_ns: step for step in was}
    room = room_of(told)
    made = []
    for place, step in enumerate(asked.profile):
        if place < over:
            done = before.get(step.starts_at_ns)
            committed_w = done.committed_w if done else 0.0
        elif short_w is None:
            committed_w = _held_w(room, step.target_w, besides_w, 1.0 - kept)
        else:
            missing_w = float(short_w[place - over])
            if missing_w <= _NOTHING * abs(step.target_w) + _NOTHING_W:
                missing_w = 0.0
            sign = 1.0 if step.target_w > 0 else -1.0
            committed_w = sign * max(abs(step.target_w) - missing_w, 0.0)
        made.append(Promised(step.starts_at_ns, step.target_w, bounded(committed_w)))
    return tuple(made)


def of_largest_w(steps: Sequence[Promised], target_w: float) -> float:
    """Return what is promised of the interval that an order's target names. [W]"""
    return next(step.committed_w for step in steps if step.target_w == target_w)


def binds(steps: Sequence[Promised]) -> str:
    """Say which intervals fall short of what was asked, and by how much; empty for none."""
    short = [
        f"interval {number} by {power(abs(step.target_w - step.committed_w))}"
        for number, step in enumerate(steps, 1)
        if abs(step.target_w - step.committed_w) > _NOTHING_W
    ]
    if not short:
        return ""
    more = f" and {len(short) - _NAMED_MAX} more" if len(short) > _NAMED_MAX else ""
    return f"power or energy falls short in {', '.join(short[:_NAMED_MAX])}{more}"


def _short_w(
    asked: Order, stores: Sequence[Mapping[str, Sequence[float]]], left: Window, free: float
) -> Floats | None:
    """Return what will be missing in each interval that is left; None where nobody can say."""
    if not stores:
        return None
    way = way_of(step.target_w for step in asked.profile)
    there = groups(stores, left.lasts_s, way, len(left.want_w)).part(free)
    found = checked(look_ahead, there, left)
    return None if isinstance(found, Unplanned) else found.short_w


def _held_w(room: Room, target_w: float, besides_w: float, free: float) -> float:
    return min(max(target_w, -free * room.down_w - besides_w), free * room.up_w - besides_w)
