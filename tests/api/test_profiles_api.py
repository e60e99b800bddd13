"""Orders whose target changes, as the API takes, refuses, shows and amends them."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from kapelle.api.settings import ApiSettings
from kapelle.model.ids import NS_PER_S
from kapelle.model.summaries import Curve

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


PROFILE = [{"duration_s": 300, "target_w": 4000.0}, {"duration_s": 300, "target_w": -2000.0}]


def test_a_profile_is_promised_interval_by_interval(plant: Any) -> None:
    answer = plant.http.post("/v1/orders", json={"profile": PROFILE})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert told["target_w"] == 4000.0
    assert [each["target_w"] for each in told["profile"]] == [4000.0, -2000.0]
    assert told["profile"][0]["starts_at"] == told["starts_at"]
    assert told["profile"][0]["ends_at"] == told["profile"][1]["starts_at"]
    assert told["profile"][1]["ends_at"] == told["ends_at"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"profile": []}, "/profile"),
        ({"profile": PROFILE * 49}, "/profile"),
        ({"profile": PROFILE, "target_w": 1000.0}, "/profile"),
        ({"profile": PROFILE, "duration_s": 600}, "/duration_s"),
        ({"profile": [{"duration_s": 300}]}, "/profile/0/target_w"),
        ({"profile": [PROFILE[0], {"duration_s": 0, "target_w": 1.0}]}, "/profile/1/duration_s"),
        ({"profile": [{"duration_s": 300, "target_w": 0.0}]}, "/target_w"),
    ],
)
def test_what_no_profile_can_be_is_pointed_at(
    plant: Any, body: dict[str, object], pointer: str
) -> None:
    answer = plant.http.post("/v1/orders", json=body)
    assert answer.status_code == 422, answer.text
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


def test_a_dry_run_says_what_each_interval_would_get(plant: Any) -> None:
    answer = plant.http.post("/v1/orders", json={"profile": PROFILE, "dry_run": True})
    assert answer.status_code == 200, answer.text
    assert [each["target_w"] for each in answer.json()["profile"]] == [4000.0, -2000.0]
    assert all(each["committed_w"] is not None for each in answer.json()["profile"])


def test_an_amendment_replaces_what_is_left(plant: Any) -> None:
    made = plant.http.post("/v1/orders", json={"profile": PROFILE}).json()
    path = f"/v1/orders/{made['order_no']}"
    rest = [{"duration_s": 120, "target_w": 3000.0}, {"duration_s": 60, "target_w": 500.0}]
    told = plant.http.patch(path, json={"profile": rest}).json()
    assert [each["target_w"] for each in told["profile"]][-2:] == [3000.0, 500.0]
    assert told["profile"][0]["target_w"] == 4000.0
    told = plant.http.patch(path, json={"duration_s": 60}).json()
    assert told["profile"][-1]["target_w"] == 3000.0
    told = plant.http.patch(path, json={"target_w": 1500.0}).json()
    assert told["profile"] == []
    assert told["target_w"] == 1500.0


def test_a_profile_is_taken_where_only_its_smaller_part_can_be_had(run_api: Any) -> None:
    """What is largest says nothing of the rest of it."""
    with run_api() as plant:
        now_ns = plant.clock.now_ns() + NS_PER_S
        for number in (0, 1):
            told = plant.summary(number, now_ns)
            only_up = replace(
                told.resources[0],
                continuous=Curve([-1.0, 0.0, 1.0], [0.0, 0.0, 1_000.0]),
                headroom_down_w=0.0,
            )
            plant.append(replace(told, resources=[only_up]), writer="owner")
        time.sleep(0.2)
        profile = [{"duration_s": 300, "target_w": 500.0}, {"duration_s": 300, "target_w": -2e3}]
        answer = plant.http.post("/v1/orders", json={"profile": profile})
        assert answer.status_code == 201, answer.text
