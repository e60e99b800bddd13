"""What a resource can promise, asked over the API."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import pytest

from kapelle.api.capacity_book import CapacityBook
from kapelle.api.capacity_shapes import CapacityTold
from kapelle.api.client import Client
from kapelle.dispatch.settings import DispatchSettings
from kapelle.errors import NotFound, Unreachable
from kapelle.fleet.plant import PlantView
from kapelle.model.summaries import Reach, Room, Summary

Start = Callable[..., AbstractContextManager[Any]]
"""`conftest.Running`; modules in `tests/` cannot import one another."""


def with_room(told: Summary) -> Summary:
    """Return a summary of 200 batteries of one vendor and 100 of another."""
    ways = [1e6, 1e6, 0.0, 5e9], [4e5, 4e5, 0.0, 1e9]
    cells = {"0/acme": [200.0, *ways[0], *ways[0]], "0/bolt": [100.0, *ways[1], *ways[1]]}
    room = Room(3600.0, cells, {"acme": {3: [1e6, 1e6]}, "bolt": {9: [4e5, 4e5]}})
    (every,) = told.resources
    reach = Reach({"acme": {3: [200.0, 200.0]}, "bolt": {9: [100.0, 100.0]}}, {}, [])
    return msgspec.structs.replace(
        told, resources=[msgspec.structs.replace(every, room=room)], reach=reach
    )


def say_room(running: Any) -> None:
    """Let a partition tell its room, and wait until the API has heard of it."""
    running.append(with_room(running.summary(0, running.clock.now_ns())))
    ends_s = time.monotonic() + 30.0
    while running.http.get("/v1/capacity/all").status_code == 503:
        assert time.monotonic() < ends_s, "the API has not heard of the room"
        time.sleep(0.02)


def asked(client: Client, **what: Any) -> CapacityTold:
    with client:
        return client.capacity(**what)


def test_every_promise_stands_beside_what_it_hides(run_api: Start) -> None:
    with run_api() as running:
        say_room(running)
        with running.client() as client:
            told = client.capacity(window_s=3600.0)
        assert told.up is not None
        assert told.down is not None
        assert told.up.headroom_w == pytest.approx(1.4e6)
        assert [each.level for each in told.up.levels] == [0.5, 0.9, 0.95, 0.99]
        promises = [each.promise_w for each in told.up.levels]
        assert promises == sorted(promises, reverse=True)
        assert told.up.worst_vendor == "acme"
        for each in told.up.levels:
            assert each.without_worst_w is not None
            assert each.without_worst_w <= min(each.promise_w, 4e5)
        assert told.down == told.up


def test_no_promise_reaches_into_the_reserve(run_api: Start) -> None:
    kept = DispatchSettings(reserve={"all": 0.9})
    with run_api(dispatch_settings=kept) as running:
        say_room(running)
        with running.client() as client:
            told = client.capacity(window_s=3600.0, direction="up").up
        assert told is not None
        assert told.reserve_w == pytest.approx(0.9 * told.headroom_w)
        assert told.levels[0].promise_w == pytest.approx(0.1 * told.headroom_w)
        assert all(each.promise_w <= 0.1 * told.headroom_w + 1e-6 for each in told.levels)


def test_one_direction_is_told_where_one_is_asked(run_api: Start) -> None:
    with run_api() as running:
        say_room(running)
        with running.client() as client:
            told = client.capacity(direction="down", window_s=7200.0)
            half = client.capacity(direction="down", window_s=3600.0)
        assert told.up is None
        assert told.down is not None
        assert half.down is not None
        # Longer than what was told: at least in proportion.
        assert told.down.headroom_w == pytest.approx(half.down.headroom_w / 2)


def test_what_is_not_known_yet_is_no_zero(run_api: Start) -> None:
    with run_api() as running:
        with running.client() as client:
            with pytest.raises(NotFound):
                client.capacity("nobody")
            with pytest.raises(Unreachable, match="no partition has told yet"):
                client.capacity()
        for query in ("window_s=5", "window_s=1e9", "notice_s=-1", "direction=sideways"):
            assert running.http.get(f"/v1/capacity/all?{query}").status_code == 422


def test_metrics_show_what_can_be_promised(run_api: Start) -> None:
    with run_api() as running:
        say_room(running)
        with running.client() as client:
            told = client.capacity(window_s=3600.0, direction="up")
        lines = running.http.get("/metrics").text.splitlines()
    assert told.up is not None
    for each in told.up.levels:
        labels = f'{{direction="up",group="all",probability="{each.level:g}"}}'
        for name, watts in (
            ("kapelle_firm_capacity_watts", each.promise_w),
            ("kapelle_firm_capacity_without_worst_vendor_watts", each.without_worst_w),
        ):
            (value,) = [line.split()[-1] for line in lines if line.startswith(f"{name}{labels}")]
            assert float(value) == pytest.approx(watts, rel=1e-6)


def test_a_scrape_renews_a_few_answers_at_most_and_the_oldest_first() -> None:
    async def scrapes() -> list[int]:
        book, view = CapacityBook(), PlantView(1)
        view.rooms[0] = {f"r{n}": {3600.0: Room(3600.0, {}, {})} for n in range(10)}
        known = []
        for now_s in (100, 101, 102, 140):
            await book.renew(view, now_s * 10**9)
            known.append(len(book.told))
        view.rooms[0] = {"r1": view.rooms[0]["r1"]}
        await book.renew(view, 141 * 10**9)
        return [*known, len(book.told)]

    assert asyncio.run(scrapes()) == [8, 16, 20, 20, 2]
