"""Dealing protocols to a simulated fleet."""

from collections import Counter
from math import nan

import msgspec
import numpy as np
import pytest

from kapelle.errors import Invalid
from kapelle.model.enums import DeviceKind
from kapelle.sim.demo_record import Event, Record, judge
from kapelle.sim.devices import FleetPlan, make_fleet
from kapelle.sim.protocols import PROTOCOLS, read_mix, speaking

PLAN = FleetPlan(devices=200)
MIX = {"mqtt": 0.7, "ocpp": 0.1, "sunspec": 0.2}


def test_a_mix_is_read_as_it_is_written() -> None:
    assert read_mix("mqtt=0.7, ocpp=0.1,sunspec=0.2") == MIX
    assert read_mix("") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mqtt=0.9,telex=0.1", "telex: no device here speaks it; use mqtt, ocpp, sunspec"),
        ("mqtt=0.5,ocpp=0.1", "sums to 0.6; let shares sum to 1"),
        ("mqtt=0.5,mqtt=0.5", "mqtt: is named twice"),
        ("mqtt=most", "mqtt: has no share; write mqtt=0.1"),
        ("mqtt=nan", "mqtt: has no share"),
        ("mqtt=1.5,ocpp=-0.5", "ocpp: has no share"),
        ("=1", "no device here speaks it"),
    ],
)
def test_a_mix_that_cannot_be_followed_says_why(text: str, said: str) -> None:
    with pytest.raises(Invalid, match="--mix") as refused:
        read_mix(text)
    assert said in str(refused.value)


def test_only_kinds_that_a_protocol_has_speak_it_in_exact_shares() -> None:
    devices, spoken = speaking(PLAN, 3, MIX)
    assert Counter(spoken) == {"mqtt": 140, "ocpp": 20, "sunspec": 40}
    for kind, adapter, name in zip(devices.kind, devices.enrolled.adapter, spoken, strict=True):
        assert DeviceKind(int(kind)) in PROTOCOLS[name].kinds
        assert adapter.decode() == PROTOCOLS[name].adapter
    assert speaking(PLAN, 3, MIX)[1] == spoken
    assert speaking(PLAN, 4, MIX)[1] != spoken


def test_the_fleet_is_the_same_whatever_it_speaks() -> None:
    plain = make_fleet(PLAN, np.random.default_rng(3)).rows()
    assert msgspec.json.encode(speaking(PLAN, 3, {})[0].rows()) == msgspec.json.encode(plain)
    mixed = speaking(PLAN, 3, MIX)[0].rows()
    assert [row | {"adapter": "mqtt"} for row in mixed] == plain


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(Invalid, match=r"ocpp.* 100 of 200 .* 40 are ev; at most ocpp=0\.2"):
        speaking(PLAN, 3, {"mqtt": 0.5, "ocpp": 0.5})
    with pytest.raises(Invalid, match="mqtt: 160 devices are left over"):
        speaking(PLAN, 3, {"ocpp": 0.2})


@pytest.mark.parametrize(("ocpp_w", "met"), [(20.0, True), (0.5, False), (-20.0, False)])
def test_the_verdict_needs_every_protocol_to_move(ocpp_w: float, met: bool) -> None:
    record = Record(0, devices={"mqtt": 90, "ocpp": 10})
    for at_ns in range(0, 20 * 10**9, 10**9):
        record.true.append((at_ns, 1_100.0))
        record.moved.setdefault("mqtt", []).append((at_ns, 100.0 - ocpp_w))
        record.moved.setdefault("ocpp", []).append((at_ns, ocpp_w))
    record.events.append(Event(0, "▲", "order"))
    verdict = judge(record, 100.0, 1_000.0, 0, 20 * 10**9)
    assert verdict.met is met
    assert verdict.shares["ocpp"].delivered == pytest.approx(ocpp_w / 100.0)
    assert verdict.shares["ocpp"].met is met
    assert verdict.shares["mqtt"].met
    assert judge(Record(0), nan, 0.0, 0, 1).shares == {}
