"""Setpoints in the words of SunSpec's control models, and what shows that a device has taken one.

Each begins with the revert timer, so that whoever dies half way leaves none that stands for ever,
and ends with what enables it: models 123 and 124 take new values into force only then.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kapelle.adapters.sunspec.codec import Block, number, raw_of, registers, whole
from kapelle.adapters.sunspec.models import MODELS
from kapelle.adapters.sunspec.settings import Control

Blocks = Mapping[int, Block]
Step = Sequence[tuple[str, int]]
"""Points that are written one after the other, and the whole number for each."""


class Refused(ValueError):
    """A setpoint this device cannot be given; the message says why."""


@dataclass(frozen=True, slots=True)
class Way:
    """One control of one model."""

    name: Control
    model: int
    enable: str
    on: int
    revert: str
    """Its revert timer. [s]"""
    value: str
    percent: str = ""
    """The percentage of the reference power that stands in for a value in watts."""
    after: str = ""
    """Whether the control stays enabled when the timer has run out."""
    remaining: str = ""
    """What is left of the timer. [s]"""
    is_limit: bool = False
    """It bounds what is produced, and cannot make anything charge."""


WAYS = (
    Way(
        "704",
        704,
        "WSetEna",
        1,
        "WSetRvrtTms",
        "WSet",
        percent="WSetPct",
        after="WSetEnaRvrt",
        remaining="WSetRvrtRem",
    ),
    Way("124", 124, "StorCtl_Mod", 3, "InOutWRte_RvrtTms", "", percent="OutWRte"),
    Way(
        "704 limit",
        704,
        "WMaxLimPctEna",
        1,
        "WMaxLimPctRvrtTms",
        "",
        percent="WMaxLimPct",
        after="WMaxLimPctEnaRvrt",
        remaining="WMaxLimPctRvrtRem",
        is_limit=True,
    ),
    Way(
        "123",
        123,
        "WMaxLim_Ena",
        1,
        "WMaxLimPct_RvrtTms",
        "",
        percent="WMaxLimPct",
        is_limit=True,
    ),
)
"""The best first: a setpoint, a storage's window, a limit."""

REFERENCES: Mapping[int, Sequence[tuple[int, str]]] = {
    # Fronius refers discharging to it as well, and no model has a WDisChaMax.
    124: ((124, "WChaMax"),),
    704: ((702, "WMax"), (702, "WMaxRtg")),
    123: ((121, "WMax"), (120, "WRtg")),
}
"""Of which points the percentages of a control model are, the setting before the rating."""
_WATTS, _PERCENT = 1, 0
"""`WSetMod`."""


def way_of(blocks: Blocks, control: Control) -> Way | None:
    """Return how a device takes setpoints: as configured, else the best it has; None for none."""
    for way in WAYS:
        if control in ("auto", way.name) and way.model in blocks:
            block = blocks[way.model]
            if whole(block, way.enable) is not None and (
                _in_watts(block, way) or not math.isnan(number(block, way.percent))
            ):
                return way
    return None


def has_timer(way: Way, blocks: Blocks) -> bool:
    """Tell whether the device takes the setpoint back by itself."""
    return whole(blocks[way.model], way.revert) is not None


def steps(way: Way, blocks: Blocks, setpoint_w: float, revert_s: float) -> list[Step]:
    """Return what to write for a setpoint, in order; NaN releases the device.

    Args:
        way: How the device takes setpoints.
        blocks: What was read just now.
        setpoint_w: Positive towards the grid. [W]
        revert_s: For the device's own timer, if it has one. [s]

    Raises:
        Refused: The device cannot be given this one.
    """
    if math.isnan(setpoint_w):
        return [[(way.enable, 0)]]
    block = blocks[way.model]
    begun: list[tuple[str, int]] = []
    if way.after and whole(block, way.after) is not None:
        begun.append((way.after, 0))
    if has_timer(way, blocks):
        seconds = raw_of(block, way.revert, max(1.0, math.floor(revert_s)))
        if seconds is None:
            raise Refused(f"{way.revert} cannot hold {revert_s:g} s")
        begun.append((way.revert, seconds))
    return [
        *([begun] if begun else []),
        _value(way, blocks, setpoint_w),
        [(way.enable, way.on)],
    ]


def runs(way: Way, step: Step) -> list[tuple[int, bytes]]:
    """Return what to write for a step, by offset in the model: registers side by side together."""
    made: list[tuple[int, bytes]] = []
    for name, raw in step:
        point = MODELS[way.model][name]
        written = registers(point.kind, raw)
        if made and made[-1][0] + len(made[-1][1]) // 2 == point.offset:
            made[-1] = made[-1][0], made[-1][1] + written
        else:
            made.append((point.offset, written))
    return made


def restart(way: Way, written: Sequence[Step], block: Block) -> Step:
    """Return what starts the revert timer anew where writing all did not; nothing where it did.

    Devices disagree on what restarts a timer that runs already: the enabling, the value, or the
    time itself. Source: sunspec/models, issue 215.
    """
    wanted = next((raw for step in written for name, raw in step if name == way.revert), None)
    left = whole(block, way.remaining) if way.remaining else None
    if wanted is None or left is None or left > wanted // 2:
        return []
    return [(way.revert, wanted)]


def differs(written: Sequence[Step], block: Block) -> str:
    """Return where a device, read back, is not as it was written; empty where it is."""
    for step in written:
        for name, raw in step:
            if (found := whole(block, name)) != raw:
                return f"{name} reads back {found}, not {raw}"
    return ""


def standing_w(way: Way | None, blocks: Blocks) -> float:
    """Return the setpoint in force in a device, NaN where none is. [W]"""
    if way is None or way.model not in blocks:
        return math.nan
    block = blocks[way.model]
    if whole(block, way.enable) != way.on:
        return math.nan
    if way.value and whole(block, "WSetMod") == _WATTS:
        return number(block, way.value)
    return number(block, way.percent) / 100.0 * reference_w(way, blocks)


def reference_w(way: Way, blocks: Blocks) -> float:
    """Return the power that percentages of a control refer to; NaN where it is unknown. [W]"""
    for model, name in REFERENCES[way.model]:
        if model in blocks and (watts := number(blocks[model], name)) > 0:
            return watts
    return math.nan


def _value(way: Way, blocks: Blocks, setpoint_w: float) -> Step:
    block = blocks[way.model]
    if way.is_limit and setpoint_w < 0:
        raise Refused("the device takes a limit on what it produces, it cannot be told to charge")
    if way.value and _in_watts(block, way):
        raw = raw_of(block, way.value, setpoint_w)
        if raw is None:
            raise Refused(f"{way.value} cannot hold {setpoint_w:g} W")
        return [("WSetMod", _WATTS), (way.value, raw)]
    reference = reference_w(way, blocks)
    if math.isnan(reference):
        raise Refused(f"the device does not say what {way.percent} is a percentage of")
    percent = 100.0 * setpoint_w / reference
    if abs(percent) > 100.0:
        raise Refused(f"{setpoint_w:g} W is more than the {reference:g} W the device allows")
    raw = raw_of(block, way.percent, percent)
    if raw is None:
        raise Refused(f"{way.percent} cannot hold {percent:g} %")
    if way.model == 124:
        # A window from both sides: discharge at most so much, and charge at most minus so much.
        return [("OutWRte", raw), ("InWRte", -raw)]
    return [("WSetMod", _PERCENT), (way.percent, raw)] if way.value else [(way.percent, raw)]


def _in_watts(block: Block, way: Way) -> bool:
    return bool(way.value) and not math.isnan(number(block, way.value))
