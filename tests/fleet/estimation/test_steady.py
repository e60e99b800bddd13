"""The interval of the sum of those who report holds as often as it says, however they move."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np
import pytest
from fleet_worlds import SETTINGS, block, fleet_of, power, say, tick

from kapelle.fleet.estimation.outlook import student_95
from kapelle.fleet.estimation.steady import Steady, learn_steady
from kapelle.fleet.summary import summarise
from kapelle.model.ids import Floats

DEVICES = 120


@dataclass(frozen=True)
class Pace:
    """When devices report, in ticks."""

    tick_s: float
    cadence: int
    delay: int
    loss: float = 0.0


PACES = [Pace(1.0, 4, 1), Pace(4.0, 2, 1), Pace(10.0, 6, 1), Pace(1.0, 8, 16), Pace(1.0, 6, 1, 0.2)]


def alone(rng: np.random.Generator, ticks: int) -> Floats:
    return rng.standard_normal((DEVICES, ticks))


def together(rng: np.random.Generator, ticks: int) -> Floats:
    return np.tile(rng.standard_normal(ticks), (DEVICES, 1))


def jumps(rng: np.random.Generator, ticks: int) -> Floats:
    """Move seldom and far: a dozen of all devices between two of one device's reports."""
    return rng.choice([-1.0, 0.0, 1.0], size=(DEVICES, ticks), p=[0.01, 0.98, 0.01])


def downhill(rng: np.random.Generator, ticks: int) -> Floats:
    """Move by themselves while all of them lose power, as PV does at dusk."""
    return alone(rng, ticks) - 0.5


def play(moves: Floats, pace: Pace, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the error of the published sum at each tick, and half the width of its interval."""
    count, ticks = moves.shape
    true_w = moves.cumsum(axis=1)
    phase = rng.integers(0, pace.cadence, size=count)
    known_at = np.full(count, -1)
    states: dict[int, Steady] = {}
    error_w, half_w = [], []
    for now in range(ticks):
        measured = now - pace.delay
        rows = np.flatnonzero((measured - phase) % pace.cadence == 0)
        rows = rows[rng.random(len(rows)) >= pace.loss] if measured >= 0 else rows[:0]
        told = {}
        again = rows[known_at[rows] >= 0]
        if len(again):
            gap_s = (measured - known_at[again]) * pace.tick_s
            off_w = true_w[again, measured] - true_w[again, known_at[again]]
            n, late_s = float(len(again)), pace.delay * pace.tick_s
            told[2] = [n, gap_s.sum(), (gap_s**2).sum(), n * late_s, off_w.sum(), 0.0]
        known_at[rows] = measured
        learn_steady(states, told, pace.tick_s, now == 0)
        known_w = true_w[np.arange(count), np.maximum(known_at, 0)]
        off_w = float(known_w.sum() - true_w[:, now].sum())
        state = states.get(2, Steady())
        error_w.append(off_w + state.drifted_w)
        half_w.append(student_95(1.0 + state.freedom) * np.sqrt(state.variance_w2))
    return np.array(error_w), np.array(half_w)


@pytest.mark.parametrize("pace", PACES, ids=str)
@pytest.mark.parametrize("motion", [alone, together, jumps, downhill])
def test_the_interval_holds_the_truth_however_devices_move(
    motion: Callable[[np.random.Generator, int], Floats], pace: Pace
) -> None:
    """Nothing is said beforehand of how they move, nor whether by themselves or all as one.

    Eight runs of some fifty independent looks hold 95 % to ±2 points, two standard errors.
    """
    inside = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        ticks = 110 * pace.cadence + 10 * pace.delay
        error_w, half_w = play(motion(rng, ticks), pace, rng)
        judged = slice(ticks // 2, ticks)
        inside.append(np.mean(np.abs(error_w[judged]) <= half_w[judged]))
    assert 0.93 < np.mean(inside) < 0.975


def test_what_goes_on_the_whole_is_made_up_for() -> None:
    """Where all lose power at one rate the error is what is left: that they do it unevenly."""
    rng = np.random.default_rng(1)
    pace = Pace(10.0, 6, 1)
    moves = downhill(rng, 600)
    error_w, _ = play(moves, pace, rng)
    # Nobody's reading shows the last 3.5 ticks on average.
    behind_w = 3.5 * 0.5 * DEVICES
    assert abs(error_w[300:].mean()) < 0.1 * behind_w


def test_few_looks_widen_as_students_distribution_does() -> None:
    """Against a table of its quantiles; without any look, bounded."""
    for freedom, expected in ((3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (inf, 1.960)):
        assert student_95(freedom) == pytest.approx(expected, rel=0.01)
    assert student_95(1.0) < 6.0


@pytest.mark.parametrize(
    ("late_s", "slow_s", "expected_s"), [(3.0, 0.0, 3.0), (0.5, 2.0, 0.5), (0.5, 3600.0, 0.0)]
)
def test_what_all_receive_late_is_delay_and_what_clocks_say_against_each_other_is_not(
    late_s: float, slow_s: float, expected_s: float
) -> None:
    """Of one device nobody can tell; clocks of many are as often fast as slow, and one that is an
    hour off says nothing."""
    fleet = fleet_of(4)
    states: dict[int, Steady] = {}
    for second in range(10, 301, 10):
        reports = [
            power(device_no, second - late_s + clock_s, 500.0, late_s - clock_s)
            for device_no, clock_s in enumerate((slow_s, slow_s, -slow_s, -slow_s))
        ]
        say(fleet, block(reports))
        tick(fleet, second)
        evidence = summarise(fleet, SETTINGS).resources[0].evidence
        learn_steady(states, evidence.steady, 10.0, second == 10)
    (state,) = states.values()
    assert state.delay_s == pytest.approx(expected_s, abs=0.01)


def test_a_cadence_that_nobody_has_any_more_is_forgotten() -> None:
    states: dict[int, Steady] = {}
    for second in range(7200):
        cadence = 2 if second < 600 else 3
        told = {cadence: [1.0, 4.0, 16.0, 1.0, 0.0, 0.0]}
        learn_steady(states, told, 1.0, second == 0)
    assert list(states) == [3]
