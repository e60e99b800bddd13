"""Whom each device follows: one order at a time, and of several the one that began first.

An order claims every device of its resource as long as its signal is in force. Everything here
follows from the signals alone, so that it costs nothing while none is in force.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.curve import trust
from kapelle.fleet.desired import in_force
from kapelle.model.ids import ALL, NS_PER_S, Flags, Ints
from kapelle.model.signals import Signal

HANDOVER_S = 3.0
"""Devices of an order that is over wait so long for levels that reckon with them. [s]"""


def by_rank(signals: Iterable[Signal]) -> list[Signal]:
    """Return signals in the order in which they claim devices."""
    return sorted(signals, key=lambda signal: (signal.rank, signal.order_no, signal.resource))


def is_of_another(release: Signal, present: Signal | None) -> bool:
    """Tell whether a signal ends an order, while the resource follows another order by now."""
    if release.order_no or not release.ended_no or present is None:
        return False
    return present.order_no not in (0, release.ended_no)


def active_rows(fleet: Fleet, resource: str) -> Ints:
    """Return the rows of a resource's devices that are enrolled."""
    if resource == ALL:
        return np.flatnonzero(fleet.active[: fleet.size]).astype(np.int32)
    rows = fleet.members.get(resource, np.empty(0, np.int32))
    return rows[fleet.active[rows]]


def owners(fleet: Fleet) -> Ints | None:
    """Return the order each row follows, 0 for none; None where no order runs.

    Where several claim a device it follows the one of the earliest rank.
    """
    running = by_rank(in_force(fleet))
    if not running:
        return None
    owner = np.zeros(fleet.size, np.int32)
    for signal in reversed(running):
        if signal.resource == ALL:
            # By their numbers, rows of a whole fleet take fifty times as long.
            np.copyto(owner, np.int32(signal.order_no), where=fleet.active[: fleet.size])
        else:
            owner[active_rows(fleet, signal.resource)] = signal.order_no
    return owner


@dataclass(frozen=True, slots=True)
class Claims:
    """What orders mean for one resource: which of its devices are not its own order's to drive."""

    fleet: Fleet
    own_no: int
    """The order in force on the resource itself; 0 for none."""
    owner: Ints | None
    """As of `owners`; None where no order but its own claims anything."""

    @classmethod
    def on(cls, fleet: Fleet, resource: str, owner: Ints | None) -> "Claims":
        """Return the claims on a resource, given all `owners`."""
        running = in_force(fleet)
        own_no = next((s.order_no for s in running if s.resource == resource), 0)
        alone = own_no != 0 and len(running) == 1
        return cls(fleet, own_no, None if alone else owner)

    def taken(self, rows: Ints) -> Flags | None:
        """Tell which rows follow another order than the resource's own; None where none can."""
        if self.owner is None:
            return None
        owner = self.owner[span(rows)]
        taken: Flags = (owner != 0) & (owner != np.int32(self.own_no))
        return taken

    def free(self, rows: Ints) -> Ints:
        """Return the rows the resource's own order may drive, or the next one could."""
        taken = self.taken(rows)
        return rows if taken is None or not taken.any() else rows[~taken]

    def counts(self, rows: Ints) -> dict[int, int]:
        """Return by order how many of the rows follow another than the resource's own."""
        if self.owner is None:
            return {}
        owner = self.owner[span(rows)]
        others = sorted(s.order_no for s in in_force(self.fleet) if s.order_no != self.own_no)
        counts = {number: int(np.count_nonzero(owner == np.int32(number))) for number in others}
        return {number: count for number, count in counts.items() if count}

    def bound(self, rows: Ints) -> Flags:
        """Tell which rows are with another order: it claims them, or told them something last.

        What this order has told them since counts once they have answered.
        """
        at = span(rows)
        told, prior = self.fleet.order_no[at], self.fleet.prior_no[at]
        bound: Flags = (told != 0) & (told != np.int32(self.own_no))
        if prior.any():
            waits = self.fleet.applied_at_ns[at] == 0
            bound |= (prior != 0) & (prior != np.int32(self.own_no)) & waits
        taken = self.taken(rows)
        if taken is not None:
            bound |= taken
        return bound

    def others_w(self, bound: Ints) -> float:
        """Return what rows that are bound do beyond their own schedule. [W]

        Whom another order told something last counts until he has answered something else: what he
        still does is that order's, and what he stops doing is not missed by this one. Only as far
        as he already does what this one asks, it is this one's.
        """
        if not len(bound):
            return 0.0
        fleet = self.fleet
        power_w, own_w = fleet.estimate_w[bound], fleet.own_w[bound]
        ours = np.flatnonzero(fleet.order_no[bound] == np.int32(self.own_no))
        beyond_w = float((power_w - own_w).sum())
        if not self.own_no or not len(ours):
            return beyond_w
        power_w, own_w, asked_w = power_w[ours], own_w[ours], fleet.desired_w[bound[ours]]
        asked_w = np.where(np.isnan(asked_w), own_w, asked_w)
        ours_w = np.clip(power_w, np.minimum(own_w, asked_w), np.maximum(own_w, asked_w))
        return beyond_w - float((ours_w - own_w).sum())

    def leaving_w(self, bound: Ints) -> float:
        """Return the part of `others_w` that rows do who are counted on for this resource. [W]"""
        ours = self.free(bound)
        return self.others_w(ours[trust.controllable(self.fleet, ours)])


def not_yet(fleet: Fleet, signal: Signal) -> Flags | None:
    """Tell which rows a signal's levels do not reckon with; None for none.

    They belonged to an order that has ended since: driven at levels that were solved without them,
    they would all move too far, and back again a second later.
    """
    found: Flags | None = None
    for over in _over(fleet, signal):
        if found is None:
            found = np.zeros(fleet.size, np.bool_)
        found[active_rows(fleet, over.resource)] = True
    return found


def resting(fleet: Fleet) -> Flags | None:
    """Tell whom to leave as he is for a moment: an order is over, and the next is yet to reckon
    with its devices. None for nobody. Where that takes too long they are released."""
    since_ns = fleet.now_ns - int(HANDOVER_S * NS_PER_S)
    owner: Ints | None = None
    found: Flags | None = None
    for signal in in_force(fleet):
        for over in _over(fleet, signal):
            if over.ends_at_ns <= since_ns:
                continue
            if owner is None or found is None:
                owner = owners(fleet)
                assert owner is not None, "a signal is in force"
                found = np.zeros(fleet.size, np.bool_)
            rows = active_rows(fleet, over.resource)
            found[rows] |= owner[rows] == np.int32(signal.order_no)
    return found


def _over(fleet: Fleet, signal: Signal) -> list[Signal]:
    """Return the signals of orders that are over and that this one was still solved beside."""
    if not signal.beside:
        return []
    return [
        each
        for each in fleet.signals.values()
        if (each.order_no or each.ended_no) in signal.beside and _is_over(each, fleet.now_ns)
    ]


def _is_over(signal: Signal, now_ns: int) -> bool:
    return not signal.order_no or signal.ends_at_ns <= now_ns
