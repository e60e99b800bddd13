"""How a running order is held at its target, and what an operator is told where it cannot be."""

import numpy as np
import pytest
from tests.dispatch.control_worlds import SETTINGS, Plant, s

from kapelle.fleet.silence import SINCE_S
from kapelle.model.ids import NS_PER_S
from kapelle.model.summaries import Silence


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
    assert "will miss 4.0 kW of 18.0 kW as timers of silent devices end" in said[0].text
    # The first timers end: a little is missing now, and the rest is still to come.
    plant.up_w, plant.uncontrolled_w, plant.fading_w = 7_990.0, 2_000.0, 2_000.0
    assert [n.code for at_s in range(6, 30) for n in plant.step(at_s).notices] == []


def test_what_is_in_reach_and_not_there_is_said_in_other_words() -> None:
    plant = Plant()
    plant.order(10_000.0)
    said = []
    for at_s in range(1, 90):
        said += plant.step(at_s).notices
        plant.power_w = 8_000.0
    assert [notice.code for notice in said] == ["shortfall"]
    assert "misses 2.0 kW of 10.0 kW although they are in reach: devices do other" in said[0].text


def test_a_shortfall_that_comes_and_goes_is_said_once() -> None:
    """What is there again for a moment only is not there."""
    plant = Plant()
    plant.order(18_000.0)
    plant.step(1)
    said = []
    for at_s in range(2, 120):
        plant.up_w = 10_000.0 if at_s % 7 in (0, 1, 2) else 5_000.0
        said += [notice.code for notice in plant.step(at_s).notices]
    assert said == ["shortfall"]
    plant.up_w = 10_000.0
    said = [notice.code for at_s in range(120, 130) for notice in plant.step(at_s).notices]
    assert said == ["shortfall-over"]


def test_the_loss_of_a_group_is_said_with_the_shortfall_in_the_second_it_is_known() -> None:
    plant = Plant()
    plant.order(18_000.0)
    plant.silences = {"vendor/acme": heard_s_ago(20, 1.0), "vendor/bolt": heard_s_ago(10, 1.0)}
    for at_s in range(1, 40):
        plant.step(at_s)
    # All of its devices are late and count as live yet; what they give is known to fade.
    plant.silences["vendor/bolt"] = heard_s_ago(10, 6.0)
    plant.fading_up_w = 10_000.0
    said = plant.step(40).notices
    assert [notice.code for notice in said] == ["group-lost", "shortfall"]
    assert "vendor bolt: 0 of 20 devices are heard in time, 20 were" in said[0].text
    assert "vendor bolt is lost (20 devices)" in said[1].text
    assert said[1].power_w == pytest.approx(18_000.0 - 10_000.0)


def heard_s_ago(devices: int, age_s: float) -> Silence:
    """Return what a partition tells of devices that report every four seconds."""
    silent = devices if age_s > 5.0 else 0
    ages = [devices if since_s == age_s else 0 for since_s in SINCE_S]
    return Silence(late=silent, due=silent, ages=ages)


def test_a_shortfall_that_comes_and_grows_is_said_seldom() -> None:
    """Whatever it does: once for each group that is lost, and once for each twentieth it grows."""
    plant = Plant()
    plant.order(18_000.0)
    plant.step(1)
    draw = np.random.default_rng(1)
    said = []
    for at_s in range(2, 590):
        plant.vendors = {"acme": [40, 40 * int(draw.random() < 0.9)], "bolt": [20, 20]}
        plant.fading_up_w = min(9_000.0 + 15.0 * at_s, 15_000.0) + draw.normal(0.0, 300.0)
        said += [notice for notice in plant.step(at_s).notices if notice.code == "shortfall"]
    assert 1 <= len(said) <= 2 + 20


def test_a_slow_decline_is_no_common_outage() -> None:
    plant = Plant()
    said = []
    for at_s in range(1, 400):
        plant.vendors["acme"] = [40, max(40 - at_s // 8, 0)]
        said += [n for n in plant.step(at_s).notices if "acme" in n.text and at_s < 100]
    assert said == []
