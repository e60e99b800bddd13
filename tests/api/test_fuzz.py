"""Whatever is sent, the answer is an answer: never a 5xx, and every error is a problem."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert answer.json()["type"].startswith("urn:kapelle:problem:")
    elif answer.status_code == 201:
        plant.http.delete(answer.headers["location"])
