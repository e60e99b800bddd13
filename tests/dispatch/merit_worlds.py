"""Devices with something particular in an allocation, and a target divided over them."""

import numpy as np

from kapelle.dispatch.allocation import Solution, solve_with_blocks
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, sums
from kapelle.fleet.enrol import apply_enrolled
from kapelle.model.blocks import Enrolled
from kapelle.model.enums import DeviceKind, Freshness, Metric
from kapelle.model.ids import NS_PER_S

NOW_S = 1_000_000


def enrolled(size: int, **given: object) -> Enrolled:
    text = tuple(b"" for _ in range(size))
    columns: dict[str, object] = {
        name: text if dtype is bytes else np.zeros(size, dtype)
        for name, dtype in Enrolled.COLUMNS.items()
    }
    columns |= {"device_no": np.arange(size, dtype=np.int32), "active": np.ones(size, np.uint8)}
    columns["kind"] = np.full(size, DeviceKind.GENERATOR, np.uint8)
    for name in ("energy_wh", "ramp_w_per_s", "report_every_s", "priority", "min_on_s"):
        columns[name] = np.full(size, np.nan)
    columns["revert_s"] = np.full(size, 120.0)
    return Enrolled(**{**columns, **given})  # type: ignore[arg-type]  # As COLUMNS says.


def fleet_of(block: Enrolled, own_w: np.ndarray, partition: int, partitions: int) -> Fleet:
    """Return one partition of a plant that has these devices, all live and sure to follow."""
    mine = np.flatnonzero(block.device_no % partitions == partition)
    picked = {
        name: tuple(getattr(block, name)[i] for i in mine)
        if dtype is bytes
        else getattr(block, name)[mine]
        for name, dtype in Enrolled.COLUMNS.items()
    }
    fleet = Fleet.empty(partition, partitions, len(mine))
    apply_enrolled(fleet, Enrolled(**picked))  # type: ignore[arg-type]  # As COLUMNS says.
    fleet.now_ns = NOW_S * NS_PER_S
    fleet.connected[:] = True
    fleet.freshness[:] = Freshness.LIVE
    fleet.own_w[:] = fleet.value[Metric.POWER_W] = own_w[mine]
    fleet.heard_at_ns[:] = fleet.now_ns
    fleet.responses[:], fleet.refusals[:] = 1.0, 0.0
    return fleet


def rows_of(fleet: Fleet) -> np.ndarray:
    return np.arange(fleet.size, dtype=np.int32)


def divided(
    fleets: list[Fleet], target_w: float, resting_w: np.ndarray | None = None
) -> tuple[np.ndarray, Solution]:
    """Divide a sum as the plant does; who is left alone is at his own schedule, or on his way."""
    curves = [sums.summed(fleet, rows_of(fleet)) for fleet in fleets]
    found = solve_with_blocks(
        [line for line, _ in curves], [stairs for _, stairs in curves], target_w
    )
    made_w = np.zeros(sum(fleet.size for fleet in fleets))
    for fleet in fleets:
        setpoint_w = division.setpoints(fleet, rows_of(fleet), found.level, found.block_level)
        numbers = fleet.device_nos(rows_of(fleet))
        alone_w = fleet.own_w[: fleet.size] if resting_w is None else resting_w[numbers]
        made_w[numbers] = np.where(np.isnan(setpoint_w), alone_w, setpoint_w)
    return made_w, found
