"""The queue before ingest: it takes no more than its bounds, however long a disk hangs."""

import asyncio
import json
from typing import Any

import pytest

from kapelle.adapters.http.route import HttpTelemetry
from kapelle.adapters.http.settings import HttpSettings
from kapelle.runtime.clock import SystemClock

BODY = json.dumps([{"device": "d1", "power_w": 1.0}] * 10).encode()


async def post(telemetry: HttpTelemetry, body: bytes = BODY) -> tuple[int, str]:
    """Send a request; return its status and the kind of problem."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "method": "POST",
        "headers": [(b"authorization", b"Bearer secret"), (b"content-type", b"application/json")],
    }
    await telemetry(scope, receive, send)
    problem = json.loads(said[1]["body"]).get("type", "")
    return said[0]["status"], problem.rpartition(":")[2]


@pytest.mark.parametrize("bound", [{"rows_waiting_max": 25}, {"bytes_waiting_max": 3 * len(BODY)}])
@pytest.mark.parametrize("is_stored", [True, False])
def test_who_leaves_in_a_hurry_does_not_take_the_bound_along(
    names: Any, bound: dict[str, int], is_stored: bool
) -> None:
    async def check() -> None:
        settings = HttpSettings(durable_s=0.01, **bound)
        telemetry = HttpTelemetry(
            directory=names, clock=SystemClock(), token="secret", settings=settings
        )
        async with telemetry.open() as link:
            # The disk hangs: nobody asks for the batches.
            answers = [await post(telemetry) for _ in range(6)]
            assert answers == [(503, "journal-slow")] * 3 + [(503, "queue-full")] * 3
            assert (link.rows_waiting, link.bytes_waiting) == (30, 3 * len(BODY))
            batches = link.receive()
            for left in (20, 10, 0):
                batch = await anext(batches)
                assert batch.readings is not None
                assert len(batch.readings) == 10
                # Taken is not stored: the journal still holds it in memory.
                assert link.rows_waiting == left + 10
                if is_stored:
                    link.confirm(batch, {})
                else:
                    link.decline(batch, "full")
                assert link.rows_waiting == left
            assert link.bytes_waiting == 0
            assert await post(telemetry) == (503, "journal-slow")
            # What never becomes a batch gives back what it took.
            held = link.bytes_waiting
            assert await post(telemetry, b"[") == (422, "body-malformed")
            assert await post(telemetry, b"[]") == (200, "")
            assert link.bytes_waiting == held

    asyncio.run(check())
