"""A table says the same in every form, and what is not known is never a number."""

import io

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from kapelle.api import tables
from kapelle.api.tables import Form

START_NS = 1_763_800_000 * 10**9
TABLE = pa.table(
    {
        "time": pa.array([START_NS, START_NS + 120_000_000, None], pa.timestamp("ns")),
        "device_no": pa.array([1, 2, None], pa.int32()),
        "power_w": pa.array([1.5, float("nan"), None], pa.float64()),
    }
)


def test_json_has_moments_in_utc_and_null_for_what_is_unknown() -> None:
    assert msgspec.json.decode(tables.encode(TABLE, "json")) == [
        {"time": "2025-11-22T08:26:40Z", "device_no": 1, "power_w": 1.5},
        {"time": "2025-11-22T08:26:40.12Z", "device_no": 2, "power_w": None},
        {"time": None, "device_no": None, "power_w": None},
    ]


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_a_binary_form_is_the_table_itself(form: Form) -> None:
    body = io.BytesIO(tables.encode(TABLE, form))
    read = (
        pa.ipc.open_stream(body).read_all() if form == "arrow" else pyarrow.parquet.read_table(body)
    )
    assert read.schema.field("time").type == pa.timestamp("ns", "UTC")
    # NaN is not equal to itself; its text is.
    assert str(read.to_pydict()) == str(tables.in_utc(TABLE).to_pydict())


def test_csv_leaves_empty_what_is_unknown() -> None:
    lines = tables.encode(TABLE, "csv").decode().splitlines()
    assert lines[0] == '"time","device_no","power_w"'
    assert lines[1] == '"2025-11-22T08:26:40Z",1,1.5'
    assert lines[2] == '"2025-11-22T08:26:40.12Z",2,'
    assert lines[3] == ",,"


@pytest.mark.parametrize("form", ["json", "csv", "arrow", "parquet"])
def test_no_rows_are_an_answer_too(form: Form) -> None:
    assert tables.encode(TABLE.slice(0, 0), form)


def test_no_text_is_a_formula_to_a_spreadsheet() -> None:
    texts = ["=HYPERLINK(1)", "+1", "-1", "@a", "\t=1", "fine=1", None]
    told = tables.encode(pa.table({"reason": pa.array(texts), "w": [-1.0] * 7}), "csv").decode()
    assert told.splitlines()[1:] == [
        '"\'=HYPERLINK(1)",-1',
        '"\'+1",-1',
        '"\'-1",-1',
        '"\'@a",-1',
        '"\'\t=1",-1',
        '"fine=1",-1',
        ",-1",
    ]
