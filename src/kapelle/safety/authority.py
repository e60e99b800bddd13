"""S-20, S-23, authority: a setpoint needs an order in force, of somebody who may move so much.

What the orders are the gate reads in the plant's topic itself; no room tells it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.profiles import change_w, is_less, size_w
from kapelle.model.entries import Body
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints
from kapelle.model.orders import Amend, Cancel, Interval, Order
from kapelle.safety.arrival import fits
from kapelle.safety.windows import Window

_GRACE_NS = 5 * NS_PER_S
"""Orders and commands take different ways here, and clocks of hosts differ by moments."""
_KEPT_NS = 3600 * NS_PER_S
_S_PER_HOUR = 3600.0
_ROUNDING_W = 1e-3
_PARTS = 6
CHANGE_NS = 60 * NS_PER_S
"""For so long the plant moves because of an order that began, changed or ended."""


@dataclass(slots=True)
class Standing:
    """An order as far as the gate is concerned."""

    issued_by: str
    """Who gave it, or last had it ask for more."""
    target_w: float
    starts_at_ns: int
    ends_at_ns: int
    before_w: float = 0.0
    """The most it asked for, either way, shortly before it was amended … [W]"""
    amended_ns: int = 0
    """… at this time."""
    operated_w: float = 0.0
    """Up to so much two persons have agreed to; shrinks with the order. [W]"""
    is_cancelled: bool = False
    profile: tuple[Interval, ...] = ()
    changed_w: float = 0.0
    """By how much one person alone has changed it at most. [W]"""
    has_moved: bool = False
    """Whether any setpoint has passed for it."""

    def counts_at(self, now_ns: int) -> bool:
        """Tell whether its power is part of what its issuer has in force on his own word."""
        return not self.operated_w and self.starts_at_ns <= now_ns < self.ends_at_ns


class Told(NamedTuple):
    """What the gate has heard of orders, and the numbers it gave their issuers."""

    orders: dict[int, Standing]
    issuers: dict[str, int]


class OrderBook:
    """Every order that may stand behind a command."""

    def __init__(self) -> None:
        self._orders: dict[int, Standing] = {}
        self._issuers: dict[str, int] = {}
        self._moved = Window(_S_PER_HOUR, _PARTS)
        self._now_ns = 0

    def apply(self, body: Body) -> None:
        """Take up an order, its amendment or its end; other bodies change nothing."""
        match body:
            case Order():
                self._forget()
                by_two = body.operated_by not in ("", body.issued_by)
                self._orders.setdefault(
                    body.order_no,
                    Standing(
                        body.issued_by,
                        body.target_w,
                        body.starts_at_ns,
                        body.ends_at_ns,
                        operated_w=size_w(body) if by_two else 0.0,
                        profile=body.profile,
                    ),
                )
            case Amend() if (known := self._orders.get(body.order_no)) is not None:
                if not known.is_cancelled:
                    self._orders[body.order_no] = _amended(known, body, self._present(body.at_ns))
            case Cancel() if (known := self._orders.get(body.order_no)) is not None:
                known.ends_at_ns = min(known.ends_at_ns, body.at_ns)
                known.is_cancelled = True
            case _:
                pass

    def advance(self, now_ns: int) -> None:
        """Go on to this time: what issuers moved more than an hour ago is forgotten."""
        self._now_ns = now_ns
        self._moved.advance(now_ns)

    def is_known(self, order_no: Ints) -> Flags:
        """Tell which of these numbers are orders that were ever heard of and not long over."""
        known: Flags = np.isin(order_no, np.array(list(self._orders), np.int64))
        return known

    def in_force(self, order_no: Ints, now_ns: int) -> Flags:
        """Tell which of these numbers are orders that may ask for something now."""
        distinct, place = np.unique(order_no, return_inverse=True)
        found = [self._is_in_force(number, now_ns) for number in distinct.tolist()]
        in_force: Flags = np.array(found, np.bool_)[place]
        return in_force

    def is_agreed(self, order_no: Ints, above_w: float) -> Flags:
        """Tell which of these numbers are orders that one person may give, or two have agreed to.

        An amendment that asks for more, for longer or the other way does not count as agreed to.
        What one person has in force alone is added up: who moves already goes on, and of the others
        the older ones come first.
        """
        if above_w == inf:
            return np.ones(len(order_no), np.bool_)
        distinct, place = np.unique(order_no, return_inverse=True)
        asked = {no: self._orders[no] for no in distinct.tolist() if no in self._orders}
        agreed = {no for no, order in asked.items() if 0.0 < size_w(order) <= order.operated_w}
        agreed |= self._fits_alone(asked, above_w)
        is_agreed: Flags = np.array([no in agreed for no in distinct.tolist()], np.bool_)[place]
        return is_agreed

    def _fits_alone(self, asked: Mapping[int, Standing], above_w: float) -> set[int]:
        """Return the orders within what their issuers may have in force alone, besides others."""
        now_ns = self._now_ns
        moved = {n: o for n, o in self._orders.items() if o.has_moved and o.counts_at(now_ns)}
        candidates = moved | {n: o for n, o in asked.items() if not o.operated_w}
        sums_w: dict[str, float] = {}
        fits: set[int] = set()
        for number, order in sorted(candidates.items(), key=lambda o: (not o[1].has_moved, o[0])):
            own_w = max(size_w(order), order.changed_w)
            sum_w = sums_w.get(order.issued_by, 0.0) + size_w(order)
            if own_w > above_w or sum_w > above_w + _ROUNDING_W:
                continue
            fits.add(number)
            if order.counts_at(now_ns):
                sums_w[order.issued_by] = sum_w
        return fits

    def keeps_authority(self, order_no: Ints, power_w: Floats, most_w: float) -> Flags:
        """Tell which rows their orders' issuers may still move, in order of arrival. [W]"""
        if most_w == inf or not len(order_no):
            return np.ones(len(order_no), np.bool_)
        issuer = self._issuer(order_no)
        left_w = most_w - self._moved.total(issuer)
        return fits(issuer, power_w[np.newaxis], left_w[np.newaxis])

    def charge(self, order_no: Ints, power_w: Floats) -> None:
        """Enter what passed."""
        known = np.isin(order_no, np.array(list(self._orders), np.int64))
        for number in np.unique(order_no[known]).tolist():
            self._orders[number].has_moved = True
        if known.any():
            self._moved.add(self._issuer(order_no[known]), power_w[known])

    def told(self) -> "Told":
        """Return what there is to remember, for `restore`, besides `columns`."""
        return Told(self._orders, self._issuers)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return the columns to remember."""
        return self._moved.columns()

    def restore(self, told: "Told", columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on with what `told` and `columns` returned."""
        self._orders, self._issuers = dict(told.orders), dict(told.issuers)
        self._moved.restore(columns)

    def explained_w(self, now_ns: int) -> float:
        """Return the most power that orders now, or those that just changed, account for. [W]"""
        explained_w = 0.0
        for order in self._orders.values():
            if order.starts_at_ns - _GRACE_NS <= now_ns < order.ends_at_ns + CHANGE_NS:
                explained_w += abs(order.target_w) + _recent_w(order, now_ns)
        return explained_w

    def _present(self, at_ns: int) -> int:
        """Return the time of an entry, or ours where it claims to come from the future."""
        is_possible = not self._now_ns or at_ns <= self._now_ns + _GRACE_NS
        return at_ns if is_possible else self._now_ns

    def _is_in_force(self, order_no: int, now_ns: int) -> bool:
        order = self._orders.get(order_no)
        return (
            order is not None
            and order.starts_at_ns - _GRACE_NS <= now_ns < order.ends_at_ns + _GRACE_NS
        )

    def _issuer(self, order_no: Ints) -> Ints:
        """Return a number for the issuer of each order; orders must be known."""
        distinct, place = np.unique(order_no, return_inverse=True)
        known = self._issuers
        numbers = [
            known.setdefault(self._orders[number].issued_by, len(known))
            for number in distinct.tolist()
        ]
        return np.array(numbers, np.int32)[place]

    def _forget(self) -> None:
        """Let go what is long over by the gate's own time, whatever an order says its time is."""
        over = [no for no, o in self._orders.items() if o.ends_at_ns + _KEPT_NS < self._now_ns]
        for number in over:
            del self._orders[number]


def _amended(was: Standing, body: Amend, from_ns: int) -> Standing:
    to = replace(
        was,
        target_w=body.target_w,
        ends_at_ns=body.ends_at_ns,
        profile=body.profile,
        before_w=max(abs(was.target_w), _recent_w(was, body.at_ns)),
        amended_ns=body.at_ns,
    )
    if is_less(was, to, from_ns):
        # Two persons agreed to what they saw: less than that is now all they agreed to.
        to.operated_w = min(was.operated_w, size_w(to))
        return to
    to.operated_w = 0.0
    to.changed_w = max(was.changed_w, change_w(was, to, from_ns))
    to.issued_by = body.issued_by or was.issued_by
    return to


def _recent_w(order: Standing, now_ns: int) -> float:
    return order.before_w if now_ns < order.amended_ns + CHANGE_NS else 0.0
