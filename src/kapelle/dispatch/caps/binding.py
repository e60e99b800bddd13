"""Which caps keep an order from more, in words: at its start, before it, and while it runs."""

from collections import Counter
from collections.abc import Sequence
from math import isfinite

from kapelle.dispatch.caps.cells import Cap, Capped, Near, beyond, told_by
from kapelle.model.summaries import ResourceSummary
from kapelle.words import power

_NAMED_MAX = 3
"""Caps that a reason names, those that cost most first."""
_NOTHING_W = 1.0


def words_of(parts: Sequence[ResourceSummary], target_w: float, committed_w: float) -> str:
    """Say which caps keep part of a target from being promised, and how much each of them costs:
    what more could be promised if it alone were not there. Empty where no cap does.
    """
    told = told_by(parts)
    if not told:
        return ""
    cells = Capped(told, 1 if target_w > 0 else -1, committed_w)
    found = cells.solve(abs(committed_w) + 0.5 * _NOTHING_W, cells.blocks_end, Near())
    # What a vendor may carry grows with what is committed, so it does not limit what could be.
    could_be = Capped(told, cells.sign)
    named = []
    for cap in cells.binding(cells.prices(found)):
        cost_w = min(could_be.cost_w(cap.group), abs(target_w - committed_w))
        if cost_w > _NOTHING_W:
            named.append((cost_w, cap))
    named.sort(key=lambda each: (-each[0], each[1].group))
    said = [f"{cap_words(cap)} costs {power(cost_w)}" for cost_w, cap in named[:_NAMED_MAX]]
    more = len(named) - _NAMED_MAX
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")


def site_words(parts: Sequence[ResourceSummary], target_w: float, committed_w: float) -> list[str]:
    """Say what envelopes of sites keep of the part of a target that is not promised, the sites that
    lose most by name. Empty where none does."""
    more_up = target_w > committed_w
    lost_w: Counter[str] = Counter()
    for part in parts:
        lost_w.update(part.sites_up_w if more_up else part.sites_down_w)
    others_w = lost_w.pop("", 0.0)
    named = sorted(lost_w.items(), key=lambda each: (-each[1], each[0]))
    others_w += sum(cost_w for _, cost_w in named[_NAMED_MAX:])
    direction, missing_w = "export" if more_up else "import", abs(target_w - committed_w)
    said = [
        f"the {direction} limit of site {name} costs {power(min(cost_w, missing_w))}"
        for name, cost_w in named[:_NAMED_MAX]
        if cost_w > _NOTHING_W
    ]
    if others_w > _NOTHING_W:
        said.append(f"those of other sites cost {power(min(others_w, missing_w))}")
    return said


def in_force(parts: Sequence[ResourceSummary], committed_w: float) -> list[str]:
    """Say what keeps devices of a running order from more, now: the caps that have a price, the
    dearest first, and groups that are beyond their cap without any order."""
    told = told_by(parts)
    if not told:
        return []
    cells = Capped(told, 1 if committed_w >= 0 else -1, committed_w)
    prices: dict[str, float] = {}
    for each in told:
        paid = zip(each.groups, each.prices, strict=True)
        prices |= {name: price for name, price in paid if price > 0.0}
    said = [f"{cap_words(cap)} (price {cap.price:.3g})" for cap in cells.binding(prices)]
    return said + [beyond_words(cap, over_w) for cap, over_w in beyond(told, cells.sign)]


def cap_words(cap: Cap) -> str:
    """Say which group is at which cap."""
    level, _, name = cap.group.partition("/")
    if level == "vendor":
        share = "its largest share"
        return f"vendor {name} at {share}" + (
            f", {power(cap.cap_w)}" if isfinite(cap.cap_w) else ""
        )
    return f"{level} {name} at its {cap.direction} limit of {power(cap.cap_w)}"


def beyond_words(cap: Cap, over_w: float) -> str:
    """Say which group is beyond its cap, and by how much."""
    level, _, name = cap.group.partition("/")
    return (
        f"{level} {name} is {power(over_w)} beyond its {cap.direction} limit of"
        f" {power(cap.cap_w)} on its own"
    )
