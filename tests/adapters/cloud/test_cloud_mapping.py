"""Documents become readings: units, signs, times; and whatever else a vendor sends."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.cloud.conftest import Example
from tests.adapters.cloud.vendors import battery, charger, live_status

from kapelle.adapters.cloud import mapping
from kapelle.adapters.cloud.documents import CloudShape, CloudValue
from kapelle.adapters.cloud.mapping import Broken
from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.model.enums import Metric

POWER = CloudValue("power_w", ("p",), "kW", positive="import")
SOC = CloudValue("soc", ("soc",), "percent")
PLAIN = CloudShape("plain", (POWER, SOC), id="id", time="at")


def shape(cloud: CloudSettings, name: str) -> CloudShape:
    return next(one for one in cloud.shapes if one.name == name)


def vector(shared: Path, protocol: str) -> dict[str, Any]:
    golden = json.loads((shared / "goldens" / "signs.json").read_text())
    return next(one for one in golden["vectors"] if one["protocol"] == protocol)


def test_a_battery_that_charges_is_negative_in_every_vendor_s_words(
    shared: Path, example: Example
) -> None:
    enode = example("enode", "https://api.example")
    tesla = example("tesla", "https://api.example")
    told = vector(shared, "enode")["value"]
    for kind, item in (
        ("battery", battery("b", told)),
        ("charger", charger("c", told)),
        ("vehicle", battery("v", told)),
    ):
        assert mapping.read(item, shape(enode, kind)).values[Metric.POWER_W] == -2_000
    site = live_status(vector(shared, "tesla-live-status")["value"])
    read = mapping.read(site, shape(tesla, "site"), "42")
    assert read.values == {Metric.POWER_W: -2_000, Metric.SOC: pytest.approx(0.784)}


def test_an_offset_is_part_of_the_time(example: Example) -> None:
    tesla = example("tesla", "https://api.example")
    site = live_status(0.0, timestamp="2026-05-25T13:42:11-07:00")
    read = mapping.read(site, shape(tesla, "site"), "42")
    assert read.measured_at_ns == 1_779_741_731_000_000_000


@pytest.mark.parametrize(
    ("item", "values", "faults"),
    [
        ({"p": 2}, {Metric.POWER_W: -2_000.0}, []),
        ({"p": "2.50"}, {Metric.POWER_W: -2_500.0}, []),
        ({"p": "-1e0"}, {Metric.POWER_W: 1_000.0}, []),
        ({"p": 0, "soc": 100}, {Metric.POWER_W: 0.0, Metric.SOC: 1.0}, []),
        # Not said is left out, and never 0.
        ({"p": None, "soc": 50}, {Metric.SOC: 0.5}, []),
        ({"soc": "50"}, {Metric.SOC: 0.5}, []),
        ({}, {}, []),
        # What is no number is said, and what else there is is used.
        ({"p": "much", "soc": 50}, {Metric.SOC: 0.5}, ["value-type"]),
        ({"p": "", "soc": 50}, {Metric.SOC: 0.5}, ["value-type"]),
        ({"p": "nan", "soc": 50}, {Metric.SOC: 0.5}, ["value-type"]),
        ({"p": "٢", "soc": 50}, {Metric.SOC: 0.5}, ["value-type"]),
        ({"p": True, "soc": 50}, {Metric.SOC: 0.5}, ["value-type"]),
        ({"p": [2], "soc": {}}, {}, ["value-type", "value-type"]),
        ({"p": 10**400, "soc": 50}, {Metric.SOC: 0.5}, ["value-range"]),
        ({"p": "1e99", "soc": 50}, {Metric.SOC: 0.5}, ["value-range"]),
    ],
)
def test_numbers(item: dict[str, Any], values: dict[Metric, float], faults: list[str]) -> None:
    read = mapping.read({"id": "x", "at": "2026-05-01T00:00:00Z"} | item, PLAIN)
    assert read.values == values
    assert [fault.partition(":")[0] for fault in read.faults] == faults


@pytest.mark.parametrize(
    ("form", "told", "at_s"),
    [
        ("rfc3339", "2026-05-01T00:00:00Z", 1_777_593_600.0),
        ("rfc3339", "2026-05-01T02:00:00+02:00", 1_777_593_600.0),
        ("rfc3339", "2026-05-01T00:00:00", "time-unreadable"),
        ("utc", "2026-05-01T00:00:00", 1_777_593_600.0),
        ("utc", "2026-05-01T00:00:00Z", "time-unreadable"),
        ("unix", 1_777_593_600, 1_777_593_600.0),
        ("unix", "1777593600.5", 1_777_593_600.5),
        ("unix-ms", 1_777_593_600_250, 1_777_593_600.25),
        ("unix", 1_777_593_600_250, "time-unreadable"),
        ("unix", -1, "time-unreadable"),
        ("rfc3339", 1_777_593_600, "time-unreadable"),
        ("rfc3339", None, "time-missing"),
        ("rfc3339", "", "time-unreadable"),
        ("rfc3339", "2026-02-30T00:00:00Z", "time-unreadable"),
    ],
)
def test_times(form: Any, told: Any, at_s: float | str) -> None:
    """A value whose time cannot be read is not used: a vendor's cache may be hours old."""
    timed = CloudShape("timed", (POWER,), id="id", time="at", time_form=form)
    read = mapping.read({"id": "x", "p": 1, "at": told}, timed)
    if isinstance(at_s, str):
        assert not read.values
        assert read.faults[0].startswith(at_s)
    else:
        assert read.measured_at_ns == pytest.approx(at_s * 1e9, abs=1e3)


def test_phases_are_added_and_none_may_be_missing() -> None:
    phases = CloudValue("power_w", ("l.0.p", "l.1.p", "l.2.p"), "W", positive="import")
    three = CloudShape("three", (phases,))
    told: dict[str, Any] = {"l": [{"p": 100}, {"p": "200"}, {"p": 300}]}
    assert mapping.read(told, three, "x").values == {Metric.POWER_W: -600}
    told["l"][1]["p"] = None
    assert mapping.read(told, three, "x").values == {}
    assert mapping.read({"l": told["l"][:2]}, three, "x").values == {}


def test_an_idle_charger_says_nothing_and_draws_nothing(example: Example) -> None:
    kind = shape(example("enode", "https://api.example"), "charger")
    idle = mapping.read(charger("c", None, is_charging=False), kind)
    assert idle.values == {Metric.POWER_W: 0.0}
    # Charging without a number, or nobody knows: unknown.
    assert mapping.read(charger("c", None, is_charging=True), kind).values == {}
    assert mapping.read(charger("c", None, is_charging=None), kind).values == {}


def test_a_list_may_be_one_object_and_is_bounded() -> None:
    assert mapping.parts({"id": 1}, "", 5) == [{"id": 1}]
    assert mapping.parts({"data": [1, 2]}, "data", 5) == [1, 2]
    for broken in (mapping.parts([0] * 6, "", 5), mapping.parts({"data": {}}, "data", 5)):
        assert isinstance(broken, Broken)


def test_ids_may_be_numbers() -> None:
    assert mapping.read({"id": 1_234_567_890_123}, PLAIN).address == "1234567890123"
    assert mapping.read({"id": True}, PLAIN).address == ""
    assert mapping.read({"id": "x" * 300}, PLAIN).address == ""


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30)
)
keys = st.sampled_from(["id", "p", "soc", "at", "data", "up", "0"]) | st.text(max_size=3)
documents = st.recursive(
    leaves, lambda c: st.lists(c, max_size=4) | st.dictionaries(keys, c, max_size=5), max_leaves=20
)
shapes = st.builds(
    CloudShape,
    name=st.just("any"),
    values=st.just((POWER, SOC)),
    id=st.sampled_from(["", "id", "data.id"]),
    time=st.sampled_from(["", "at", "data.at", "0"]),
    time_form=st.sampled_from(["rfc3339", "unix", "unix-ms", "utc"]),
    reachable=st.sampled_from(["", "up"]),
)


@given(documents, shapes, st.sampled_from(["", "data", "data.0", "0"]))
@settings(max_examples=150, deadline=None)
def test_whatever_a_document_holds_is_read_or_named(
    document: Any, kind: CloudShape, path: str
) -> None:
    found = mapping.parts(document, path, 10)
    for item in [document, *(found if isinstance(found, list) else [])]:
        read = mapping.read(item, kind)
        assert all(abs(value) <= 1e18 for value in read.values.values())
        assert 0 <= read.measured_at_ns < 2**63
        assert len(read.raw) <= 4_096
        assert all(fault.count(": ") >= 2 and "; " in fault for fault in read.faults)


@given(st.binary(max_size=200))
def test_whatever_is_sent_is_a_document_or_broken(body: bytes) -> None:
    mapping.decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 500_000,
        b"[0," * 1_000_000,
        b"9" * 4_000_000,
        b'"' + b"\xff" * 9,
    ],
    ids=["deep", "deep object", "unfinished", "long number", "no text"],
)
def test_hostile_documents_take_little_time(body: bytes) -> None:
    began = time.perf_counter()
    assert isinstance(mapping.decode(body), Broken)
    assert time.perf_counter() - began < 2.0
