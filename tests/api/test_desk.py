"""Two APIs over one journal: numbers stay unique, and neither overlooks the other's orders."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kapelle.adapters.http.problems import Refused
from kapelle.api.desk import WRITER, OrderDesk
from kapelle.api.settings import ApiSettings
from kapelle.api.shapes import AmendAsked, OrderAsked
from kapelle.api.watch import Watch
from kapelle.errors import JournalFull
from kapelle.fleet.recall import recall
from kapelle.fleet.snapshots import view_to_snapshot
from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import Body, Kind
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import PLANT
from kapelle.model.orders import Order, Plan
from kapelle.runtime.clock import SystemClock

QUICK = ApiSettings(plan_wait_s=0.0, orders_per_minute=1_000)


class DistantJournal(MemoryJournal):
    """A journal on another machine: between looking and writing, others write."""

    async def append(self, topic: str, bodies: Sequence[Body], **guard: Any) -> int:
        await asyncio.sleep(0.002)
        return await super().append(topic, bodies, **guard)


def in_hours(hours: float) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def asked(hours: float) -> OrderAsked:
    return OrderAsked(target_w=1.0, starts_at=in_hours(hours), duration_s=60.0)


async def two_desks(
    tasks: asyncio.TaskGroup,
) -> tuple[MemoryJournal, list[OrderDesk], list[object]]:
    clock = SystemClock()
    journal = DistantJournal(clock)
    watches = [Watch(journal=journal, clock=clock, partitions=1) for _ in range(2)]
    running = [tasks.create_task(watch.run()) for watch in watches]
    desks = [
        OrderDesk(journal=journal, watch=watch, clock=clock, settings=QUICK) for watch in watches
    ]
    return journal, desks, running


def test_numbers_are_unique_over_two_apis() -> None:
    async def main() -> list[int]:
        async with asyncio.TaskGroup() as tasks:
            journal, desks, running = await two_desks(tasks)
            async with asyncio.TaskGroup() as asking:
                for n in range(10):
                    asking.create_task(desks[n % 2].create(asked(n + 1), "", "test"))
            orders = [e.body for e in await journal.read(PLANT, 0, 100, [Kind.ORDER])]
            for task in running:
                task.cancel()
        return [order.order_no for order in orders if isinstance(order, Order)]

    assert asyncio.run(main()) == list(range(1, 11))


def test_the_same_key_at_two_apis_is_one_order() -> None:
    async def main() -> tuple[list[bool], int]:
        async with asyncio.TaskGroup() as tasks:
            journal, desks, running = await two_desks(tasks)
            order = asked(1)
            async with asyncio.TaskGroup() as asking:
                made = [
                    asking.create_task(desk.create(order, "key", "test"))
                    for desk in desks
                    for _ in range(3)
                ]
            count = len(await journal.read(PLANT, 0, 100, [Kind.ORDER]))
            for task in running:
                task.cancel()
        return sorted(m.result()[1] for m in made), count

    assert asyncio.run(main()) == ([False] * 5 + [True], 1)


def test_an_amendment_may_not_reach_into_the_next_order() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            _, desks, running = await two_desks(tasks)
            first, _ = await desks[0].create(asked(1), "", "test")
            second, _ = await desks[1].create(asked(2), "", "test")
            with pytest.raises(Refused) as refused:
                await desks[0].amend(
                    first.order.order_no, AmendAsked(ends_at=in_hours(3)), "test", None
                )
            assert refused.value.code == "order-overlaps"
            assert refused.value.more["order_no"] == second.order.order_no
            longer = AmendAsked(ends_at=in_hours(1.5))
            await desks[0].amend(first.order.order_no, longer, "test", None)
            for task in running:
                task.cancel()

    asyncio.run(main())


def test_orders_that_were_forgotten_are_still_listed_and_their_numbers_never_given_again() -> None:
    async def main() -> tuple[list[int], int, str]:
        clock = SystemClock()
        journal = MemoryJournal(clock)
        for number in (1, 2):
            now_ns = clock.now_ns()
            order = Order(number, "all", 1.0, now_ns, now_ns + 1, now_ns)
            over = Plan(number, now_ns, 1, OrderStatus.COMPLETED, 0.0, 1.0, 0.0, "")
            await journal.append(PLANT, [order], writer=WRITER)
            await journal.append(PLANT, [over], writer="dispatch")
        view = await recall(journal, 1)
        await journal.save_snapshot(PLANT, view_to_snapshot(view))
        await journal.trim(PLANT, view.position)
        watch = Watch(journal=journal, clock=clock, partitions=1)
        desk = OrderDesk(journal=journal, watch=watch, clock=clock, settings=QUICK)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(watch.run())
            state, _ = await desk.create(asked(1), "", "test")
            running.cancel()
        return sorted(watch.view.orders), state.order.order_no, desk.find(1).status.name

    assert asyncio.run(main()) == ([1, 2, 3], 3, "COMPLETED")


@pytest.mark.parametrize("is_here", [True, False], ids=["a last hop here", "none"])
def test_a_hold_is_in_force_before_the_journal_has_it_and_without_it(is_here: bool) -> None:
    stops: list[tuple[str, bool]] = []

    class Full(MemoryJournal):
        async def append(self, topic: str, bodies: Sequence[Body], **guard: Any) -> int:
            assert len(stops) == 1
            raise JournalFull("no room")

    def stop(reason: str, by: str, *, told: bool = False) -> bool:
        stops.append((reason, told))
        return is_here

    async def main() -> None:
        clock = SystemClock()
        journal = Full(clock)
        watch = Watch(journal=journal, clock=clock, partitions=1)
        desk = OrderDesk(journal=journal, watch=watch, clock=clock, settings=QUICK, stop=stop)
        if is_here:
            assert (await desk.hold(True, "drill", "test")).held
            # The last hop writes it itself once there is room.
            assert stops == [("drill", True), ("drill", False)]
        else:
            with pytest.raises(Refused) as caught:
                await desk.hold(True, "drill", "test")
            assert caught.value.status == 507

    asyncio.run(main())
