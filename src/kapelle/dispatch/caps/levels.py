"""Levels and prices for a target, within every cap."""

from collections.abc import Sequence

from kapelle.dispatch.allocation import Solution
from kapelle.dispatch.caps.cells import MET_W, Capped, Near, told_by
from kapelle.dispatch.caps.prices import Priced
from kapelle.model.summaries import ResourceSummary

_TRIES_MAX = 8


def capped(
    parts: Sequence[ResourceSummary],
    free: Solution,
    own_w: float,
    power_w: float,
    block_level: float,
    near: Near,
    committed_w: float,
) -> Solution:
    """Return a solution that keeps every cap: `free` itself, if it does.

    Blocks stay where the solution without caps would have them, as long as the target is reached
    so; where it is not, the fewest more of them change over that reach it.

    Args:
        parts: What each partition said.
        free: The solution without caps.
        own_w: What the controllable devices do at λ = 0. [W]
        power_w: Wanted of them. [W]
        block_level: Where blocks are now.
        near: Where the last solution lay; the one found is kept there.
        committed_w: As of `Capped`.
    """
    sign = 1 if power_w >= own_w else -1
    cells = Capped(told_by(parts), sign, committed_w)
    change_w = abs(power_w - own_w)
    with_way = sign * free.block_level >= 0.0
    if with_way and sign * free.level >= 0.0 and cells.is_kept_at(free.level, free.block_level):
        near.level, near.prices = free.level, {}
        return free
    level = abs(free.block_level) if with_way else 0.0
    found = cells.solve(change_w, level, near)
    if found.total_w < change_w - MET_W and cells.has_blocks:
        now = max(sign * block_level, 0.0)
        level, found = _with_more_blocks(cells, change_w, level, now, near, found)
    prices = cells.prices(found)
    near.level, near.prices = sign * found.level, prices
    reached_w = own_w + sign * found.total_w
    lowest_w, highest_w = free.lowest_w, free.highest_w
    if found.total_w < change_w - MET_W:
        end_w = max(found.total_w, cells.reach_w())
        if sign > 0:
            highest_w = min(highest_w, own_w + end_w)
        else:
            lowest_w = max(lowest_w, own_w - end_w)
    return Solution(sign * found.level, sign * level, reached_w, lowest_w, highest_w, prices)


def _with_more_blocks(
    cells: Capped, change_w: float, level: float, now: float, near: Near, found: Priced
) -> tuple[float, Priced]:
    """Return the level of blocks from which on the change is reached, or their end."""
    low, high = level, cells.blocks_end
    best_level, best = level, found
    for step in range(_TRIES_MAX):
        # Where they are now, if that is enough; then all of them; then ever fewer.
        trial = now if step == 0 and now > low else high if step < 2 else 0.5 * (low + high)
        tried = cells.solve(change_w, trial, near)
        if tried.total_w < change_w - MET_W:
            low = max(low, trial)
            if tried.total_w > best.total_w:
                best_level, best = trial, tried
            if trial >= high:
                return best_level, best
            continue
        best_level, best = trial, tried
        if step == 0:
            break
        high = trial
    return best_level, best
