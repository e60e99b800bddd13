"""S-23, S-24: what is large takes two persons, and one is not two."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kapelle.adapters.http.problems import Refused
from kapelle.api.selections import VALID_S, Rearm, Selections
from kapelle.api.settings import ApiSettings
from kapelle.api.shapes import OrderAsked
from kapelle.errors import Rejected
from kapelle.model.entries import Kind
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Hold, Order
from kapelle.safety.settings import SafetySettings

pytestmark = pytest.mark.integration

BOB = "bobs-token-of-more-than-32-characters"
LARGE = {"target_w": -1_500.0, "duration_s": 600}
HELD = (True, "drill")
SAFETY = SafetySettings(operate_above_w=1_000.0, rearm_by_two=True)


@pytest.fixture(scope="module")
def plant(run_api: Any) -> Iterator[Any]:
    settings = ApiSettings(port=0, plan_wait_s=0.3, orders_per_minute=10_000)
    with run_api(settings, persons={"bob": BOB}, safety=SAFETY) as live:
        yield live


@pytest.fixture(autouse=True)
def cancelled(plant: Any) -> Iterator[None]:
    yield
    with plant.client() as client:
        for order in client.status().orders:
            client.cancel_order(order.order_no)


def post(plant: Any, path: str, body: object = None, token: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer: httpx.Response = plant.http.post(f"/v1/{path}", json=body, headers=headers)
    return answer


def check_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["type"].endswith(f":{code}")


def test_a_large_order_is_selected_by_one_and_operated_by_another(plant: Any) -> None:
    check_refused(post(plant, "orders", LARGE), 403, "second-person-needed")
    selected = post(plant, "selections", LARGE)
    assert selected.status_code == 201, selected.text
    told = selected.json()
    assert told["impact"]["target_w"] == LARGE["target_w"]
    assert told["impact"]["baseline_w"] == 200.0
    orders = len(plant.written(Kind.ORDER))
    shown = plant.http.get(f"/v1/selections/{told['selection_no']}")
    assert (shown.status_code, shown.json()["impact"]) == (200, told["impact"])
    path = f"selections/{told['selection_no']}/operate"
    check_refused(post(plant, path), 403, "second-person-needed")
    assert len(plant.written(Kind.ORDER)) == orders, "nothing is ordered before"
    operated = post(plant, path, token=BOB)
    assert operated.status_code == 201, operated.text
    assert (operated.json()["issued_by"], operated.json()["operated_by"]) == ("api", "bob")
    written = plant.written(Kind.ORDER)[-1]
    assert isinstance(written, Order)
    assert (written.issued_by, written.operated_by) == ("api", "bob")
    check_refused(post(plant, path, token=BOB), 404, "selection-gone")
    gone = plant.http.get(f"/v1/selections/{told['selection_no']}")
    check_refused(gone, 404, "selection-gone")


def test_who_may_not_alone_is_told_so_and_not_that_nobody_is_there(plant: Any) -> None:
    with plant.client() as client, pytest.raises(Rejected, match="takes two persons"):
        client.create_order(target_w=-1_500.0, duration_s=600)


def test_a_small_order_takes_one_person_and_does_not_grow_by_one(plant: Any) -> None:
    made = post(plant, "orders", LARGE | {"target_w": -900.0}, token=BOB)
    assert made.status_code == 201, made.text
    assert made.json()["issued_by"] == "bob"
    grown = plant.http.patch(f"/v1/orders/{made.json()['order_no']}", json={"target_w": -1_100.0})
    check_refused(grown, 403, "second-person-needed")


def test_lifting_a_hold_takes_two_and_holding_takes_one(plant: Any) -> None:
    assert post(plant, "hold", {"reason": "drill"}).status_code == 200
    check_refused(post(plant, "release-hold"), 403, "second-person-needed")
    check_refused(post(plant, "release-hold"), 403, "second-person-needed")
    assert post(plant, "release-hold", token=BOB).status_code == 200
    holds = [body for body in plant.written(Kind.HOLD) if isinstance(body, Hold)]
    assert [(hold.held, hold.issued_by) for hold in holds] == [(True, "api"), (False, "bob")]


def test_where_there_is_one_token_a_large_order_is_refused_with_a_remedy(run_api: Any) -> None:
    with run_api(ApiSettings(port=0), safety=SAFETY) as live:
        answer = post(live, "selections", LARGE)
    check_refused(answer, 403, "second-person-missing")
    assert "operate_above_w" in answer.json()["detail"]


def test_a_selection_is_valid_for_half_a_minute_and_once() -> None:
    selections, asked = Selections(), OrderAsked(target_w=1.0, duration_s=1.0)
    late = selections.select(asked, "alice", 0)
    with pytest.raises(Refused) as caught:
        selections.operate(late.selection_no, "bob", VALID_S * NS_PER_S)
    assert caught.value.status == 404
    fresh = selections.select(asked, "alice", 0)
    assert selections.operate(fresh.selection_no, "bob", VALID_S * NS_PER_S - 1) == fresh
    with pytest.raises(Refused):
        selections.operate(fresh.selection_no, "bob", 1)


def test_a_number_from_before_a_restart_operates_nothing_else() -> None:
    asked = OrderAsked(target_w=1.0, duration_s=1.0)
    known = {Selections().select(asked, "alice", 0).selection_no for _ in range(50)}
    anew = Selections()
    for _ in range(50):
        anew.select(asked, "alice", 0)
    for number in known:
        with pytest.raises(Refused, match="select again"):
            anew.operate(number, "bob", 1)


def test_who_agreed_long_ago_has_not_agreed() -> None:
    rearm = Rearm()
    for person, at_s in (("alice", 0), ("bob", 301), ("bob", 302)):
        with pytest.raises(Refused):
            rearm.agree(person, HELD, at_s * NS_PER_S)
    rearm.agree("alice", HELD, 303 * NS_PER_S)


def test_nobody_agrees_to_lift_a_hold_that_comes_later() -> None:
    rearm = Rearm()
    for person, to in (("alice", (False, "")), ("bob", HELD), ("carol", (True, "trip-wire"))):
        with pytest.raises(Refused):
            rearm.agree(person, to, 0)
    rearm.forget()
    with pytest.raises(Refused):
        rearm.agree("bob", (True, "trip-wire"), 0)


def test_a_hold_anew_takes_two_persons_anew(plant: Any) -> None:
    assert post(plant, "hold", {"reason": "drill"}).status_code == 200
    check_refused(post(plant, "release-hold"), 403, "second-person-needed")
    assert post(plant, "hold", {"reason": "drill"}).status_code == 200
    check_refused(post(plant, "release-hold", token=BOB), 403, "second-person-needed")
    assert post(plant, "release-hold").status_code == 200


def test_a_large_order_is_not_made_longer_by_one(plant: Any) -> None:
    selected = post(plant, "selections", LARGE).json()["selection_no"]
    made = post(plant, f"selections/{selected}/operate", token=BOB).json()
    path = f"/v1/orders/{made['order_no']}"
    check_refused(plant.http.patch(path, json={"duration_s": 1_200.0}), 403, "second-person-needed")
    assert plant.http.patch(path, json={"duration_s": 300.0}).status_code == 200
