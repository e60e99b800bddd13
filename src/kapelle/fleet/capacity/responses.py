"""Which part of what is asked will be followed, by kind and vendor, and how far that part wanders.

Outcomes of one quarter of an hour are one trial of what devices share: a thousand devices of one
vendor that were asked in the same minute teach much about that minute and little about the next. So
counts are worth fewer than they are (design effect), and the wandering has a variance of its own.
"""

from collections.abc import Mapping
from math import exp, log
from typing import NamedTuple

import msgspec

from kapelle.fleet.capacity.trials import vendor_of

SLOT_S = 900
HOURS = 24
_KEEP = 0.995
"""What a slot with commands leaves of what was learned before it."""
_PRIOR_SHARE, _PRIOR_WEIGHT = 0.9, 10.0
_WANDER2, _WANDER2_MIN, _WANDER_WEIGHT = 0.04, 0.0025, 5.0
"""Variance of the wandering of log-odds, before anything is known, at least, and its weight."""
_VENDOR_WEIGHT = 20.0
_HOUR2_MIN, _HOUR2_MAX = 0.0025, 0.25
_LIKENESS_MIN, _LIKENESS_MAX = 5.0, 1000.0
_SHIFT_MAX = 2.0
_ASKED_MIN = 5.0

Counts = tuple[float, float]
"""Followed, and asked."""


class Cell(msgspec.Struct):
    """Commands to devices of one kind and vendor."""

    followed: float = 0.0
    asked: float = 0.0
    """While the vendor was there."""
    slots: float = 0.0
    lost: float = 0.0
    """Failures beyond the usual while it was not: devices' own records hold them against them."""


class Moments(msgspec.Struct):
    """Shifts of log-odds: sum of weights, weighted sum, and squares beyond chance."""

    weight: float = 0.0
    shift: float = 0.0
    count: float = 0.0
    excess: float = 0.0


class Responses(msgspec.Struct):
    """All of it."""

    cells: dict[str, Cell] = {}
    vendors: dict[str, Moments] = {}
    hours: dict[int, Moments] = {}


def learn_responses(
    known: Responses, slot: Mapping[str, tuple[float, float]], lost: set[str], hour: int
) -> None:
    """Take in what one slot told.

    Args:
        known: Written to.
        slot: By `kind/vendor`: followed, not followed.
        lost: Vendors that were out during it: no trial of their devices.
        hour: Of the day, UTC.
    """
    asked = {name: (x, x + y) for name, (x, y) in slot.items() if x + y > 0}
    found = levels(known)
    _learn_shifts(known, asked, lost, hour)
    for name, (followed, count) in asked.items():
        cell = known.cells.setdefault(name, Cell())
        cell.followed *= _KEEP
        cell.asked *= _KEEP
        cell.slots *= _KEEP
        cell.lost *= _KEEP
        if vendor_of(name) in lost:
            # Whoever was asked before it began answered as ever.
            cell.lost += max(count - followed - count * (1.0 - found.of(name)[0]), 0.0)
            continue
        cell.followed += followed
        cell.asked += count
        cell.slots += 1.0


def _learn_shifts(
    known: Responses,
    asked: Mapping[str, Counts],
    lost: set[str],
    hour: int,
) -> None:
    found, wander, usual = levels(known), wander2(known), hour_shift(known, hour)
    sums: dict[str, list[float]] = {}
    for name, (followed, count) in sorted(asked.items()):
        vendor = vendor_of(name)
        if vendor in lost:
            continue
        level = shifted(found.of(name)[0], usual)
        each = sums.setdefault(vendor, [0.0, 0.0, 0.0])
        each[0] += followed - count * level
        each[1] += count * level * (1.0 - level)
        each[2] += count
    for vendor, (off, variance, count) in sums.items():
        if count < _ASKED_MIN or variance <= 0.0:
            continue
        shift = min(max(off / variance, -_SHIFT_MAX), _SHIFT_MAX)
        chance = 1.0 / variance
        moments = known.vendors.setdefault(vendor, Moments())
        moments.count = moments.count * _KEEP + 1.0
        moments.excess = moments.excess * _KEEP + shift * shift - chance
        weight = 1.0 / (wander.get(vendor, wander[""]) + chance)
        at = known.hours.setdefault(hour, Moments())
        # The level of the hour so far was part of what was expected.
        at.weight = at.weight * _KEEP + weight
        at.shift = at.shift * _KEEP + weight * (shift + usual)


def wander2(known: Responses) -> dict[str, float]:
    """Return by vendor the variance by which log-odds wander from one slot to the next.

    Of a vendor nothing is known of (the empty name stands for all) it is that of all together.
    """
    every = known.vendors.values()
    excess = sum(m.excess for m in every) + _WANDER_WEIGHT * _WANDER2
    pooled = max(excess / (sum(m.count for m in every) + _WANDER_WEIGHT), _WANDER2_MIN)
    found = {
        vendor: (own.excess + _VENDOR_WEIGHT * pooled) / (own.count + _VENDOR_WEIGHT)
        for vendor, own in known.vendors.items()
    }
    return {"": pooled} | {vendor: max(each, _WANDER2_MIN) for vendor, each in found.items()}


def hour_shift(known: Responses, hour: int) -> float:
    """Return what an hour of the day adds to log-odds, drawn towards nothing."""
    told = [m for m in known.hours.values() if m.weight > 0]
    if hour not in known.hours or len(told) < 2:
        return 0.0
    spread = sum((m.shift / m.weight) ** 2 - 1.0 / m.weight for m in told) / len(told)
    variance = min(max(spread, _HOUR2_MIN), _HOUR2_MAX)
    own = known.hours[hour]
    return own.shift / (own.weight + 1.0 / variance)


class Levels(NamedTuple):
    """Which part follows at any hour: all → vendor → kind of a vendor.

    Each is the mean of a Beta prior of the next, as heavy as its like are alike.
    """

    whole: float
    vendors: Mapping[str, float]
    counts: Mapping[str, Counts]
    weight: float
    """Of a vendor's level as the prior of its kinds."""

    def of(self, name: str) -> tuple[float, float]:
        """Return the level of a kind and vendor, and the variance of our knowledge of it."""
        vendor = self.vendors.get(vendor_of(name), self.whole)
        x, n = self.counts.get(name, (0.0, 0.0))
        level = (self.weight * vendor + x) / (self.weight + n)
        return level, level * (1.0 - level) / (self.weight + n + 1.0)


def levels(known: Responses) -> Levels:
    """Return what is known of every kind and vendor."""
    wander = wander2(known)
    counts = {
        name: _worth(cell, wander.get(vendor_of(name), wander[""]))
        for name, cell in known.cells.items()
    }
    followed = _PRIOR_SHARE * _PRIOR_WEIGHT + sum(x for x, _ in counts.values())
    whole = followed / (_PRIOR_WEIGHT + sum(n for _, n in counts.values()))
    sums: dict[str, Counts] = {}
    for name, (x, n) in counts.items():
        before = sums.get(vendor_of(name), (0.0, 0.0))
        sums[vendor_of(name)] = (before[0] + x, before[1] + n)
    weight = _likeness([(x, n, whole) for x, n in sums.values()])
    vendors = {name: (weight * whole + x) / (weight + n) for name, (x, n) in sums.items()}
    of_vendors = [(x, n, vendors[vendor_of(name)]) for name, (x, n) in counts.items()]
    return Levels(whole, vendors, counts, _likeness(of_vendors))


def lost_share(known: Responses, name: str) -> float:
    """Return the part of commands that fell into outages of the vendor."""
    cell = known.cells.get(name, Cell())
    return cell.lost / (cell.lost + cell.asked) if cell.lost > 0 else 0.0


def shifted(level: float, shift: float) -> float:
    """Return a probability with its log-odds moved."""
    bounded = min(max(level, 1e-6), 1.0 - 1e-6)
    return 1.0 / (1.0 + exp(-log(bounded / (1.0 - bounded)) - shift))


def _worth(cell: Cell, wander: float) -> Counts:
    """Return followed and asked as what they are worth as independent trials."""
    if cell.asked <= 0:
        return 0.0, 0.0
    level = cell.followed / cell.asked
    together = cell.asked / max(cell.slots, 1.0)
    effect = 1.0 + together * level * (1.0 - level) * wander
    return cell.followed / effect, cell.asked / effect


def _likeness(groups: list[tuple[float, float, float]]) -> float:
    """Return the weight of a prior by moments: how little groups differ from it beyond chance.

    Args:
        groups: Followed, asked, and the level that is the prior's.
    """
    told = [(x / n, n, level) for x, n, level in groups if n > 0]
    if len(told) < 2:
        return _PRIOR_WEIGHT
    bernoulli = sum(level * (1.0 - level) for _, _, level in told)
    chance = sum(level * (1.0 - level) / n for _, n, level in told)
    variance = sum((p - level) ** 2 for p, _, level in told) - chance
    if variance <= 0.0:
        return _LIKENESS_MAX
    return min(max(bernoulli / variance - 1.0, _LIKENESS_MIN), _LIKENESS_MAX)
