"""Power is positive towards the grid: on our own wires a battery that charges says a minus."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kapelle.adapters.http.arrow import decode_arrow
from kapelle.adapters.http.names import Names
from kapelle.adapters.http.rows import decode_json, decode_ndjson
from kapelle.adapters.mqtt import codec
from kapelle.model.blocks import Commands
from kapelle.model.enums import Metric


class Battery:
    """A directory of one device."""

    partitions = 1
    version = 0

    def resolve(self, names: list[str]) -> np.ndarray:
        return np.zeros(len(names), np.int32)


@pytest.fixture
def charging_w(shared: Path) -> float:
    """Return the power of the battery in the golden file, which charges at 2 kW."""
    golden = json.loads((shared / "goldens" / "signs.json").read_text())
    return float(golden["power_w"])


def test_a_charging_battery_reports_a_minus(charging_w: float) -> None:
    said = {"device": "battery", "power_w": -2000, "max_w": 2000, "min_w": -2000}
    text = json.dumps(said).encode()
    table = pa.table({name: [value] for name, value in said.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    known: Any = Names(Battery(), 10)
    for told in (
        codec.decode_telemetry([text]),
        decode_json(text, known, None, 10),
        decode_ndjson(text, known, None, 10),
        decode_arrow(sink.getvalue().to_pybytes(), known, None, 10),
    ):
        assert told.values[Metric.POWER_W].tolist() == [charging_w]
        # The limits turn with the power: charging is the lower one.
        assert told.values[Metric.MIN_W].tolist() == [charging_w]
        assert told.values[Metric.MAX_W].tolist() == [-charging_w]


def test_a_battery_told_to_charge_is_sent_a_minus(charging_w: float) -> None:
    commands = Commands(**{name: np.ones(1, kind) for name, kind in Commands.COLUMNS.items()})
    commands.setpoint_w[0] = charging_w
    (payload,) = codec.encode_commands(commands)
    assert json.loads(payload)["setpoint_w"] == -2000
