"""Bodies become readings: the same rows in any format, and bad ones named one by one."""

import contextlib
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.http.arrow import decode_arrow
from kapelle.adapters.http.decoded import Columns, Decoded, Unreadable, settle
from kapelle.adapters.http.names import Names
from kapelle.adapters.http.rows import decode_json, decode_ndjson
from kapelle.model.enums import DeviceMode, Metric

NOW = 1_790_000_000_000_000_000
GOOD = {"device": "d1", "at_ns": NOW, "power_w": 10}


def from_json(rows: object, names: Any, sender: int | None = None) -> Decoded:
    body = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    return settle(decode_json(body, Names(names), sender, 1_000), NOW, sender)


def from_ndjson(rows: list[Any], names: Any, sender: int | None = None) -> Decoded:
    body = b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows)
    return settle(decode_ndjson(body, Names(names), sender, 1_000), NOW, sender)


def arrow_bytes(columns: dict[str, Any], **options: Any) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def arrow(columns: dict[str, Any], names: Any, sender: int | None = None) -> Decoded:
    columns_read: Columns = decode_arrow(arrow_bytes(columns), Names(names), sender, 1_000)
    return settle(columns_read, NOW, sender)


def test_rows_become_columns(names: Any) -> None:
    rows = [
        {"device": "d1", "at": "2026-11-22T09:41:06.5Z", "power_w": -1500, "soc": 0.5},
        {"device": "d2", "at_ns": NOW, "boot": 3, "seq": 9, "power_w": 2.5, "export_wh": 10},
        {"device": "nobody", "power_w": 1},
        {"device": "d3", "boot": 0, "seq": 0, "max_w": 1, "min_w": -1},
        {"device": "d4", "at_ns": NOW, "seq": 7, "soc": 0.5},
    ]
    for decoded in (from_json(rows, names), from_ndjson(rows, names),
                    from_json({"readings": rows}, names)):  # fmt: skip
        readings = decoded.readings
        assert readings.device_no.tolist() == [1, 2, -1, 3, 4]
        assert readings.measured_at_ns.tolist() == [1_795_340_466_500_000_000, NOW, 0, 0, NOW]
        assert readings.order.tolist() == [
            1_795_340_466_500_000_000, (3 << 32 | 9) - 2**63, 0, -(2**63), NOW
        ]  # fmt: skip
        np.testing.assert_array_equal(
            readings.values[Metric.POWER_W], [-1500, 2.5, 1, np.nan, np.nan]
        )
        assert set(readings.values) == {
            Metric.POWER_W, Metric.SOC, Metric.EXPORT_WH, Metric.MAX_W, Metric.MIN_W
        }  # fmt: skip
        assert decoded.bad == []
        assert json.loads(decoded.raw(1)) == rows[1]
        assert decoded.name(2) == "nobody"


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ({**GOOD, "power_w": None}, "value-unreadable", "power_w"),
        ({**GOOD, "power_w": "1,5"}, "value-unreadable", "power_w"),
        ({**GOOD, "power_w": ""}, "value-unreadable", "power_w"),
        ({**GOOD, "power_w": True}, "value-unreadable", "power_w"),
        ({**GOOD, "mode": "off"}, "value-unreadable", "mode"),
        ({**GOOD, "mode": None}, "value-unreadable", "mode"),
        ({**GOOD, "setpoint_w": "0"}, "value-unreadable", "setpoint_w"),
        ({**GOOD, "power_w": [1]}, "value-unreadable", "power_w"),
        ({**GOOD, "power_w": math.nan}, "value-unreadable", ""),
        ({**GOOD, "power_w": -math.inf}, "value-unreadable", ""),
        (b'{"device":"d1","power_w":1e999}', "value-unreadable", "power_w"),
        ({**GOOD, "seq": -1}, "value-unreadable", "seq"),
        ({**GOOD, "seq": 1.5}, "value-unreadable", "seq"),
        ({**GOOD, "boot": 2**31}, "value-unreadable", "boot"),
        ({**GOOD, "at_ns": 0}, "value-unreadable", "at_ns"),
        ({**GOOD, "at_ns": 2**63}, "value-unreadable", "at_ns"),
        ({"device": "d1", "at": "yesterday", "power_w": 1}, "time-unreadable", "at"),
        ({"device": "d1", "at": 1_790_000_000, "power_w": 1}, "value-unreadable", "at"),
        ({**GOOD, "at": "2026-11-22T09:41:06Z"}, "time-twice", "at"),
        ({**GOOD, "powr_w": 1}, "field-unknown", ""),
        ({"power_w": 1}, "device-missing", "device"),
        ({"device": "", "power_w": 1}, "value-unreadable", "device"),
        ({"device": "d" * 129, "power_w": 1}, "value-unreadable", "device"),
        ({"device": 7, "power_w": 1}, "value-unreadable", "device"),
        ({"device": "d1"}, "row-empty", ""),
        ({"device": "d1", "at_ns": NOW, "seq": 4}, "row-empty", ""),
        (b'{"device":"d1","power_w":1,"power_w":2}', "row-ambiguous", ""),
        (b'{"device":"d1","device":"d2","power_w":2}', "row-ambiguous", ""),
        ([], "value-unreadable", ""),
        (5, "value-unreadable", ""),
        (b'{"device":"\\ud800","power_w":1}', "row-malformed", ""),
    ],
)
def test_a_bad_row_is_named_and_its_neighbours_are_kept(
    names: Any, row: Any, code: str, field: str
) -> None:
    middle = row if isinstance(row, bytes) else json.dumps(row).encode()
    good = json.dumps({**GOOD, "device": "d2"}).encode()
    body = b"[" + good + b"," + middle + b",\n" + good + b"]"
    for decoded in (from_json(body, names), from_ndjson([good, middle, good], names)):
        assert [(bad.row, bad.code) for bad in decoded.bad] == [(1, code)]
        assert decoded.bad[0].field == field
        assert decoded.bad[0].detail
        assert decoded.readings.device_no.tolist() == [2, 2]
        assert decoded.rows.tolist() == [0, 2]
        kept = decoded.quarantined(NOW, "http/api")
        assert kept is not None
        assert len(kept) == 1
        assert kept.raw[0]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "body-malformed"),
        (b"{", "body-malformed"),
        (b"not json", "body-malformed"),
        (b"[{}", "body-malformed"),
        (b'"text"', "body-shape"),
        (b"3", "body-shape"),
        (b'{"readings": 3}', "body-shape"),
        (b'{"readings": [], "more": 1}', "body-shape"),
        (b"[" * 100_000, "body-depth"),
        (b"[" + b'{"a":' * 10_000, "body-depth"),
        (json.dumps([GOOD]).encode("utf-16"), "body-malformed"),
    ],
)
def test_what_is_no_list_of_rows_is_refused_whole(names: Any, body: bytes, code: str) -> None:
    with pytest.raises(Unreadable) as refused:
        decode_json(body, Names(names), None, 1_000)
    assert refused.value.code == code


def test_a_byte_order_mark_and_one_lone_report_are_taken(names: Any) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(GOOD).encode()
    assert from_json(body, names).readings.device_no.tolist() == [1]
    assert from_ndjson([body], names).readings.device_no.tolist() == [1]


def test_too_many_rows(names: Any) -> None:
    with pytest.raises(Unreadable) as refused:
        decode_json(json.dumps([GOOD] * 11).encode(), Names(names), None, 10)
    assert refused.value.code == "too-many-rows"


def test_a_device_speaks_for_itself_alone(names: Any) -> None:
    rows = [{"power_w": 1}, {"device": "d7", "power_w": 2}, {"device": "d8", "power_w": 3}]
    columns = {"device": [None, "d7", "d8"], "power_w": [1.0, 2.0, 3.0]}
    for decoded in (
        from_json(rows, names, 7), from_ndjson(rows, names, 7), arrow(columns, names, 7)
    ):  # fmt: skip
        assert decoded.readings.device_no.tolist() == [7, 7]
        assert [(bad.row, bad.code, bad.device_no) for bad in decoded.bad] == [
            (2, "device-foreign", 7)
        ]
    assert arrow({"power_w": [1.0]}, names, 7).readings.device_no.tolist() == [7]


def test_spaces_and_order_of_keys_change_nothing(names: Any) -> None:
    rows = [{**GOOD, "seq": n, "device": f"d{n}"} for n in range(5)]
    rows.append({"soc": 0.5, "device": "d9"})
    plain = from_json(rows, names)
    spaced = json.dumps(rows, indent=1, separators=(" ,", " : ")).encode()
    again = from_json(spaced, names)
    assert again.bad == plain.bad == []
    assert again.readings.device_no.tolist() == plain.readings.device_no.tolist()
    for metric, column in plain.readings.values.items():
        np.testing.assert_array_equal(again.readings.values[metric], column)


fields = {
    "device": st.sampled_from(["d1", "d2", 'no"body', "x:y", "ü", '":', "power_w"]),
    "at_ns": st.integers(1, 2**63 - 1),
    "boot": st.integers(0, 2**31 - 1),
    "seq": st.integers(0, 2**32 - 1),
    **{
        m.name.lower(): st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)
        for m in Metric
        if m != Metric.MODE
    },
    "mode": st.sampled_from([mode.name.lower() for mode in DeviceMode]),
}
ALWAYS = ("device", "power_w")
rows_sent = st.lists(
    st.fixed_dictionaries(
        {name: fields[name] for name in ALWAYS},
        optional={name: value for name, value in fields.items() if name not in ALWAYS},
    ),
    max_size=6,
)


@given(rows_sent, st.booleans(), st.sampled_from([None, 1]))
def test_whatever_is_sent_arrives(
    names: Any, rows: list[dict[str, Any]], ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(rows, ensure_ascii=ascii_only, indent=indent).encode()
    decoded = from_json(text, names)
    lines = from_ndjson(rows, names)
    assert decoded.bad == lines.bad == []
    assert decoded.count == len(rows)
    for metric in Metric:
        sent = [row.get(metric.name.lower(), math.nan) for row in rows]
        sent = [DeviceMode[s.upper()] if isinstance(s, str) else float(s) for s in sent]
        for one in (decoded, lines):
            got = one.readings.values.get(metric, np.full(len(rows), np.nan))
            np.testing.assert_array_equal(got, np.array(sent, np.float64))
    assert [decoded.name(n) for n in range(len(rows))] == [row["device"] for row in rows]
    assert decoded.readings.measured_at_ns.tolist() == [row.get("at_ns", 0) for row in rows]


@given(st.binary(max_size=60) | st.text('[]{}",:01ea. \\u', max_size=60).map(str.encode))
def test_rubbish_never_fails_otherwise(names: Any, body: bytes) -> None:
    for decode in (decode_json, decode_ndjson, decode_arrow):
        with contextlib.suppress(Unreadable):
            settle(decode(body, Names(names), None, 100), NOW, None)


def test_arrow_columns(names: Any) -> None:
    decoded = arrow(
        {
            "device": pa.array(["d1", "d2", "nobody", None]).dictionary_encode(),
            "at": pa.array([NOW // 10**6, None, NOW // 10**6, 1], pa.timestamp("ms", tz="UTC")),
            "boot": pa.array([None, 0, 3, 1], pa.int32()),
            "seq": pa.array([None, 5, None, 1], pa.uint64()),
            "power_w": pa.array([1, 2, None, 4], pa.int32()),
            "soc": pa.array([0.5, None, 0.25, 1.0], pa.float32()),
        },
        names,
    )
    readings = decoded.readings
    assert readings.device_no.tolist() == [1, 2, -1]
    assert readings.measured_at_ns.tolist() == [NOW, 0, NOW]
    assert readings.order.tolist() == [NOW, 5 - 2**63, NOW]
    np.testing.assert_array_equal(readings.values[Metric.POWER_W], [1, 2, np.nan])
    np.testing.assert_array_equal(readings.values[Metric.SOC], [0.5, np.nan, 0.25])
    assert [(bad.row, bad.code) for bad in decoded.bad] == [(3, "device-missing")]
    assert b"power_w" in decoded.raw(3)


@pytest.mark.parametrize("coded", [False, True])
def test_arrow_says_whose_will_a_device_follows_in_words(names: Any, coded: bool) -> None:
    mode = pa.array(["own", None, "local", "off", "fault"])
    decoded = arrow(
        {
            "device": ["d1", "d2", "d3", "d4", "d5"],
            "power_w": [1.0, 2.0, 3.0, 4.0, 5.0],
            "setpoint_w": [None, 9.0, None, None, None],
            "mode": mode.dictionary_encode() if coded else mode,
        },
        names,
    )
    values = decoded.readings.values
    np.testing.assert_array_equal(values[Metric.MODE], [0.0, np.nan, 2.0, 3.0])
    np.testing.assert_array_equal(values[Metric.SETPOINT_W], [np.nan, 9.0, np.nan, np.nan])
    assert [(bad.row, bad.code, bad.field) for bad in decoded.bad] == [
        (3, "value-unreadable", "mode")
    ]


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"device": ["d1"], "powr_w": [1.0]}, "field-unknown"),
        ({"power_w": [1.0]}, "device-missing"),
        ({"device": ["d1"], "power_w": ["1"]}, "field-type"),
        ({"device": ["d1"], "mode": [1]}, "field-type"),
        ({"device": [1], "power_w": [1.0]}, "field-type"),
        ({"device": ["d1"], "at": ["2026-11-22T09:41:06Z"], "power_w": [1.0]}, "field-type"),
        ({"device": ["d1"], "power_w": [True]}, "field-type"),
        ({"device": ["d1"] * 1_001, "power_w": [1.0] * 1_001}, "too-many-rows"),
    ],
)
def test_arrow_columns_that_do_not_fit(names: Any, columns: Any, code: str) -> None:
    with pytest.raises(Unreadable) as refused:
        arrow(columns, names)
    assert refused.value.code == code


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("coded", [False, True])
def test_compressed_arrow_buffers_are_not_unpacked(names: Any, codec: str, coded: bool) -> None:
    device = pa.array(["d1"] * 1_000)
    columns = {"device": device.dictionary_encode() if coded else device, "soc": [0.5] * 1_000}
    body = arrow_bytes(columns, options=pa.ipc.IpcWriteOptions(compression=codec))
    with pytest.raises(Unreadable) as refused:
        decode_arrow(body, Names(names), None, 10_000)
    assert refused.value.code == "encoding-unknown"


def test_arrow_in_several_batches_with_growing_dictionaries(names: Any) -> None:
    schema = pa.schema({"device": pa.dictionary(pa.int32(), pa.string()), "power_w": pa.float64()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for part in (["d1", "d2"], ["d2", "d3"], ["d9"]):
            coded = pa.array(part).dictionary_encode()
            writer.write_batch(pa.record_batch([coded, [1.0] * len(part)], schema=schema))
    columns = decode_arrow(sink.getvalue().to_pybytes(), Names(names), None, 100)
    assert columns.device_no.tolist() == [1, 2, 2, 3, 9]


def test_arrow_units_out_of_range(names: Any) -> None:
    decoded = arrow(
        {
            "device": ["d1", "d2", "d3"],
            # Milliseconds in a column that says seconds.
            "at": pa.array([NOW // 10**6, NOW // 10**9, -5], pa.timestamp("s")),
            "power_w": [1.0, 2.0, 3.0],
        },
        names,
    )
    assert decoded.readings.device_no.tolist() == [2]
    assert [(b.row, b.code) for b in decoded.bad] == [
        (0, "time-unreadable"),
        (2, "time-unreadable"),
    ]


@given(st.data())
def test_damaged_arrow_is_unreadable_or_read(names: Any, data: st.DataObject) -> None:
    whole = bytearray(arrow_bytes({"device": ["d1", "d2"], "power_w": [1.0, 2.0]}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Unreadable):
        settle(decode_arrow(bytes(whole), Names(names), None, 100), NOW, None)
