"""Recalibration: promises come true as often as they say, whatever the model gets wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.capacity.recalibration import LEVELS, Recalibration

P95 = LEVELS.index(0.95)


def missed_share(wrong: float, asked: float = 1.0, windows: int = 6_000) -> float:
    """Return how often P95 was missed where the truth is `wrong` times the risk that is told.

    With `asked` < 1 less than the promise is called, and as much less is it missed.
    """
    rng = np.random.default_rng(7)
    learned, missed = Recalibration(), 0
    for _ in range(windows):
        risks = [learned.risk(at) for at in range(len(LEVELS))]
        luck = float(rng.random())
        told = [risk * asked for risk in risks]
        learned.step(told, [luck < each * wrong for each in told])
        missed += luck < risks[P95] * wrong
    return missed / windows


@pytest.mark.parametrize("wrong", [0.8, 1.0, 1.5, 2.0])
def test_a_model_that_is_wrong_comes_right(wrong: float) -> None:
    assert missed_share(wrong) == pytest.approx(0.05, abs=0.008)


def test_windows_that_were_called_in_part_teach_the_same() -> None:
    assert missed_share(2.0, asked=0.3, windows=20_000) == pytest.approx(0.05, abs=0.01)


@given(st.lists(st.tuples(*[st.booleans()] * len(LEVELS)), max_size=200))
def test_whatever_happens_the_risk_stays_bounded_and_in_order(
    happened: list[tuple[bool, ...]],
) -> None:
    learned = Recalibration()
    for missed in happened:
        learned.step([learned.risk(at) for at in range(len(LEVELS))], missed)
        risks = [learned.risk(at) for at in range(len(LEVELS))]
        assert risks == sorted(risks, reverse=True)
        for risk, level in zip(risks, LEVELS, strict=True):
            assert 0.4 * (1 - level) - 1e-9 <= risk <= 1.5 * (1 - level) + 1e-9
