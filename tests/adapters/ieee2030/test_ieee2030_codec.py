"""What clients send, read without trusting it. The frames are what py20305 0.16 sent of a battery
(SunSpec models 701-713 as pysunspec2 records them) that charges with 2 kW."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from lxml import etree

from kapelle.adapters.ieee2030 import metering
from kapelle.adapters.ieee2030.codec import Misread, Part, Ratings, control_modes, decode, ratings
from kapelle.adapters.ieee2030.identity import lfdi_of, plain, read_pins, sfdi_of
from kapelle.adapters.ieee2030.metering import Mirror, Moment, Signs
from kapelle.adapters.ieee2030.setpoint import active_power, amount_of, choose
from kapelle.adapters.ieee2030.status import read_status
from kapelle.model.enums import DeviceMode, Metric
from kapelle.model.ids import NS_PER_S

NS = "urn:ieee:std:2030.5:ns"
FRAMES = Path(__file__).parent / "frames"
unhurried = effort(deadline=None)
EXPORTS = Signs(forward=1.0)
WITHIN_S = 2.0
"""Bound on the time of one message, whatever is in it."""


def frame(name: str) -> Part:
    body = (FRAMES / f"{name}.xml").read_bytes()
    part = decode(body, (etree.fromstring(body).tag.partition("}")[2],))
    assert isinstance(part, Part)
    return part


def mirror_with(*readings: str) -> tuple[Mirror, list[Part]]:
    text = f'<MirrorUsagePoint xmlns="{NS}"><mRID>AA</mRID><roleFlags>49</roleFlags>'
    part = decode(
        (text + "".join(readings) + "</MirrorUsagePoint>").encode(), ("MirrorUsagePoint",)
    )
    assert isinstance(part, Part)
    mirror = metering.mirror_of(part)
    assert isinstance(mirror, Mirror)
    return mirror, part.all("MirrorMeterReading")


def reading(
    value: int, *, flow: int | None, mrid: str = "01", uom: int = 38, more: str = "", at_s: int = 10
) -> str:
    direction = f"<flowDirection>{flow}</flowDirection>" if flow is not None else ""
    return (
        f"<MirrorMeterReading><mRID>{mrid}</mRID><Reading><timePeriod><duration>0</duration>"
        f"<start>{at_s}</start></timePeriod><value>{value}</value></Reading>"
        f"<ReadingType>{direction}<uom>{uom}</uom>{more}</ReadingType></MirrorMeterReading>"
    )


def said(*readings: str, signs: Signs | None = None) -> list[Moment]:
    moments, problems = metering.apply_readings(*mirror_with(*readings), signs or Signs())
    assert problems == []
    return moments


def test_a_real_client_is_read_once_its_types_are_known() -> None:
    part = frame("mirror")
    mirror = metering.mirror_of(part)
    assert isinstance(mirror, Mirror)
    types_alone = metering.apply_readings(mirror, part.all("MirrorMeterReading"), EXPORTS)
    assert types_alone == ([], [])
    later = frame("readings").all("MirrorMeterReading")
    moments, problems = metering.apply_readings(mirror, later, EXPORTS)
    assert problems == []
    values: dict[Metric, float] = {}
    for moment in moments:
        values |= moment.values
    assert values == {
        Metric.POWER_W: -2_000.0,
        Metric.VOLTAGE_V: pytest.approx(240.0),
        Metric.FREQUENCY_HZ: pytest.approx(60.01),
    }
    assert all(moment.at_ns > 1_700_000_000 * NS_PER_S for moment in moments)


def test_what_a_real_client_can_do() -> None:
    assert ratings(frame("capability")) == Ratings(10_000.0, 5_000.0, 5_000.0)
    assert ratings(frame("settings")) == Ratings(10_000.0, None, None)
    assert control_modes(frame("capability")) == set()


def test_a_charging_battery_in_the_words_of_the_golden_file(shared: Path) -> None:
    vectors = json.loads((shared / "goldens" / "signs.json").read_text())
    power_w = vectors["power_w"]
    mup = next(v for v in vectors["vectors"] if v["protocol"] == "ieee2030.5-mup")
    target = next(v for v in vectors["vectors"] if v["protocol"] == "csip-aus-1.3")
    (moment,) = said(reading(mup["value"], flow=1))
    assert moment.values == {Metric.POWER_W: power_w}
    assert said(reading(-power_w, flow=19))[0].values == {Metric.POWER_W: -power_w}
    none = Ratings()
    assert amount_of(power_w, "storage_target_w", none, 5e3, 5e3) == target["value"]
    # Hundredths of a percent of what it charges with at most, which it says is 4 kW.
    assert amount_of(power_w, "fixed_w", Ratings(9e3, 4e3, 8e3), 5e3, 5e3) == -5_000
    assert amount_of(-power_w, "fixed_w", Ratings(9e3, 4e3, 8e3), 5e3, 5e3) == 2_500
    assert amount_of(power_w, "fixed_w", none, 5e3, 4e3) == -5_000


def test_no_direction_is_no_power_until_somebody_says_what_it_means() -> None:
    for flow in (0, None, 7):
        moments, problems = metering.apply_readings(
            *mirror_with(reading(2_000, flow=flow)), Signs()
        )
        assert moments == []
        assert "flowDirection" in problems[0]
    assert said(reading(2_000, flow=0), signs=Signs(unsaid=-1))[0].values[Metric.POWER_W] == -2_000
    assert said(reading(2_000, flow=0), signs=Signs(unsaid=1))[0].values[Metric.POWER_W] == 2_000


@unhurried
@given(st.integers(-(10**6), 10**6), st.sampled_from([Signs(), EXPORTS]))
def test_one_signed_value_and_two_sides_say_the_same(power_w: int, signs: Signs) -> None:
    forward = power_w * signs.forward
    net = said(reading(int(forward), flow=4), signs=signs)
    sides = said(
        reading(int(max(forward, 0)), flow=1),
        reading(int(max(-forward, 0)), flow=19, mrid="02"),
        signs=signs,
    )
    assert net == sides
    assert net[0].values == {Metric.POWER_W: power_w}


def test_one_side_alone_is_not_taken_for_all() -> None:
    mirror, both = mirror_with(reading(5, flow=1, at_s=10), reading(0, flow=19, mrid="02", at_s=10))
    assert metering.apply_readings(mirror, both[:1], Signs())[0][0].values[Metric.POWER_W] == -5
    metering.apply_readings(mirror, both, Signs())
    _, one = mirror_with(reading(0, flow=19, mrid="02", at_s=20))
    assert metering.apply_readings(mirror, one, Signs()) == ([], [])


@pytest.mark.parametrize("at_s", [0, 10])
def test_both_sides_sent_again_say_the_same_again(at_s: int) -> None:
    rows = (reading(5, flow=1, at_s=at_s), reading(0, flow=19, mrid="02", at_s=at_s))
    mirror, both = mirror_with(*rows)
    once = metering.apply_readings(mirror, both, Signs())
    assert once[0][0].values == {Metric.POWER_W: -5.0}
    assert metering.apply_readings(mirror, both, Signs()) == once


def test_registers_count_by_direction_and_extremes_are_left_out() -> None:
    total = "<accumulationBehaviour>9</accumulationBehaviour>"
    rows = (
        reading(7, flow=1, uom=72, more=total),
        reading(9, flow=19, mrid="2A", uom=72, more=total),
    )
    assert said(*rows)[0].values == {Metric.IMPORT_WH: 7.0, Metric.EXPORT_WH: 9.0}
    assert said(*rows, signs=EXPORTS)[0].values == {Metric.EXPORT_WH: 7.0, Metric.IMPORT_WH: 9.0}
    assert said(reading(9, flow=1, more="<dataQualifier>8</dataQualifier>")) == []
    assert said(reading(9, flow=1, more="<phase>64</phase>")) == []
    premises = f'<MirrorUsagePoint xmlns="{NS}"><mRID>AA</mRID><roleFlags>03</roleFlags>{rows[0]}'
    part = decode(f"{premises}</MirrorUsagePoint>".encode(), ("MirrorUsagePoint",))
    assert isinstance(part, Part)
    mirror = metering.mirror_of(part)
    assert isinstance(mirror, Mirror)
    assert metering.apply_readings(mirror, part.all("MirrorMeterReading"), Signs()) == ([], [])


def test_status_says_charge_and_whose_will_counts() -> None:
    assert read_status(frame("status")) == []
    at = "<dateTime>50</dateTime>"

    def told(inner: str) -> list[Moment]:
        body = f'<DERStatus xmlns="{NS}">{inner}<readingTime>60</readingTime></DERStatus>'
        part = decode(body.encode(), ("DERStatus",))
        assert isinstance(part, Part)
        return read_status(part)

    charge = f"<stateOfChargeStatus>{at}<value>5500</value></stateOfChargeStatus>"
    assert told(charge) == [Moment(50 * NS_PER_S, {Metric.SOC: 0.55})]
    fault = f"<inverterStatus>{at}<value>7</value></inverterStatus>"
    assert told(fault) == [Moment(60 * NS_PER_S, {Metric.MODE: DeviceMode.FAULT})]
    local = f"<localControlModeStatus>{at}<value>0</value></localControlModeStatus>"
    assert told(local) == [Moment(60 * NS_PER_S, {Metric.MODE: DeviceMode.LOCAL})]
    assert told(local.replace("<value>0", "<value>1")) == []


def test_names_come_from_the_certificate() -> None:
    # IEEE 2030.5-2018, 6.3.4: the example certificate's fingerprint and the names made of it.
    fingerprint = "3E4F-45AB-31ED-FE5B-67E3-43E5-E456-2E31-984E-23E5"
    assert plain(fingerprint) == "3E4F45AB31EDFE5B67E343E5E4562E31984E23E5"
    assert sfdi_of(plain(fingerprint)) == 167_261_211_391
    assert len(lfdi_of(b"x")) == 40
    assert plain("dev-0") == ""


def test_pins_have_a_check_digit() -> None:
    lfdi = "3E4F45AB31EDFE5B67E343E5E4562E31984E23E5"
    assert read_pins(f"# who\n{lfdi.lower()} 111115\n\n") == {lfdi: 111_115}
    for line in ("x 111115", f"{lfdi} 111116", f"{lfdi}", f"{lfdi} 1111150"):
        with pytest.raises(ValueError, match="line 1"):
            read_pins(line)


@unhurried
@given(st.integers(-(10**9), 10**9))
def test_watts_fit_their_sixteen_bits(watts: int) -> None:
    value, exponent = active_power(watts)
    assert -(2**15) <= value < 2**15
    assert value * 10**exponent == pytest.approx(watts, rel=2e-4)


@unhurried
@given(st.floats(-1e7, 1e7), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_percentage_stays_within_a_hundred(setpoint_w: float, up_w: float, down_w: float) -> None:
    amount = amount_of(setpoint_w, "fixed_w", Ratings(), up_w, down_w)
    assert isinstance(amount, str) or -10_000 <= amount <= 10_000


def test_the_most_exact_way_a_client_takes_is_chosen() -> None:
    assert choose("", {"fixed_w", "target_w"}) == "target_w"
    assert choose("", set()) == "fixed_w"
    assert choose("fixed_w", {"target_w"}) == "fixed_w"


BOMB = b"".join(
    [b'<!DOCTYPE MirrorUsagePoint [<!ENTITY a0 "ha">']
    + [b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12)]
    + [b']><MirrorUsagePoint xmlns="urn:ieee:std:2030.5:ns"><mRID>&a11;</mRID></MirrorUsagePoint>']
)
FILE = (
    b'<!DOCTYPE Time [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b'<Time xmlns="urn:ieee:std:2030.5:ns">&x;</Time>'
)
HOSTILE = {
    "empty": b"",
    "no XML": b"\xff\xfe\x00",
    "another root": b"<Time/>",
    "entities": BOMB,
    "a file": FILE,
    "utf-16 entities": FILE.decode().encode("utf-16"),
    "deep": b'<Time xmlns="urn:ieee:std:2030.5:ns">' + b"<a>" * 20_000,
    "wide": b'<Time xmlns="urn:ieee:std:2030.5:ns">' + b"<a/>" * 16_000 + b"</Time>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_message_says_so_soon(name: str) -> None:
    began = time.perf_counter()
    assert isinstance(decode(HOSTILE[name], ("Time", "MirrorUsagePoint")), Misread)
    assert time.perf_counter() - began < WITHIN_S


numbers = st.one_of(
    st.integers().map(str), st.sampled_from(["", "-", "1e9", "９", "0x10", "9" * 400, " 7 ", "NaN"])
)
names = st.sampled_from(
    [
        "MirrorMeterReading",
        "MirrorReadingSet",
        "Reading",
        "ReadingType",
        "mRID",
        "value",
        "uom",
        "powerOfTenMultiplier",
        "flowDirection",
        "timePeriod",
        "start",
        "duration",
        "lastUpdateTime",
        "phase",
        "accumulationBehaviour",
        "stateOfChargeStatus",
        "dateTime",
        "readingTime",
        "setMaxW",
        "multiplier",
        "modesEnabled",
        "roleFlags",
    ]
)
trees = st.recursive(
    st.tuples(names, numbers).map(lambda pair: f"<{pair[0]}>{pair[1]}</{pair[0]}>"),
    lambda inner: st.tuples(names, st.lists(inner, max_size=5)).map(
        lambda pair: f"<{pair[0]}>{''.join(pair[1])}</{pair[0]}>"
    ),
    max_leaves=30,
)


@unhurried
@given(
    st.lists(trees, max_size=6), st.sampled_from(["MirrorUsagePoint", "DERStatus", "DERSettings"])
)
def test_whatever_a_message_holds_nothing_is_raised(inner: list[str], root: str) -> None:
    body = f'<{root} xmlns="{NS}">{"".join(inner)}</{root}>'.encode()
    part = decode(body, (root,))
    assert isinstance(part, Part)
    made = metering.mirror_of(part)
    mirror = made if isinstance(made, Mirror) else Mirror("AA", 0)
    moments, _ = metering.apply_readings(mirror, part.all("MirrorMeterReading"), Signs(unsaid=1))
    for moment in (*moments, *read_status(part)):
        assert 0 <= moment.at_ns < 2**63
        assert all(value == value for value in moment.values.values())
    ratings(part)
    control_modes(part)


@unhurried
@given(st.binary(max_size=400))
def test_whatever_bytes_come_nothing_is_raised(body: bytes) -> None:
    decode(body, ("Time",))
