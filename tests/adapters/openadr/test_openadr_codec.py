"""Commands as events and reports as readings: signs, units, times, and whatever else is sent."""

import json
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.errands import Command
from kapelle.adapters.openadr import codec
from kapelle.adapters.openadr.codec import Asked, Resource
from kapelle.adapters.openadr.periods import duration, duration_s, is_moment, moment, moment_ns
from kapelle.adapters.openadr.shapes import Report
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S

_BATTERY = {"battery": Resource(7, True), "load": Resource(8, False)}


def said(payloads: list, *, name: str = "battery", units: dict | None = None, **more) -> Report:
    """Return a report of one interval."""
    described = [
        {"objectType": "REPORT_PAYLOAD_DESCRIPTOR", "payloadType": kind, **what}
        for kind, what in (units or {}).items()
    ]
    interval = {"id": 0, "payloads": [{"type": t, "values": v} for t, v in payloads]} | more
    raw = {
        "eventID": "e",
        "clientName": "c",
        "payloadDescriptors": described,
        "resources": [{"resourceName": name, "intervals": [interval]}],
    }
    return msgspec.json.decode(json.dumps(raw), type=Report)


def values(report: Report) -> dict[Metric, float]:
    found = codec.read(report, _BATTERY, None)
    assert not found.unreadable
    return dict(found.reports[0].values) if found.reports else {}


def test_a_battery_that_charges_is_as_the_golden_file_has_it(shared: Path) -> None:
    golden = json.loads((shared / "goldens" / "signs.json").read_text())
    (vector,) = (one for one in golden["vectors"] if one["protocol"] == "openadr-3")
    power_w = golden["power_w"]
    command = Command(0, 1, 1, 1, power_w, 0, 300.0)
    event = msgspec.to_builtins(codec.event(command, "dev", 0))
    (payload,) = event["intervals"][0]["payloads"]
    assert payload == {"type": vector["field"], "values": [vector["value"]]}
    assert event["payloadDescriptors"][0]["units"] == vector["unit"].upper()
    assert values(said([("DEMAND", [vector["value"]])])) == {Metric.POWER_W: power_w}


@given(st.floats(-1e9, 1e9), st.floats(1, 1e6), st.integers(0, 2**40))
def test_a_setpoint_is_read_back_as_it_was_sent(
    power_w: float, revert_s: float, revision: int
) -> None:
    command = Command(0, 1, revision, 1, power_w, 0, revert_s)
    event = codec.event(command, "dev", NS_PER_S)
    assert codec.setpoint_w(event) == pytest.approx(power_w)
    told = msgspec.to_builtins(event)
    assert duration_s(told["intervalPeriod"]["duration"]) == pytest.approx(revert_s, abs=0.001)
    assert -(2**31) <= told["intervals"][0]["id"] < 2**31


@pytest.mark.parametrize(
    ("payloads", "power_w"),
    [
        ([("DEMAND", [2.0])], -2_000.0),
        ([("EXPORT_DEMAND", [1.5])], 1_500.0),
        ([("DEMAND", [0.0]), ("EXPORT_DEMAND", [1.5])], 1_500.0),
        ([("DEMAND", [0.5]), ("EXPORT_DEMAND", [0.0])], -500.0),
        # Nothing consumed says nothing of what is fed in.
        ([("DEMAND", [0.0])], None),
        ([("EXPORT_DEMAND", [0.0])], None),
        ([("DEMAND", [0.0]), ("EXPORT_DEMAND", [0.0])], 0.0),
        ([("BASELINE", [2.0])], None),
    ],
)
def test_what_is_fed_in_has_a_name_of_its_own(payloads: list, power_w: float | None) -> None:
    assert values(said(payloads)).get(Metric.POWER_W) == power_w


def test_a_load_that_takes_nothing_takes_nothing() -> None:
    assert values(said([("DEMAND", [0.0])], name="load")) == {Metric.POWER_W: 0.0}


def test_energy_of_a_short_interval_is_its_mean_power() -> None:
    period = {"start": "2026-11-22T09:00:00Z", "duration": "PT15M"}
    report = said([("USAGE", [0.5])], intervalPeriod=period)
    (one,) = codec.read(report, _BATTERY, None).reports
    assert one.values == {Metric.POWER_W: -2_000.0}
    assert one.measured_at_ns == moment_ns("2026-11-22T09:15:00Z")
    hours = period | {"duration": "PT6H"}
    assert values(said([("USAGE", [3.0])], intervalPeriod=hours)) == {}


def test_intervals_without_a_period_of_their_own_follow_one_another() -> None:
    raw = msgspec.to_builtins(said([("DEMAND", [1.0])]))
    resource = raw["resources"][0]
    resource["intervalPeriod"] = {"start": "2026-11-22T09:00:00Z", "duration": "PT5M"}
    resource["intervals"] *= 3
    found = codec.read(msgspec.convert(raw, Report), _BATTERY, None)
    first_ns = moment_ns("2026-11-22T09:05:00Z") or 0
    assert [one.measured_at_ns for one in found.reports] == [
        first_ns + row * 300 * NS_PER_S for row in range(3)
    ]


@pytest.mark.parametrize(
    ("payloads", "units", "expected"),
    [
        ([("DEMAND", [500])], {"DEMAND": {"units": "W"}}, {Metric.POWER_W: -500.0}),
        ([("DEMAND", [0.5])], {"DEMAND": {"units": "MW"}}, {Metric.POWER_W: -500_000.0}),
        ([("DEMAND", [2])], {"DEMAND": {"units": None}}, {Metric.POWER_W: -2_000.0}),
        ([("DEMAND", [2])], {"DEMAND": {"readingType": "FORECAST"}}, {}),
        ([("DEMAND", [2])], {"DEMAND": {"readingType": "PEAK"}}, {}),
        ([("STORAGE_CHARGE_LEVEL", [55])], {}, {Metric.SOC: 0.55}),
        ([("SETPOINT", [-1.5])], {}, {Metric.SETPOINT_W: 1_500.0}),
        ([("STORAGE_MAX_DISCHARGE_POWER", [5])], {}, {Metric.MAX_W: 5_000.0}),
        ([("STORAGE_MAX_CHARGE_POWER", [4])], {}, {Metric.MIN_W: -4_000.0}),
    ],
)
def test_units_and_quantities(payloads: list, units: dict, expected: dict) -> None:
    found = values(said(payloads, units=units))
    assert found == {metric: pytest.approx(value) for metric, value in expected.items()}


@pytest.mark.parametrize(
    ("payloads", "more", "code"),
    [
        ([("DEMAND", [-1.0])], {}, "value"),
        ([("USAGE", [-1.0])], {}, "value"),
        ([("DEMAND", ["2"])], {}, "value"),
        ([("DEMAND", [True])], {}, "value"),
        ([("DEMAND", [1, 2])], {}, "value"),
        ([("DEMAND", [])], {}, "value"),
        ([("DEMAND", [1])], {"units": {"DEMAND": {"units": "KVA"}}}, "unit"),
        ([("DEMAND", [1])], {"name": "nobody"}, "device"),
        ([("DEMAND", [1])], {"intervalPeriod": {"start": "1999"}}, "time"),
        ([("DEMAND", [1])], {"intervalPeriod": {"start": "1911-01-01T00:00:00Z"}}, "time"),
    ],
)
def test_what_cannot_be_used_has_a_reason(payloads: list, more: dict, code: str) -> None:
    found = codec.read(said(payloads, **more), _BATTERY, None)
    assert not found.reports
    (one,) = found.unreadable
    assert one.reason.startswith(f"{code}: resources/0")
    assert ";" in one.reason


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_PAYLOAD = st.fixed_dictionaries(
    {
        "type": st.sampled_from([*sorted(codec._UNITS), "OPERATING_STATE", "x"]),
        "values": st.lists(st.floats() | st.integers() | st.text(max_size=9), max_size=2),
    }
)
_PERIOD = st.fixed_dictionaries(
    {},
    optional={
        "start": st.sampled_from(["0001-01-01", "2026-11-22T09:00:00Z", "9999-12-31T23:59:59Z"])
        | st.text(min_size=1, max_size=20),
        "duration": st.sampled_from(["PT0S", "-PT5M", "P9999Y", "PT15M", "P999999999Y"]),
    },
)
_INTERVAL = st.fixed_dictionaries(
    {"id": st.integers(-(2**31), 2**31 - 1), "payloads": st.lists(_PAYLOAD, max_size=3)},
    optional={"intervalPeriod": _PERIOD},
)


@given(
    st.lists(_INTERVAL, max_size=4),
    _PERIOD,
    st.sampled_from(["battery", "load", "x"]),
    st.sampled_from([math.nan, 0.0, -2_000.0]),
)
def test_no_report_is_too_odd_to_be_read(
    intervals: list, period: dict, name: str, setpoint_w: float
) -> None:
    raw = {
        "eventID": "e",
        "clientName": "c",
        "resources": [{"resourceName": name, "intervals": intervals, "intervalPeriod": period}],
    }
    report = msgspec.convert(raw, Report)
    found = codec.read(report, _BATTERY, Asked(7, 0, 1, setpoint_w))
    for one in found.reports:
        assert one.values
        assert all(math.isfinite(value) for value in one.values.values())
        assert 0 <= one.measured_at_ns < 2**63


@given(_JSON | st.binary(max_size=50))
def test_no_body_is_too_odd_to_be_refused(raw: object) -> None:
    body = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    try:
        msgspec.json.decode(body, type=Report)
    except msgspec.MsgspecError:
        return


@given(st.integers(0, 4_000_000_000_000))
def test_moments_and_durations_are_read_back(millis: int) -> None:
    at_ns = millis * 1_000_000
    assert moment_ns(moment(at_ns)) == at_ns
    assert is_moment(moment(at_ns))
    assert duration_s(duration(millis / 1e3)) == pytest.approx(millis / 1e3)


@given(st.text(max_size=30))
def test_no_text_is_too_odd_for_a_moment_or_a_duration(text: str) -> None:
    is_moment(text)
    moment_ns(text)
    duration_s(text)


def test_durations_of_the_standard() -> None:
    assert duration_s("P1DT2H3M4.5S") == 93_784.5
    assert duration_s("-PT1M") == -60.0
    assert duration_s("P9999Y") == math.inf
    assert math.isnan(duration_s("P"))
    assert duration(math.nan) == "P9999Y"
