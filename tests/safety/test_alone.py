"""S-23: nobody moves more alone than he may, by many small orders or by turning a large one.

The desk refuses what takes a second person, the last hop holds what only one has given; hypothesis
writes orders, amendments, cancellations and restarts, and both are held against a slow referee.
"""

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kapelle.adapters.http.problems import Refused
from kapelle.api import alone
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.orders import Amend, Cancel, Interval, Order
from kapelle.runtime.clock import SystemClock
from kapelle.safety.authority import OrderBook
from kapelle.safety.before import hear_orders
from kapelle.safety.state import GateState, go_on

ABOVE_W = 1_000.0
STEP_S = 60
T0_NS = 1_800_000_000 * NS_PER_S


@dataclass(frozen=True)
class Ask:
    """What somebody asks for at one step; which order it is about is taken round."""

    what: str
    person: str
    targets_w: tuple[float, ...]
    length: int
    waits: int = 0
    about: int = 0
    operated_by: str = ""


asks = st.builds(
    Ask,
    what=st.sampled_from(["order", "order", "amend", "amend", "cancel", "restart"]),
    person=st.sampled_from(["ada", "bob"]),
    targets_w=st.lists(
        st.sampled_from([300.0, 500.0, 900.0, 1_000.0, -300.0, -700.0, 2_500.0]),
        min_size=1,
        max_size=2,
    ).map(tuple),
    length=st.integers(1, 6),
    waits=st.integers(0, 2),
    about=st.integers(0, 5),
    operated_by=st.sampled_from(["", "", "ada", "bob"]),
)


class Plant:
    """What the journal has been told, as the desk's view and the last hop's book have it."""

    def __init__(self) -> None:
        self.view, self.book = PlantView(1), OrderBook()
        self.now_ns = T0_NS
        self.moves: set[int] = set()

    def say(self, body: Body) -> None:
        entry = Entry(PLANT, self.view.position + 1, KIND_OF[type(body)], "api", 0, 0, body)
        apply_plant(self.view, entry)
        self.book.advance(self.now_ns)
        self.book.apply(body)

    def restart(self) -> None:
        """Lose the accounts: the book is drawn up from the view, as `LastHop` does."""
        self.book = OrderBook()
        for number, state in self.view.orders.items():
            self.book.apply(replace(state.order, issued_by=state.given_by))
            if state.cancelled_at_ns:
                self.book.apply(Cancel(number, state.cancelled_at_ns))
        self.book.advance(self.now_ns)

    def passes(self) -> dict[int, bool]:
        """Let every order that is in force ask for something; return whose commands pass."""
        self.book.advance(self.now_ns)
        numbers = np.array(sorted(self.view.orders), np.int32)
        numbers = numbers[self.book.in_force(numbers, self.now_ns)] if len(numbers) else numbers
        agreed = self.book.is_agreed(numbers, ABOVE_W)
        self.book.charge(numbers[agreed], np.ones(int(agreed.sum())))
        return dict(zip(numbers.tolist(), agreed.tolist(), strict=True))


def shape(ask: Ask, starts_ns: int) -> tuple[float, int, tuple[Interval, ...]]:
    each_ns = ask.length * STEP_S * NS_PER_S
    steps = tuple(Interval(starts_ns + n * each_ns, w) for n, w in enumerate(ask.targets_w))
    ends_ns = starts_ns + len(steps) * each_ns
    return max(ask.targets_w, key=abs), ends_ns, steps if len(steps) > 1 else ()


def written(plant: Plant, ask: Ask, *, by_desk: bool) -> Body | None:
    """Return what comes into the journal of it: `by_desk`, only what the desk lets through."""
    orders, now_ns = plant.view.orders, plant.now_ns
    if ask.what == "order":
        starts_ns = now_ns + ask.waits * STEP_S * NS_PER_S
        target_w, ends_ns, steps = shape(ask, starts_ns)
        order = Order(
            len(orders) + 1, f"r{len(orders)}", target_w, starts_ns, ends_ns, now_ns,
            issued_by=ask.person, operated_by=ask.operated_by, profile=steps,
        )  # fmt: skip
        if by_desk and ask.operated_by in ("", ask.person):
            order = replace(order, operated_by="")
            alone.check_order(plant.view, order, ABOVE_W)
        return order
    state = orders.get(ask.about % len(orders) + 1) if orders else None
    if state is None or state.cancelled_at_ns or state.order.ends_at_ns <= now_ns:
        return None
    was = state.order
    if ask.what == "cancel":
        return Cancel(was.order_no, now_ns, ask.person)
    target_w, ends_ns, steps = shape(ask, max(now_ns, was.starts_at_ns))
    past = tuple(s for s in was.profile if s.starts_at_ns < now_ns) if steps else ()
    steps = (*past, *steps)
    to = replace(was, target_w=target_w, ends_at_ns=ends_ns, profile=steps)
    if by_desk:
        alone.check_amendment(plant.view, was, to, ask.person, now_ns, ABOVE_W)
    return Amend(was.order_no, target_w, ends_ns, now_ns, ask.person, steps)


def alone_w(plant: Plant, numbers: list[int]) -> dict[str, float]:
    """Return what each person has these orders ask for now without a second one, added up. [W]"""
    sums_w: dict[str, float] = {}
    for number in numbers:
        state = plant.view.orders[number]
        order, is_over = state.order, state.cancelled_at_ns or state.order.ends_at_ns
        if order.operated_by not in ("", order.issued_by) or is_over <= plant.now_ns:
            continue
        steps = [w for at_ns, w in asked(order) if at_ns <= plant.now_ns]
        if steps:
            sums_w[state.given_by] = sums_w.get(state.given_by, 0.0) + abs(steps[-1])
    return sums_w


def asked(order: Order) -> list[tuple[int, float]]:
    steps = order.profile or (Interval(order.starts_at_ns, order.target_w),)
    return [(step.starts_at_ns, step.target_w) for step in steps]


def play(story: list[Ask], *, by_desk: bool) -> None:
    plant = Plant()
    for ask in story:
        if ask.what == "restart":
            plant.restart()
        else:
            try:
                body = written(plant, ask, by_desk=by_desk)
            except Refused:
                body = None
            if body is not None:
                plant.say(body)
        for _ in range(2):
            passes = plant.passes()
            if by_desk:
                assert all(passes.values()), "what the desk has let through gets stuck"
            sums_w = alone_w(plant, [number for number, agreed in passes.items() if agreed])
            assert all(sum_w <= ABOVE_W for sum_w in sums_w.values()), (sums_w, plant.view.orders)
            plant.now_ns += STEP_S * NS_PER_S // 2


@given(st.lists(asks, min_size=3, max_size=12))
@settings(max_examples=300, deadline=None)
def test_nobody_moves_more_alone_and_nothing_the_desk_lets_through_gets_stuck(
    story: list[Ask],
) -> None:
    play(story, by_desk=True)


@given(st.lists(asks, min_size=3, max_size=12))
@settings(max_examples=300, deadline=None)
def test_the_last_hop_says_so_too_whoever_wrote_the_orders(story: list[Ask]) -> None:
    play([ask for ask in story if ask.what != "restart"], by_desk=False)


def order(number: int, target_w: float, person: str = "ada", **more: object) -> Order:
    ends_ns = T0_NS + 600 * NS_PER_S
    made = Order(number, f"r{number}", target_w, T0_NS, ends_ns, T0_NS, issued_by=person)
    return replace(made, **more)


def test_many_small_orders_of_one_person_are_one_large_one() -> None:
    plant = Plant()
    plant.say(order(1, 600.0))
    with pytest.raises(Refused, match=r"1.1 kW together"):
        alone.check_order(plant.view, order(2, -500.0), ABOVE_W)
    alone.check_order(plant.view, order(2, 400.0), ABOVE_W)
    alone.check_order(plant.view, order(2, -500.0, "bob"), ABOVE_W)
    later_ns = T0_NS + 600 * NS_PER_S
    later = order(2, 500.0, starts_at_ns=later_ns, ends_at_ns=later_ns + NS_PER_S)
    alone.check_order(plant.view, later, ABOVE_W)
    plant.say(Cancel(1, T0_NS))
    alone.check_order(plant.view, order(2, -500.0), ABOVE_W)


def test_an_amendment_counts_by_what_it_changes() -> None:
    was = order(1, 4_000.0, operated_by="bob")
    plant = Plant()
    plant.say(was)
    for target_w in (4_000.0, 3_000.0, 0.5):
        to = replace(was, target_w=target_w)
        alone.check_amendment(plant.view, was, to, "ada", T0_NS, ABOVE_W)
    for change in (
        {"target_w": -4_000.0},
        {"target_w": -1.0},
        {"target_w": 4_001.0},
        {"ends_at_ns": was.ends_at_ns + 1},
        {"profile": (Interval(T0_NS, 4_000.0), Interval(T0_NS + NS_PER_S, -4_000.0))},
    ):
        to = replace(was, **change)
        with pytest.raises(Refused) as caught:
            alone.check_amendment(plant.view, was, to, "ada", T0_NS, ABOVE_W)
        assert (caught.value.status, caught.value.code) == (403, "second-person-needed")


def test_a_restart_knows_of_orders_that_shrank_step_by_step() -> None:
    async def main() -> None:
        journal = MemoryJournal(SystemClock())
        plant, state = Plant(), GateState()
        given = order(1, 4_000.0, operated_by="bob")
        ends_ns = given.ends_at_ns
        for body in (given, Amend(1, 3_000.0, ends_ns, T0_NS), Amend(1, 2_000.0, ends_ns, T0_NS)):
            await journal.append(PLANT, [body], writer="api")
            plant.say(body)
        done = {PLANT: 0}
        await hear_orders(journal, state, plant.view, done)
        go_on(state, T0_NS)
        assert done == {PLANT: 3}
        assert state.orders.is_agreed(np.array([1], np.int32), ABOVE_W).all()

    asyncio.run(main())
