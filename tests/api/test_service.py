"""The server inside the plant: starts, bounds what is slow, stops in time, remembers."""

import asyncio
import contextlib
import socket
import time
from typing import Any

import httpx
import pytest

from kapelle.api.service import Api
from kapelle.api.settings import ApiSettings
from kapelle.errors import Invalid, Unreachable
from kapelle.journal.memory import MemoryJournal
from kapelle.model.plant import Notice
from kapelle.model.summaries import Summary
from kapelle.runtime.clock import SystemClock

pytestmark = pytest.mark.integration


def test_orders_holds_and_keys_survive_a_restart(run_api: Any) -> None:
    journal = MemoryJournal(SystemClock())
    body = {"target_w": 500.0, "duration_s": 600}
    with run_api(journal=journal) as plant:
        first = plant.http.post("/v1/orders", json=body, headers={"Idempotency-Key": "k"}).json()
        plant.http.post("/v1/hold", json={"reason": "storm"})
        plant.append(Notice(1, "shortfall", "1 kW short"))
        plant.append(*[Summary(0, n, 1, []) for n in range(1, 1_500)], writer="owner/0")
    with run_api(journal=journal, summaries=False) as plant:
        status = plant.http.get("/v1/status").json()
        assert status["held"]
        assert status["hold_reason"] == "storm"
        assert [n["code"] for n in status["notices"]] == ["shortfall"]
        again = plant.http.post("/v1/orders", json=body, headers={"Idempotency-Key": "k"})
        assert again.status_code == 200
        assert again.json()["order_no"] == first["order_no"]


def test_an_order_nobody_can_take_is_refused_with_what_there_is(run_api: Any) -> None:
    with run_api() as plant:
        now = plant.clock.now_ns() + 10**9
        empty = [plant.summary(k, now, headroom_w=0.0) for k in (0, 1)]
        plant.append(*empty, writer="owner")
        time.sleep(0.2)
        answer = plant.http.post("/v1/orders", json={"target_w": 1e6, "duration_s": 60})
        assert answer.status_code == 422
        problem = answer.json()
        assert problem["type"].endswith(":nothing-available")
        assert problem["headroom_up_w"] == 0.0
        assert problem["excluded"] == {"silent": 2}
        assert plant.http.get("/v1/orders").json()["orders"] == []


def test_dispatch_that_is_silent_delays_the_answer_and_no_more(run_api: Any) -> None:
    with run_api(ApiSettings(port=0, plan_wait_s=0.3), plans=False) as plant:
        started = time.monotonic()
        answer = plant.http.post("/v1/orders", json={"target_w": 5.0, "duration_s": 60})
        assert time.monotonic() - started < 2
        assert answer.status_code == 201
        assert answer.json()["planned"] is False
        assert answer.json()["committed_w"] is None, "unknown is not zero"


def test_quota(run_api: Any) -> None:
    with run_api(ApiSettings(port=0, orders_per_minute=2, plan_wait_s=0.1)) as plant:
        body = {"target_w": 5.0, "duration_s": 60}
        for _ in range(2):
            order = plant.http.post("/v1/orders", json=body)
            assert order.status_code == 201
            plant.http.delete(f"/v1/orders/{order.json()['order_no']}")
        refused = plant.http.post("/v1/orders", json=body)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 60
        with plant.client() as client, pytest.raises(Unreachable):
            client.create_order(target_w=5.0, duration_s=60)
        assert plant.http.post("/v1/hold").status_code == 200, "stopping has no quota"


def test_slow_heads_are_closed_and_others_served(run_api: Any) -> None:
    with run_api(ApiSettings(port=0, request_s=0.3)) as plant:
        address = ("127.0.0.1", plant.http.base_url.port)
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(socket.create_connection(address, 5)) for _ in range(20)]
            for line in slow:
                line.sendall(b"GET /v1/status HTTP/1.1\r\nX: ")
            assert plant.http.get("/healthz").status_code == 200
            started = time.monotonic()
            assert all(line.recv(100) == b"" for line in slow)
            assert time.monotonic() - started < 3
        # A kept connection is not closed for being idle so long.
        time.sleep(0.5)
        assert plant.http.get("/healthz").status_code == 200


def test_stops_in_time_with_a_request_under_way() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def main() -> float:
        api = Api(application=slow, watch=None, settings=ApiSettings(port=0, shutdown_s=1))
        task = asyncio.create_task(api.run())
        await api.ready.wait()
        async with httpx.AsyncClient() as client:
            asking = asyncio.create_task(client.get(f"http://127.0.0.1:{api.port}/"))
            await asyncio.sleep(0.2)
            started = time.monotonic()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            took = time.monotonic() - started
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
                await asking
        return took

    assert asyncio.run(main()) < 4


def test_a_taken_port_is_said_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        api = Api(
            application=lambda *_: asyncio.sleep(0),  # type: ignore[arg-type]  # never called
            watch=None,
            settings=ApiSettings(port=taken.getsockname()[1]),
        )
        with pytest.raises(Invalid, match="cannot listen on"):
            asyncio.run(api.run())
