"""Measures of a run, on traces drawn by hand."""

import numpy as np
import pytest

from kapelle.sim.result import (
    IntervalResult,
    Ordered,
    Published,
    Track,
    measure_aggregate,
    measure_order,
    worst_window,
)

AT_S = np.arange(0, 1000, 0.5)
ORDER = Ordered(100, 900, 1000, 1000, 0, -500)


def track(*changes: tuple[float, float]) -> Track:
    """Return a trace that starts at -500 W and jumps to a delivered share at each moment."""
    power_w = np.full(len(AT_S), -500.0)
    for at_s, share in changes:
        power_w[at_s <= AT_S] = -500 + 1000 * share
    return Track(AT_S, power_w)


def test_a_perfect_order() -> None:
    found = measure_order(track((100.5, 1.0)), ORDER, [], [])
    assert found.delivered_mean == pytest.approx(1.0)
    assert found.worst_5min == pytest.approx(1.0)
    assert found.settle_2pct_s == pytest.approx(0.5)
    assert found.overshoot_pct == 0.0
    assert found.true_baseline_w == -500


def test_settling_means_staying() -> None:
    found = measure_order(track((110, 1.0), (115, 0.5), (120, 0.96), (140, 0.99)), ORDER, [], [])
    assert found.settle_5pct_s == 20.0
    assert found.settle_2pct_s == 40.0


def test_a_loss_is_measured_from_leaving_the_band_to_being_back_for_good() -> None:
    shares = ((101, 1.0), (420, 0.8), (430, 1.0), (434, 0.9), (436, 1.0), (600, 0.5), (610, 1.0))
    found = measure_order(track(*shares), ORDER, [300], [550])
    assert found.recover_2pct_s == [pytest.approx(16.0)]
    assert found.worst_5min is not None
    assert found.worst_5min < found.delivered_mean < 1


def test_overshoot_and_notice() -> None:
    order = Ordered(100, 900, 1000, 1000, 0, -500, (305.0,))
    found = measure_order(track((101, 1.0), (500, 1.07)), order, [300], [])
    assert found.overshoot_pct == pytest.approx(7.0)
    assert found.shortfall_notice_s == 5.0


@pytest.mark.parametrize("first_w", [1000.0, 0.0])
@pytest.mark.parametrize("second_w", [500.0, 0.0])
def test_a_profile_is_measured_where_anything_was_promised(first_w: float, second_w: float) -> None:
    parts = ((100.0, 500.0, first_w), (500.0, 900.0, second_w))
    intervals = [
        IntervalResult(
            starts_s=since_s, ends_s=until_s, target_w=1000.0, committed_w=w, delivered_mean=None
        )
        for since_s, until_s, w in parts
    ]
    order = Ordered(100, 900, 1000, first_w, 0, -500, intervals=intervals)
    shares = ((100.5, first_w / 1000), (500.0, second_w / 1000), (900.0, 0.0))
    found = measure_order(track(*shares), order, [], [])
    assert found.delivered_mean == (pytest.approx(1.0) if first_w or second_w else None)


def test_nothing_promised_is_nothing_measured() -> None:
    found = measure_order(track(), Ordered(100, 900, 1000, 0, 1000, -500), [], [])
    assert found.delivered_mean is None
    assert found.settle_2pct_s is None


def test_towards_consumption_counts_the_same() -> None:
    power_w = np.where(AT_S >= 105, -1500.0, -500.0)
    order = Ordered(100, 900, -1000, -1000, 0, -500)
    found = measure_order(Track(AT_S, power_w), order, [], [])
    assert found.delivered_mean == pytest.approx(1.0)


def test_the_worst_window_is_found_by_looking_at_all() -> None:
    rng = np.random.default_rng(1)
    value = rng.random(800)
    at_s = np.arange(800) * 0.5
    slow = min(value[k : k + 100].mean() for k in range(701))
    assert worst_window(at_s, value, 50.0) == pytest.approx(slow)


def test_the_aggregate_is_held_against_the_truth_of_its_moment() -> None:
    published = [
        Published(10, -500, -510, -490, 10_000),
        Published(20, -400, -450, -350, 10_000),
        Published(2, 0, 0, 0, 10_000),
    ]
    found = measure_aggregate(track(), published, from_s=5)
    assert found.published == 2
    assert found.interval_coverage == 0.5
    assert found.error_p95_pct == pytest.approx(0.95)
