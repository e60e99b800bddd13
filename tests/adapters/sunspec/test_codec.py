"""Registers to values: what is missing is missing, and nothing that comes raises."""

import json
import math
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapters.sunspec.blocks import block, with_group

from kapelle.adapters.sunspec import codec, control, readings
from kapelle.adapters.sunspec.codec import Block, number, raw_of, text, whole
from kapelle.adapters.sunspec.models import MODELS
from kapelle.adapters.sunspec.settings import Measure
from kapelle.model.enums import DeviceMode, Metric

MEASURES: tuple[Measure, ...] = ("inverter", "meter import", "meter export", "storage")


@pytest.mark.parametrize(
    ("model", "name"), [(model, name) for model in MODELS for name in MODELS[model]]
)
def test_what_a_device_does_not_have_is_missing_and_not_zero(model: int, name: str) -> None:
    empty = block(model)
    if MODELS[model][name].size:
        assert text(empty, name) == ""
    else:
        assert whole(empty, name) is None
        assert math.isnan(number(empty, name))


@pytest.mark.parametrize("scale", [-0x8000, 11, -11, 0x7FFF])
def test_a_value_without_a_usable_scale_factor_is_missing(scale: int) -> None:
    made = block(701, W=5, W_SF=0)
    assert number(made, "W") == 5.0
    raw = bytearray(made.raw)
    at = 2 * MODELS[701]["W_SF"].offset
    raw[at : at + 2] = struct.pack(">h", scale)
    assert math.isnan(number(Block(701, bytes(raw)), "W"))


def test_an_accumulator_that_never_counted_is_missing_but_a_plain_zero_is_zero() -> None:
    assert math.isnan(number(block(103, WH=0, WH_SF=0), "WH"))
    assert number(block(701, TotWhAbs=0, TotWh_SF=0), "TotWhAbs") == 0.0


def test_a_block_of_an_older_revision_lacks_what_came_later() -> None:
    made = block(701, W=5, W_SF=0, Hz=50_000, Hz_SF=-3)
    short = Block(701, made.raw[: 2 * MODELS[701]["W_SF"].offset])
    assert math.isnan(number(short, "W"))
    assert whole(short, "W") == 5


def test_decimals_are_exact() -> None:
    assert number(block(701, LNV=2301, V_SF=-1), "LNV") == 230.1
    assert number(block(701, W=12, W_SF=3), "W") == 12_000.0


@given(st.integers(-32_767, 32_767), st.integers(-4, 4))
def test_what_is_encoded_is_decoded(raw: int, scale: int) -> None:
    made = block(701, W_SF=scale)
    value = raw * 10.0**scale
    assert raw_of(made, "W", value) == raw
    read_back = block(701, W_SF=scale, W=raw)
    assert number(read_back, "W") == pytest.approx(value)


@pytest.mark.parametrize("value", [40_000.0, -40_000.0, math.inf, math.nan, -32_768.0])
def test_what_a_point_cannot_hold_is_not_written(value: float) -> None:
    # -32768 would read as "missing".
    assert raw_of(block(701, W_SF=0), "W", value) is None


@given(st.sampled_from(list(MODELS)), st.binary(max_size=260), st.sampled_from(MEASURES))
def test_whatever_registers_hold_nothing_raises(model: int, raw: bytes, measure: Measure) -> None:
    blocks = {model: Block(model, raw)}
    said = readings.metrics(blocks, measure)
    assert all(math.isfinite(value) for value in said.values())
    way = control.way_of(blocks, "auto")
    standing_w = control.standing_w(way, blocks)
    assert readings.mode(blocks, standing_w, math.nan) in DeviceMode
    for name, point in MODELS[model].items():
        if point.size:
            codec.text(blocks[model], name)
        else:
            number(blocks[model], name)


def test_a_battery_that_charges_is_negative_power(shared: Path) -> None:
    golden = json.loads((shared / "goldens" / "signs.json").read_text())
    vectors = {vector["protocol"]: vector for vector in golden["vectors"]}
    said = vectors["sunspec-701"]["value"]
    blocks = {701: block(701, W=said, W_SF=0)}
    assert readings.metrics(blocks, "inverter")[Metric.POWER_W] == golden["power_w"]
    blocks = {701: block(701, W=said // 100, W_SF=2)}
    assert readings.metrics(blocks, "inverter")[Metric.POWER_W] == golden["power_w"]


@pytest.mark.parametrize(
    ("measure", "power_w"), [("meter import", -700.0), ("meter export", 700.0)]
)
def test_meters_say_which_way_is_positive(measure: Measure, power_w: float) -> None:
    blocks = {203: block(203, W=7, W_SF=2, TotWhExp=4, TotWhImp=9, TotWh_SF=3, PhVphA=231, V_SF=0)}
    assert readings.metrics(blocks, measure) == {
        Metric.POWER_W: power_w,
        Metric.EXPORT_WH: 4_000.0,
        Metric.IMPORT_WH: 9_000.0,
        Metric.VOLTAGE_V: 231.0,
    }


def test_the_storage_behind_a_hybrid_inverter_is_measured_on_its_own() -> None:
    ports = with_group(
        block(714, DCW_SF=0),
        {"PrtTyp": 0, "DCW": 3_000},
        {"PrtTyp": 1, "DCW": -1_200},
        {"PrtTyp": 1, "DCW": -300},
    )
    assert readings.metrics({714: ports}, "storage") == {Metric.POWER_W: -1_500.0}
    modules = with_group(
        block(160, DCW_SF=1),
        {"IDStr": "MPPT 1", "DCW": 300},
        {"IDStr": "StCha 3", "DCW": 150},
        {"IDStr": "StDisCha 4", "DCW": 0xFFFF},
    )
    assert readings.metrics({160: modules}, "storage") == {Metric.POWER_W: -1_500.0}
    assert readings.metrics({160: with_group(block(160))}, "storage") == {}


@pytest.mark.parametrize(
    ("block_", "soc"),
    [
        (block(713, SoC=553, Pct_SF=-1), 0.553),
        (block(802, SoC=20, SoC_SF=0), 0.2),
        (block(124, ChaState=9_900, ChaState_SF=-2), 0.99),
        # Some count a little beyond full; far beyond is no state of charge.
        (block(713, SoC=1_008, Pct_SF=-1), 1.0),
        (block(713, SoC=553, Pct_SF=0), None),
    ],
)
def test_the_state_of_charge_is_a_fraction(block_: Block, soc: float | None) -> None:
    said = readings.metrics({block_.model: block_}, "inverter")
    assert said == ({} if soc is None else {Metric.SOC: pytest.approx(soc)})


@pytest.mark.parametrize(
    ("blocks", "standing_w", "ours_w", "mode"),
    [
        ({701: block(701, InvSt=3)}, math.nan, math.nan, DeviceMode.OWN),
        ({701: block(701, InvSt=3)}, 500.0, 500.0, DeviceMode.COMMAND),
        ({701: block(701, InvSt=3)}, 500.0, math.nan, DeviceMode.LOCAL),
        ({701: block(701, InvSt=3)}, 500.0, -500.0, DeviceMode.LOCAL),
        ({701: block(701, InvSt=6)}, 500.0, 500.0, DeviceMode.FAULT),
        ({103: block(103, St=7)}, math.nan, math.nan, DeviceMode.FAULT),
        ({802: block(802, State=99)}, math.nan, math.nan, DeviceMode.FAULT),
        ({802: block(802, LocRemCtl=1)}, math.nan, math.nan, DeviceMode.LOCAL),
        ({703: block(703, ES=0)}, 500.0, 500.0, DeviceMode.LOCAL),
    ],
)
def test_whose_will_a_device_follows(
    blocks: dict[int, Block], standing_w: float, ours_w: float, mode: DeviceMode
) -> None:
    assert readings.mode(blocks, standing_w, ours_w) == mode
