"""The order desk: checks what an operator asks, numbers it, writes it to the plant's topic."""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from kapelle.adapters.http.problems import Fault, Refused
from kapelle.api import alone, profiles, rules
from kapelle.api.quota import Quota
from kapelle.api.selections import Rearm, Selected, Selections
from kapelle.api.settings import ApiSettings
from kapelle.api.shapes import AmendAsked, OrderAsked
from kapelle.api.times import to_ns
from kapelle.api.watch import Watch
from kapelle.dispatch.preview import Preview, preview
from kapelle.dispatch.settings import DispatchSettings
from kapelle.errors import JournalConflict, JournalFull
from kapelle.fleet.plant import OrderState, PlantView
from kapelle.model.entries import Body
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.orders import Amend, Cancel, Hold, Order, Plan
from kapelle.ports import Clock, Journal
from kapelle.safety.settings import SafetySettings

WRITER = "api"
_TRIES = 10
_KEY_LENGTH_MAX = 200
_CATCH_UP_S = 5.0


class Stop(Protocol):
    """Holds the plant at once, in this process."""

    def __call__(self, reason: str, by: str, *, told: bool = False) -> bool:
        """Return whether it is held; `told`: the caller writes to the journal himself."""


class OrderDesk:
    """Writes orders as the line `api` of the plant's topic.

    Numbers are unique because every append names the last entry of the line that was taken into
    account; whoever comes second is refused by the journal, looks again and takes the next number.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        watch: Watch,
        clock: Clock,
        settings: ApiSettings,
        stop: Stop | None = None,
        safety: SafetySettings | None = None,
        dispatch: DispatchSettings | None = None,
    ) -> None:
        self._journal = journal
        self._watch = watch
        self._clock = clock
        self._settings = settings
        self._stop = stop
        self._safety = safety if safety is not None else SafetySettings()
        self.dispatch = dispatch if dispatch is not None else DispatchSettings()
        """How much is kept in reserve, among other things."""
        self._selections = Selections()
        self._rearm = Rearm()
        self._quota = Quota(settings.orders_per_minute)
        self._turn = asyncio.Lock()

    async def create(self, asked: OrderAsked, key: str, issued_by: str) -> tuple[OrderState, bool]:
        """Write an order and wait a moment for what dispatch makes of it.

        Returns:
            The order, and whether it is new: the same key and body give the same order again.
        """
        return await self._create(asked, key, issued_by, "")

    def select(self, asked: OrderAsked, selected_by: str) -> tuple[Selected, Preview]:
        """Keep an order for a second person to operate; say what it would do. Nothing is ordered.

        Raises:
            Refused: The order could not be given by anybody.
        """
        shown = self.preview(asked)
        return self._selections.select(asked, selected_by, self._clock.now_ns()), shown

    def selected(self, selection_no: int) -> tuple[Selected, Preview]:
        """Return an order that waits for a second person, and what it would do now."""
        found = self._selections.find(selection_no, self._clock.now_ns())
        return found, self.preview(found.asked)

    async def operate(self, selection_no: int, operated_by: str) -> OrderState:
        """Give the order that somebody else selected."""
        selected = self._selections.operate(selection_no, operated_by, self._clock.now_ns())
        state, _ = await self._create(selected.asked, "", selected.selected_by, operated_by)
        return state

    async def _create(
        self, asked: OrderAsked, key: str, issued_by: str, operated_by: str
    ) -> tuple[OrderState, bool]:
        rules.check_key(key)
        mark = f"{key}#{rules.digest(asked)}" if key else ""
        state, is_new = await self._place(asked, key, mark, issued_by, operated_by)
        # Waited for outside of the turn: nobody else's order waits for this one's plan.
        return await self._answer(state), is_new

    async def _place(
        self, asked: OrderAsked, key: str, mark: str, issued_by: str, operated_by: str
    ) -> tuple[OrderState, bool]:
        async with self._turn:
            for _ in range(_TRIES):
                expected = await self._catch_up()
                if key and (known := rules.by_key(self._watch.view, key)) is not None:
                    return rules.check_same(known, mark), False
                self._check_quota()
                order = self._order(asked, mark, issued_by, operated_by)
                if not operated_by:
                    alone.check_order(self._watch.view, order, self._safety.operate_above_w)
                self._check_available(order)
                if await self._append(order, expected):
                    return await self._seen(order), True
            raise _busy()

    def preview(self, asked: OrderAsked) -> Preview:
        """Say what would be committed, and write nothing."""
        return preview(self._watch.view, self._order(asked, "", ""), self.dispatch)

    async def amend(
        self, order_no: int, asked: AmendAsked, issued_by: str, if_match: str | None
    ) -> OrderState:
        """Change an order's target or end, and wait for dispatch's new plan."""
        if asked.profile is not None:
            profiles.asked_w(asked)
        profiles.check_end(asked)
        changes = (asked.target_w, asked.profile, asked.ends_at, asked.duration_s)
        if all(change is None for change in changes):
            raise Refused(422, "nothing-to-change", "give target_w, profile, ends_at or duration_s")
        async with self._turn:
            for _ in range(_TRIES):
                expected = await self._catch_up()
                state = self._open(order_no, if_match)
                self._check_quota()
                now_ns = self._clock.now_ns()
                ends_at_ns = rules.end_of(asked, now_ns, state.order.ends_at_ns)
                target_w, ends_at_ns, profile = profiles.amended(
                    state.order, asked, now_ns, ends_at_ns
                )
                self._check_window(max(now_ns, state.order.starts_at_ns), ends_at_ns)
                rules.check_target(target_w)
                amended = replace(
                    state.order, target_w=target_w, ends_at_ns=ends_at_ns, profile=profile
                )
                alone.check_amendment(
                    self._watch.view,
                    state.order,
                    amended,
                    issued_by,
                    now_ns,
                    self._safety.operate_above_w,
                )
                if state.plan is not None:
                    rules.check_stages(state.order, target_w, self.dispatch.stage_above_w)
                rules.check_turn(state, target_w)
                rules.check_profile(amended, self.dispatch.stage_above_w, state)
                rules.check_overlap(
                    self._watch.view,
                    state.order.resource,
                    state.order.starts_at_ns,
                    ends_at_ns,
                    besides=order_no,
                )
                amend = Amend(order_no, target_w, ends_at_ns, now_ns, issued_by, profile)
                if await self._append(amend, expected):
                    break
            else:
                raise _busy()
            await self._until_own(lambda view: view.orders[order_no].amended_at_ns >= now_ns)
        return await self._answer(self._watch.view.orders[order_no], since_ns=now_ns)

    async def cancel(self, order_no: int, issued_by: str, if_match: str | None) -> OrderState:
        """End an order now. Cancelling twice, or what is over, changes nothing."""
        async with self._turn:
            for _ in range(_TRIES):
                expected = await self._catch_up()
                state = self.find(order_no)
                if state.is_over or state.cancelled_at_ns:
                    return state
                rules.check_match(state, if_match)
                # No quota here: nothing may keep an operator from stopping an order.
                if await self._append(Cancel(order_no, self._clock.now_ns(), issued_by), expected):
                    break
            else:
                raise _busy()
            await self._until_own(lambda view: view.orders[order_no].cancelled_at_ns > 0)
        # Until dispatch has said so too, its devices are not free for another order.
        await self._watch.wait_for(
            lambda view: view.orders[order_no].is_over or None, self._settings.plan_wait_s
        )
        return self.find(order_no)

    async def hold(self, held: bool, reason: str, issued_by: str) -> Hold:
        """Stop every command of the plant, or allow them again.

        A hold is in force here before the journal has it, and whether or not it takes it.
        """
        if not held and self._safety.rearm_by_two:
            view = self._watch.view
            self._rearm.agree(issued_by, (view.held, view.hold_reason), self._clock.now_ns())
        if held:
            self._rearm.forget()
        is_held = held and self._stop is not None and self._stop(reason, issued_by, told=True)
        hold = Hold(held, self._clock.now_ns(), reason, issued_by)
        try:
            # Neither number nor turn: a hold waits for nobody.
            await self._append(hold, None)
        except Refused:
            if not is_held or self._stop is None:
                raise
            self._stop(reason, issued_by)
        return hold

    def find(self, order_no: int) -> OrderState:
        """Return an order. Raises Refused (404) where there is none."""
        state = self._watch.view.orders.get(order_no)
        if state is None:
            raise Refused(404, "order-unknown", f"there is no order {order_no}")
        return state

    def _open(self, order_no: int, if_match: str | None) -> OrderState:
        state = self.find(order_no)
        if state.is_over or state.cancelled_at_ns or state.order.ends_at_ns <= self._clock.now_ns():
            raise Refused(409, "order-over", f"order {order_no} is over; make a new one")
        rules.check_match(state, if_match)
        return state

    def _order(self, asked: OrderAsked, mark: str, issued_by: str, operated_by: str = "") -> Order:
        view, now_ns = self._watch.view, self._clock.now_ns()
        target_w = profiles.asked_w(asked)
        rules.check_target(target_w)
        profiles.check_end(asked)
        starts_at_ns = now_ns if asked.starts_at is None else to_ns(asked.starts_at)
        profile, ends_at_ns = profiles.laid_out(asked.profile, starts_at_ns)
        if not profile and asked.ends_at is None and asked.duration_s is None:
            raise Refused(
                422,
                "order-endless",
                "an order has an end",
                faults=[Fault("/duration_s", "give duration_s or ends_at")],
            )
        ends_at_ns = rules.end_of(asked, starts_at_ns, ends_at_ns)
        if starts_at_ns < now_ns - 60 * NS_PER_S:
            raise Refused(
                422,
                "order-window",
                "the order starts in the past",
                faults=[Fault("/starts_at", "leave it out to start now")],
            )
        self._check_window(starts_at_ns, ends_at_ns)
        rules.check_randomised(asked, (ends_at_ns - starts_at_ns) / NS_PER_S)
        order_no = max(view.orders, default=0) + 1
        rules.check_resource(view, asked.resource)
        rules.check_overlap(view, asked.resource, starts_at_ns, ends_at_ns)
        order = Order(
            order_no=order_no,
            resource=asked.resource,
            target_w=target_w,
            starts_at_ns=starts_at_ns,
            ends_at_ns=ends_at_ns,
            issued_at_ns=now_ns,
            tolerance=asked.tolerance,
            product=asked.product,
            issued_by=issued_by,
            key=mark,
            operated_by=operated_by,
            why=asked.why,
            staged=asked.staged,
            randomise_s=asked.randomise_s,
            profile=profile,
        )
        rules.check_profile(order, self.dispatch.stage_above_w)
        return order

    def _check_available(self, order: Order) -> None:
        """Refuse what would be declined whole. Later orders are judged when they start."""
        view = self._watch.view
        if order.starts_at_ns > self._clock.now_ns() or len(view.summaries) < view.partitions:
            return
        now = preview(view, order, self.dispatch)
        if now.committed_w == 0 and not any(step.committed_w for step in now.profile):
            raise Refused(
                422,
                "nothing-available",
                f"no device can take any of it now: {now.binding}",
                more={
                    "headroom_up_w": now.headroom_up_w,
                    "headroom_down_w": now.headroom_down_w,
                    "devices": now.devices,
                    "excluded": now.excluded,
                },
            )

    def _check_window(self, starts_at_ns: int, ends_at_ns: int) -> None:
        settings, now_ns = self._settings, self._clock.now_ns()
        wrong = ""
        if ends_at_ns <= starts_at_ns:
            wrong = "the order ends before it starts"
        elif ends_at_ns <= now_ns:
            wrong = "the order ends in the past"
        elif ends_at_ns - starts_at_ns > settings.order_s_max * NS_PER_S:
            wrong = f"an order lasts {settings.order_s_max / 86_400:g} days at most"
        elif starts_at_ns - now_ns > settings.ahead_s_max * NS_PER_S:
            wrong = f"an order starts within {settings.ahead_s_max / 86_400:g} days"
        if wrong:
            raise Refused(422, "order-window", wrong, faults=[Fault("/ends_at", wrong)])

    def _check_quota(self) -> None:
        wait_s = self._quota.step(self._clock.now_ns())
        if wait_s > 0:
            raise Refused(
                429,
                "order-quota",
                f"{self._settings.orders_per_minute} orders a minute are taken",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )

    async def _catch_up(self) -> int:
        """Wait until the view has everything this line wrote; return the line's last position."""
        expected = await self._journal.last(PLANT, WRITER)
        await self._until_own(lambda view: view.position >= expected)
        return expected

    async def _until_own(self, is_there: Callable[[PlantView], bool]) -> None:
        found = await self._watch.wait_for(lambda view: is_there(view) or None, _CATCH_UP_S)
        if found is None:
            raise Refused(
                503,
                "view-behind",
                "the plant's view lags behind the journal",
                headers={"Retry-After": "2"},
            )

    async def _append(self, body: Body, expected: int | None) -> bool:
        try:
            await self._journal.append(PLANT, [body], writer=WRITER, expected=expected)
        except JournalConflict:
            return False
        except JournalFull as error:
            raise Refused(
                507, "journal-full", f"nothing was ordered: {error}", headers={"Retry-After": "30"}
            ) from error
        return True

    async def _seen(self, order: Order) -> OrderState:
        """Return the order as the view has it; it is durable, so a late view is no error."""
        number = order.order_no
        await self._watch.wait_for(lambda view: number in view.orders or None, _CATCH_UP_S)
        return self._watch.view.orders.get(number, OrderState(order))

    async def _answer(self, state: OrderState, since_ns: int = 0) -> OrderState:
        """Wait for the plan of an order that is due; what comes later is asked for later."""
        if state.order.starts_at_ns <= self._clock.now_ns() + NS_PER_S:

            def planned(_: PlantView) -> Plan | None:
                return state.plan if state.plan and state.plan.at_ns >= since_ns else None

            await self._watch.wait_for(planned, self._settings.plan_wait_s)
        return state


def _busy() -> Refused:
    return Refused(
        503,
        "line-busy",
        "others write orders faster than this; try again",
        headers={"Retry-After": "1"},
    )
