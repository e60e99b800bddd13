"""A setpoint becomes a profile that a station understands; its schedule is the evidence."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ocpp.messages import Call, _validate_payload

from kapelle.adapters.ocpp import frames
from kapelle.adapters.ocpp.commands import Means, Plan, is_ending, is_shown, per_unit, plan
from kapelle.adapters.ocpp.dialect import Dialect
from kapelle.adapters.ocpp.events import Event, Need, Occupancy, Sample
from kapelle.adapters.ocpp.meters import moment_ns
from kapelle.adapters.ocpp.schedule import Composite
from kapelle.adapters.ocpp.station import Nameplate, Station
from kapelle.adapters.ocpp.v2 import V2, V21, V201
from kapelle.adapters.ocpp.v16 import V16
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S

NOW_NS = moment_ns("2026-11-22T09:41:06Z")
NAN, INF = math.nan, math.inf
SCOPES = {0: Nameplate(11_000.0, 11_000.0)}
DIALECTS: list[Dialect] = [V16(), V2(V201), V2(V21)]
VERSIONS = {"ocpp1.6": "1.6", "ocpp2.0.1": "2.0.1", "ocpp2.1": "2.1"}


def charging(*evses: int, gives_back: bool = False, **metrics: float) -> Station:
    """Return a station with vehicles that charge."""
    station = Station()
    need = Need(NAN, 0, NAN, 10_000.0, NAN) if gives_back else None
    for evse in evses or (1,):
        values = {Metric[name.upper()]: value for name, value in metrics.items()}
        samples = (Sample(NOW_NS, values, 0),) if values else ()
        event = Event(
            evse=evse,
            transaction=f"t{evse}",
            began=True,
            occupancy=Occupancy.CHARGING,
            samples=samples,
        )
        station.apply(event, SCOPES, NOW_NS)
        station.apply(Event(evse=evse, need=need), SCOPES, NOW_NS)
    return station


def means(dialect: Dialect, unit: str = "W", *, is_default: bool = False) -> Means:
    return Means(dialect, unit, 230.0, 0, is_default)


def made(station: Station, setpoint_w: float, told: Means, revert_s: float = 300.0) -> Plan:
    planned = plan(station, 0, setpoint_w, revert_s, told, 11_000.0, NOW_NS)
    assert isinstance(planned, Plan)
    return planned


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
@pytest.mark.parametrize("unit", ["A", "W"])
@pytest.mark.parametrize("is_default", [False, True])
def test_what_is_sent_keeps_to_the_official_schemas(
    dialect: Dialect, unit: str, is_default: bool
) -> None:
    for station in (charging(), charging(gives_back=True), charging(1, 2), Station()):
        asks = [
            dialect.set_profile(profile)
            for profile in made(
                station, -3_333.3, means(dialect, unit, is_default=is_default)
            ).profiles
        ]
        asks += dialect.set_up(10, 30)
        asks += [
            dialect.clear_profile(1),
            dialect.composite(0, unit, 900),
            dialect.ask_habits(),
            dialect.ask_statuses(),
        ]
        for ask in asks:
            payload = json.loads(json.dumps(ask.payload))
            _validate_payload(Call("1", ask.action, payload), VERSIONS[dialect.name])


def test_the_golden_battery_is_told_to_charge(shared: Path) -> None:
    golden = json.loads((shared / "goldens" / "signs.json").read_text())
    (vector,) = [v for v in golden["vectors"] if v["protocol"] == "ocpp-2.1-profile"]
    dialect = V2(V21)
    planned = made(charging(gives_back=True), golden["power_w"], means(dialect))
    (ask,) = [dialect.set_profile(profile) for profile in planned.profiles]
    text = json.dumps(ask.payload)
    period = json.loads(text)["chargingProfile"]["chargingSchedule"][0]["chargingSchedulePeriod"]
    assert period == [
        {"startPeriod": 0, vector["field"]: vector["value"], "operationMode": "CentralSetpoint"}
    ]
    # And the other way: what a station says that it will do.
    said = {
        "status": "Accepted",
        "schedule": {"evseId": 1, "chargingRateUnit": "W", "chargingSchedulePeriod": period},
    }
    composite = dialect.read_composite(json.dumps(said).encode())
    assert composite is not None
    assert -composite.value == golden["power_w"]


def test_discharge_is_a_setpoint_of_the_transaction_and_only_of_vehicles_that_can() -> None:
    dialect = V2(V21)
    (profile,) = made(charging(gives_back=True), 4_000.0, means(dialect)).profiles
    assert (profile.value, profile.transaction, profile.evse) == (-4_000.0, "t1", 1)
    sent = dict(dialect.set_profile(profile).payload)
    assert sent["chargingProfile"]["chargingProfilePurpose"] == "TxProfile"  # type: ignore[index]
    for other in (V16(), V2(V201), V2(V21)):
        refused = plan(charging(), 0, 4_000.0, 300.0, means(other), 11_000.0, NOW_NS)
        assert isinstance(refused, str)
    assert isinstance(
        plan(charging(gives_back=True), 0, 1.0, 300.0, means(V16()), 11_000.0, NOW_NS), str
    )


def test_only_who_can_give_back_is_asked_to() -> None:
    station = charging(1, 2)
    station.evses[2].need = Need(NAN, 0, NAN, 10_000.0, NAN)
    dialect = V2(V21)
    first, second = made(station, 4_000.0, means(dialect)).profiles
    assert (first.value, first.is_setpoint, first.transaction) == (0.0, False, "")
    assert (second.value, second.is_setpoint, second.transaction) == (-4_000.0, True, "t2")
    both = made(station, -4_000.0, means(dialect)).profiles
    assert [(p.value, p.is_setpoint) for p in both] == [(2_000.0, False), (2_000.0, True)]


@pytest.mark.parametrize(
    ("station", "down_w", "watts"),
    [
        (charging(), 11_000.0, 690.0),
        (charging(), 7_400.0, 230.0),
        (charging(voltage_v=240.0), 7_400.0, 240.0),
        # Direct current has no phases.
        (charging(voltage_v=400.0), 50_000.0, 400.0),
    ],
)
def test_amps_are_per_phase_at_the_voltage_measured(
    station: Station, down_w: float, watts: float
) -> None:
    assert per_unit(station, 0, means(V16(), "A"), down_w) == watts
    assert per_unit(station, 0, means(V16(), "W"), down_w) == 1.0


def test_phases_in_use_decide_how_many_amps() -> None:
    station = charging()
    sample = Sample(NOW_NS + 1, {Metric.POWER_W: -3_600.0, Metric.VOLTAGE_V: 225.0}, 1)
    station.apply(Event(evse=1, samples=(sample,)), SCOPES, NOW_NS)
    (profile,) = made(station, -3_150.0, means(V16(), "A")).profiles
    assert (profile.value, profile.phases) == (14.0, 1)
    # The next vehicle may use others.
    station.apply(Event(evse=1, transaction="t1", ended=True), SCOPES, NOW_NS)
    assert station.phases(0) == 0


def test_a_station_without_a_profile_of_its_own_gets_one_per_vehicle() -> None:
    planned = made(charging(1, 3), -6_000.0, means(V16(), is_default=True))
    assert [(p.evse, p.value) for p in planned.profiles] == [(1, 3_000.0), (3, 3_000.0)]
    (idle,) = made(Station(), -6_000.0, means(V16(), is_default=True)).profiles
    assert (idle.evse, idle.value) == (0, 6_000.0)


def test_a_profile_ends_by_itself() -> None:
    dialect = V16()
    (profile,) = made(charging(), -5_000.0, means(dialect), revert_s=300.0).profiles
    said = json.loads(json.dumps(dialect.set_profile(profile).payload))["csChargingProfiles"]
    began_ns = moment_ns(said["chargingSchedule"]["startSchedule"])
    ends_ns = began_ns + said["chargingSchedule"]["duration"] * NS_PER_S
    assert began_ns < NOW_NS  # so that a station whose clock is late begins at once
    assert ends_ns == moment_ns(said["validTo"]) == NOW_NS + 300 * NS_PER_S
    (endless,) = made(charging(), -5_000.0, means(dialect), revert_s=NAN).profiles
    said = json.loads(json.dumps(dialect.set_profile(endless).payload))["csChargingProfiles"]
    assert "validTo" not in said
    assert "duration" not in said["chargingSchedule"]


@pytest.mark.parametrize(
    ("periods", "duration_s", "value", "ends_s"),
    [
        ([(0, 8.0), (300, 32.0)], 900, 8.0, 300.0),
        ([(300, 32.0), (0, 8.0)], 900, 8.0, 300.0),
        ([(0, 8.0), (60, 8.0), (300, 32.0)], 900, 8.0, 300.0),
        ([(0, 8.0)], 900, 8.0, 900.0),
        ([(0, 8.0)], None, 8.0, INF),
        ([(30, 8.0)], None, NAN, 30.0),
        ([], 900, NAN, INF),
    ],
)
def test_composite_schedules(
    periods: list[tuple[float, float]], duration_s: float | None, value: float, ends_s: float
) -> None:
    old = {
        "status": "Accepted",
        "connectorId": 0,
        "chargingSchedule": {
            "chargingRateUnit": "A",
            "duration": duration_s,
            "chargingSchedulePeriod": [{"startPeriod": s, "limit": v} for s, v in periods],
        },
    }
    new = {"status": "Accepted", "schedule": old["chargingSchedule"]}
    for dialect, said in ((V16(), old), (V2(V201), new), (V2(V21), new)):
        composite = dialect.read_composite(json.dumps(said).encode())
        assert composite == pytest.approx(Composite(value, "A", ends_s), nan_ok=True)


def test_a_schedule_is_evidence_of_what_it_shows() -> None:
    (profile,) = made(charging(), -6_900.0, means(V16(), "A")).profiles
    shown = Composite(10.0, "A", 301.0)
    assert is_shown(shown, profile)
    assert is_ending(shown, profile, NOW_NS)
    for other in (Composite(32.0, "A", 301.0), Composite(10.0, "W", 301.0), Composite(NAN, "A", 1)):
        assert not is_shown(other, profile)
    assert not is_ending(Composite(10.0, "A", 900.0), profile, NOW_NS)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_frame_raises(text: bytes) -> None:
    frame = frames.decode(text)
    if isinstance(frame, frames.Broken):
        assert "; send" in frame.reason


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"2",
        b"[2]",
        b'[2,"1"]',
        b'[2,"1","A"]',
        b'[2,"1","A",{},{}]',
        b'[2,1,"A",{}]',
        b'[2,"","A",{}]',
        b'[7,"1",{}]',
        b'["2","1","A",{}]',
        b'[2.5,"1","A",{}]',
        b"[" * 60_000,
        b'[2,"\\ud800","A",{}]',
        b"\xff\xfe",
        b'[4,"1",5]',
    ],
)
def test_what_is_no_frame(text: bytes) -> None:
    assert isinstance(frames.decode(text), frames.Broken)


def test_frames() -> None:
    assert frames.decode(b' [2, "7", "Heartbeat", {} ] ') == frames.Call("7", "Heartbeat", b"{}")
    assert frames.decode(b'[6,"7","NotifyPeriodicEventStream",{}]') == frames.Call(
        "7", "NotifyPeriodicEventStream", b"{}", expects_result=False
    )
    assert frames.decode(b'[3,"7",{"status":"Accepted"}]') == frames.Result(
        "7", b'{"status":"Accepted"}'
    )
    assert frames.decode(b'[4,"7","NotSupported","no",{}]') == frames.Error(
        "7", "NotSupported", "no"
    )
    # Some leave the description out.
    assert frames.decode(b'[4,"7","NotSupported"]') == frames.Error("7", "NotSupported", "")
    assert frames.call("7", "Reset", {"type": "Soft"}) == '[2,"7","Reset",{"type":"Soft"}]'
