"""How fast a target becomes setpoints, a fleet becomes a curve, and a level becomes commands."""

import time
from collections.abc import Callable

import highspy
import numpy as np

from kapelle.dispatch.allocation import Solution, solve_with_blocks
from kapelle.dispatch.caps.cells import Capped, Near
from kapelle.dispatch.delivery import decide
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, sums
from kapelle.fleet.curve.cells import CellSums
from kapelle.fleet.curve.groups import capped_groups
from kapelle.fleet.envelopes import StandingCap
from kapelle.model.blocks import Commands
from kapelle.model.enums import DeviceKind, Freshness, Metric, Trait
from kapelle.model.ids import NS_PER_S, Floats, Ints
from kapelle.model.signals import Signal

Row = dict[str, object]
_MIX = {
    DeviceKind.BATTERY: 0.5,
    DeviceKind.PV: 0.2,
    DeviceKind.EV: 0.15,
    DeviceKind.HEAT_PUMP: 0.1,
    DeviceKind.LOAD: 0.05,
}
_PEER_SIZE = 1_000
"""HiGHS is asked at this size only: for ten thousand devices it takes seconds."""


def run(quick: bool) -> list[Row]:
    """Return the numbers; `quick` leaves out the million."""
    sizes = (1_000, 10_000, 100_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
    rows: list[Row] = []
    for size in sizes:
        rows += _allocation(size)
    for size in (500, *sizes[1:]):
        rows += _curve(size)
    rows += [_with_attributes(sizes[-1]), _capped(sizes[-1])]
    return [*rows, _solve(), *_decide(100_000)]


def _best_s(call: Callable[[], object], times: int) -> float:
    """Return the least time of this core that a call took: what else runs here does not count."""
    best = np.inf
    for _ in range(times):
        began = time.thread_time()
        call()
        best = min(best, time.thread_time() - began)
    return best


def _allocation(size: int) -> list[Row]:
    """Time the way every target takes: summed curves, the level, a setpoint for each device."""
    fleet = make_fleet(size)
    # HiGHS has no word for devices that are on or off within this linear program.
    fleet.kind[fleet.kind == DeviceKind.HEAT_PUMP] = DeviceKind.BATTERY
    rows = np.arange(size, dtype=np.int32)
    part = division.shares(fleet, rows)
    own_w = float(part.own_w.sum())
    target_w = own_w + 0.8 * float(part.up_w.sum())
    level = 0.0
    for _ in range(3):
        # The curve is finest near the level in force, which an order has after a few cycles.
        found, setpoint_w = _divided(fleet, rows, level, target_w)
        level = found.level
    ours_s = _best_s(lambda: _divided(fleet, rows, level, target_w), 3)
    error_w = abs(float(np.where(np.isnan(setpoint_w), part.own_w, setpoint_w).sum()) - target_w)
    row: Row = {
        "name": f"allocate {size}",
        "value": ours_s * 1e3,
        "unit": "ms",
        "ratio": 100.0 / (ours_s * 1e3),
        "peer": "aim 100 ms",
        "note": f"curve, level and setpoints; error {error_w:.2g} W of {target_w / 1e6:.3g} MW",
    }
    if size == _PEER_SIZE:
        able = part.up_w > 0.0
        head_w, ready = part.up_w[able], part.readiness[able]
        fair_s = _fair_s(ready * head_w, head_w, target_w - own_w)
        cheap_s = _least_cost_s(ready * head_w, head_w, target_w - own_w)
        row["ratio"] = fair_s / ours_s
        row["peer"] = "HiGHS, linear program with the same answer"
        row["note"] = (
            f"error {error_w:.2g} W; HiGHS {fair_s * 1e3:.0f} ms, and {cheap_s * 1e3:.0f} ms for "
            "the least cost within the same limits; its time grows faster than the fleet"
        )
    return [row]


def _divided(fleet: Fleet, rows: Ints, level: float, target_w: float) -> tuple[Solution, Floats]:
    line, stairs = sums.summed(fleet, rows, level, level)
    found = solve_with_blocks([line], [stairs], target_w, level)
    return found, division.setpoints(fleet, rows, found.level, found.block_level)


def _with_attributes(size: int) -> Row:
    """Time the same where devices have tiers and priorities, and some of them steps or ramps."""
    fleet, draw = make_fleet(size), np.random.default_rng(7)
    fleet.tier[:] = draw.integers(0, 3, size)
    fleet.priority[:] = draw.uniform(0.5, 4.0, size)
    fleet.traits[:] = Trait.TIER | Trait.PRIORITY
    stepped, slow = draw.random(size) < 0.1, draw.random(size) < 0.1
    fleet.steps[stepped] = draw.integers(1, 5, int(stepped.sum()))
    fleet.traits[stepped] |= np.uint8(Trait.STEPS)
    fleet.ramp_w_per_s[slow] = draw.uniform(50.0, 500.0, int(slow.sum()))
    fleet.traits[slow] |= np.uint8(Trait.SLOW)
    fleet.estimate_w[:] = fleet.value[Metric.POWER_W] = fleet.own_w
    rows = np.arange(size, dtype=np.int32)
    part = division.shares(fleet, rows)
    target_w = float(part.own_w.sum()) + 0.5 * float(part.up_w.sum())
    level = 0.0
    for _ in range(3):
        found, _ = _divided(fleet, rows, level, target_w)
        level = found.level
    took_s = _best_s(lambda: _divided(fleet, rows, level, target_w), 3)
    return {
        "name": f"allocate {size} with attributes",
        "value": took_s * 1e3,
        "unit": "ms",
        "ratio": 100.0 / (took_s * 1e3),
        "peer": "aim 100 ms",
        "note": "3 tiers, priorities, a tenth with steps and a tenth with ramps",
    }


def _capped(size: int) -> Row:
    """Time the same with a cap on each of 1,000 feeders and 20 zones, and a share for 5 vendors."""
    fleet, draw = make_fleet(size), np.random.default_rng(5)
    fleet.kind[fleet.kind == DeviceKind.HEAT_PUMP] = DeviceKind.BATTERY
    for family, count in (("feeder", 1_000), ("zone", 20), ("vendor", 5)):
        fleet.names[family] = ["", *(f"{family}-{number}" for number in range(count))]
    fleet.feeder[:] = draw.integers(1, 1_001, size)
    fleet.zone[:] = 1 + (fleet.feeder - 1) // 50
    fleet.vendor[:] = draw.choice(np.arange(1, 6), size, p=[0.4, 0.3, 0.1, 0.1, 0.1])
    fleet.estimate_w[:] = fleet.own_w
    rows = np.arange(size, dtype=np.int32)
    part = division.shares(fleet, rows)
    fleet.envelopes.standing = (
        *_caps(fleet, "feeder", part, draw.uniform(0.3, 1.4, 1_001)),
        *_caps(fleet, "zone", part, draw.uniform(0.5, 1.0, 21)),
    )
    fleet.envelopes.vendor_share_max = 0.38
    target_w = 0.4 * float(part.up_w.sum())
    near, level, missed_w = Near(), 0.0, target_w

    def divide() -> None:
        nonlocal level, missed_w
        signal = Signal("all", 1, level, 0.0, 1, 0, prices=near.prices)
        groups = capped_groups(fleet)
        assert groups is not None
        sums_of_cells = CellSums(fleet, groups, rows, signal)
        sums.summed(fleet, rows, level, level, beside=sums_of_cells)
        cells = Capped([sums_of_cells.told()], 1, target_w)
        found = cells.solve(target_w, 0.0, near)
        level, near.level, near.prices = found.level, found.level, cells.prices(found)
        setpoint_w = division.setpoints(fleet, rows, level, 0.0, prices=near.prices)
        given_w = np.where(np.isnan(setpoint_w), part.own_w, setpoint_w)
        missed_w = abs(float((given_w - part.own_w).sum()) - target_w)

    for _ in range(3):
        divide()
    took_s = _best_s(divide, 3)
    return {
        "name": f"allocate {size} within caps",
        "value": took_s * 1e3,
        "unit": "ms",
        "ratio": 100.0 / (took_s * 1e3),
        "peer": "aim 100 ms",
        "note": f"1,000 feeders, 20 zones, 5 vendors, {len(near.prices)} of them at their caps; "
        f"error {missed_w:.2g} W of {target_w / 1e6:.3g} MW",
    }


def _caps(fleet: Fleet, family: str, part: division.Shares, room: Floats) -> list[StandingCap]:
    """Return a cap for each group, at some part of what it could do."""
    code, names = getattr(fleet, family), fleet.names[family]
    own_w = np.bincount(code, part.own_w, len(names))
    cap_w = np.maximum(own_w + room * np.bincount(code, part.up_w, len(names)), 0.0)
    return [
        StandingCap(feeder=name, export_limit_w=limit_w)
        if family == "feeder"
        else StandingCap(zone=name, export_limit_w=limit_w)
        for name, limit_w in zip(names[1:], cap_w[1:].tolist(), strict=True)
    ]


def _least_cost_s(weight: Floats, head_w: Floats, target_w: float) -> float:
    """Return the time HiGHS takes for the least cost of shares that meet the target."""
    count = len(weight)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = count, 1
    model.col_cost_ = 1.0 / weight
    model.col_lower_ = np.zeros(count)
    model.col_upper_ = head_w
    model.row_lower_ = model.row_upper_ = np.array([target_w])
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.arange(count + 1, dtype=np.int32)
    model.a_matrix_.index_ = np.zeros(count, np.int32)
    model.a_matrix_.value_ = np.ones(count)
    return _solved_s(model)


def _fair_s(weight: Floats, head_w: Floats, target_w: float) -> float:
    """Return the time HiGHS takes for the least λ with shares <= weight · λ that meet the target.

    The same answer as water-filling gives, as a linear program in shares and λ.
    """
    count = len(weight)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = count + 1, count + 1
    model.col_cost_ = np.append(np.zeros(count), 1.0)
    model.col_lower_ = np.zeros(count + 1)
    model.col_upper_ = np.append(head_w, np.inf)
    # A share at its limit may fall behind its part of λ; shares are never beyond it.
    model.row_lower_ = np.append(np.full(count, -np.inf), target_w)
    model.row_upper_ = np.append(np.zeros(count), target_w)
    # By column: a share is in its own limit by λ and in the sum; λ is in every limit.
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    rows = np.empty(2 * count, np.int32)
    rows[0::2], rows[1::2] = np.arange(count), count
    model.a_matrix_.start_ = np.append(np.arange(0, 2 * count + 1, 2), 3 * count).astype(np.int32)
    model.a_matrix_.index_ = np.append(rows, np.arange(count, dtype=np.int32))
    model.a_matrix_.value_ = np.append(np.ones(2 * count), -weight)
    return _solved_s(model)


def _solved_s(model: highspy.HighsLp) -> float:
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(model)
    began = time.thread_time()
    solver.run()
    took_s = time.thread_time() - began
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return took_s


def make_fleet(size: int) -> Fleet:
    """Return a fleet of every kind, all of it live and free."""
    draw = np.random.default_rng(1)
    fleet = Fleet.empty(0, 1, size)
    fleet.reserve(size)
    fleet.active[:] = fleet.connected[:] = True
    fleet.freshness[:] = Freshness.LIVE
    fleet.kind[:] = draw.choice(list(_MIX), size, p=list(_MIX.values()))
    gives = np.isin(fleet.kind, (DeviceKind.BATTERY, DeviceKind.PV))
    fleet.nameplate_up_w[:] = gives * draw.uniform(3000, 9000, size)
    fleet.nameplate_down_w[:] = (fleet.kind != DeviceKind.PV) * draw.uniform(3000, 9000, size)
    fleet.energy_wh[:] = np.where(fleet.kind == DeviceKind.BATTERY, 10_000.0, np.nan)
    fleet.reserve_soc[:] = 0.1
    fleet.value[Metric.SOC] = draw.random(size)
    fleet.own_w[:] = np.where(
        fleet.kind == DeviceKind.PV, draw.uniform(0, 3000, size), draw.uniform(-3000, 0, size)
    )
    fleet.revert_s[:] = 120.0
    fleet.responses[:] = draw.uniform(3, 50, size)
    fleet.now_ns = 1_000 * NS_PER_S
    return fleet


def _curve(size: int) -> list[Row]:
    fleet = make_fleet(size)
    rows = np.arange(size, dtype=np.int32)
    times = 5 if size > 10_000 else 50
    sum_s = _best_s(lambda: sums.summed(fleet, rows, 0.4, 0.4), times)
    set_s = _best_s(lambda: division.setpoints(fleet, rows, 0.4, 0.4), times)
    aim_ms = {500: 0.3, 1_000_000: 50.0}.get(size)
    return [
        {
            "name": f"curve of {size}",
            "value": sum_s * 1e3,
            "unit": "ms",
            "ratio": aim_ms / (sum_s * 1e3) if aim_ms else None,
            "peer": f"aim {aim_ms} ms" if aim_ms else "",
            "note": "continuous and switched, at most 256 knots each",
        },
        {
            "name": f"setpoints of {size}",
            "value": set_s * 1e3,
            "unit": "ms",
            "ratio": None,
            "peer": "",
            "note": "one level to every setpoint",
        },
    ]


def _solve() -> Row:
    parts = []
    for seed in range(8):
        fleet = make_fleet(2_000 + seed)
        parts.append(sums.summed(fleet, np.arange(fleet.size, dtype=np.int32), 0.4, 0.4))
    lines, stairs = [line for line, _ in parts], [steps for _, steps in parts]
    target_w = sum(0.5 * (line.power_w[0] + line.power_w[-1]) for line in lines)
    took_s = _best_s(lambda: solve_with_blocks(lines, stairs, target_w, 0.4), 20)
    return {
        "name": "solve over 8 partitions",
        "value": took_s * 1e3,
        "unit": "ms",
        "ratio": None,
        "peer": "",
        "note": "levels for continuous devices and blocks together",
    }


def _decide(size: int) -> list[Row]:
    fleet = make_fleet(size)
    settings = DispatchSettings()
    quiet_s = _best_s(lambda: decide(fleet, settings, 1), 5)
    ends_ns = fleet.now_ns + 3600 * NS_PER_S
    fleet.signals["all"] = Signal("all", 1, 0.5, 0.5, 1, ends_ns)
    busy_s = _best_s(lambda: decide(fleet, settings, 1), 5)
    commands = sum(len(b) for b in decide(fleet, settings, 1) if isinstance(b, Commands))
    return [
        {
            "name": f"decide for {commands} commands",
            "value": busy_s * 1e3,
            "unit": "ms",
            "ratio": None,
            "peer": "",
            "note": f"{busy_s / commands * 1e6:.2f} us a command, {size} devices",
        },
        {
            "name": f"decide, nothing to do, {size} devices",
            "value": quiet_s * 1e3,
            "unit": "ms",
            "ratio": None,
            "peer": "",
            "note": "each tick without an order",
        },
    ]
