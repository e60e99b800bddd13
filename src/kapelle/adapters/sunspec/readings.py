"""What the models of a device say it does, as the plant's metrics. Power is positive towards the
grid, as in SunSpec's inverter models."""

import math
from collections.abc import Mapping

from kapelle.adapters.sunspec.codec import Block, number, repeated, repeated_text, whole
from kapelle.adapters.sunspec.models import INVERTERS, METERS
from kapelle.adapters.sunspec.settings import Measure
from kapelle.model.enums import DeviceMode, Metric

Blocks = Mapping[int, Block]

_ESS = 1.0
"""`PrtTyp` of a port that leads to a storage (model 714)."""
_FAULTS = {701: 6, 101: 7, 102: 7, 103: 7}
"""State of an inverter that stands still because of a fault."""
_BATTERY_FAULT = 99
_FULL_PERCENT = 102.0
_BATTERY_LOCAL = 1


def metrics(blocks: Blocks, measure: Measure) -> dict[Metric, float]:
    """Return what is known; what is not is left out.

    Args:
        blocks: What was read, by model.
        measure: Where the power is measured.
    """
    if measure == "inverter":
        said = _inverter(blocks)
    elif measure == "storage":
        said = {Metric.POWER_W: _storage_w(blocks)}
    else:
        said = _meter(blocks, 1.0 if measure == "meter export" else -1.0)
    said[Metric.SOC] = _soc(blocks)
    return {metric: value for metric, value in said.items() if not math.isnan(value)}


def mode(blocks: Blocks, standing_w: float, ours_w: float) -> DeviceMode:
    """Return whose will the device follows.

    Args:
        blocks: What was read, by model.
        standing_w: The setpoint in force in the device; NaN for none. [W]
        ours_w: The setpoint we gave it last; NaN for none. [W]
    """
    if any(
        whole(blocks[model], "St" if model < 700 else "InvSt") == state
        for model, state in _FAULTS.items()
        if model in blocks
    ):
        return DeviceMode.FAULT
    battery = blocks.get(802)
    if battery is not None and whole(battery, "State") == _BATTERY_FAULT:
        return DeviceMode.FAULT
    if battery is not None and whole(battery, "LocRemCtl") == _BATTERY_LOCAL:
        return DeviceMode.LOCAL
    # Whoever may not enter service follows nobody's setpoint.
    if 703 in blocks and whole(blocks[703], "ES") == 0:
        return DeviceMode.LOCAL
    if math.isnan(standing_w):
        return DeviceMode.OWN
    # Another master, or a person at the device, gave it this one.
    is_ours = abs(standing_w - ours_w) <= max(1.0, 0.01 * abs(ours_w))
    return DeviceMode.COMMAND if is_ours else DeviceMode.LOCAL


def _inverter(blocks: Blocks) -> dict[Metric, float]:
    said: dict[Metric, float] = {}
    model = next((model for model in INVERTERS if model in blocks), None)
    if model == 701:
        block = blocks[model]
        said = {
            Metric.POWER_W: number(block, "W"),
            Metric.EXPORT_WH: number(block, "TotWhInj"),
            Metric.IMPORT_WH: number(block, "TotWhAbs"),
            Metric.VOLTAGE_V: number(block, "LNV"),
            Metric.FREQUENCY_HZ: number(block, "Hz"),
        }
    elif model is not None:
        block = blocks[model]
        said = {
            Metric.POWER_W: number(block, "W"),
            Metric.EXPORT_WH: number(block, "WH"),
            Metric.VOLTAGE_V: number(block, "PhVphA"),
            Metric.FREQUENCY_HZ: number(block, "Hz"),
        }
    if 122 in blocks:
        said[Metric.MAX_W] = number(blocks[122], "WAval")
        if math.isnan(said.get(Metric.EXPORT_WH, math.nan)):
            said[Metric.EXPORT_WH] = number(blocks[122], "ActWh")
    return said


def _meter(blocks: Blocks, sign: float) -> dict[Metric, float]:
    model = next((model for model in METERS if model in blocks), None)
    if model is None:
        return {}
    block = blocks[model]
    return {
        Metric.POWER_W: sign * number(block, "W"),
        Metric.EXPORT_WH: number(block, "TotWhExp"),
        Metric.IMPORT_WH: number(block, "TotWhImp"),
        Metric.VOLTAGE_V: _first(number(block, "PhV"), number(block, "PhVphA")),
        Metric.FREQUENCY_HZ: number(block, "Hz"),
    }


def _storage_w(blocks: Blocks) -> float:
    """Return the power of the storage ports of a hybrid inverter, on their direct current. [W]"""
    if 714 in blocks:
        block = blocks[714]
        kinds, powers = repeated(block, "PrtTyp"), repeated(block, "DCW")
        return _sum([w for kind, w in zip(kinds, powers, strict=True) if kind == _ESS])
    if 160 in blocks:
        # Fronius GEN24 says charging and discharging as two modules, both without sign.
        names, powers = repeated_text(blocks[160], "IDStr"), repeated(blocks[160], "DCW")
        each = list(zip(names, powers, strict=True))
        out_w = [w for name, w in each if name.startswith("StDisCha")]
        in_w = [-w for name, w in each if name.startswith("StCha")]
        return _sum(out_w + in_w)
    return math.nan


def _soc(blocks: Blocks) -> float:
    percent = math.nan
    for model, name in ((713, "SoC"), (802, "SoC"), (124, "ChaState")):
        if model in blocks and math.isnan(percent):
            percent = number(blocks[model], name)
    # Some count a little beyond full; further beyond it is no state of charge.
    return min(percent, 100.0) / 100.0 if 0.0 <= percent <= _FULL_PERCENT else math.nan


def _first(*values: float) -> float:
    return next((value for value in values if not math.isnan(value)), math.nan)


def _sum(values: list[float]) -> float:
    """Return the sum of what is known; NaN where nothing is. An idle module says nothing."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) if known else math.nan
