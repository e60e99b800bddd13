"""Snapshot and entries since tell the same as all entries, wherever the snapshot was taken."""

import asyncio

import pytest
from fleet_worlds import SETTINGS, T0, entry, fleet_of, s, tick

from kapelle.errors import JournalDamaged
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.recall import recall
from kapelle.fleet.snapshots import view_to_snapshot
from kapelle.fleet.summary import summarise
from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import Body
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import PLANT
from kapelle.model.orders import Amend, Cancel, Hold, Order, Plan
from kapelle.model.plant import Notice
from kapelle.runtime.clock import SystemClock


def story() -> list[Body]:
    fleet = fleet_of(2)
    told: list[Body] = []
    lasting = [
        Order(1, "all", 3e6, s(0), s(600), s(0)),
        Plan(1, s(1), 1, OrderStatus.ACTIVE, 1e5, 2.5e6, 0.5e6, "headroom"),
        Hold(True, T0, "storm"),
        Amend(1, 2e6, s(900), s(5)),
        Notice(s(8), "shortfall", "too little"),
        Order(2, "all", 1e6, s(700), s(800), s(9)),
        Cancel(1, s(9)),
        Hold(False, s(10)),
    ]
    for second, body in enumerate(lasting, 1):
        for _ in range(3):
            tick(fleet, second * 10 + _)
            told.append(summarise(fleet, SETTINGS))
        told.append(body)
    return told


def told(view: PlantView) -> tuple[object, ...]:
    orders = [
        tuple(getattr(state, name) for name in ("order", "status", "plan", "cancelled_at_ns"))
        for state in view.orders.values()
    ]
    hold = view.held, view.hold_reason
    return view.position, orders, hold, list(view.notices), repr(view.summaries)


@pytest.mark.parametrize("forgets", [False, True])
def test_it_does_not_matter_where_the_snapshot_was_taken(forgets: bool) -> None:
    bodies = story()

    async def recalled(taken: int) -> PlantView:
        journal, view = MemoryJournal(SystemClock()), PlantView(1)
        await journal.append(PLANT, bodies, writer="test")
        for position, body in enumerate(bodies[:taken], 1):
            apply_plant(view, entry(position, body))
        if taken:
            await journal.save_snapshot(PLANT, view_to_snapshot(view))
        if forgets:
            await journal.trim(PLANT, taken)
        return await recall(journal, 1)

    whole = PlantView(1)
    for position, body in enumerate(bodies, 1):
        apply_plant(whole, entry(position, body))
    for taken in range(len(bodies) - 1):
        assert told(asyncio.run(recalled(taken))) == told(whole)
    # Only summaries older than the present are not taken up again.
    assert asyncio.run(recalled(len(bodies))).summaries == {}


def test_without_a_snapshot_a_trimmed_topic_is_refused() -> None:
    async def refused() -> None:
        journal = MemoryJournal(SystemClock())
        await journal.append(PLANT, [Hold(True, T0, "storm")], writer="api")
        await journal.trim(PLANT, 1)
        with pytest.raises(JournalDamaged, match="plant: entries up to 1 were dropped"):
            await recall(journal, 1)

    asyncio.run(refused())
