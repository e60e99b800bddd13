"""How a running order is held at its target, and what an operator is told where it cannot be."""

import pytest
from tests.dispatch.control_worlds import SETTINGS, Plant, s

from kapelle.model.ids import NS_PER_S


def test_the_loop_feeds_forward_what_drops_out() -> None:
    plant = Plant()
    plant.order(10_000.0)
    plant.step(1)
    # A third of the plant falls back to its own schedule: the rest makes up for it at once.
    plant.up_w = 20_000.0 / 3
    out = plant.step(2)
    assert out.signals[0].level == pytest.approx(0.75)
    # They still act: nothing to make up for.
    plant.uncontrolled_w = 3_000.0
    assert plant.step(3).signals[0].level == pytest.approx(7_000 / (40_000 / 3))


def test_a_lasting_error_is_trimmed_but_not_while_the_plan_moves() -> None:
    plant = Plant()
    plant.order(10_000.0)
    levels = []
    for at_s in range(1, 60):
        out = plant.step(at_s)
        levels += [signal.level for signal in out.signals]
        plant.power_w = 9_500.0
        if at_s < SETTINGS.settle_s:
            assert set(levels) == {0.5}
    assert max(levels) > 0.52
    most = (1 + SETTINGS.trim_max) * 0.5
    assert max(levels) <= most + 1e-9
    plant.power_w = 10_000.0
    for at_s in range(60, 600):
        plant.step(at_s)
    assert abs(plant.state.running[1].trim_w) < 10.0


def test_an_old_error_is_not_trimmed_again_and_again() -> None:
    """While nobody sums the fleet up the last error stays, and says nothing any more."""
    plant = Plant()
    plant.order(10_000.0)
    plant.step(1)
    plant.power_w = 9_000.0
    for at_s in range(2, 20):
        plant.step(at_s)
    before_w = plant.state.running[1].trim_w
    assert 0.0 < before_w < SETTINGS.trim_max * 10_000.0
    for at_s in range(20, 60):
        plant.step(at_s, summaries=False)
    assert plant.state.running[1].trim_w == before_w
    # One partition that speaks is not the whole.
    for at_s in range(60, 80):
        plant.say(plant.summary(0, at_s))
        plant.step(at_s, summaries=False)
    assert plant.state.running[1].trim_w == before_w
    # Neither are summaries of long ago, newer than the last as they may be.
    for at_s in range(80, 90):
        for partition in range(2):
            plant.say(plant.summary(partition, at_s - 40))
        plant.step(at_s, summaries=False)
    assert plant.state.running[1].trim_w == before_w
    plant.step(90)
    step_w = plant.state.running[1].trim_w - before_w
    assert 0.0 < step_w <= SETTINGS.trim_per_s * 5.0 * 1_000.0


def test_a_target_out_of_reach_is_announced_with_size_and_cause_and_so_is_its_end() -> None:
    plant = Plant()
    plant.order(18_000.0)
    plant.step(1)
    plant.vendors["bolt"] = [20, 0]
    plant.up_w = 5_000.0
    said = [notice for at_s in range(2, 12) for notice in plant.step(at_s).notices]
    assert [notice.code for notice in said] == ["group-lost", "shortfall"]
    shortfall = said[1]
    assert shortfall.order_no == 1
    assert shortfall.power_w == pytest.approx(8_000.0)
    assert "vendor bolt is lost" in shortfall.text
    assert (shortfall.at_ns - s(2)) / NS_PER_S <= 10.0
    plant.vendors["bolt"] = [20, 20]
    plant.up_w = 10_000.0
    said = [notice for at_s in range(12, 20) for notice in plant.step(at_s).notices]
    assert [notice.code for notice in said] == ["group-back", "shortfall-over"]


def test_a_shortfall_to_come_is_announced_before_it_is_there() -> None:
    plant = Plant()
    plant.order(18_000.0)
    plant.step(1)
    # A fifth is silent and holds its setpoints yet; a tenth is counted on and will not be there.
    plant.up_w, plant.uncontrolled_w = 8_000.0, 3_600.0
    plant.fading_w, plant.fading_up_w = 3_600.0, 2_000.0
    said = [notice for at_s in range(2, 6) for notice in plant.step(at_s).notices]
    assert [notice.code for notice in said] == ["shortfall"]
    assert said[0].power_w == pytest.approx(18_000.0 - 14_000.0)


def test_a_slow_decline_is_no_common_outage() -> None:
    plant = Plant()
    said = []
    for at_s in range(1, 400):
        plant.vendors["acme"] = [40, max(40 - at_s // 8, 0)]
        said += [n for n in plant.step(at_s).notices if "acme" in n.text and at_s < 100]
    assert said == []
