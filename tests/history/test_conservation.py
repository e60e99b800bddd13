"""What registers counted up is in the ledger: held against it by other means, on every close."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_worlds import MINUTE_NS, Record, q, readings

from kapelle.fleet.metering.accounts import Meters
from kapelle.history.conservation import conservation_error_wh
from kapelle.history.energy import Grid, Reported, measure
from kapelle.model.enums import EnergyQuality

DEVICES = np.arange(3, dtype=np.int32)
METERS = Meters(DEVICES, np.full(3, 5e3), np.full(3, 1e4), np.full(3, 1.0))
EXPORTS = np.ones(3, np.uint8)
reports = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-40, 80), st.sampled_from([-9e3, -3, 0, 1, 40, 9e3])),
    min_size=20,
    max_size=120,
)


def measured(rows: list[tuple[int, int, float]]) -> tuple[Reported, Grid]:
    """Return readings and what the ledger makes of them in three quarter-hours."""
    reported = Reported.of(readings(sorted(rows)))
    grid = Grid.empty(DEVICES, q(0), q(3))
    measure(reported, METERS, EXPORTS, grid)
    grid.mwh[:], grid.quality[:] = grid.measured_mwh, grid.measured_quality
    return reported, grid


@given(reports)
def test_whatever_registers_do_the_ledger_keeps_what_they_counted(
    steps: list[tuple[int, int, float]],
) -> None:
    register_wh = [5e3] * 3
    rows = {}
    for device, minute, step_wh in sorted(steps, key=lambda step: step[:2]):
        register_wh[device] = max(0.0, register_wh[device] + step_wh)
        rows[device, minute] = (device, q(0) + minute * MINUTE_NS, register_wh[device])
    assert conservation_error_wh(*measured(list(rows.values()))) == 0


def steadily() -> list[tuple[int, int, float]]:
    return [
        (device, q(0) + minute * MINUTE_NS + 7, 5e3 + 31.7 * (minute + 9))
        for device in range(3)
        for minute in range(-9, 55, 4)
    ]


@pytest.mark.parametrize("off_mwh", [-5_000, 7_000])
def test_what_the_ledger_has_too_much_or_too_little_is_found(off_mwh: int) -> None:
    reported, grid = measured(steadily())
    assert np.all(grid.quality[:, :, 0] == EnergyQuality.MEASURED), "the test looks at something"
    grid.mwh[1, 2, 0] += off_mwh
    grid.mwh[2, 0, 0] += 1_000
    found_wh = conservation_error_wh(reported, grid)
    assert found_wh == pytest.approx((abs(off_mwh) + 1_000) / 1e3, abs=0.01)


def test_where_the_ledger_has_no_device_nothing_is_held_against_it() -> None:
    reported, _ = measured(steadily())
    assert conservation_error_wh(reported, Grid.empty(DEVICES[:0], q(0), q(3))) == 0


def test_energy_that_is_guessed_is_not_held_against_anything() -> None:
    reported, grid = measured(steadily())
    grid.mwh[1, 2, 0] += 5_000
    grid.quality[1, 2, 0] = EnergyQuality.ESTIMATED
    assert conservation_error_wh(reported, grid) == 0


def test_each_close_is_held_against_the_registers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(tmp_path)
    rows = [(0, q(0) + m * MINUTE_NS, 5e3 + 20.0 * m) for m in range(46)]
    record.take(rows[:31], q(2) + 2 * MINUTE_NS)
    assert record.ledger.error_wh == 0
    monkeypatch.setattr("kapelle.history.ledger.measure", lossy)
    record.take(rows[31:], q(3) + 2 * MINUTE_NS)
    assert record.ledger.error_wh == pytest.approx(1.0, abs=0.01)


def lossy(reported: Reported, meters: Meters, metered: np.ndarray, grid: Grid) -> None:
    """Measure as the ledger does, and lose a watt-hour."""
    measure(reported, meters, metered, grid)
    grid.measured_mwh[:, -1, 0] -= 1_000
