"""Which capped groups each device is in, what it pays for them, and what its site leaves it."""

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

import numpy as np

from kapelle.fleet.columns import Fleet, is_heard, span
from kapelle.fleet.envelopes import Caps
from kapelle.fleet.reconciliation.conditions import VOID
from kapelle.fleet.traits import any_of, has, opted_out
from kapelle.model.enums import Exclusion, Trait
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints

FAMILIES = ("feeder", "zone", "vendor")
"""The kinds of groups that get a price, the finer first. Sites are kept within the partition."""
_PROBED_AHEAD_NS = 2 * NS_PER_S
"""Who is not counted on is asked again when his back-off is over: at the latest in this time."""


class Groups(NamedTuple):
    """The groups with a cap in force or a largest share, of those the partition has names of."""

    names: list[str]
    """`feeder/f-12`, …"""
    export_w: list[float]
    import_w: list[float]
    place: tuple[Ints, ...]
    """By family, place in `names` of each code; -1 for those without a cap."""


def capped_groups(fleet: Fleet) -> Groups | None:
    """Return the groups whose devices may have a price; None where there are none."""
    book = fleet.envelopes
    if book.is_idle(fleet.now_ns):
        return None
    names: list[str] = []
    export_w: list[float] = []
    import_w: list[float] = []
    places: list[Ints] = []
    for family in FAMILIES:
        table = fleet.names[family]
        place = np.full(len(table), -1, np.int32)
        caps = _caps_of(fleet, family, table)
        if caps is not None:
            capped = np.flatnonzero(np.minimum(caps.export_w, caps.import_w) < inf)
            place[capped] = np.arange(len(names), len(names) + len(capped))
            names += [f"{family}/{table[code]}" for code in capped.tolist()]
            export_w += caps.export_w[capped].tolist()
            import_w += caps.import_w[capped].tolist()
        elif family == "vendor" and book.vendor_share_max < 1.0:
            named = np.flatnonzero(np.array(table) != "")
            place[named] = np.arange(len(names), len(names) + len(named))
            names += [f"{family}/{table[code]}" for code in named.tolist()]
            export_w += [inf] * len(named)
            import_w += [inf] * len(named)
        places.append(place)
    return Groups(names, export_w, import_w, tuple(places)) if names else None


def _caps_of(fleet: Fleet, family: str, table: list[str]) -> Caps | None:
    return fleet.envelopes.caps(family, table, fleet.now_ns) if family != "vendor" else None


def price_tables(fleet: Fleet, prices: Mapping[str, float]) -> dict[str, Floats]:
    """Return the price of each code of a family, for the families that have any."""
    tables: dict[str, Floats] = {}
    for family in FAMILIES:
        start = f"{family}/"
        known = {key.removeprefix(start): p for key, p in prices.items() if key.startswith(start)}
        if known:
            tables[family] = np.array([known.get(name, 0.0) for name in fleet.names[family]])
    return tables


def paid(fleet: Fleet, rows: Ints, tables: Mapping[str, Floats]) -> Floats:
    """Return the sum of the prices of each row's groups, in units of λ."""
    at = span(rows)
    total = np.zeros(len(rows))
    for family, table in tables.items():
        total += table.take(getattr(fleet, family)[at])
    return total


def asked_soon(fleet: Fleet, rows: Ints) -> Flags:
    """Tell who may be told a setpoint before the next look, counted on or not."""
    at = span(rows)
    asked: Flags = is_heard(fleet.freshness[at]) & fleet.active[at] & fleet.connected[at]
    asked &= (fleet.condition[at] & VOID) == 0
    if has(any_of(fleet.traits[at]), Trait.OPTED_OUT):
        asked &= ~opted_out(fleet, rows)
    trusted = fleet.excluded[at] == np.uint8(Exclusion.NONE)
    asked &= trusted | (fleet.excluded_until_ns[at] <= fleet.now_ns + _PROBED_AHEAD_NS)
    return asked


def furthest_w(fleet: Fleet, rows: Ints, sign: int) -> Floats:
    """Return how far, in one direction, each device may be without being told anything new. [W]

    What is estimated of it; or, where it is asked something, that, if it is worse, or its own
    schedule that it returns to if it falls out.
    """
    at = span(rows)
    power_w, desired_w, own_w = fleet.estimate_w[at], fleet.desired_w[at], fleet.own_w[at]
    worse = np.fmax if sign > 0 else np.fmin
    told = desired_w == desired_w
    worst_w: Floats = np.where(told, worse(worse(power_w, desired_w), own_w), power_w)
    return worst_w
