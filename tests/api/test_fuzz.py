"""Whatever is sent, the answer is an answer: never a 5xx, and every error is a problem."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api.record_worlds import SPRING, make_record, serving

from kapelle.api.settings import ApiSettings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def plant(run_api: Any) -> Iterator[Any]:
    quick = ApiSettings(port=0, plan_wait_s=0.01, orders_per_minute=100_000)
    with run_api(quick) as live:
        yield live


fields = st.sampled_from(
    ["target_w", "resource", "starts_at", "ends_at", "duration_s", "tolerance", "product",
     "dry_run", "reason", "other"]
)  # fmt: skip
times = st.sampled_from(
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-11-22T00:00:00-23:59",
     "2026-11-22T09:41:60Z", "2027-01-01", ""]
)  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([1e308, -0.0, 5e-324, 60, 600.0, "all", "\ud800", "\x00", "ü" * 200])
    | st.text(max_size=5)
    | times
)
bodies = st.dictionaries(fields, scalars, max_size=6) | st.lists(scalars, max_size=2) | scalars
paths = st.sampled_from(
    [("POST", "/v1/orders"), ("PATCH", "/v1/orders/1"), ("PATCH", "/v1/orders/-1"),
     ("PATCH", f"/v1/orders/{10**30}"), ("DELETE", "/v1/orders/x"), ("POST", "/v1/hold"),
     ("POST", "/v1/release-hold"), ("GET", "/v1/orders?limit=-1"), ("GET", "/v1/orders?before=0"),
     ("GET", "/v1/resources/%00%ff%2f..%2f"), ("POST", "/v1/orders/1/x"), ("PUT", "/v1/status")]
)  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(paths, bodies, st.text("abc#\t é", max_size=6))
def test_no_request_breaks_it(plant: Any, path: tuple[str, str], body: object, key: str) -> None:
    method, url = path
    answer = plant.http.request(
        method, url, content=json.dumps(body).encode(),
        headers={
            "Content-Type": "application/json", "Idempotency-Key": key.strip().encode("latin-1")
        },
    )  # fmt: skip
    check(answer)
    if answer.status_code == 201:
        plant.http.delete(answer.headers["location"])


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert answer.json()["type"].startswith("urn:kapelle:problem:")


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., httpx.Response]]:
    """Return what asks an API over three recorded days of two devices."""
    record = tmp_path_factory.mktemp("record")
    make_record(record)
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patched:
        # Nobody here takes a correction over.
        patched.setattr("kapelle.api.energy_desk._WAIT_S", 0.05)
        opened = AsyncExitStack()
        http = runner.run(opened.enter_async_context(serving(record)))
        yield lambda *asked, **more: runner.run(http.request(*asked, **more))
        runner.run(opened.aclose())


energy_fields = st.sampled_from(
    ["device_id", "register", "from", "to", "method", "value", "reason", "author", "dry_run",
     "starts_at", "other"]
)  # fmt: skip
quarters = st.sampled_from(
    [f"{SPRING}T{hour}:00Z" for hour in ("09:00", "09:15", "09:07", "11:00")]
)
sound = {
    "device_id": "dev-0", "register": "export", "from": f"{SPRING}T09:00:00Z",
    "to": f"{SPRING}T10:00:00Z", "method": "set", "value": 700.0, "reason": "a spike",
    "dry_run": True,
}  # fmt: skip
more_scalars = scalars | quarters | st.sampled_from(["import", "scale", "interpolate", "dev-1", -1])
corrections = (
    st.dictionaries(energy_fields, more_scalars, max_size=3).map(lambda changed: sound | changed)
    | st.dictionaries(energy_fields, more_scalars, max_size=6)
    | bodies
)
energy_paths = st.sampled_from(
    [("POST", "/v1/energy/corrections"), ("POST", "/v1/energy/corrections/1/undo"),
     ("POST", "/v1/energy/corrections/-1/undo"), ("POST", f"/v1/energy/corrections/{2**63}/undo"),
     ("POST", "/v1/energy/corrections/x/undo"), ("GET", "/v1/energy/corrections"),
     ("PUT", "/v1/energy/corrections"), ("GET", "/v1/history/energy/devices/dev-0"),
     ("GET", "/v1/history/energy/devices/%00%ff%2f..%2f"),
     ("GET", "/v1/history/energy/resources/all"), ("GET", "/v1/history/energy/resources/"),
     ("GET", "/v1/history/energy/resources/' OR 1=1 --")]
)  # fmt: skip
texts = st.sampled_from(
    ["", "0", "-1", "1", "all", "latest", f"{10**30}", "١٢", "15m", "day", "month", "csv", "arrow",
     "UTC", "Europe/Berlin", "../../etc/passwd", SPRING, "2025-03", "2025-02-30", "9999-12",
     f"{SPRING}T00:00:00Z", "1969-12-31T23:59:59Z", "dev-0", "' OR 1=1 --", "\x00", "ü" * 300]
)  # fmt: skip
queries = st.dictionaries(
    st.sampled_from(
        ["day", "month", "from", "to", "tz", "step", "revision", "format", "device", "limit",
         "before", "other"]
    ),
    texts,
    max_size=4,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(energy_paths, corrections, queries)
def test_no_request_breaks_the_ledger(
    ask: Callable[..., httpx.Response],
    path: tuple[str, str],
    body: object,
    query: dict[str, str],
) -> None:
    headers = {"Content-Type": "application/json"}
    check(ask(*path, content=json.dumps(body).encode(), params=query, headers=headers))


def test_what_is_sound_among_it_is_answered(ask: Callable[..., httpx.Response]) -> None:
    told = ask("POST", "/v1/energy/corrections", json=sound)
    assert told.status_code == 200, told.text
    assert told.json()["intervals"] == 4
    read = ask("GET", "/v1/history/energy/devices/dev-0", params={"day": SPRING})
    assert read.status_code == 200
