"""Promises are kept as often as they say, at rates of common outages that had to be learned."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from kapelle.fleet.capacity.recalibration import LEVELS

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "firm.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = spec_from_file_location("firm_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Its data classes look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_falling_short_is_as_frequent_as_said_and_devices_alone_hide_it(bench: ModuleType) -> None:
    score = bench.play(bench.Case("", devices=400, warm=100, windows=200), 17)
    assert score.windows == 200
    low, high = bench.interval(200, 0.05)
    p95 = LEVELS.index(0.95)
    assert low <= score.missed[p95] <= high
    assert score.missed_alone[p95] > high
    assert score.promised_alone[p95] > 1.06 * score.promised[p95]
    # Not by promising nothing.
    assert score.promised[p95] > 0.4 * score.windows


def test_the_same_seed_gives_the_same_score(bench: ModuleType) -> None:
    case = bench.Case("", devices=80, warm=3, windows=5)
    assert bench.play(case, 3) == bench.play(case, 3)


def test_the_interval_is_that_of_a_binomial_count(bench: ModuleType) -> None:
    # Quantiles of 2.5 and 97.5 % of the binomial distribution.
    assert bench.interval(500, 0.05) == (16, 35)
    assert bench.interval(2400, 0.05) == (100, 141)
