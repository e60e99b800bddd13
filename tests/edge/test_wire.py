"""The plant's own words at the edge: against its schemas, and against anything else."""

import json
import math
from importlib.resources import files

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.edge import wire
from kapelle.edge.service import FRESH_MAX, STORED_MAX
from kapelle.edge.wire import Command
from kapelle.model.enums import AckStatus, DeviceMode, Metric
from kapelle.model.ids import NS_PER_S

NOW_NS = 1_782_043_200 * NS_PER_S
SCHEMAS = files("kapelle.adapters.mqtt") / "schema"


def schema(name: str) -> dict[str, object]:
    read: dict[str, object] = json.loads((SCHEMAS / f"{name}.json").read_text())
    return read


def command(**changed: object) -> bytes:
    given = {
        "key": "1/0/7", "order": 1, "revision": 7, "epoch": 2, "attempt": 1, "setpoint_w": -1500.0,
        "issued_at_ns": NOW_NS, "not_after_ns": NOW_NS + 60 * NS_PER_S, "ttl_s": 30.0,
        "revert_s": 300.0,
    }  # fmt: skip
    return json.dumps(given | changed).encode()


def test_a_reading_is_as_the_plant_wants_it() -> None:
    values = {Metric.POWER_W: -2000.0, Metric.SOC: 0.5, Metric.MODE: float(DeviceMode.LOCAL)}
    one = wire.telemetry(values, NOW_NS, 3, 4)
    assert json.loads(one) == {
        "at_ns": NOW_NS, "boot": 3, "seq": 4, "power_w": -2000.0, "soc": 0.5, "mode": "local",
    }  # fmt: skip
    jsonschema.validate(json.loads(wire.together([one, one])), schema("telemetry"))


def test_the_largest_publication_is_one_the_endpoint_takes() -> None:
    # Nothing of a device is longer than a float with all its digits.
    values = dict.fromkeys(Metric, -1.2345678901234567e-100) | {Metric.MODE: 1.0}
    longest = wire.telemetry(values, NOW_NS, 2**31 - 1, 2**32 - 1)
    together = wire.together([longest] * (FRESH_MAX + STORED_MAX))
    assert len(together) < MqttSettings().payload_size_max


def test_an_answer_is_as_the_plant_wants_it() -> None:
    told = json.loads(wire.acknowledgement(7, 2, AckStatus.OPTED_OUT, "", NOW_NS))
    assert told == {"revision": 7, "epoch": 2, "status": "opted_out", "at_ns": NOW_NS}
    told = json.loads(wire.acknowledgement(7, 2, AckStatus.REJECTED, "no", NOW_NS))
    jsonschema.validate(told, schema("ack"))


def test_a_command_expires_by_whichever_comes_first() -> None:
    jsonschema.validate(json.loads(command()), schema("command"))
    read = wire.command(command(), NOW_NS, trust_clock=True)
    assert read == Command(7, 2, -1500.0, 300.0, NOW_NS + 30 * NS_PER_S)
    late = command(not_after_ns=NOW_NS - 1)
    assert wire.command(late, NOW_NS, trust_clock=True) == Command(7, 2, -1500.0, 300.0, NOW_NS - 1)
    # A machine whose clock is a day ahead counts from receipt.
    day_ns = 86_400 * NS_PER_S
    read = wire.command(command(), NOW_NS + day_ns, trust_clock=False)
    assert read is not None
    assert read.deadline_ns == NOW_NS + day_ns + 30 * NS_PER_S


def test_null_releases() -> None:
    read = wire.command(command(setpoint_w=None, revert_s=None), NOW_NS, trust_clock=True)
    assert read is not None
    assert math.isnan(read.setpoint_w)
    assert math.isnan(read.revert_s)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(st.none() | st.floats() | st.text(), st.lists).map(
            lambda v: json.dumps(v).encode()
        ),
    )
)
def test_what_is_no_command_is_none(payload: bytes) -> None:
    assert wire.command(payload, NOW_NS, trust_clock=True) is None


@given(
    st.floats() | st.integers() | st.none(),
    st.integers() | st.floats(),
    st.floats() | st.integers(),
)
def test_no_number_in_a_command_raises(ttl_s: float | None, at: float, setpoint_w: float) -> None:
    changed = {"ttl_s": ttl_s, "not_after_ns": at, "setpoint_w": setpoint_w}
    wire.command(command(**changed), NOW_NS, trust_clock=True)
