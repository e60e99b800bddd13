"""What stations measure, in every unit and phase they say it in, becomes the plant's readings."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.ocpp.events import Event, Misread
from kapelle.adapters.ocpp.meters import Sampled, measure, moment_ns, number, time_text
from kapelle.adapters.ocpp.v2 import V2, V21, V201
from kapelle.adapters.ocpp.v16 import V16
from kapelle.model.enums import Metric

POWER, IMPORT, EXPORT = Metric.POWER_W, Metric.IMPORT_WH, Metric.EXPORT_WH
IN, OUT = "Power.Active.Import", "Power.Active.Export"
REGISTER = "Energy.Active.Import.Register"


def said(measurand: str, value: Any, phase: str = "", unit: str = "", place: str = "") -> Sampled:
    return Sampled(value, measurand, phase, place, unit)


CASES = [
    # What was sampled, and what it means.
    ([said(IN, "2000", unit="W")], {POWER: -2000.0}),
    ([said(IN, "2000")], {POWER: -2000.0}),
    ([said(IN, "2.0", unit="kW")], {POWER: -2000.0}),
    ([said(OUT, "2000")], {POWER: 2000.0}),
    ([said(IN, "0"), said(OUT, "1.5", unit="kW")], {POWER: 1500.0}),
    ([said(IN, 700.0, "L1"), said(IN, 600.0, "L2"), said(IN, 700.0, "L3")], {POWER: -2000.0}),
    ([said(IN, 700.0, "L1-N"), said(IN, 1300.0, "L2-N")], {POWER: -2000.0}),
    # Phases beside their sum are not added to it.
    ([said(IN, 2000.0), said(IN, 700.0, "L1"), said(IN, 600.0, "L2")], {POWER: -2000.0}),
    # Neutral carries no power; the vehicle's own meter is not the plant's.
    ([said(IN, 5.0, "N")], {}),
    ([said(IN, 1900.0, place="EV"), said(IN, 2000.0, place="Outlet")], {POWER: -2000.0}),
    ([said(IN, 2010.0, place="Inlet"), said(IN, 2000.0, place="Outlet")], {POWER: -2000.0}),
    ([said(IN, 2010.0, place="Inlet")], {POWER: -2010.0}),
    ([said(REGISTER, "12.345", unit="kWh")], {IMPORT: 12_345.0}),
    ([said(REGISTER, "12345")], {IMPORT: 12_345.0}),
    ([said("Energy.Active.Export.Register", "7")], {EXPORT: 7.0}),
    ([said("SoC", "55", unit="Percent", place="EV")], {Metric.SOC: 0.55}),
    ([said("SoC", "55")], {Metric.SOC: 0.55}),
    ([said("Voltage", "231", "L1-N"), said("Voltage", "229", "L2-N")], {Metric.VOLTAGE_V: 230.0}),
    ([said("Voltage", "400", "L1-L2")], {Metric.VOLTAGE_V: pytest.approx(230.94, abs=0.01)}),
    ([said("Frequency", "50.01")], {Metric.FREQUENCY_HZ: 50.01}),
    ([said("Power.Offered", "7000"), said("Temperature", "21", unit="Celcius")], {}),
]


@pytest.mark.parametrize(("sampled", "means"), CASES)
def test_sampled_values(sampled: list[Sampled], means: dict[Metric, float]) -> None:
    measured = measure(sampled, "")
    assert measured.values == means
    assert measured.problems == []


@pytest.mark.parametrize(
    "bad",
    [
        said(IN, "1,5"),
        said(IN, "NaN"),
        said(IN, ""),
        said(IN, math.inf),
        said(IN, "1e999"),
        said(IN, "2000", unit="Wh"),
        said(REGISTER, "5", unit="W"),
        said("SoC", "101"),
        said(IN, "1_000"),
        said(IN, "٣"),
    ],
)
def test_what_is_no_number_in_its_unit_is_left_out_and_said(bad: Sampled) -> None:
    measured = measure([bad, said("Frequency", 50.0)], "/meterValue/0")
    assert measured.values == {Metric.FREQUENCY_HZ: 50.0}
    (problem,) = measured.problems
    assert "/meterValue/0" in problem
    assert "; send" in problem


def test_phases_in_use_are_those_that_carry_current() -> None:
    def amps(*each: float) -> list[Sampled]:
        return [said("Current.Import", a, f"L{n}") for n, a in enumerate(each, 1)]

    assert measure(amps(16.0, 0.1, 0.0), "").phases == 1
    assert measure(amps(16.0, 15.8, 15.9), "").phases == 3
    assert measure(amps(0.0, 0.0, 0.0), "").phases == 0
    assert measure([said(IN, 3600.0, "L1"), said(IN, 2.0, "L2")], "").phases == 1


@pytest.mark.parametrize(
    ("text", "utc_ns"),
    [
        ("2026-11-22T09:41:06Z", 1_795_340_466_000_000_000),
        ("2026-11-22T10:41:06+01:00", 1_795_340_466_000_000_000),
        ("2026-11-22T09:41:06.123Z", 1_795_340_466_123_000_000),
        ("2026-11-22T09:41:06", 1_795_340_466_000_000_000),
        ("yesterday", 0),
        ("", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("2026-11-22T09:41:06Z" * 10, 0),
    ],
)
def test_times(text: str, utc_ns: int) -> None:
    assert moment_ns(text) == utc_ns


@given(st.integers(0, 4_000_000_000_000))
def test_times_that_are_written_are_read(utc_ms: int) -> None:
    assert moment_ns(time_text(utc_ms * 1_000_000)) == utc_ms * 1_000_000


@given(st.text() | st.floats())
def test_a_number_is_finite_or_unknown(value: str | float) -> None:
    assert not math.isinf(number(value))


V16_, V201_, V21_ = V16(), V2(V201), V2(V21)
GOLDEN = [
    # An Alfen ICU (github.com/mobilityhouse/ocpp, issue 398), shortened.
    (
        V16_,
        "MeterValues",
        """{"connectorId": 2, "meterValue": [{"timestamp": "2021-06-29T11:41:44Z", "sampledValue": [
        {"value": "8424.200", "context": "Trigger", "measurand": "Power.Active.Import",
         "location": "Outlet", "unit": "W"},
        {"value": "14.900", "context": "Trigger", "measurand": "Current.Offered",
         "location": "Outlet", "unit": "A"},
        {"value": "445343.000", "context": "Trigger",
         "measurand": "Energy.Active.Import.Register", "location": "Outlet", "unit": "Wh"}]}]}""",
        {POWER: -8424.2, IMPORT: 445_343.0},
        "2021-06-29T11:41:44Z",
    ),
    # A charger of Project EV (github.com/evcc-io/evcc, issue 15768): the register as the
    # transaction began stands beside what it is now.
    (
        V16_,
        "MeterValues",
        """{"connectorId":1,"transactionId":1745408128,"meterValue":[
        {"timestamp":"2025-04-23T16:58:52.901Z","sampledValue":[
        {"value":"581","context":"Sample.Periodic","format":"Raw",
         "measurand":"Energy.Active.Import.Register","unit":"Wh"},
        {"value":"0","context":"Transaction.Begin","format":"Raw",
         "measurand":"Energy.Active.Import.Register","unit":"Wh"},
        {"value":"16.36","context":"Sample.Periodic","format":"Raw","measurand":"Current.Import",
         "phase":"L1","unit":"A"},
        {"value":"237.8","context":"Sample.Periodic","format":"Raw","measurand":"Voltage",
         "phase":"L1","unit":"V"},
        {"value":"3914","context":"Sample.Periodic","format":"Raw",
         "measurand":"Power.Active.Import","phase":"L1","unit":"W"},
        {"value":"29.0","context":"Sample.Periodic","format":"Raw","measurand":"Temperature",
         "unit":"Celsius"}]}]}""",
        {IMPORT: 581.0, Metric.VOLTAGE_V: 237.8, POWER: -3914.0},
        "2025-04-23T16:58:52.901Z",
    ),
    # A charger that says energy alone (github.com/dallmann-consulting/OCPP.Core, issue 41).
    (
        V16_,
        "MeterValues",
        """{"connectorId":4,"transactionId":14,"meterValue":[
        {"timestamp":"2021-04-08T17:40:33.000Z","sampledValue":[
        {"value":"164.5","context":"Sample.Periodic","format":"Raw",
         "measurand":"Energy.Active.Import.Register","location":"Outlet","unit":"Wh"}]}]}""",
        {IMPORT: 164.5},
        "2021-04-08T17:40:33Z",
    ),
    # The defaults of 1.6, 7.38: what is not said is the import register in Wh.
    (
        V16_,
        "MeterValues",
        """{"connectorId":1,"meterValue":[{"timestamp":"2026-11-22T09:41:06Z",
        "sampledValue":[{"value":"1500"}]}]}""",
        {IMPORT: 1500.0},
        "2026-11-22T09:41:06Z",
    ),
    (
        V16_,
        "StartTransaction",
        """{"connectorId":1,"idTag":"x","meterStart":77,"timestamp":"2026-11-22T09:41:06Z"}""",
        {IMPORT: 77.0},
        "2026-11-22T09:41:06Z",
    ),
    # OCPP 2.0.1 part 2, TransactionEventRequest and UnitOfMeasureType: multiplier 3 is kilo.
    (
        V201_,
        "TransactionEvent",
        """{"eventType":"Updated","timestamp":"2026-11-22T09:41:06Z","seqNo":1,
        "triggerReason":"MeterValuePeriodic","transactionInfo":{"transactionId":"a"},
        "meterValue":[{"timestamp":"2026-11-22T09:41:06Z","sampledValue":[
        {"value":2,"measurand":"Power.Active.Import","unitOfMeasure":{"unit":"W","multiplier":3}},
        {"value":8000}]}]}""",
        {POWER: -2000.0, IMPORT: 8000.0},
        "2026-11-22T09:41:06Z",
    ),
    (
        V21_,
        "MeterValues",
        """{"evseId":1,"meterValue":[{"timestamp":"2026-11-22T09:41:06Z","sampledValue":[
        {"value":7.5,"measurand":"Power.Active.Export","unitOfMeasure":{"unit":"kW"}}]}]}""",
        {POWER: 7500.0},
        "2026-11-22T09:41:06Z",
    ),
]


@pytest.mark.parametrize(("dialect", "action", "payload", "means", "at"), GOLDEN)
def test_golden_messages(
    dialect: Any, action: str, payload: str, means: dict[Metric, float], at: str
) -> None:
    event = dialect.decode(action, payload.encode())
    assert isinstance(event, Event)
    (sample,) = event.samples
    assert sample.values == means
    assert sample.at_ns == moment_ns(at) > 0
    assert event.problems == ()


def test_the_golden_battery_charges(shared: Path) -> None:
    golden = json.loads((shared / "goldens" / "signs.json").read_text())
    (vector,) = [v for v in golden["vectors"] if v["protocol"] == "ocpp-metervalues"]
    sampled = [said(vector["field"], vector["value"], unit=vector["unit"])]
    assert measure(sampled, "").values == {POWER: golden["power_w"]}


NAMES = st.sampled_from(
    [
        "connectorId",
        "evseId",
        "meterValue",
        "sampledValue",
        "timestamp",
        "value",
        "measurand",
        "unit",
        "unitOfMeasure",
        "multiplier",
        "transactionId",
        "transactionInfo",
        "eventType",
        "chargingNeeds",
        "departureTime",
        "acChargingParameters",
        "energyAmount",
        "status",
        "meterStart",
        "meterStop",
        "connectorStatus",
        "phase",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=20,
)
ACTIONS = [
    "MeterValues",
    "StartTransaction",
    "StopTransaction",
    "StatusNotification",
    "TransactionEvent",
    "NotifyEVChargingNeeds",
    "BootNotification",
    "Nonsense",
]


@given(
    st.sampled_from(ACTIONS), st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode())
)
def test_no_payload_raises(action: str, payload: bytes) -> None:
    for dialect in (V16(), V2(V201), V2(V21)):
        heard = dialect.decode(action, payload)
        if isinstance(heard, Misread):
            assert ": " in heard.reason
            assert "; " in heard.reason
            assert len(heard.reason) < 400
        else:
            for sample in heard.samples:
                assert all(map(math.isfinite, sample.values.values()))
        dialect.read_composite(payload)
        dialect.read_habits(payload)
        dialect.read_status(payload)


def test_deep_nesting_is_bounded() -> None:
    deep = b'{"connectorId":' + b"[" * 30_000
    for dialect in (V16(), V2(V21)):
        assert isinstance(dialect.decode("MeterValues", deep), Misread)
