"""Sparkplug payloads: golden frames, signs both ways, and whatever else may be sent."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters import quantities
from kapelle.adapters.sparkplug import codec
from kapelle.adapters.sparkplug.codec import (
    BOOLEAN,
    DOUBLE,
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Payload,
    Place,
)

WHOLE = [INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64]
# A payload as the field table of 6.4.1 makes it, byte by byte: timestamp 1, one metric `P` with
# alias 7, Int32, int_value -2000 as 32 bits of two's complement, seq 3.
GOLDEN = bytes.fromhex("0801" "120d" "0a0150" "1007" "2003" "50b0f0ffff0f" "1803")  # fmt: skip


def test_a_payload_reads_as_the_table_of_fields_says() -> None:
    payload = codec.decode(GOLDEN)
    assert isinstance(payload, Payload)
    assert payload.seq == 3
    (metric,) = payload.metrics
    assert (metric.name, metric.alias, metric.timestamp_ms) == ("P", 7, 1)
    assert (metric.datatype, metric.value, metric.is_historical) == (INT32, -2000, False)


@given(st.sampled_from([*WHOLE, FLOAT, DOUBLE]), st.floats(-1e20, 1e20))
def test_what_is_written_reads_back_or_is_said_not_to_fit(datatype: int, number: float) -> None:
    value = codec.fitted(number, datatype)
    if value is None:
        assert datatype not in (FLOAT, DOUBLE)
        return
    assert value == pytest.approx(number, rel=1e-6, abs=0.5)
    payload = codec.decode(codec.encode("any", datatype, value, 1))
    assert isinstance(payload, Payload)
    assert payload.metrics[0].value == value


def test_null_is_unknown_and_a_flag_is_a_flag() -> None:
    null = codec.decode(codec.encode("any", DOUBLE, None, 1))
    flag = codec.decode(codec.encode(codec.REBIRTH, BOOLEAN, True, 1))
    assert isinstance(null, Payload)
    assert isinstance(flag, Payload)
    assert null.metrics[0].value is None
    assert flag.metrics[0].value is True


@given(st.binary(max_size=300) | st.binary(max_size=40).map(lambda cut: GOLDEN + cut))
def test_whatever_is_sent_is_read_or_refused_with_a_reason(raw: bytes) -> None:
    read = codec.decode(raw)
    assert isinstance(read, Payload) or read.count(": ") >= 2
    codec.says_offline(raw)


def test_nested_without_end_and_more_metrics_than_anybody_has_are_refused() -> None:
    assert isinstance(codec.decode(b"\x12\x00" * (codec.METRICS_MAX + 1)), str)
    codec.decode(b"\x0b" * 100_000)
    assert not codec.says_offline(b"[" * 100_000)


@given(st.text(max_size=60))
def test_topics_are_places_or_nothing(topic: str) -> None:
    found = codec.place(topic)
    assert found is None or all(found.node.split("/"))


def test_who_speaks_stands_in_the_topic() -> None:
    assert codec.place("spBv1.0/g/NBIRTH/e") == Place("NBIRTH", "g/e", "")
    assert codec.place("spBv1.0/g/DDATA/e/d") == Place("DDATA", "g/e", "d")
    for other in ("spBv1.0/g/NCMD/e", "spBv1.0/g/DDATA/e", "spBv1.0/STATE/h", "spAv1.0/g/NDATA/e"):
        assert codec.place(other) is None


def test_signs_both_ways(shared: Path) -> None:
    # Sparkplug has no convention of its own: the mapping says the direction.
    charging_w = float(json.loads((shared / "goldens" / "signs.json").read_text())["power_w"])
    assert quantities.ours(2.0, "kW", "import") == charging_w
    assert quantities.ours(-2.0, "kW", "export") == charging_w
    assert quantities.theirs(charging_w, "kW", "import") == 2.0
    assert quantities.theirs(charging_w, "W", "export") == charging_w
    assert str(quantities.theirs(0.0, "W", "import")) == "0.0"
