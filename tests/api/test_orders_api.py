"""Orders over a real socket: numbered once, answered with what is promised, refused in one form."""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kapelle.api.settings import ApiSettings
from kapelle.errors import Conflict, Invalid, NotFound, TokenRefused, Unreachable
from kapelle.model.entries import Kind
from kapelle.model.orders import Order

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def plant(run_api: Any) -> Iterator[Any]:
    with run_api(ApiSettings(port=0, plan_wait_s=0.3, orders_per_minute=10_000)) as live:
        yield live


@pytest.fixture(autouse=True)
def cancelled(plant: Any) -> Iterator[None]:
    yield
    with plant.client() as client:
        for order in client.status().orders:
            client.cancel_order(order.order_no)


def test_answer_carries_what_is_promised(plant: Any) -> None:
    with plant.client() as client:
        order = client.create_order(target_w=3_000.0, duration_s=600)
    assert (order.committed_w, order.declined_w, order.reason) == (2_000.0, 1_000.0, "headroom")
    assert (order.status, order.planned, order.baseline_w) == ("active", True, 200.0)
    assert (order.ends_at - order.starts_at).total_seconds() == 600


def test_same_key_and_body_is_the_same_order_another_body_a_conflict(plant: Any) -> None:
    body = {"target_w": 500.0, "duration_s": 60}
    first = plant.http.post("/v1/orders", json=body, headers={"Idempotency-Key": "k-1"})
    again = plant.http.post("/v1/orders", json=body, headers={"Idempotency-Key": "k-1"})
    other = plant.http.post(
        "/v1/orders", json=body | {"target_w": 600.0}, headers={"Idempotency-Key": "k-1"}
    )
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert first.json() == again.json()
    assert other.json()["type"].endswith(":key-reused")
    assert other.json()["order_no"] == first.json()["order_no"]
    assert len(other.json()["first_request_sha256"]) == 32


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "request-invalid"),
        ({"target_w": "3"}, "request-invalid"),
        ({"target_w": None, "duration_s": 60}, "request-invalid"),
        ({"target_w": True, "duration_s": 60}, "request-invalid"),
        ({"target_w": 1.0, "duration_s": -60}, "request-invalid"),
        ({"target_w": 1.0, "duration_s": 60, "targt_mw": 3}, "request-invalid"),
        ({"target_w": 1.0, "duration_s": 60, "tolerance": 0}, "request-invalid"),
        ({"target_w": 1.0, "ends_at": "2026-11-22T10:00:00"}, "request-invalid"),
        ({"target_w": 1.0}, "order-endless"),
        ({"target_w": 0.0, "duration_s": 60}, "target-zero"),
        ({"target_w": 1.0, "duration_s": 1e300}, "order-window"),
        ({"target_w": 1.0, "ends_at": "2020-01-01T00:00:00Z"}, "order-window"),
        ({"target_w": 1.0, "duration_s": 9, "ends_at": "2099-01-01T00:00:00Z"}, "order-window"),
        ({"target_w": 1.0, "starts_at": "2020-01-01T00:00:00Z", "duration_s": 9}, "order-window"),
        ({"target_w": 1.0, "duration_s": 60, "resource": "nowhere"}, "resource-unknown"),
        ({"target_w": 1.0, "duration_s": 60, "resource": ""}, "request-invalid"),
    ],
)
def test_what_cannot_be_used_is_a_problem(plant: Any, body: dict[str, object], code: str) -> None:
    answer = plant.http.post("/v1/orders", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith(":" + code), answer.text
    assert answer.json()["status"] == 422


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"target_w": NaN, "duration_s": 1}', b"[" * 10_000]
)
def test_rubbish_is_a_problem_too(plant: Any, body: bytes) -> None:
    answer = plant.http.post(
        "/v1/orders", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("kind", "body", "status", "said"),
    [
        # What `curl -d` sends.
        ("application/x-www-form-urlencoded", b'{"target_w": 1, "duration_s": 60}', 415, "--json"),
        ("application/json", b"target_w=1", 422, "the body is no JSON"),
        ("application/json", b"[]", 422, "the body: "),
    ],
    ids=["form", "no-json", "no-object"],
)
def test_a_body_that_is_no_json_object_is_named_as_that(
    plant: Any, kind: str, body: bytes, status: int, said: str
) -> None:
    answer = plant.http.post("/v1/orders", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_overlapping_orders_are_refused_and_the_other_named(plant: Any) -> None:
    with plant.client() as client:
        first = client.create_order(target_w=100.0, duration_s=600)
    answer = plant.http.post("/v1/orders", json={"target_w": 5.0, "duration_s": 60})
    assert answer.status_code == 422
    assert answer.json()["order_no"] == first.order_no


def test_amend_and_cancel(plant: Any) -> None:
    with plant.client() as client:
        order = client.create_order(target_w=100.0, duration_s=600)
        amended = client.amend_order(order.order_no, target_w=250.0)
        assert amended.target_w == 250.0
        assert amended.ends_at == order.ends_at
        assert client.order(order.order_no).target_w == 250.0
        assert client.cancel_order(order.order_no).status == "cancelled"
        assert client.cancel_order(order.order_no).status == "cancelled"
        with pytest.raises(Conflict):
            client.amend_order(order.order_no, target_w=1.0)
        with pytest.raises(NotFound):
            client.order(999_999)
        with pytest.raises(NotFound):
            client.cancel_order(999_999)
        with pytest.raises(Invalid, match="target_w"):
            client.amend_order(order.order_no)


def test_of_two_amendments_of_one_version_one_wins(plant: Any) -> None:
    with plant.client() as client:
        number = client.create_order(target_w=100.0, duration_s=600).order_no
    version = plant.http.get(f"/v1/orders/{number}").headers["ETag"]
    codes: list[int] = []

    def amend(target_w: float) -> None:
        answer = plant.http.patch(
            f"/v1/orders/{number}", json={"target_w": target_w}, headers={"If-Match": version}
        )
        codes.append(answer.status_code)

    threads = [threading.Thread(target=amend, args=(float(w),)) for w in (200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200, 409]


def test_numbers_are_unique_when_many_order_at_once(plant: Any) -> None:
    answers: list[int] = []

    def order(n: int) -> None:
        day = 86_400 * (n + 1)
        body = {
            "target_w": 10.0, "starts_at": f"{plant.http.get('/v1/status').json()['now']}",
            "duration_s": 1.0,
        }  # fmt: skip
        starts = datetime.fromisoformat(str(body["starts_at"])) + timedelta(seconds=day)
        answer = plant.http.post("/v1/orders", json=body | {"starts_at": starts.isoformat()})
        assert answer.status_code == 201, answer.text
        answers.append(answer.json()["order_no"])

    threads = [threading.Thread(target=order, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 8
    orders = [o.order_no for o in plant.written(Kind.ORDER) if isinstance(o, Order)]
    assert orders == list(range(1, len(orders) + 1)), "numbers have no holes and no twins"


def test_dry_run_orders_nothing(plant: Any) -> None:
    before = len(plant.written(Kind.ORDER))
    with plant.client() as client:
        preview = client.preview_order(target_w=9_000.0)
    assert (preview.committed_w, preview.declined_w) == (2_000.0, 7_000.0)
    assert preview.reason
    assert len(plant.written(Kind.ORDER)) == before


def test_hold_and_release(plant: Any) -> None:
    with plant.client() as client:
        assert client.hold("smoke").held
        assert not client.release_hold().held
    assert len(plant.written(Kind.HOLD)) >= 2


def test_status_and_resources(plant: Any) -> None:
    with plant.client() as client:
        status = client.status()
        every = client.resource("all")
        assert status.partitions_heard == status.partitions == 2
        assert every.devices == 10
        assert every.power_w == 200.0
        assert every.low_w < 200.0 < every.high_w
        assert every.freshness["live"] == 8
        assert every.coverage == 1.0
        assert every.at is not None
        assert every.computed_at is not None
        assert (every.computed_at - every.at).total_seconds() == pytest.approx(every.age_s, abs=0.1)
        assert every.excluded == {"silent": 2}
        assert [r.resource for r in client.resources().resources] == ["all"]
        with pytest.raises(NotFound):
            client.resource("nowhere")
        with pytest.raises(NotFound, match="a/b c"):
            client.resource("a/b c")


def test_metrics_are_prometheus_text(plant: Any) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    text = plant.http.get("/metrics").text
    found = {m.name: m for m in text_string_to_metric_families(text)}
    assert found["kapelle_devices"].samples
    assert found["kapelle_aggregate_power_watts"].samples[0].value == 200.0


@pytest.mark.parametrize("header", ["", "Bearer wrong", "Basic dGVzdA==", "Bearer  ,", "bearer\tx"])
def test_without_the_token_nothing_is_told(plant: Any, header: str) -> None:
    for method, path in (
        ("GET", "/v1/status"), ("POST", "/v1/orders"), ("POST", "/v1/hold"), ("GET", "/metrics"),
        ("DELETE", "/v1/orders/1"), ("GET", "/v1/orders/999999"),
    ):  # fmt: skip
        answer = plant.http.request(method, path, headers={"Authorization": header})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["type"].endswith(":token-wrong")
        # Strangers are not told where a plant keeps its token.
        assert "file" not in answer.text


@pytest.mark.parametrize("origin", ["KAPELLE_TOKEN", "api.token"])
def test_who_brings_a_wrong_token_is_told_where_it_was_from(
    plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    from kapelle.cli.orders import plant as connect

    (tmp_path / "kapelle.toml").write_text(f'[plant]\ndata_dir = "{tmp_path}"\n')
    (tmp_path / "api.token").write_text("not-this-plant's-token\n")
    monkeypatch.delenv("KAPELLE_TOKEN", raising=False)
    if origin == "KAPELLE_TOKEN":
        monkeypatch.setenv(origin, "nor-this")
    with (
        pytest.raises(TokenRefused, match=rf"does not know the token from \S*{origin}; name"),
        connect(tmp_path / "kapelle.toml", plant.url) as client,
    ):
        client.status()


def test_open_routes_and_unknown_ones(plant: Any) -> None:
    assert plant.http.get("/healthz").json() == {"status": "ok"}
    assert plant.http.get("/v1/nothing").json()["type"].endswith(":route-unknown")
    refused = plant.http.put("/v1/orders").json()
    assert refused["type"].endswith(":method-unknown")
    assert "/v1/orders takes" in refused["detail"]


def test_large_bodies_are_refused(plant: Any) -> None:
    answer = plant.http.post("/v1/orders", content=b" " * 100_000)
    assert answer.status_code == 413
    assert answer.json()["type"].endswith(":body-too-large")


def test_nobody_there_is_unreachable() -> None:
    from kapelle.api.client import Client

    with Client("http://127.0.0.1:9", "x" * 32) as client, pytest.raises(Unreachable):
        client.status()


def test_what_an_order_is_for_is_kept_and_what_bound_it_is_told(plant: Any) -> None:
    with plant.client() as client:
        made = client.create_order(target_w=3_000.0, duration_s=60, why="feeder 12 is too warm")
        assert made.why == "feeder 12 is too warm"
        assert client.amend_order(made.order_no, target_w=2_500.0).why == made.why
        told = client.why_order(made.order_no)
    assert told.order.why == made.why
    assert told.bound[0] == "2.0 kW of 2.5 kW are promised: headroom"
    assert told.extent is None
    written = [order for order in plant.written(Kind.ORDER) if order.why]
    assert [order.why for order in written] == [made.why]


@pytest.mark.parametrize("why", ["x" * 501, "a\nb"])
def test_what_an_order_is_for_is_one_line(plant: Any, why: str) -> None:
    refused = plant.http.post("/v1/orders", json={"target_w": 1.0, "duration_s": 60, "why": why})
    assert refused.status_code == 422
    assert "/why" in refused.text


def test_nobody_knows_why_of_an_order_that_is_not_there(plant: Any) -> None:
    with plant.client() as client, pytest.raises(NotFound):
        client.why_order(987)
