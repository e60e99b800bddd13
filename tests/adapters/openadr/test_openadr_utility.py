"""A utility's events become orders, once each, whatever is lost or repeated on the way."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapters.openadr.orders import PaperOrders

from kapelle.adapters.openadr import utility
from kapelle.adapters.openadr.periods import moment
from kapelle.adapters.openadr.settings import UpstreamSettings
from kapelle.adapters.openadr.upstream import Ven
from kapelle.adapters.openadr.utility import Called, Place
from kapelle.app.doors import Doors
from kapelle.app.utility import follow
from kapelle.config import Config
from kapelle.errors import Invalid, LinkLost
from kapelle.journal.memory import MemoryJournal
from kapelle.model.ids import NS_PER_S
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

_MINUTE_NS = 60 * NS_PER_S


def event(
    now_ns: int,
    *values: float,
    kind: str = "DISPATCH_SETPOINT_RELATIVE",
    number: int = 1,
    modified: int = 0,
    **more: object,
) -> dict:
    """Return an event of intervals of 15 minutes, from now."""
    return {
        "id": f"event-{number}",
        "objectType": "EVENT",
        "createdDateTime": moment(now_ns),
        "modificationDateTime": moment(now_ns + modified * NS_PER_S),
        "programID": "p1",
        "intervalPeriod": {"start": moment(now_ns), "duration": "PT15M"},
        "intervals": [
            {"id": row, "payloads": [{"type": kind, "values": [value]}]}
            for row, value in enumerate(values)
        ],
    } | more


def called(raw: dict) -> Called:
    found = utility.call(json.dumps(raw).encode(), frozenset())
    assert isinstance(found, Called), found
    return found


NOW_NS = 1_800_000_000 * NS_PER_S


def test_more_consumption_is_less_power_towards_the_grid() -> None:
    found = called(event(NOW_NS, 2.0))
    ask = utility.ask(found, NOW_NS, math.nan)
    assert ask is not None
    assert ask.steps == ((NOW_NS, -2_000.0),)
    assert ask.ends_at_ns == NOW_NS + 15 * _MINUTE_NS


def test_a_setpoint_is_a_change_from_what_power_is() -> None:
    found = called(event(NOW_NS, 3.0, kind="DISPATCH_SETPOINT"))
    ask = utility.ask(found, NOW_NS, -1_000.0)
    assert ask is not None
    assert ask.steps == ((NOW_NS, -2_000.0),)


def test_intervals_become_a_profile_and_what_has_passed_is_left_out() -> None:
    found = called(event(NOW_NS, 1.0, 2.0, -3.0))
    ask = utility.ask(found, NOW_NS + 20 * _MINUTE_NS, math.nan)
    assert ask is not None
    assert ask.steps == (
        (NOW_NS + 20 * _MINUTE_NS, -2_000.0),
        (NOW_NS + 30 * _MINUTE_NS, 3_000.0),
    )
    assert utility.ask(found, NOW_NS + 45 * _MINUTE_NS, math.nan) is None


@pytest.mark.parametrize(
    "raw",
    [
        event(NOW_NS, 1.0, intervalPeriod={"duration": "PT15M"}),
        event(NOW_NS, 1.0, intervalPeriod={"start": "0001-01-01T00:00:00Z", "duration": "PT1M"}),
        event(NOW_NS, 1.0, intervalPeriod={"start": moment(NOW_NS), "duration": "P9999Y"}),
        event(NOW_NS, 1.0, modificationDateTime="yesterday"),
        event(NOW_NS, *([1.0] * 97)),
        event(NOW_NS, 1e30),
        {"id": "x"},
        [],
    ],
)
def test_what_cannot_be_followed_says_why(raw: object) -> None:
    found = utility.call(json.dumps(raw).encode(), frozenset())
    assert isinstance(found, str)
    assert found


def test_prices_and_other_peoples_events_are_none_of_ours() -> None:
    assert utility.call(json.dumps(event(NOW_NS, 1.0, kind="PRICE")).encode(), frozenset()) == ""
    raw = json.dumps(event(NOW_NS, 1.0, targets=["them"])).encode()
    assert utility.call(raw, frozenset({"us"})) == ""
    assert isinstance(utility.call(raw, frozenset()), Called)


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_no_event_is_too_odd_to_be_judged(raw: bytes) -> None:
    assert isinstance(utility.call(raw, frozenset()), str)


class Utility:
    """A VTN of paper behind httpx."""

    def __init__(self) -> None:
        self.events: list[dict] = []
        self.reports: dict[str, dict] = {}
        self.tokens = 0
        self.status = 200
        self.big = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/auth/token":
            self.tokens += 1
            token = {"access_token": f"t{self.tokens}", "token_type": "Bearer", "expires_in": 3600}
            return httpx.Response(200, json=token)
        if path == "/auth/server":
            return httpx.Response(200, json={"tokenURL": "https://vtn.test/auth/token"})
        if request.headers.get("authorization") != f"Bearer t{self.tokens}":
            return httpx.Response(401)
        if self.status != 200:
            return httpx.Response(self.status)
        if self.big:
            return httpx.Response(200, content=b"[" + b" " * 2_000_000 + b"]")
        if path == "/programs":
            return httpx.Response(200, json=[{"id": "p1", "programName": "balancing"}])
        if path == "/events":
            skip = int(request.url.params["skip"])
            return httpx.Response(200, json=self.events[skip : skip + 50])
        if request.method == "GET":
            event_id = request.url.params["eventID"]
            known = [{"id": f"r-{event_id}"}] if f"r-{event_id}" in self.reports else []
            return httpx.Response(200, json=known)
        body = json.loads(request.content)
        self.reports[f"r-{body['eventID']}"] = body
        return httpx.Response(200, json={"id": f"r-{body['eventID']}"})

    def states(self) -> dict[str, str]:
        return {
            one["eventID"]: one["resources"][0]["intervals"][0]["payloads"][0]["values"][0]
            for one in self.reports.values()
        }


def served(utility: Utility) -> httpx.MockTransport:
    """Return it as a transport whose answers come in parts, as from a socket."""

    async def answer(request: httpx.Request) -> httpx.Response:
        whole = utility(request)

        async def parts() -> AsyncIterator[bytes]:
            for at in range(0, len(whole.content), 65_536):
                yield whole.content[at : at + 65_536]

        return httpx.Response(whole.status_code, content=parts())

    return httpx.MockTransport(answer)


def ven(utility: Utility, orders: PaperOrders, **more: object) -> Ven:
    given = {
        "url": "https://vtn.test",
        "client_id": "kapelle",
        "client_secret": "s",
        "program": "balancing",
    } | more
    return Ven(
        settings=UpstreamSettings(**given),
        orders=orders,
        clock=SystemClock(),
        transport=served(utility),
    )


def play(act: Callable, **more: object) -> tuple[Utility, PaperOrders]:
    utility, orders = Utility(), PaperOrders()

    async def run() -> None:
        follower = ven(utility, orders, **more)
        async with asyncio.timeout(60), follower.open() as following:
            await act(utility, orders, following)

    asyncio.run(run())
    return utility, orders


def test_an_event_is_ordered_changed_ended_and_reported() -> None:
    now_ns = SystemClock().now_ns()

    async def act(utility: Utility, orders: PaperOrders, following) -> None:
        utility.events = [event(now_ns, 2.0)]
        for _ in range(3):
            await following.turn()
        assert orders.calls == ["place"]
        assert utility.states() == {"event-1": "RUNNING_HEIGHTENED"}
        (report,) = utility.reports.values()
        payloads = report["resources"][0]["intervals"][0]["payloads"]
        assert payloads[1:] == [
            {"type": "SETPOINT", "values": [2.0]},
            {"type": "DEMAND", "values": [1.0]},
        ]
        assert {d["readingType"] for d in report["payloadDescriptors"]} == {"ESTIMATED"}

        utility.events = [event(now_ns, 1.0, modified=5)]
        for _ in range(3):
            await following.turn()
        assert orders.calls == ["place", "change"]
        assert orders.orders[0].ask.steps[0][1] == -1_000.0

        utility.events = []
        for _ in range(3):
            await following.turn()
        assert orders.calls == ["place", "change", "end"]

    play(act)


def test_after_a_restart_nothing_is_ordered_twice() -> None:
    now_ns = SystemClock().now_ns()

    async def act(utility: Utility, orders: PaperOrders, following) -> None:
        utility.events = [event(now_ns, 2.0), event(now_ns, 1.0, number=2)]
        await following.turn()
        # An operator has ended the second meanwhile: that is his word, not the utility's.
        await orders.end(2, "operator")
        async with ven(utility, orders).open() as again:
            await again.turn()
        assert orders.calls == ["place", "place", "end"]
        assert utility.states()["event-2"] == "RUNNING_OPTED_OUT"

    play(act)


def test_what_is_declined_is_reported_and_not_asked_again() -> None:
    now_ns = SystemClock().now_ns()

    async def act(utility: Utility, orders: PaperOrders, following) -> None:
        utility.events = [event(now_ns, 2.0), event(now_ns, 5_000.0, number=2)]
        orders.later = "the journal is full"
        await following.turn()
        assert utility.states() == {"event-2": "RUNNING_OPTED_OUT"}
        orders.later, orders.declines = "", "overlaps"
        await following.turn()
        orders.declines = ""
        await following.turn()
        assert orders.calls == []
        assert utility.states() == {"event-1": "RUNNING_OPTED_OUT", "event-2": "RUNNING_OPTED_OUT"}

    play(act, power_max_w=1e6)


def test_only_a_whole_list_says_that_an_event_has_gone() -> None:
    now_ns = SystemClock().now_ns()

    async def act(utility: Utility, orders: PaperOrders, following) -> None:
        prices = [event(now_ns, 1.0, kind="PRICE", number=n) for n in range(100, 170)]
        utility.events = [event(now_ns, 2.0), *prices]
        await following.turn()
        utility.events = [*prices, event(now_ns, 2.0)]
        await following.turn()
        assert orders.calls == ["place"]
        utility.status = 500
        with pytest.raises(LinkLost):
            await following.turn()
        assert orders.calls == ["place"]

    play(act, events_max=60)


def test_a_new_token_is_fetched_once_where_the_old_one_is_refused() -> None:
    async def act(utility: Utility, orders: PaperOrders, following) -> None:
        await following.turn()
        assert utility.tokens == 1
        utility.tokens = 5
        await following.turn()
        assert utility.tokens == 6
        utility.status = 401
        with pytest.raises(LinkLost):
            await following.turn()
        assert utility.tokens == 7

    play(act)


def test_a_utility_that_is_not_there_is_a_lost_link_before_anything_is_followed() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    settings = UpstreamSettings(url="https://vtn.test", client_id="k", program="p")
    follower = Ven(
        settings=settings,
        orders=PaperOrders(),
        clock=SystemClock(),
        transport=httpx.MockTransport(refuse),
    )
    doors = Doors(Config(), SystemClock(), MemoryJournal(SystemClock()), Directory(1), [])

    async def run() -> None:
        with pytest.raises(LinkLost, match=r"https://vtn\.test: refused"):
            async with follower.open():
                pass
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await follow(follower, doors)

    asyncio.run(run())
    assert not doors.opened[follower.name].is_open


def test_answers_are_bounded() -> None:
    async def act(utility: Utility, orders: PaperOrders, following) -> None:
        utility.big = True
        with pytest.raises(LinkLost, match="longer than"):
            await following.turn()

    play(act)


@pytest.mark.parametrize("left_out", ["url", "client_id", "program"])
def test_what_must_be_given_is_named(left_out: str) -> None:
    given = {"url": "https://vtn.test", "client_id": "k", "program": "p"} | {left_out: ""}
    with pytest.raises(ValueError, match=left_out):
        UpstreamSettings(**given)


def test_a_secret_travels_by_https_only() -> None:
    with pytest.raises(Invalid):
        ven(Utility(), PaperOrders(), url="http://vtn.example")
    ven(Utility(), PaperOrders(), url="http://127.0.0.1:1")
    ven(Utility(), PaperOrders(), url="http://vtn.example", insecure=True)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 3), st.sampled_from([-1.0, 1.0, 2.0])),
        max_size=3,
        unique_by=lambda one: one[0],
    ),
    st.integers(0, 50),
)
def test_doing_what_was_planned_leaves_nothing_to_plan(events: list, minutes: int) -> None:
    found = [called(event(NOW_NS, v, number=n, modified=m)) for n, m, v in events]
    now_ns = NOW_NS + minutes * _MINUTE_NS

    def plan(orders: PaperOrders) -> list:
        return utility.plan(
            found,
            orders.given(utility.KEY),
            now_ns=now_ns,
            power_w=0.0,
            power_w_max=0.0,
            done={},
            is_complete=True,
        )

    async def run() -> None:
        orders = PaperOrders()
        for step in plan(orders):
            assert isinstance(step, Place)
            await orders.place("all", step.ask, step.called.key, "utility")
        assert len(orders.orders) == (len(found) if minutes < 15 else 0)
        assert plan(orders) == []

    asyncio.run(run())
