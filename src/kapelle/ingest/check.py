"""Tells usable readings from others: who sent it, when, and whether its maker's plate allows it.

What is refused here is provably wrong. A battery that reports 3.2 W may rest, or may mean 3.2 kW:
one reading cannot tell, so it is kept. Only values beyond the nameplate prove a wrong unit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kapelle.ingest.partition import take
from kapelle.ingest.settings import IngestSettings
from kapelle.model.blocks import Readings
from kapelle.model.enums import DeviceMode, Metric, Quality
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Floats, Ints, Longs

YEAR_2020_NS = 1_577_836_800 * NS_PER_S
YEAR_2100_NS = 4_102_444_800 * NS_PER_S
_YEAR_NS = 366 * 86_400 * NS_PER_S
_REGISTER_WH_MAX = 1e15
"""A thousand TWh: no device counts so far, and it still fits an integer number of mWh."""
_MODES = [float(mode) for mode in DeviceMode]
_STANDBY = 0.05
"""An inverter draws a little at night, a pump's meter wobbles: this share of the other direction's
nameplate is no proof of a turned sign."""


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A block, told apart. Every row is either in `kept` or in `refused`."""

    kept: Readings
    refused: dict[int, str]
    """Row of the block as it came -> `code: sentence; remedy`."""


Explain = Callable[[int], str]


def check(block: Readings, nameplate: tuple[Floats, Floats], settings: IngestSettings) -> Checked:
    """Stamp and flag usable rows, and name what is wrong with the others.

    Args:
        block: Rows as an adapter read them: `device_no` -1 where nobody bears the name,
            `measured_at_ns` 0 where the device sent no time, `order` 0 where it sent no number.
        nameplate: Nameplate up and down of each row's device; NaN where unknown. [W]
        settings: The bounds.
    """
    code = np.zeros(len(block), np.uint8)
    explain: list[Explain] = []

    def refuse(wrong: Flags, why: Explain) -> None:
        # The first reason found is the one told: later checks assume what earlier ones ensured.
        explain.append(why)
        code[wrong & (code == 0)] = len(explain)

    # Comparisons with NaN are false, so what was not said is never refused.
    with np.errstate(invalid="ignore", over="ignore"):
        _check_sender(block.device_no, refuse)
        _check_time(block, settings, refuse)
        _check_finite(block, refuse)
        _check_power(block, nameplate, settings, refuse)
        _check_limits(block, nameplate, settings, refuse)
        _check_others(block, refuse)

    bad = np.flatnonzero(code)
    refused = {row: explain[code[row] - 1](row) for row in bad.tolist()}
    kept = block if len(bad) == 0 else take(block, np.flatnonzero(code == 0))
    return Checked(_stamped(kept, settings), refused)


def _stamped(block: Readings, settings: IngestSettings) -> Readings:
    unstamped = block.measured_at_ns == 0
    measured: Longs = np.where(unstamped, block.received_at_ns, block.measured_at_ns)
    ahead = measured - block.received_at_ns > int(settings.ahead_s_flagged * NS_PER_S)
    quality: Bytes = (
        block.quality
        | np.where(unstamped, np.uint8(Quality.UNSTAMPED), np.uint8(0))
        | np.where(ahead, np.uint8(Quality.AHEAD), np.uint8(0))
    ).astype(np.uint8)
    order: Longs = np.where(block.order == 0, measured, block.order)
    return Readings(
        device_no=block.device_no,
        order=order,
        measured_at_ns=measured,
        received_at_ns=block.received_at_ns,
        quality=quality,
        values=block.values,
    )


Refuse = Callable[[Flags, Explain], None]


def _check_sender(device_no: Ints, refuse: Refuse) -> None:
    refuse(
        device_no < 0,
        lambda _: "device-unknown: no enrolled device bears this name; enrol it, or mend the name",
    )


def _check_time(block: Readings, settings: IngestSettings, refuse: Refuse) -> None:
    at, received = block.measured_at_ns, block.received_at_ns
    sent = at != 0
    refuse(
        sent & ((at < YEAR_2020_NS) | (at >= YEAR_2100_NS)),
        lambda row: "time-range: " + _time_hint(int(at[row]), int(received[row])),
    )
    # Subtracting is safe now: both lie in this century.
    late_ns = np.where(sent & (at >= YEAR_2020_NS), received - at, 0)
    refuse(
        late_ns < -int(settings.ahead_s_max * NS_PER_S),
        lambda row: (
            f"time-ahead: {-int(late_ns[row]) / NS_PER_S:.0f} s ahead of our clock; "
            "set the device's clock by NTP, and send UTC"
        ),
    )
    refuse(
        late_ns > int(settings.age_s_max * NS_PER_S),
        lambda row: (
            f"time-old: {int(late_ns[row]) / NS_PER_S / 86_400:.0f} days old, and only "
            f"{settings.age_s_max / 86_400:.0f} are taken; import history another way"
        ),
    )


def _time_hint(at_ns: int, received_at_ns: int) -> str:
    """Name the unit mistake that would explain a time outside this century, if one does."""
    for factor, unit in ((10**9, "seconds"), (10**6, "milliseconds"), (10**3, "microseconds")):
        if YEAR_2020_NS <= at_ns * factor <= received_at_ns + 86_400 * NS_PER_S:
            return f"{at_ns} looks like {unit} sent as nanoseconds; send nanoseconds"
        if YEAR_2020_NS <= at_ns // factor <= received_at_ns + 86_400 * NS_PER_S:
            return f"{at_ns} was multiplied by {factor} once too often; send nanoseconds"
    if 0 < at_ns < _YEAR_NS:
        return "the clock counts from 1970, it was never set; set it by NTP, or send no time"
    return f"{at_ns} ns is not between 2020 and 2100; set the device's clock, and send UTC"


def _check_finite(block: Readings, refuse: Refuse) -> None:
    for metric, column in block.values.items():
        name = metric.name.lower()
        refuse(
            np.isinf(column),
            lambda _, name=name: (  # type: ignore[misc]  # bound per metric
                f"value-infinite: {name} is infinite; leave out what is not known"
            ),
        )


def _check_power(
    block: Readings, nameplate: tuple[Floats, Floats], settings: IngestSettings, refuse: Refuse
) -> None:
    power = block.values.get(Metric.POWER_W)
    if power is None:
        return
    up, down = nameplate
    largest = np.maximum(up, down)
    most = settings.power_margin * largest + settings.power_slack_w

    def beyond(row: int) -> str:
        said = f"{power[row]:.10g} W, and the nameplate says {largest[row]:.10g} W"
        if abs(power[row]) / 1000 <= most[row]:
            return (
                f"power-unit: {said}; looks like W sent as kW and multiplied by 1000, or mW; send W"
            )
        return f"power-range: {said}; mend the meter's scale, or the nameplate in the registry"

    refuse(np.abs(power) > most, beyond)
    # Where the plate says "none" in one direction, more than standby there is impossible.
    slack = settings.power_slack_w + _STANDBY * largest
    wrong_way = ((power > slack) & (up == 0)) | ((power < -slack) & (down == 0))
    refuse(
        wrong_way,
        lambda row: (
            f"power-sign: {power[row]:.10g} W from a device that cannot "
            f"{'export' if power[row] > 0 else 'consume'}; looks like its sign is turned round, "
            "send export positive, consumption negative"
        ),
    )


def _check_limits(
    block: Readings, nameplate: tuple[Floats, Floats], settings: IngestSettings, refuse: Refuse
) -> None:
    largest = np.maximum(*nameplate)
    most = settings.power_margin * largest + settings.power_slack_w
    highest, lowest = block.values.get(Metric.MAX_W), block.values.get(Metric.MIN_W)
    for name, column in (("max_w", highest), ("min_w", lowest)):
        if column is not None:
            refuse(
                np.abs(column) > most,
                lambda row, name=name, column=column: (  # type: ignore[misc]  # bound per limit
                    f"limit-range: {name} {column[row]:.10g} W, and the nameplate says "
                    f"{largest[row]:.10g} W; send W"
                ),
            )
    setpoint = block.values.get(Metric.SETPOINT_W)
    if setpoint is not None:
        refuse(
            np.abs(setpoint) > most,
            lambda row: (
                f"setpoint-range: setpoint_w {setpoint[row]:.10g} W, and the nameplate says "
                f"{largest[row]:.10g} W; send W, and leave it out where nothing is set"
            ),
        )
    if highest is not None and lowest is not None:
        refuse(
            highest < lowest,
            lambda row: (
                f"limit-order: max_w {highest[row]:.10g} lies below min_w {lowest[row]:.10g}; "
                "max_w is the highest power towards export, consumption is negative"
            ),
        )


def _check_others(block: Readings, refuse: Refuse) -> None:
    soc = block.values.get(Metric.SOC)
    if soc is not None:
        refuse(
            (soc < 0) | (soc > 1),
            lambda row: (
                f"soc-range: {soc[row]:.10g} is not between 0 and 1; "
                + (
                    "looks like percent, send a fraction"
                    if 1 < soc[row] <= 100
                    else "mend the gauge, or leave it out"
                )
            ),
        )
    mode = block.values.get(Metric.MODE)
    if mode is not None:
        # NaN is in no list, and says nothing.
        refuse(
            (mode == mode) & ~np.isin(mode, _MODES),
            lambda row: f"mode-range: mode {mode[row]:.10g} means nothing; mend the adapter",
        )
    for metric in (Metric.EXPORT_WH, Metric.IMPORT_WH):
        column = block.values.get(metric)
        if column is not None:
            refuse(
                (column < 0) | (column > _REGISTER_WH_MAX),
                lambda row, metric=metric, column=column: (  # type: ignore[misc]  # bound per metric
                    f"register-range: {metric.name.lower()} {column[row]:.10g}; "
                    "a register counts up from 0, export and import apart"
                ),
            )
    for metric in (Metric.VOLTAGE_V, Metric.FREQUENCY_HZ):
        column = block.values.get(metric)
        if column is not None:
            refuse(
                column < 0,
                lambda row, metric=metric, column=column: (  # type: ignore[misc]  # bound per metric
                    f"value-range: {metric.name.lower()} {column[row]:.10g} is negative; "
                    "leave out what is not measured"
                ),
            )
