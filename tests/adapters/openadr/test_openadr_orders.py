"""A utility's events on the plant's own order desk and journal."""

import asyncio

from tests.adapters.conformance.plant import until
from tests.adapters.openadr.test_openadr_utility import Utility, event, served

from kapelle.adapters.openadr.settings import UpstreamSettings
from kapelle.adapters.openadr.upstream import Ven
from kapelle.api.desk import OrderDesk
from kapelle.api.settings import ApiSettings
from kapelle.api.watch import Watch
from kapelle.app.utility import UtilityDesk
from kapelle.journal.memory import MemoryJournal
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.orders import Amend, Cancel, Order
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

_HOUR_NS = 3_600 * NS_PER_S


def test_events_are_orders_of_the_utility_in_the_journal() -> None:
    utility, clock = Utility(), SystemClock()
    later_ns = clock.now_ns() + _HOUR_NS

    async def run() -> None:
        journal = MemoryJournal(clock)
        watch = Watch(journal=journal, clock=clock, partitions=1)
        settings = ApiSettings(plan_wait_s=0.05)
        desk = OrderDesk(journal=journal, watch=watch, clock=clock, settings=settings)

        async def bodies() -> list:
            return [one.body for one in await journal.read(PLANT, 0, 100)]

        def follower() -> Ven:
            return Ven(
                settings=UpstreamSettings(
                    url="https://vtn.test", client_id="k", program="balancing"
                ),
                orders=UtilityDesk(desk, watch, clock),
                clock=clock,
                transport=served(utility),
            )

        async with asyncio.timeout(60), background() as beside:
            beside.start(watch.run(), "watch")
            utility.events = [event(later_ns, 1.0, 2.0)]
            for _ in range(2):
                # Each time as after a restart.
                async with follower().open() as following:
                    await following.turn()
            (order,) = await bodies()
            assert isinstance(order, Order)
            assert (order.issued_by, order.product) == ("openadr/balancing", "openadr")
            assert [step.target_w for step in order.profile] == [-1_000.0, -2_000.0]
            assert abs(order.starts_at_ns - later_ns) < NS_PER_S

            utility.events = [event(later_ns, -3.0, modified=9)]
            for _ in range(2):
                async with follower().open() as following:
                    await following.turn()
                await until(lambda: watch.view.orders[1].amended_at_ns)
            amends = [one for one in await bodies() if isinstance(one, Amend)]
            assert {one.target_w for one in amends} == {3_000.0}
            assert {one.issued_by for one in amends} == {"openadr/balancing"}

            # Two at once on one resource: the second is declined, and said so.
            utility.events += [event(later_ns, 1.0, number=2)]
            async with follower().open() as following:
                await following.turn()
            assert utility.states()["event-2"] == "RUNNING_OPTED_OUT"

            utility.events = []
            async with follower().open() as following:
                await following.turn()
            cancels = [one for one in await bodies() if isinstance(one, Cancel)]
            assert [one.order_no for one in cancels] == [1]

    asyncio.run(run())
