"""Payloads, templates and announcements: whatever comes, nothing raises and nothing is guessed."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.cloud.mapping import Broken
from kapelle.adapters.topics import discovery
from kapelle.adapters.topics.codec import (
    Payload,
    Spot,
    at_path,
    read_command_template,
    read_template,
)
from kapelle.adapters.topics.devices import Order
from kapelle.adapters.topics.orders import shows, telling

SPOTS = (
    Spot(),
    at_path("a"),
    at_path("a.0.b"),
    read_template("{{ value_json['a'] | float * 10 }}"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_payload_raises_and_a_number_is_finite(raw: bytes) -> None:
    for spot in SPOTS:
        assert isinstance(spot, Spot)
        payload = Payload(raw)
        number, text = payload.number(spot), payload.text(spot)
        assert number is None or isinstance(number, Broken) or math.isfinite(number)
        assert text is None or isinstance(text, Broken | str)
        assert isinstance(payload.moment(spot, "rfc3339"), int | Broken)
        assert shows(payload, spot, "ON") in (True, False)


def test_deep_and_long_payloads_are_named_in_bounded_time() -> None:
    for raw in (b"[" * 65_000, b'{"a":' * 13_000, b"9" * 65_000, b'{"a": ' + b"9" * 65_000 + b"}"):
        for spot in (Spot(), at_path("a")):
            assert isinstance(Payload(raw).number(spot), Broken)


@pytest.mark.parametrize(
    ("template", "raw", "value"),
    [
        ("", b"12.5", 12.5),
        ("{{ value }}", b" 12.5 ", 12.5),
        ("{{value|float}}", b"-3", -3.0),
        ("{{ value | float(0) * 1000 }}", b"1.5", 1500.0),
        ("{{ value_json.power }}", b'{"power": 7}', 7.0),
        ("{{ value_json['ENERGY']['Power'] | float }}", b'{"ENERGY": {"Power": "7"}}', 7.0),
        ('{{ value_json.list[1]["a b"] }}', b'{"list": [0, {"a b": 3}]}', 3.0),
        ("{{ (value_json.w | float / 1000) | round(1) }}", b'{"w": 1260}', 1.3),
        ("{{ value_json.w | int }}", b'{"w": 3.9}', 3.0),
        # What is not said is left out, and never 0.
        ("{{ value_json.power | float(0) }}", b'{"other": 7}', None),
        ("{{ value_json.power | float(0) }}", b'{"power": "unavailable"}', None),
        ("{{ value_json.power }}", b'{"power": null}', None),
        ("{{ value }}", b"", None),
    ],
)
def test_simple_templates_are_followed(template: str, raw: bytes, value: float | None) -> None:
    spot = read_template(template)
    assert isinstance(spot, Spot)
    assert Payload(raw).number(spot) == value


@pytest.mark.parametrize(
    "template",
    [
        "{{ -value }}",
        "{{ value | abs }}",
        "{{ value_json.a + value_json.b }}",
        "{{ 0 if value == 'x' else 1 }}",
        "{% if value %}1{% endif %}",
        "{{ value_json.a }} W",
        "{{ states('sensor.x') }}",
        "{{ value | default(0) }}",
        # In Jinja this rounds the 10.
        "{{ value * 10 | round }}",
        "{{ value_json. }}",
        "{{ value * 0 }}",
        "{{ value | round(-1) }}",
        "{{" + "(" * 100 + "value" + ")" * 100 + "}}",
        "{{ value }}" + " " * 600,
    ],
)
def test_any_other_template_is_named_and_not_guessed(template: str) -> None:
    told = read_template(template)
    assert isinstance(told, Broken)
    assert told.reason.startswith("template: ")


@given(st.text(alphabet="{}()[].|*/'\" valuejson0129_-+%", max_size=60))
def test_no_template_raises(text: str) -> None:
    for template in (text, "{{" + text + "}}"):
        assert isinstance(read_template(template), Spot | Broken)
        assert isinstance(read_command_template(template), str | Broken)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_announcement_raises(raw: bytes) -> None:
    for component in ("sensor", "number", "switch", "device", "light"):
        assert isinstance(discovery.read(component, raw), list | Broken)


LONG = {
    "~": "x/bat", "state_topic": "~/s", "command_topic": "~/c", "unique_id": "u", "device": {
        "identifiers": ["i", 7]}, "unit_of_measurement": "%", "value_template": "{{ value }}",
    "availability": [{"topic": "~/a", "payload_available": "1", "payload_not_available": "0"}],
    "device_class": "battery", "min": -3, "max": 3, "retain": True, "qos": 2,
}  # fmt: skip
SHORT = {
    "~": "x/bat", "stat_t": "~/s", "cmd_t": "~/c", "uniq_id": "u", "dev": {"ids": ["i", 7]},
    "unit_of_meas": "%", "val_tpl": "{{ value }}", "avty": [
        {"t": "~/a", "pl_avail": "1", "pl_not_avail": "0"}],
    "dev_cla": "battery", "min": -3, "max": 3, "ret": True, "qos": 2,
}  # fmt: skip


@given(JSON, JSON, st.data())
def test_no_value_of_a_known_key_raises(one: object, other: object, data: st.DataObject) -> None:
    announced = dict(SHORT)
    for value in (one, other):
        announced[data.draw(st.sampled_from(sorted(SHORT)))] = value
    assert isinstance(discovery.read("number", json.dumps(announced).encode()), list | Broken)


def test_abbreviations_and_the_base_topic_mean_the_same() -> None:
    (long,), (short,) = (
        discovery.read("number", json.dumps(told).encode()) for told in (LONG, SHORT)
    )
    assert long == short
    assert isinstance(short, discovery.Entity)
    assert short.state_topic == "x/bat/s"
    assert short.identifiers == ("i", "7")
    assert (short.unit, short.least, short.most, short.qos) == ("percent", -3, 3, 1)
    assert not isinstance(short.availability, Broken)
    assert short.availability[0][0] == "x/bat/a"


def test_a_device_announces_its_components_and_takes_them_back() -> None:
    document = {
        "dev": {"ids": "i"},
        "o": {"name": "x"},
        "avty_t": "x/online",
        "stat_t": "x/state",
        "cmps": {
            "p": {"p": "sensor", "uniq_id": "p", "val_tpl": "{{ value_json.p }}"},
            "n": {"p": "number", "uniq_id": "n", "cmd_t": "x/set", "stat_t": "x/own"},
            "gone": {"p": "sensor"},
            "lamp": {"p": "light", "uniq_id": "l"},
        },
    }
    found = discovery.read("device", json.dumps(document).encode())
    assert isinstance(found, list)
    assert [(one.unique_id, one.state_topic) for one in found] == [("p", "x/state"), ("n", "x/own")]
    assert all(one.identifiers == ("i",) and one.availability for one in found)
    assert discovery.read("device", b"") == []


@pytest.mark.parametrize(
    "topic", ["#", "a/+/b", "$SYS/x", "a\0", "a\x01", "x" * 600, 7, None, ["a"]]
)
def test_a_topic_that_would_be_a_filter_is_none(topic: object) -> None:
    told = json.dumps({"stat_t": topic, "cmd_t": topic, "dev": {"ids": "i"}}).encode()
    found = discovery.read("number", told)
    assert isinstance(found, list)
    assert found[0].state_topic in ("", "7")


@pytest.mark.parametrize(
    ("topic", "component"),
    [
        ("homeassistant/sensor/x/config", "sensor"),
        ("homeassistant/sensor/node/x/config", "sensor"),
        ("homeassistant/device/x/config", "device"),
        ("homeassistant/status", None),
        ("homeassistant/sensor/config", None),
        ("homeassistant/sensor/a/b/c/config", None),
        ("homeassistant/sensor//config", None),
        ("other/sensor/x/config", None),
    ],
)
def test_which_topics_announce(topic: str, component: str | None) -> None:
    assert discovery.place(topic, "homeassistant") == component


ORDERS = (
    Order("release", "t", "auto", "W", "", -1.0, 1.0, "auto", 1, False),
    Order("set", "t", '{"kw": $value}', "kW", "import", -5.0, 5.0, "$value", 1, False),
)


@given(st.floats(-5_000, 5_000))
def test_what_is_told_is_what_it_shows_and_turned_round(setpoint_w: float) -> None:
    told = telling(ORDERS, setpoint_w)
    assert not isinstance(told, str)
    kw = json.loads(told.payload)["kw"]
    assert -1e3 * kw == pytest.approx(setpoint_w, abs=0.5)
    assert b"e" not in told.payload
    assert shows(Payload(told.echo.encode()), Spot(), told.echo)


def test_a_charging_battery_is_told_a_plus_where_it_counts_so_and_never_beyond_its_limits() -> None:
    told = telling(ORDERS, -2_000.0)
    assert not isinstance(told, str)
    assert told.payload == b'{"kw": 2}'
    assert "is not within its -5 to 5 kW" in str(telling(ORDERS, -5_001.0))
    released = telling(ORDERS, math.nan)
    assert not isinstance(released, str)
    assert released.payload == b"auto"
    assert "no command for idle" in str(telling(ORDERS[:1], 0.0))
