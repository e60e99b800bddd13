"""The integral takes up what nobody told, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dispatch.control_worlds import SETTINGS, Plant

from kapelle.dispatch.trim import unwind
from kapelle.model.enums import Phase

POWERS = st.floats(-1e6, 1e6)


def trimming() -> Plant:
    """Return a plant that lacks 500 of 10,000 W for no known reason, and has begun to trim."""
    plant = Plant()
    plant.order(10_000.0)
    plant.step(1)
    plant.power_w = 9_500.0
    for at_s in range(2, 20):
        plant.step(at_s)
    assert 0.0 < trim_w(plant) < SETTINGS.trim_max * 10_000.0
    return plant


def trim_w(plant: Plant) -> float:
    return plant.state.running[1].trim_w


@given(POWERS, POWERS)
def test_what_no_level_can_bring_is_let_go_and_no_more(trim_w: float, beyond_w: float) -> None:
    left_w = unwind(trim_w, beyond_w)
    assert abs(left_w) <= abs(trim_w)
    assert left_w * trim_w >= 0.0
    if trim_w * beyond_w <= 0.0:
        assert left_w == trim_w
    else:
        assert abs(left_w) == pytest.approx(max(abs(trim_w) - abs(beyond_w), 0.0))


def test_at_the_end_of_the_range_nothing_winds_up() -> None:
    plant = trimming()
    # What is left can do just what is asked of it, and not a watt more.
    plant.up_w = 5_000.0
    for at_s in range(20, 60):
        plant.step(at_s)
    assert trim_w(plant) == 0.0
    # When the others are back, the levels are right at once.
    plant.up_w, plant.power_w = 10_000.0, 10_000.0
    (back,) = plant.step(60).signals
    assert back.level == pytest.approx(0.5)


def test_each_exclusion_stops_it_for_that_moment() -> None:
    plant = trimming()
    before_w = trim_w(plant)
    for at_s in range(20, 25):
        plant.excluded = {"unknown": at_s}
        plant.step(at_s)
        assert trim_w(plant) == before_w
    plant.step(40)
    assert trim_w(plant) > before_w


def test_while_the_last_hop_holds_commands_back_it_rests() -> None:
    plant = trimming()
    before_w = trim_w(plant)
    plant.phases[Phase.VERIFIED], plant.phases[Phase.CANCELLED] = 40, 10
    for at_s in range(20, 40):
        plant.step(at_s)
    assert trim_w(plant) == before_w
    plant.phases[Phase.CANCELLED] = 0
    plant.step(40)
    assert trim_w(plant) > before_w
