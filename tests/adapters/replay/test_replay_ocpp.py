"""Calls of charging stations come back as they were sent, or mended, to whom they belong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.ocpp import frames
from kapelle.adapters.replay.codec import Again, Item, decode
from kapelle.adapters.replay.fix import Fix
from kapelle.model.enums import Metric, Quality
from kapelle.model.ids import NS_PER_S
from kapelle.registry import credentials
from kapelle.registry.directory import Bearer, Directory

SECRET = credentials.hash_secret("secret")
NOW = 1_790_000_000 * NS_PER_S
DIRECTORY = Directory.build(
    1,
    [
        Bearer(number, f"dev-{number}", True, 0.0, 11e3, SECRET, adapter="ocpp", address=address)
        for number, address in enumerate(("alone", "two/1", "two/2"))
    ],
)
AT = "2026-09-21T10:00:00Z"
V16 = """[2,"-","MeterValues",{"connectorId":%d,"meterValue":[{"timestamp":"%s","sampledValue":[
    {"value":"3000000","measurand":"Power.Active.Import","unit":"W"},{"value":"1500"}]}]}]"""
V2 = """[2,"-","TransactionEvent",{"eventType":"Updated","timestamp":"%s","seqNo":1,
    "evse":{"id":%d},"triggerReason":"MeterValuePeriodic","transactionInfo":{"transactionId":"a"},"meterValue":[
    {"timestamp":"%s","sampledValue":[{"value":3000000,"measurand":"Power.Active.Import"}]}]}]"""
TO_KW = Fix(scale={"power_w": 0.001})


def again(raw: str | bytes, fix: Fix | None = None, device_no: int = 0) -> Again:
    text = raw if isinstance(raw, bytes) else raw.encode()
    item = Item("0:1:0", "ocpp", device_no, NOW - 5, text)
    (one,) = decode([item], fix or Fix(), DIRECTORY, NOW, 365 * 86_400.0)
    return one


@pytest.mark.parametrize(
    ("raw", "device_no", "whose"),
    [
        (V16 % (0, AT), 0, 0),
        (V16 % (1, AT), 1, 1),
        # Kept under the first device of a station, and about the other.
        (V16 % (2, AT), 1, 2),
        (V2 % (AT, 2, AT), 1, 2),
    ],
    ids=["main meter", "own EVSE", "other EVSE", "2.x"],
)
def test_it_is_read_in_its_version_and_belongs_to_its_evse(
    raw: str, device_no: int, whose: int
) -> None:
    found = again(raw, TO_KW, device_no)
    assert found.reason == ""
    assert found.readings is not None
    assert found.readings.device_no.tolist() == [whose]
    assert found.readings.values[Metric.POWER_W].tolist() == [-3000.0]
    assert found.readings.quality.tolist() == [Quality.REPLAYED]
    assert found.readings.received_at_ns.tolist() == [NOW - 5]
    (at_ns,) = found.readings.measured_at_ns.tolist()
    assert at_ns == int(np.datetime64(AT[:-1], "ns").astype(np.int64))


def test_an_evse_is_not_taken_for_its_station_unless_somebody_says_so() -> None:
    assert again(V16 % (1, AT), TO_KW).reason.startswith("evse: ")
    said = again(V16 % (1, AT), Fix(device="dev-0", negate_power=True, drop=["import_wh"]))
    assert said.readings is not None
    assert said.readings.device_no.tolist() == [0]
    assert {m: v.tolist() for m, v in said.readings.values.items()} == {Metric.POWER_W: [3e6]}


@pytest.mark.parametrize(
    ("raw", "fix", "code"),
    [
        ('[2,"-","MeterValues",{}]', Fix(), "field"),
        ('[2,"-","StartTransaction",{}]', Fix(), "field"),
        ('[2,"-","Explode",{}]', Fix(), "action"),
        ('[2,"-","Heartbeat",{}]', Fix(), "empty"),
        (V16.replace('"W"', '"horse"') % (0, AT), Fix(), "meter"),
        (V16 % (0, AT), Fix(scale={"at_ns": 2.0}), "fix-unusable"),
        (V16 % (0, AT), Fix(drop=["meterValue"]), "fix-unusable"),
        ("nonsense", Fix(), "foreign"),
        ('{"connectorId":1}', Fix(), "foreign"),
    ],
)
def test_what_cannot_be_mended_says_why(raw: str, fix: Fix, code: str) -> None:
    told = again(raw, fix).reason
    assert told.partition(":")[0] == code
    assert "; " in told


def test_a_row_may_be_written_anew_as_a_call_or_as_a_report() -> None:
    call = again("nonsense", Fix(payload=V16 % (0, AT), scale={"power_w": 0.001}))
    report = again("nonsense", Fix(payload='{"power_w":-3000,"import_wh":1500}'))
    for found in (call, report):
        assert found.readings is not None
        assert found.readings.values[Metric.POWER_W].tolist() == [-3000.0]
        assert found.readings.values[Metric.IMPORT_WH].tolist() == [1500.0]


@given(st.text(max_size=20), st.binary(max_size=40))
def test_what_the_endpoint_keeps_is_the_call_it_heard(action: str, payload: bytes) -> None:
    heard = frames.decode(frames.kept(frames.Call("7", action, b'{"x":%d}' % len(payload))))
    if heard != frames.Call("-", action, b'{"x":%d}' % len(payload)):
        assert isinstance(heard, frames.Broken)
        assert not action
    garbage = again(frames.kept(frames.Call("7", "MeterValues", payload)))
    assert garbage.readings is None
