"""The order desk as a utility reaches it: its events become orders like an operator's."""

import math
import random

from kapelle.adapters.http.problems import Refused
from kapelle.adapters.openadr.upstream import Declined, Following, NotNow, Ven
from kapelle.adapters.openadr.utility import Ask, Given
from kapelle.api.desk import OrderDesk
from kapelle.api.rules import by_key
from kapelle.api.shapes import AmendAsked, IntervalAsked, OrderAsked
from kapelle.api.sources import LinkState
from kapelle.api.times import to_datetime
from kapelle.api.watch import Watch
from kapelle.app.doors import Doors
from kapelle.config import Config
from kapelle.fleet.plant import OrderState, total
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Journal
from kapelle.runtime.supervise import keep_open

PRODUCT = "openadr"
_LATER = (408, 429, 503, 507)


class UtilityDesk:
    """Implements `adapters.openadr.upstream.Orders` on the desk every order passes."""

    def __init__(self, desk: OrderDesk, watch: Watch, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self._watch = watch

    def power_w(self, resource: str) -> float:
        """Return what a resource's power is; NaN while not every partition has spoken. [W]"""
        found = total(self._watch.view, resource)
        return found.power_w if found.complete and found.devices else math.nan

    def given(self, key: str) -> list[Given]:
        """Return the orders whose key begins so, oldest first."""
        states = self._watch.view.orders.values()
        return [_given(state) for state in states if state.order.key.startswith(key)]

    async def place(self, resource: str, ask: Ask, key: str, author: str) -> None:
        """Give an order, once per key."""
        if by_key(self._watch.view, key) is not None:
            return
        lengths = _lengths(ask)
        is_later = ask.starts_at_ns > self._clock.now_ns() + NS_PER_S
        asked = OrderAsked(
            resource=resource,
            target_w=None if len(lengths) > 1 else ask.steps[0][1],
            profile=lengths if len(lengths) > 1 else None,
            starts_at=to_datetime(ask.starts_at_ns) if is_later else None,
            ends_at=None if len(lengths) > 1 else to_datetime(ask.ends_at_ns),
            product=PRODUCT,
            why=f"event {key}"[:500],
        )
        try:
            await self._desk.create(asked, key, author)
        except Refused as refused:
            raise _meant(refused) from refused

    async def change(self, order_no: int, ask: Ask, author: str) -> None:
        """Change an order."""
        lengths = _lengths(ask)
        asked = AmendAsked(
            target_w=None if len(lengths) > 1 else ask.steps[0][1],
            profile=lengths if len(lengths) > 1 else None,
            ends_at=None if len(lengths) > 1 else to_datetime(ask.ends_at_ns),
        )
        try:
            await self._desk.amend(order_no, asked, author, None)
        except Refused as refused:
            raise _meant(refused) from refused

    async def end(self, order_no: int, author: str) -> None:
        """End an order."""
        try:
            await self._desk.cancel(order_no, author, None)
        except Refused as refused:
            raise NotNow(str(refused)) from refused


def make_utility(config: Config, journal: Journal, watch: Watch, clock: Clock) -> Ven | None:
    """Return who follows the configured utility, None where there is none.

    Raises:
        Invalid: Its settings would send a secret in the clear.
    """
    if config.openadr_upstream is None:
        return None
    desk = OrderDesk(
        journal=journal,
        watch=watch,
        clock=clock,
        settings=config.api,
        safety=config.safety,
        dispatch=config.dispatch,
    )
    orders = UtilityDesk(desk, watch, clock)
    return Ven(settings=config.openadr_upstream, orders=orders, clock=clock)


async def follow(utility: Ven, doors: Doors) -> None:
    """Follow a utility until cancelled, opened anew whenever its server is lost."""

    async def use(following: Following) -> None:
        doors.opened[utility.name] = LinkState(True, doors.clock.now_ns())
        try:
            await following.run()
        finally:
            doors.opened[utility.name] = LinkState(False, doors.clock.now_ns())

    doors.opened.setdefault(utility.name, LinkState(False, doors.clock.now_ns()))
    await keep_open(
        utility,
        use,
        clock=doors.clock,
        draw=random.Random(doors.holder),
    )


def _lengths(ask: Ask) -> list[IntervalAsked]:
    begins_ns = [at_ns for at_ns, _ in ask.steps]
    ends_ns = [*begins_ns[1:], ask.ends_at_ns]
    return [
        IntervalAsked(duration_s=(end - begin) / NS_PER_S, target_w=target_w)
        for begin, end, (_, target_w) in zip(begins_ns, ends_ns, ask.steps, strict=True)
    ]


def _given(state: OrderState) -> Given:
    order = state.order
    steps = tuple((one.starts_at_ns, one.target_w) for one in order.profile)
    return Given(
        order_no=order.order_no,
        key=order.key.rpartition("#")[0],
        ask=Ask(
            order.starts_at_ns, order.ends_at_ns, steps or ((order.starts_at_ns, order.target_w),)
        ),
        baseline_w=state.baseline_w,
        committed_w=state.committed_w,
        state=state.status.name.lower(),
        is_open=not (state.is_over or state.cancelled_at_ns),
        reason=state.plan.reason if state.plan is not None else "",
        amended_at_ns=state.amended_at_ns,
    )


def _meant(refused: Refused) -> Declined | NotNow:
    return NotNow(refused.detail) if refused.status in _LATER else Declined(refused.detail)
