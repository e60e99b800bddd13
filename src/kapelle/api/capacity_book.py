"""What every resource can promise for an hour, as metrics show it: some answers old, none late.

An answer takes some 20 ms and what it rests on is up to a minute old. So each scrape renews those
that are oldest, a few at most and beside the event loop, and shows the others as they were.
"""

import asyncio
from typing import get_args

from kapelle.dispatch.firm.assembly import portfolio_of
from kapelle.dispatch.firm.capacity import FirmCapacity, answer
from kapelle.dispatch.firm.within import caps_within
from kapelle.fleet.plant import PlantView
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Direction

WINDOW_S = 3600.0
_AGE_S = 30.0
"""A younger answer is not renewed. [s]"""
_AT_ONCE = 8

Key = tuple[str, Direction]


class CapacityBook:
    """The newest answer for each resource and direction."""

    def __init__(self) -> None:
        self.told: dict[Key, FirmCapacity] = {}
        self._at_ns: dict[Key, int] = {}

    async def renew(self, view: PlantView, now_ns: int) -> None:
        """Answer anew where the answer is oldest; forget resources that are gone."""
        known = sorted({resource for rooms in view.rooms.values() for resource in rooms})
        keys: list[Key] = [(resource, way) for resource in known for way in get_args(Direction)]
        for gone in self.told.keys() - set(keys):
            del self.told[gone], self._at_ns[gone]
        due_ns = now_ns - int(_AGE_S * NS_PER_S)
        due = [key for key in keys if self._at_ns.get(key, 0) <= due_ns]
        learned = view.firmness.kept.recalibration
        for key in sorted(due, key=lambda each: self._at_ns.get(each, 0))[:_AT_ONCE]:
            portfolio = portfolio_of(view.rooms, view.firmness, *key, WINDOW_S)
            caps = caps_within(view, *key, WINDOW_S)
            self.told[key] = await asyncio.to_thread(answer, portfolio, learned, caps)
            self._at_ns[key] = now_ns
