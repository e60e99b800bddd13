"""Payloads: the JSON Schema and the codec agree, and garbage becomes quarantine, never an error."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kapelle.adapters.mqtt import codec
from kapelle.model.enums import AckStatus, DeviceMode, Metric


def _schema(name: str) -> jsonschema.Draft202012Validator:
    text = (files("kapelle.adapters.mqtt") / "schema" / f"{name}.json").read_text()
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


TELEMETRY, ACK, COMMAND = _schema("telemetry"), _schema("ack"), _schema("command")

_zones = st.builds(
    lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-1439, 1439)
) | st.just(UTC)
_times = st.datetimes(datetime(1960, 1, 1), datetime(2300, 1, 1), timezones=_zones).map(
    datetime.isoformat
)
_odd_times = st.sampled_from(
    ["2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2026-04-31T00:00:00Z",
     "2026-01-01 00:00:00z", "2026-01-01t00:00:00.5+0100", "2026-01-01T00:00:00", "", "now",
     "2026-01-01T24:00:00Z", "2026-01-01T00:00:60Z", "2026-01-01T00:00:00Z\n",
     "2026-13-01T00:00:00Z",
     "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00+24:00", "٢٠٢٦-01-01T00:00:00Z"]
)  # fmt: skip
_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
).filter(lambda value: not (isinstance(value, float) and value.is_integer()))  # fmt: skip
_numbers = st.integers(-(10**16), 10**16) | st.floats(-2e15, 2e15)
_fields: dict[str, st.SearchStrategy[Any]] = {
    "at": _times | _odd_times | _scalars,
    "at_ns": st.integers(-1, 2**63) | _scalars,
    "boot": st.integers(-1, 2**31) | _scalars,
    "seq": st.integers(-1, 2**32) | _scalars,
    "soc": st.floats(-0.5, 1.5) | _scalars,
    "unknown": _scalars,
    **dict.fromkeys(
        ("power_w", "export_wh", "import_wh", "max_w", "min_w", "voltage_v", "frequency_hz",
         "setpoint_w"),
        _numbers | _scalars,
    ),
    "mode": st.sampled_from(["own", "command", "local", "fault", "Own", "", 1]) | _scalars,
}  # fmt: skip
_good_row = st.fixed_dictionaries({"power_w": st.floats(-1e4, 1e4)}, optional={"at": _times})
_row = st.fixed_dictionaries({}, optional=_fields) | _good_row | _scalars
_payload = (
    _row
    | st.lists(_row, max_size=3)
    | st.fixed_dictionaries({"readings": st.lists(_row, max_size=3) | _scalars}, optional=_fields)
    | st.fixed_dictionaries({"readings": st.lists(_good_row, max_size=3)})
)


@given(_payload)
@example([])
@example({"readings": []})
@example({"readings": [{"power_w": 1}], "power_w": 2})
@example({"readings": [{"power_w": 1}], "at": 5})
@example({"at": "2026-01-01T00:00:00Z"})
@example({"power_w": 1, "at": "1970-01-01T00:00:00Z"})
def test_valid_by_the_schema_means_decoded(payload: Any) -> None:
    told = codec.decode_telemetry([json.dumps(payload).encode()])
    assert TELEMETRY.is_valid(payload) == (not told.unreadable), told.unreadable


@given(st.lists(_payload | st.binary(max_size=30), max_size=4))
def test_every_row_is_read_or_named_and_raw_bytes_are_its_own(payloads: list[Any]) -> None:
    sent = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in payloads]
    told = codec.decode_telemetry(sent)
    raw = codec.RawRows(told.message, told.place, sent)
    for row in range(len(told.message)):
        own = json.loads(raw(row))
        for metric, column in told.values.items():
            name = metric.name.lower()
            said = own.get(name, math.nan)
            said = DeviceMode[said.upper()] if isinstance(said, str) else said
            assert said == column[row] or math.isnan(column[row])
            assert (name in own) == (not math.isnan(column[row]))
    for bad in told.unreadable:
        code, place, *_ = bad.reason.split(": ")
        assert code in {"json", "field", "time", "empty"}
        assert place.startswith("/")
        assert ";" in bad.reason
        assert bad.raw in sent[bad.message]
    for index, payload in enumerate(payloads):
        if isinstance(payload, list):
            rows = (told.message == index).sum()
            named = sum(bad.message == index for bad in told.unreadable)
            assert rows + named == max(1, len(payload))


@given(
    st.lists(
        st.fixed_dictionaries(
            {"power_w": st.floats(-1e9, 1e9)},
            optional={
                "soc": st.floats(0, 1),
                "seq": st.integers(0, 9),
                "boot": st.integers(0, 9),
                "at_ns": st.integers(1, 2**62),
            },
        ),
        min_size=1,
    )
)
def test_good_rows_come_through_whole(rows: list[dict[str, Any]]) -> None:
    single = codec.decode_telemetry([json.dumps(row).encode() for row in rows])
    array = codec.decode_telemetry([json.dumps(rows).encode()])
    envelope = codec.decode_telemetry([json.dumps({"readings": rows}).encode()])
    for told in (single, array, envelope):
        assert told.values[Metric.POWER_W].tolist() == [row["power_w"] for row in rows]
        assert told.measured_at_ns.tolist() == [row.get("at_ns", 0) for row in rows]
        assert told.order.tolist() == [
            (row["boot"] << 32 | row["seq"]) - 2**63
            if "seq" in row and "boot" in row
            else row.get("at_ns", 0)
            for row in rows
        ]
        assert not told.unreadable


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff", "json: /: JSON is malformed"),
        (b"", "json: /: Input data was truncated"),
        (b'{"power_w": 1}{"power_w": 2}', "json: /: JSON is malformed: trailing characters"),
        (b'{"power_w": NaN}', "json: /: JSON is malformed"),
        (b'{"power_w": 1e999}', "field: /power_w: number out of range"),
        (b'{"power_w": "5"}', "field: /power_w: expected float, got str; send a JSON number"),
        (b'{"power_w": null}', "field: /power_w: expected float, got null"),
        (b'[{"soc": 80}]', "field: /0/soc: expected float <= 1.0; send the state of charge as a"),
        (b'{"readings": [{"soc": 0.5}, 7]}', "json: /readings/1: expected object, got int"),
        (b'{"at": "yesterday", "soc": 0}', "field: /at: invalid RFC3339 encoded datetime; send"),
        (b'{"at": "1999-01-01T00:00:00Z", "soc": 0}', "time: /at: is outside the accepted years"),
        (b'{"x": ' + b"[" * 50_000, "json: /: is nested too deeply"),
        (b"[" * 50_000, "json: /0: expected object, got array"),
        (b"{}", "empty: /: there is no measured value; send at least one of power_w, soc"),
    ],
)  # fmt: skip
def test_reasons_name_place_and_remedy(payload: bytes, reason: str) -> None:
    told = codec.decode_telemetry([b'{"soc": 1}', payload, b'{"soc": 0}'])
    assert told.values[Metric.SOC].tolist()[:1] + told.values[Metric.SOC].tolist()[-1:] == [1, 0]
    assert [bad.message for bad in told.unreadable] == [1]
    assert told.unreadable[0].reason.startswith(reason)


_answer = st.fixed_dictionaries(
    {},
    optional={
        "revision": st.integers(-1, 2**63) | _scalars,
        "epoch": st.integers(-1, 2**63) | _scalars,
        "status": st.sampled_from([status.name.lower() for status in AckStatus]) | _scalars,
        "at_ns": st.integers(0, 2**63) | _scalars,
        "reason": _scalars,
    },
)
_good_answer = st.builds(
    lambda revision, status: {"revision": revision, "status": status.name.lower()},
    st.integers(0, 99),
    st.sampled_from(AckStatus),
)


@given(_answer | _good_answer | st.lists(_answer | _good_answer, max_size=3) | _scalars)
def test_acks_valid_by_the_schema_are_decoded(payload: Any) -> None:
    told = codec.decode_acks([json.dumps(payload).encode()])
    assert ACK.is_valid(payload) == (not told.unreadable), told.unreadable
    rows = payload if isinstance(payload, list) else [payload]
    good = [row for row in rows if ACK.is_valid(row)]
    assert told.revision == [row["revision"] for row in good]
    assert told.status == [AckStatus[row["status"].upper()] for row in good]


@given(st.binary(max_size=50))
def test_garbage_acks_are_unreadable(payload: bytes) -> None:
    told = codec.decode_acks([payload])
    assert len(told.revision) + len(told.unreadable) >= 1


def test_commands_follow_their_schema(make_commands: Any) -> None:
    commands = make_commands(1, 2, revision=7)
    commands.setpoint_w[1] = math.nan
    first, second = (json.loads(payload) for payload in codec.encode_commands(commands))
    COMMAND.validate(first)
    COMMAND.validate(second)
    assert first["key"] == "3/1/7"
    assert first["setpoint_w"] == 1500.0
    assert second["setpoint_w"] is None
