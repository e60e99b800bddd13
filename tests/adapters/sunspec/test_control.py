"""Setpoints in the words of each control model."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapters.sunspec.blocks import block, put

from kapelle.adapters.sunspec import control
from kapelle.adapters.sunspec.codec import Block
from kapelle.adapters.sunspec.control import Blocks, Refused, Step, Way
from kapelle.adapters.sunspec.models import MODELS
from kapelle.adapters.sunspec.settings import Control

WSET = {
    "WSetEna": 0, "WSetMod": 1, "WSet": 0, "WSet_SF": 0, "WSetEnaRvrt": 0, "WSetRvrtTms": 0,
    "WSetRvrtRem": 0,
}  # fmt: skip
IN_PERCENT = {"WSetEna": 0, "WSetMod": 0, "WSetPct": 0, "WSetPct_SF": -1, "WSetRvrtTms": 0}
LIMIT = {"WMaxLimPctEna": 0, "WMaxLimPct": 1_000, "WMaxLimPct_SF": -1, "WMaxLimPctRvrtTms": 0}
OLD_LIMIT = {"WMaxLim_Ena": 0, "WMaxLimPct": 100, "WMaxLimPct_SF": 0, "WMaxLimPct_RvrtTms": 0}
STORAGE = {
    "WChaMax": 5_000, "WChaMax_SF": 0, "StorCtl_Mod": 0, "OutWRte": 10_000, "InWRte": 10_000,
    "InOutWRte_RvrtTms": 0, "InOutWRte_SF": -2,
}  # fmt: skip
CAPACITY = {702: block(702, WMax=10_000, WMaxRtg=12_000, W_SF=0)}
SETTINGS = {121: block(121, WMax=8_000, WMax_SF=0)}

DEVICES: dict[Control, Blocks] = {
    "704": {704: block(704, **WSET, **LIMIT), **CAPACITY},
    "124": {124: block(124, **STORAGE), 123: block(123, **OLD_LIMIT), **SETTINGS},
    "704 limit": {704: block(704, **LIMIT), **CAPACITY},
    "123": {123: block(123, **OLD_LIMIT), **SETTINGS},
}


def way_of(blocks: Blocks, wanted: Control = "auto") -> Way:
    way = control.way_of(blocks, wanted)
    assert way is not None
    return way


def carried_out(blocks: Blocks, way: Way, steps: list[Step]) -> Blocks:
    """Return what a device holds that took every step, written as runs of registers."""
    raw = bytearray(blocks[way.model].raw)
    for step in steps:
        for offset, written in control.runs(way, step):
            raw[2 * offset : 2 * offset + len(written)] = written
    return {**blocks, way.model: Block(way.model, bytes(raw))}


@pytest.mark.parametrize("name", DEVICES)
def test_the_best_a_device_has_takes_its_setpoints(name: Control) -> None:
    assert way_of(DEVICES[name]).name == name


def test_another_way_or_none_may_be_configured() -> None:
    assert way_of(DEVICES["704"], "704 limit").name == "704 limit"
    assert control.way_of(DEVICES["704"], "none") is None
    assert control.way_of(DEVICES["704"], "124") is None
    assert control.way_of({704: block(704)}, "auto") is None


@given(
    st.sampled_from(list(DEVICES)),
    st.floats(-5_000, 5_000, allow_nan=False),
    st.floats(1, 3_600, allow_nan=False),
)
def test_a_setpoint_that_was_carried_out_stands_as_it_was_asked(
    name: Control, setpoint_w: float, revert_s: float
) -> None:
    blocks = DEVICES[name]
    way = way_of(blocks)
    try:
        steps = control.steps(way, blocks, setpoint_w, revert_s)
    except Refused:
        assert way.is_limit
        assert setpoint_w < 0
        return
    # The timer before anything counts, what enables it after everything.
    assert way.revert in [name for name, _ in steps[0]]
    assert steps[-1] == [(way.enable, way.on)]
    after = carried_out(blocks, way, steps)
    assert control.differs(steps, after[way.model]) == ""
    # A percentage has steps of its own: 1 % of 8 kW is the coarsest here.
    assert control.standing_w(way, after) == pytest.approx(setpoint_w, abs=41.0)
    released = control.steps(way, after, math.nan, math.nan)
    assert math.isnan(control.standing_w(way, carried_out(after, way, released)))


def test_told_to_charge_is_negative(shared: Path) -> None:
    golden = json.loads((shared / "goldens" / "signs.json").read_text())
    (vector,) = [v for v in golden["vectors"] if v["protocol"] == "sunspec-704"]
    blocks = DEVICES["704"]
    steps = control.steps(way_of(blocks), blocks, golden["power_w"], 60.0)
    assert ("WSet", vector["value"]) in steps[1]


def test_a_storage_is_held_between_two_equal_bounds() -> None:
    blocks = DEVICES["124"]
    steps = control.steps(way_of(blocks), blocks, -2_000.0, 60.0)
    # Charging by force: at least and at most 40 % of WChaMax.
    assert steps == [
        [("InOutWRte_RvrtTms", 60)],
        [("OutWRte", -4_000), ("InWRte", 4_000)],
        [("StorCtl_Mod", 3)],
    ]


def test_a_device_that_counts_in_percent_is_told_percent_of_its_setting() -> None:
    blocks = {704: block(704, **IN_PERCENT), **CAPACITY}
    steps = control.steps(way_of(blocks), blocks, -2_000.0, 60.0)
    assert steps[1] == [("WSetMod", 0), ("WSetPct", -200)]
    rated = {**blocks, 702: block(702, WMaxRtg=8_000, W_SF=0)}
    assert ("WSetPct", -250) in control.steps(way_of(rated), rated, -2_000.0, 60.0)[1]


@pytest.mark.parametrize(
    ("name", "setpoint_w", "why"),
    [
        ("123", -1.0, "cannot be told to charge"),
        ("704 limit", -1.0, "cannot be told to charge"),
        ("123", 8_001.0, "more than the 8000 W"),
        ("124", -5_001.0, "more than the 5000 W"),
        ("704", 3e9, "cannot hold"),
    ],
)
def test_what_a_device_cannot_be_told_is_refused(
    name: Control, setpoint_w: float, why: str
) -> None:
    with pytest.raises(Refused, match=why):
        control.steps(way_of(DEVICES[name]), DEVICES[name], setpoint_w, 60.0)


def test_a_percentage_of_nobody_knows_what_is_refused() -> None:
    blocks = {123: block(123, **OLD_LIMIT)}
    with pytest.raises(Refused, match="percentage of"):
        control.steps(way_of(blocks), blocks, 1_000.0, 60.0)
    with pytest.raises(Refused, match="cannot hold"):
        control.steps(way_of(DEVICES["123"]), DEVICES["123"], 1_000.0, 70_000.0)


def test_a_timer_that_did_not_start_is_written_again() -> None:
    blocks = DEVICES["704"]
    way = way_of(blocks)
    steps = control.steps(way, blocks, 100.0, 60.0)
    raw = bytearray(carried_out(blocks, way, steps)[704].raw)
    for left, again in ((60, False), (31, False), (30, True), (0, True)):
        put(raw, MODELS[704]["WSetRvrtRem"], left)
        assert bool(control.restart(way, steps, Block(704, bytes(raw)))) == again
