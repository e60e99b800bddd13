"""How often devices that share something fail together: a vendor's cloud, a region, a feeder.

A group is out while fewer than half of its devices are heard that ever were. Each beginning is an
event of a Poisson process whose rate has a Gamma prior; what the prior is, the groups of one class
tell (empirical Bayes). A plant that hears no vendor any more has failed itself: that is no event.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from math import exp, log

import msgspec

DAY_H = 24.0
HALF_LIFE_H = 180 * DAY_H
"""Half of what was seen is forgotten after this. [h]"""
PRIOR_EVENTS = 0.5
PRIOR_H: Mapping[str, float] = {
    "vendor": 15 * DAY_H,
    "provider": 60 * DAY_H,
    "region": 60 * DAY_H,
    "feeder": 180 * DAY_H,
}
"""Before anything was seen a class counts as having had `PRIOR_EVENTS` in so many hours."""

_LIKENESS_MIN, _LIKENESS_MAX = 0.5, 8.0
_LIKENESS = 1.5
"""Shape of the Gamma prior of a group's rate where the groups have not yet told it."""
_LIKENESS_WEIGHT = 3.0
_OUT_BELOW, _BACK_FROM = 0.5, 0.7
_DEVICES_MIN = 5

Place = tuple[str, int, int]
"""Vendor, region, and feeder group within it."""
Heard = Mapping[Place, tuple[float, float]]
"""Devices that were ever heard, and those heard now."""
Through = Mapping[tuple[str, int], tuple[float, float]]
"""The same by vendor and group of internet providers."""
_NOBODY: Through = {}


class Record(msgspec.Struct):
    """One group's past."""

    events: float = 0.0
    exposure_h: float = 0.0
    """Time it was not out. [h]"""
    up: bool = False
    """Seen working since it was last out, or since we were away ourselves."""


class Outages(msgspec.Struct):
    """Every group's, by `vendor:NAME`, `provider:N`, `region:N`, `feeder:N`."""

    groups: dict[str, Record] = {}

    def down(self, name: str) -> bool:
        """Tell whether a group is not known to work now."""
        record = self.groups.get(name)
        return record is not None and not record.up


@cache
def group_names(place: Place, feeders: int) -> tuple[str, str, str]:
    """Return the groups a place belongs to: its vendor, its region, its feeders."""
    vendor, region, feeder = place
    return f"vendor:{vendor}", f"region:{region}", f"feeder:{region * feeders + feeder}"


def learn_outages(
    outages: Outages,
    heard: Heard,
    dt_s: float,
    broken: bool,
    feeders: int,
    providers: Through = _NOBODY,
) -> None:
    """Take in who is heard at one tick.

    Args:
        outages: Written to.
        heard: Devices by place.
        dt_s: Time since the tick before. [s]
        broken: Whether there was a pause: then nobody knows what happened in it.
        feeders: Feeder groups in a region.
        providers: The same devices by vendor and group of internet providers.
    """
    shares = _shares(heard, feeders, providers)
    if broken or not shares:
        for record in outages.groups.values():
            record.up = False
    for name, (known, now) in shares.items():
        record = outages.groups.setdefault(name, Record())
        if known < _DEVICES_MIN:
            record.up = False
        if record.up:
            keep = exp(-log(2.0) * dt_s / 3600.0 / HALF_LIFE_H)
            record.events *= keep
            record.exposure_h = record.exposure_h * keep + dt_s / 3600.0
        if known < _DEVICES_MIN:
            continue
        if record.up and now < _OUT_BELOW * known:
            record.events += 1.0
            record.up = False
        elif not record.up and now >= _BACK_FROM * known:
            record.up = True


def _shares(heard: Heard, feeders: int, providers: Through) -> dict[str, tuple[float, float]]:
    """Return known and heard devices by group; what a larger outage explains is left out.

    A vendor is judged by all its devices, a provider and a region without the vendors that are out,
    a feeder without regions that are. Which devices of a region are a provider's nobody tells:
    while one is out, no region is judged. Nothing is told where all vendors are out at once.
    """
    shares: dict[str, tuple[float, float]] = {}
    out: set[str] = set()
    for level in range(3):
        sums: dict[str, tuple[float, float]] = {}
        for place, (ever, fresh) in sorted(heard.items()):
            names = group_names(place, feeders)
            if out and not out.isdisjoint(names[:level]):
                continue
            before = sums.get(names[level], (0.0, 0.0))
            sums[names[level]] = (before[0] + ever, before[1] + fresh)
        out |= {name for name, (ever, fresh) in sums.items() if fresh < _OUT_BELOW * ever}
        if level == 0 and len(sums) > 1 and len(out) == len(sums):
            return {}
        shares |= sums
        if level == 0:
            nets = _nets(providers, out)
            shares |= nets
            if any(_is_out(*counts) for counts in nets.values()):
                break
    return shares


def _nets(providers: Through, out: AbstractSet[str]) -> dict[str, tuple[float, float]]:
    """Return known and heard devices by provider, but for those of vendors that are out."""
    sums: dict[str, tuple[float, float]] = {}
    for (vendor, net), (ever, fresh) in sorted(providers.items()):
        if f"vendor:{vendor}" not in out:
            before = sums.get(f"provider:{net}", (0.0, 0.0))
            sums[f"provider:{net}"] = (before[0] + ever, before[1] + fresh)
    return sums


def _is_out(known: float, now: float) -> bool:
    return known >= _DEVICES_MIN and now < _OUT_BELOW * known


def outage_odds(outages: Outages, names: Iterable[str], window_s: float) -> dict[str, float]:
    """Return the probability that each group fails within a window, rates integrated out.

    With a Gamma(a, b) posterior no event comes in T with probability (b / (b + T))^a: the
    negative binomial's zero, larger in doubt than exp(-rate · T) of the mean rate is.
    """
    hours = window_s / 3600.0
    priors = {kind: _prior(outages, kind) for kind in PRIOR_H}
    odds = {}
    for name in names:
        shape, rate = priors[name.partition(":")[0]]
        record = outages.groups.get(name, Record())
        a, b = shape + record.events, shape / rate + record.exposure_h
        odds[name] = 1.0 - (b / (b + hours)) ** a
    return odds


def _prior(outages: Outages, kind: str) -> tuple[float, float]:
    """Return shape and mean rate of the Gamma prior of a class of groups. [1/h]

    The rate is that of all of them together; the shape by moments: what counts differ by beyond
    Poisson's chance is how unlike the groups are.
    """
    records = [r for name, r in sorted(outages.groups.items()) if name.startswith(f"{kind}:")]
    events = sum(r.events for r in records)
    exposure_h = sum(r.exposure_h for r in records)
    rate = (PRIOR_EVENTS + events) / (PRIOR_H[kind] + exposure_h)
    expected = [rate * r.exposure_h for r in records]
    excess = sum((r.events - e) ** 2 - e for r, e in zip(records, expected, strict=True))
    squares = sum(e * e for e in expected)
    spread = (_LIKENESS_WEIGHT / _LIKENESS + max(excess, 0.0)) / (_LIKENESS_WEIGHT + squares)
    return min(max(1.0 / max(spread, 1e-9), _LIKENESS_MIN), _LIKENESS_MAX), rate
