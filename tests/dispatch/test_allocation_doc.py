"""The worked example of docs/allocation.md, held against the code."""

from pathlib import Path

import numpy as np
import pytest
from tests.dispatch.merit_worlds import enrolled, fleet_of, rows_of

from kapelle.dispatch.allocation import solve_with_blocks
from kapelle.fleet.curve import division, sums
from kapelle.model.enums import DeviceKind

PAGE = Path(__file__).resolve().parents[2] / "docs" / "allocation.md"


def example() -> list[dict[str, str]]:
    """Return the rows of the example's table by the names of its columns."""
    text = PAGE.read_text().split("## Example")[1].split("##")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def number(cell: str) -> float:
    return np.nan if cell == "–" else float(cell)


@pytest.mark.parametrize("target_w", [6_000.0, 14_000.0])
def test_the_worked_example_is_what_the_plant_does(target_w: float) -> None:
    rows = example()
    kind = np.array([DeviceKind[row["kind"].upper()] for row in rows], np.uint8)
    rating_w = np.array([number(row["rating"]) for row in rows])
    consumes = kind == DeviceKind.WATER_HEATER
    block = enrolled(
        len(rows),
        kind=kind,
        nameplate_up_w=np.where(consumes, 0.0, rating_w),
        nameplate_down_w=np.where(kind == DeviceKind.GENERATOR, 0.0, rating_w),
        tier=np.array([int(row["tier"]) for row in rows], np.uint8),
        priority=np.array([number(row["priority"]) for row in rows]),
        ramp_w_per_s=np.array([number(row["ramp"]) for row in rows]),
    )
    own_w = np.where(consumes, -rating_w, 0.0)
    fleet = fleet_of(block, own_w, 0, 1)
    fleet.responses[:], fleet.refusals[:] = 9.0, 1.0
    line, stairs = sums.summed(fleet, rows_of(fleet))
    found = solve_with_blocks([line], [stairs], float(own_w.sum()) + target_w)
    setpoint_w = division.setpoints(fleet, rows_of(fleet), found.level, found.block_level)
    expected_w = [number(row[f"asked +{target_w:.0f} W"]) for row in rows]
    np.testing.assert_allclose(setpoint_w, expected_w, atol=0.5)
