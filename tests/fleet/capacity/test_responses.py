"""Who follows: levels, what wanders together, the hour, and what an outage leaves out."""

import numpy as np
import pytest
from fleet_worlds import acks, commands, fleet_of, phases, say

from kapelle.fleet.capacity.learned import Firmness, hear_reach, prompt_share
from kapelle.fleet.capacity.responses import (
    Responses,
    hour_shift,
    learn_responses,
    levels,
    shifted,
    wander2,
)
from kapelle.model.enums import AckStatus, Phase
from kapelle.model.ids import NS_PER_S
from kapelle.model.summaries import Reach, Summary

SLOT_NS = 900 * NS_PER_S


def world(
    slots: int, *, wander: float, night: float = 0.0, asked: int = 300, seed: int = 1
) -> Responses:
    """Teach slots of commands to two kinds of three vendors, whose log-odds wander together."""
    rng = np.random.default_rng(seed)
    base = {"a": 2.5, "b": 1.5, "c": 3.0}
    known = Responses()
    for slot in range(slots):
        hour = slot // 4 % 24
        told = {}
        for vendor, odds in base.items():
            today = odds + rng.normal(0.0, wander) - (night if hour < 6 else 0.0)
            for kind in (0, 2):
                followed = int(rng.binomial(asked, 1.0 / (1.0 + np.exp(-today))))
                told[f"{kind}/{vendor}"] = (followed, asked - followed)
        learn_responses(known, told, set(), hour)
    return known


@pytest.mark.parametrize("wander", [0.1, 0.3, 0.5])
def test_how_far_levels_wander_is_learned(wander: float) -> None:
    known = world(400, wander=wander)
    for vendor in ("a", "b", "c"):
        assert wander2(known)[vendor] == pytest.approx(wander**2, rel=0.35)


def test_levels_are_learned_and_what_is_new_is_like_its_vendor() -> None:
    found = levels(world(300, wander=0.1))
    for vendor, odds in {"a": 2.5, "b": 1.5, "c": 3.0}.items():
        level, doubt = found.of(f"0/{vendor}")
        assert level == pytest.approx(1.0 / (1.0 + np.exp(-odds)), abs=0.01)
        assert doubt**0.5 < 0.01
        unseen, more_doubt = found.of(f"6/{vendor}")
        assert unseen == pytest.approx(level, abs=0.02)
        assert more_doubt > doubt
    nobody, much_doubt = levels(Responses()).of("0/new")
    assert nobody == pytest.approx(0.9)
    assert much_doubt == pytest.approx(0.9 * 0.1 / 11)


def test_nights_are_told_from_days() -> None:
    known = world(960, wander=0.1, night=0.8)
    shifts = [hour_shift(known, hour) for hour in range(24)]
    assert np.mean(shifts[6:]) - np.mean(shifts[:6]) == pytest.approx(0.8, abs=0.25)
    assert shifted(0.9, 0.0) == pytest.approx(0.9)


def test_a_vendor_that_was_out_teaches_nothing_of_its_devices() -> None:
    known, same = world(100, wander=0.1), world(100, wander=0.1)
    learn_responses(known, {"0/a": (0, 300), "0/b": (240, 60)}, {"a"}, 12)
    learn_responses(same, {"0/b": (240, 60)}, set(), 12)
    assert levels(known).of("0/b") == pytest.approx(levels(same).of("0/b"), rel=1e-2)
    assert levels(known).of("0/a")[0] == pytest.approx(levels(same).of("0/a")[0], abs=1e-3)
    assert known.cells["0/a"].lost == pytest.approx(300 * levels(same).of("0/a")[0], rel=0.05)


def test_outcomes_are_counted_by_kind_and_vendor_and_a_late_answer_takes_its_failure_back() -> None:
    fleet = fleet_of(6)
    say(fleet, commands(range(6), 1000.0))
    say(fleet, acks([0, 1, 2]), phases([3, 4], Phase.UNKNOWN), acks([5], AckStatus.REJECTED))
    told = fleet.trials.told(fleet.names["vendor"])
    assert {name: tuple(counts) for name, counts in told.items()} == {
        "0/maker-0": (1, 1),
        "0/maker-1": (1, 1),
        "0/maker-2": (1, 1),
    }
    # Said again of the same command, or of a further try in vain, it is no further failure.
    say(fleet, phases([4], Phase.UNKNOWN))
    say(fleet, commands([4], 1000.0, 2), phases([4], Phase.UNKNOWN, 2))
    assert fleet.trials.told(fleet.names["vendor"])["0/maker-1"] == [1, 1]
    say(fleet, acks([3]))
    assert fleet.trials.told(fleet.names["vendor"])["0/maker-0"] == [2, 0]


def _say(firmness: Firmness, at_s: int, followed: int, failed: int) -> None:
    reach = Reach({"a": {0: [100.0, 100.0]}}, {"0/a": [followed, failed]}, [])
    hear_reach(firmness, Summary(0, at_s * NS_PER_S, 1, [], None, reach))


def test_the_plant_learns_from_differences_and_knows_the_slot() -> None:
    firmness = Firmness()
    _say(firmness, 900, 500, 500)
    _say(firmness, 910, 590, 520)
    # The late answers of the next tick take ten failures back.
    _say(firmness, 920, 600, 510)
    _say(firmness, 1800, 600, 510)
    _say(firmness, 1810, 600, 510)
    cell = firmness.responses.cells["0/a"]
    assert (cell.followed, cell.asked) == (100.0, 110.0)


def test_short_notice_counts_those_who_answer_in_time() -> None:
    firmness = Firmness(delays=[500.0, 300.0, 100.0, 50.0, 30.0, 10.0, 5.0, 5.0])
    parts = [prompt_share(firmness, seconds) for seconds in (1.0, 2.0, 4.0, 60.0)]
    assert parts == sorted(parts)
    assert parts[0] == pytest.approx(0.5, abs=0.02)
    assert prompt_share(firmness, 0.0) == 1.0
    assert prompt_share(firmness, 600.0) == pytest.approx(1.0)
