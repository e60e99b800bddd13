"""From what partitions have told and the plant has learned to the portfolio a promise rests on."""

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np

from kapelle.dispatch.firm.portfolio import (
    Group,
    Portfolio,
    Response,
    Vendor,
    grouped,
    merged,
    vendor_of,
)
from kapelle.fleet.capacity import responses
from kapelle.fleet.capacity.learned import Firmness, Rooms, groups_of, prompt_share
from kapelle.fleet.capacity.outages import outage_odds
from kapelle.fleet.capacity.room import PLACES, PROVIDERS
from kapelle.fleet.capacity.trials import vendor_of as vendor_in
from kapelle.model.ids import NS_PER_S, Flags, Floats
from kapelle.model.plant import Direction
from kapelle.model.summaries import Room

VENDORS = 16
"""So many are looked at one by one; the rest count as one more that cannot be lost as a whole, as
devices without a vendor do."""

_WAYS: Mapping[Direction, int] = {"up": 0, "down": 1}
_PROVIDERS = tuple(f"provider:{net}" for net in range(PROVIDERS))
_SUMS = 4
_Tables = dict[float, dict[str, Floats]]
"""By length of window and name: sums."""


def portfolio_of(
    rooms: Rooms,
    firmness: Firmness,
    resource: str,
    direction: Direction,
    window_s: float,
    notice_s: float = 0.0,
) -> Portfolio:
    """Put together what a resource could do, from now on and for a window.

    Args:
        rooms: What every partition has told last.
        firmness: What the plant has learned.
        resource: Its name; an unknown one has no devices.
        direction: up: towards export.
        window_s: How long a constant power must be held. [s]
        notice_s: How soon devices must have answered; 0: it does not matter. [s]
    """
    way = _WAYS[direction]
    told = [mine[resource] for _, mine in sorted(rooms.items()) if resource in mine]
    cells = _at_window([_cells(each, way) for each in told], window_s)
    places = _at_window([_places(each, way) for each in told], window_s)
    learned = _Learned(firmness, window_s, notice_s)
    kinds: dict[str, list[Response]] = {}
    for name, sums in sorted(cells.items()):
        response = learned.response(name, sums)
        kinds.setdefault(vendor_in(name), []).append(response)
    every = [vendor_of(name, each) for name, each in sorted(kinds.items())]
    every = sorted((v for v in every if v.head_w > 0), key=lambda v: (-v.mean_w, v.name))
    spread = np.array([_spread(places.get(v.name)) for v in every]).reshape(-1, PLACES)
    names = [_names(v.name, row) for v, row in zip(every, spread, strict=True)]
    known = {n for row in names for each in row for n in each}
    odds = outage_odds(firmness.outages, sorted(known | set(_PROVIDERS)), window_s)
    vendors, spread, places_of = _lumped(every, spread, odds)
    nets = _at_window([_nets(each, way) for each in told], window_s)
    within: dict[str, Flags | Floats] = {**places_of, **_through(every, nets)}
    portfolio = Portfolio(vendors, spread, ())
    groups: Sequence[Group] = grouped(within, odds, portfolio.mean_w)
    return Portfolio(vendors, spread, groups)


def _cells(told: Mapping[float, Room], way: int) -> _Tables:
    at = slice(1 + way * _SUMS, 1 + (way + 1) * _SUMS)
    return {
        window_s: {name: np.array(sums[at]) for name, sums in room.cells.items()}
        for window_s, room in told.items()
    }


def _places(told: Mapping[float, Room], way: int) -> _Tables:
    return {
        window_s: {vendor: _row(places, way) for vendor, places in room.places.items()}
        for window_s, room in told.items()
    }


def _nets(told: Mapping[float, Room], way: int) -> _Tables:
    return {
        window_s: {vendor: _row(nets, way, PROVIDERS) for vendor, nets in room.providers.items()}
        for window_s, room in told.items()
    }


def _row(places: Mapping[int, Sequence[float]], way: int, width: int = PLACES) -> Floats:
    row = np.zeros(width)
    for at, sums in places.items():
        row[at] = sums[way]
    return row


def _at_window(told: Sequence[_Tables], window_s: float) -> dict[str, Floats]:
    """Add partitions up, each at this length of window.

    min(P, E / Δt) is concave in 1 / Δt: what lies between two lengths is at least the straight line
    between them, and beyond the longest at least in proportion. Where a partition has told fewer
    lengths yet, the next longer one stands for it, or nothing.
    """
    total: dict[str, Floats] = {}
    for tables in told:
        for length_s, weight in _weights(sorted(tables), window_s):
            for name, sums in tables[length_s].items():
                before = total.get(name)
                total[name] = weight * sums if before is None else before + weight * sums
    return total


def _weights(lengths_s: Sequence[float], window_s: float) -> list[tuple[float, float]]:
    shorter = [length for length in lengths_s if length <= window_s]
    longer = [length for length in lengths_s if length >= window_s]
    if not longer:
        return [(shorter[-1], shorter[-1] / window_s)] if shorter else []
    if not shorter or shorter[-1] == longer[0]:
        return [(longer[0], 1.0)]
    below, above = 1.0 / longer[0], 1.0 / shorter[-1]
    part = (1.0 / window_s - below) / (above - below)
    return [(shorter[-1], part), (longer[0], 1.0 - part)]


class _Learned:
    """What the plant has learned of responses, for one window."""

    def __init__(self, firmness: Firmness, window_s: float, notice_s: float) -> None:
        self._known = firmness.responses
        self._levels = responses.levels(self._known)
        self._wander = responses.wander2(self._known)
        self._prompt = prompt_share(firmness, notice_s)
        starts_s = firmness.now_ns / NS_PER_S
        first, last = int(starts_s // 3600), int((starts_s + window_s) // 3600)
        hours = range(first, min(last + 1, first + responses.HOURS))
        # The worst hour of the window counts.
        self._shift = min(responses.hour_shift(self._known, h % responses.HOURS) for h in hours)

    def response(self, name: str, sums: Floats) -> Response:
        """Return what devices of one kind and vendor do.

        Two things are shared: our doubt about their level, which counts as far as their own records
        do not speak, and how the level wanders from one time to the next.
        """
        head_w, prior_w, own_w, square_w2 = sums.tolist()
        if head_w <= 0:
            return Response(0.0, 0.0, 0.0, 0.0)
        level, doubt = self._levels.of(name)
        # In an outage devices fail through no fault of theirs, and it is counted elsewhere.
        own_w /= max(1.0 - responses.lost_share(self._known, name), 0.5)
        share = min((level * prior_w + own_w) / head_w, 1.0)
        share = responses.shifted(share, self._shift) * self._prompt
        wander = sqrt(self._wander.get(vendor_in(name), self._wander[""]))
        std = sqrt((prior_w / head_w) ** 2 * doubt + (share * (1.0 - share) * wander) ** 2)
        return Response(head_w, square_w2, share, std)


def _spread(places_w: Floats | None) -> Floats:
    """Return the part of a vendor's power by place."""
    if places_w is None or places_w.sum() <= 0:
        return np.full(PLACES, 1.0 / PLACES)
    part: Floats = places_w / places_w.sum()
    return part


def _names(vendor: str, row: Floats) -> list[tuple[str, str, str]]:
    return [groups_of(vendor, at) for at in np.flatnonzero(row).tolist()]


def _through(every: Sequence[Vendor], nets: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the part of every place that reaches us through each provider.

    How a provider's devices of one vendor are spread over places nobody tells: evenly is assumed.
    """
    shares = np.zeros((len(every), PROVIDERS))
    for row, vendor in enumerate(every):
        through_w = nets.get(vendor.name)
        if through_w is not None:
            shares[row] = np.minimum(through_w / vendor.head_w, 1.0)
    rest = every[VENDORS:]
    if rest:
        means_w = np.array([v.mean_w for v in rest])
        lumped = means_w @ shares[VENDORS:] / max(means_w.sum(), 1e-9)
        shares = np.vstack([shares[:VENDORS], lumped])
    return {
        name: np.repeat(shares[:, at : at + 1], PLACES, axis=1)
        for at, name in enumerate(_PROVIDERS)
        if shares[:, at].any()
    }


def _lumped(
    every: Sequence[Vendor], spread: Floats, odds: Mapping[str, float]
) -> tuple[Sequence[Vendor], Floats, dict[str, Flags]]:
    """Return the largest vendors and the rest as one, with the places of every group.

    What the rest lose with their own clouds goes into their moments.
    """
    vendors = list(every[:VENDORS])
    rest = every[VENDORS:]
    if rest:
        rows = spread[VENDORS:] * np.array([[v.mean_w] for v in rest])
        vendors.append(merged(rest, [odds.get(f"vendor:{v.name}", 0.0) for v in rest]))
        spread = np.vstack([spread[:VENDORS], rows.sum(axis=0) / max(rows.sum(), 1e-9)])
    shape = (len(vendors), PLACES)
    within: dict[str, Flags] = {}
    for row, vendor in enumerate(vendors):
        for at in np.flatnonzero(spread[row]).tolist():
            names = groups_of(vendor.name, at)
            for name in names if vendor.name and row < VENDORS else names[1:]:
                within.setdefault(name, np.zeros(shape, np.bool_))[row, at] = True
    return vendors, spread, within
