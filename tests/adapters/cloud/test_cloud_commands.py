"""Setpoints become requests: signs, units, whom they reach."""

import json
import math

import pytest
from tests.adapters.cloud.conftest import Example

from kapelle.adapters.cloud.commands import Request, fill, request
from kapelle.adapters.cloud.documents import CloudCommand
from kapelle.adapters.cloud.settings import CloudSettings

AT = "/devices/{address}/power"
SETPOINT = CloudCommand(
    AT,
    '{"target": {"kw": "$value", "for": "$duration_s", "id": "$address"}, "n": ["$revision"]}',
    unit="kW",
    positive="import",
)


def asked(
    commands: tuple[CloudCommand, ...],
    setpoint_w: float,
    *,
    revert_s: float = 300.0,
    address: str = "d-1",
    shape: str = "",
) -> Request | str:
    return request(
        commands,
        setpoint_w=setpoint_w,
        revert_s=revert_s,
        revision=7,
        address=address,
        shape=shape,
    )


def test_told_to_charge_is_told_in_the_vendor_s_sign() -> None:
    made = asked((SETPOINT,), -2_000.0)
    assert isinstance(made, Request)
    assert (made.method, made.path) == ("POST", "/devices/d-1/power")
    told = json.loads(made.content)
    assert told == {"target": {"kw": 2.0, "for": 300, "id": "d-1"}, "n": [7]}


def test_nothing_is_not_minus_nothing() -> None:
    made = asked((SETPOINT,), 0.0)
    assert isinstance(made, Request)
    assert math.copysign(1.0, json.loads(made.content)["target"]["kw"]) == 1.0


def test_what_an_address_holds_stays_one_step_of_the_path() -> None:
    made = asked((SETPOINT,), 1.0, address="../admin?x=1#y %2e/é")
    assert isinstance(made, Request)
    assert made.path == "/devices/..%2Fadmin%3Fx%3D1%23y%20%252e%2F%C3%A9/power"
    for dots in ("", ".", ".."):
        assert isinstance(asked((SETPOINT,), 1.0, address=dots), str)
        with pytest.raises(ValueError, match="is no"):
            fill("/a/{action}", action=dots)


def test_a_text_that_looks_like_a_placeholder_is_not_filled_in_twice() -> None:
    made = asked((SETPOINT,), 1.0, address="$value")
    assert isinstance(made, Request)
    assert json.loads(made.content)["target"]["id"] == "$value"


def test_a_duration_that_is_not_known_is_not_made_up() -> None:
    assert "revert_s" in str(asked((SETPOINT,), 1.0, revert_s=math.nan))


def commands(cloud: CloudSettings, shape: str) -> dict[str, tuple[str, object]]:
    told = {}
    for name, setpoint_w in (
        ("charge", -7_000.0), ("idle", 0.0), ("feed", 3_000.0), ("release", math.nan)
    ):  # fmt: skip
        made = asked(cloud.commands, setpoint_w, shape=shape)
        if isinstance(made, Request):
            told[name] = made.path, json.loads(made.content)
    return told


def test_enode_starts_and_stops_what_charges_and_tells_batteries_nothing(example: Example) -> None:
    enode = example("enode", "https://api.example")
    for kind in ("charger", "vehicle"):
        path = f"/{kind}s/d-1/charging"
        assert commands(enode, kind) == {
            "charge": (path, {"action": "START"}),
            "idle": (path, {"action": "STOP"}),
            "release": (path, {"action": "START"}),
        }
    assert commands(enode, "battery") == {}
    assert commands(enode, "") == {}


def test_tesla_has_modes(example: Example) -> None:
    told = commands(example("tesla", "https://api.example"), "site")
    path = "/api/1/energy_sites/d-1/operation"
    assert told == {
        "charge": (path, {"default_real_mode": "backup"}),
        "feed": (path, {"default_real_mode": "autonomous"}),
        "release": (path, {"default_real_mode": "self_consumption"}),
    }


def test_a_direction_must_be_said_and_json_be_json() -> None:
    with pytest.raises(ValueError, match="positive"):
        CloudCommand(AT, '{"w": "$value"}')
    with pytest.raises(ValueError, match="not JSON"):
        CloudCommand(AT, "{kw: 1}")
