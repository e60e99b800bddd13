"""S-20, S-23, authority: a setpoint needs an order in force, of somebody who may move so much.

What the orders are the gate reads in the plant's topic itself; no room tells it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.model.entries import Body
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints
from kapelle.model.orders import Amend, Cancel, Order
from kapelle.safety.arrival import fits
from kapelle.safety.windows import Window

_GRACE_NS = 5 * NS_PER_S
"""Orders and commands take different ways here, and clocks of hosts differ by moments."""
_KEPT_NS = 3600 * NS_PER_S
_S_PER_HOUR = 3600.0
_PARTS = 6
CHANGE_NS = 60 * NS_PER_S
"""For so long the plant moves because of an order that began, changed or ended."""


@dataclass(slots=True)
class Standing:
    """An order as far as the gate is concerned."""

    issued_by: str
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
                        operated_w=abs(body.target_w) if by_two else 0.0,
                    ),
                )
            case Amend() if (known := self._orders.get(body.order_no)) is not None:
                if known.is_cancelled:
                    return
                known.before_w = max(abs(known.target_w), _recent_w(known, body.at_ns))
                known.amended_ns = body.at_ns
                # Two persons agreed to what they saw: less than that is now all they agreed to.
                is_within = abs(body.target_w) <= known.operated_w
                is_within &= body.ends_at_ns <= known.ends_at_ns
                known.target_w, known.ends_at_ns = body.target_w, body.ends_at_ns
                known.operated_w = abs(body.target_w) if is_within else 0.0
                known.issued_by = body.issued_by or known.issued_by
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

        An amendment does not count as agreed to: more than was operated takes a new order.
        """
        if above_w == inf:
            return np.ones(len(order_no), np.bool_)
        distinct, place = np.unique(order_no, return_inverse=True)
        known = [self._orders.get(number) for number in distinct.tolist()]
        agreed = [o is not None and abs(o.target_w) <= max(above_w, o.operated_w) for o in known]
        is_agreed: Flags = np.array(agreed, np.bool_)[place]
        return is_agreed

    def keeps_authority(self, order_no: Ints, power_w: Floats, most_w: float) -> Flags:
        """Tell which rows their orders' issuers may still move, in order of arrival. [W]"""
        if most_w == inf or not len(order_no):
            return np.ones(len(order_no), np.bool_)
        issuer = self._issuer(order_no)
        left_w = most_w - self._moved.total(issuer)
        return fits(issuer, power_w[np.newaxis], left_w[np.newaxis])

    def charge(self, order_no: Ints, power_w: Floats) -> None:
        """Enter what passed."""
        known = np.array([number in self._orders for number in order_no.tolist()], np.bool_)
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


def _recent_w(order: Standing, now_ns: int) -> float:
    return order.before_w if now_ns < order.amended_ns + CHANGE_NS else 0.0
