"""R-12: killed at any append of a 200-device dispatch, the plant comes back and finishes it."""

import os

import pytest

from kapelle.sim.crash import Kill, dispatch_of, perform_killed
from kapelle.sim.invariants import broken

SCENARIO = dispatch_of(200)
SEED = 1
SAMPLED = 6
STEP = int(os.environ.get("KAPELLE_KILL_STEP", "0"))
"""1: at every append, before and after it is durable (a quarter of an hour)."""


def check(kill: Kill | None) -> int:
    """Play the dispatch with one kill and hold it against every promise."""
    done, appends = perform_killed(SCENARIO, SEED, kill)
    (order,) = done.result.orders
    assert broken(done) == [], kill
    assert order.committed_w > 0, kill
    assert order.delivered_mean == pytest.approx(1.0, abs=0.05), kill
    assert done.play.world.agents.commanded().sum() == 0, f"{kill}: devices were not released"
    assert done.result.commands["unknown"] == 0, kill
    return appends


@pytest.fixture(scope="module")
def appends() -> int:
    """Return how many appends an undisturbed dispatch makes; it must be well by itself."""
    return check(None)


def _kills(appends: int, step: int) -> list[Kill]:
    # Before the order's time there is nothing to interrupt.
    first = appends // 8
    kills = [Kill(number, "before") for number in range(first, appends, step)]
    return kills + [Kill(number, "after") for number in range(first + step // 2, appends, step)]


@pytest.mark.timeout(7200 if STEP else 60)
def test_killed_at_appends(appends: int) -> None:
    for kill in _kills(appends, STEP or 2 * appends // SAMPLED):
        check(kill)
