"""A vendor, or a provider, that is lost is named within seconds, and nothing else is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dispatch.outage_worlds import Air

from kapelle.dispatch.outages import words

CADENCES = st.sampled_from([1.0, 4.0, 10.0, 60.0])
SEEDS = st.integers(0, 10_000)
SETTLED_S = 90


def after_s(air: Air, since_s: int, code: str = "group-lost") -> dict[str, float]:
    """Return how long after a moment groups were named, over a minute and a half."""
    named = {}
    for _ in range(90):
        for notice in air.run(1):
            if notice.code == code:
                named[notice.text.partition(":")[0]] = air.now_s - since_s
    return named


@pytest.mark.parametrize(("cadence_s", "within_s"), [(1.0, 4), (4.0, 6), (10.0, 15)])
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, devices=st.integers(20, 200))
def test_a_lost_vendor_is_named_when_its_reports_are_due_and_nobody_else(
    cadence_s: float, within_s: int, seed: int, devices: int
) -> None:
    """Of twenty devices that report every 4 s, 6 s later; stale is each of them only after 11 s."""
    air = Air([devices, devices, 2 * devices], [cadence_s] * 3, seed)
    assert air.run(SETTLED_S) == []
    air.silent[air.vendor == 0] = True
    named = after_s(air, SETTLED_S)
    assert list(named) == ["vendor v0"]
    assert named["vendor v0"] <= within_s


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, loss=st.sampled_from([0.0, 0.05, 0.1]))
def test_a_lost_provider_is_named_as_a_vendor_is(seed: int, loss: float) -> None:
    air = Air([150, 100, 150], [4.0] * 3, seed, providers=4, loss=loss)
    assert air.run(SETTLED_S) == []
    lost = air.provider == 1
    air.silent[lost] = True
    named = after_s(air, SETTLED_S)
    assert list(named) == ["provider p1"]
    assert named["provider p1"] <= 10
    air.back(lost, 10.0)
    assert list(after_s(air, air.now_s, "group-back")) == ["provider p1"]


def test_the_one_device_of_a_lost_vendor_that_is_heard_yet_keeps_nothing_secret() -> None:
    air = Air([40, 100], [4.0, 4.0])
    air.run(SETTLED_S)
    air.silent[1:40] = True
    assert after_s(air, SETTLED_S) == {"vendor v0": pytest.approx(6, abs=1)}


def test_two_vendors_lost_one_after_the_other_are_both_named() -> None:
    air = Air([100, 100, 200], [4.0] * 3)
    air.run(SETTLED_S)
    air.silent[:100] = True
    first = air.run(15)
    air.silent[100:200] = True
    second = air.run(8)
    assert [notice.text.partition(":")[0] for notice in first + second] == [
        "vendor v0",
        "vendor v1",
    ]


def test_two_vendors_lost_at_once_are_named_when_they_are_stale() -> None:
    air = Air([100, 100, 200], [4.0] * 3)
    air.run(SETTLED_S)
    air.silent[:200] = True
    named = after_s(air, SETTLED_S)
    assert sorted(named) == ["vendor v0", "vendor v1"]
    assert max(named.values()) <= 12


def test_the_only_vendor_is_named_when_it_is_stale() -> None:
    """Nobody can tell whether it is the vendor or the plant."""
    air = Air([100], [4.0])
    air.run(SETTLED_S)
    air.silent[:] = True
    assert 6 < after_s(air, SETTLED_S)["vendor v0"] <= 12


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    usual_s=CADENCES,
    slow_s=CADENCES,
    few=st.sampled_from([10, 30]),
    stall_s=st.integers(1, 60),
    within_s=st.sampled_from([1.0, 5.0, 15.0]),
)
def test_nobody_is_lost_when_the_plant_stalls_and_all_return_at_random(
    seed: int, usual_s: float, slow_s: float, few: int, stall_s: int, within_s: float
) -> None:
    air = Air([60, 60, few], [usual_s, usual_s, max(usual_s, slow_s)], seed, providers=2)
    air.run(2 * SETTLED_S)
    air.silent[:] = True
    said = air.run(stall_s)
    air.back(np.ones(len(air.silent), bool), within_s)
    said += air.run(150)
    assert [notice.text for notice in said] == []


def test_a_vendor_that_reports_oftener_than_the_others_is_not_missed_in_a_short_stall() -> None:
    air = Air([100, 200], [4.0, 60.0])
    air.run(2 * SETTLED_S)
    air.silent[:] = True
    said = air.run(6)
    air.back(np.ones(300, bool), 1.0)
    assert said + air.run(60) == []


@settings(max_examples=20, deadline=None)
@given(
    seed=SEEDS,
    cadences_s=st.lists(CADENCES, min_size=3, max_size=3),
    loss=st.sampled_from([0.05, 0.1, 0.2]),
)
def test_nobody_is_lost_when_reports_are(seed: int, cadences_s: list[float], loss: float) -> None:
    air = Air([20, 50, 100], cadences_s, seed, providers=3, loss=loss)
    assert [notice.text for notice in air.run(400)] == []


def test_a_vendor_lost_while_the_plant_stalls_is_named_soon_after_it() -> None:
    air = Air([100, 300], [4.0, 4.0])
    air.run(SETTLED_S)
    air.silent[:] = True
    assert air.run(15) == []
    air.back(air.vendor == 1, 4.0)
    named = after_s(air, air.now_s)
    assert list(named) == ["vendor v0"]
    assert named["vendor v0"] <= 25


def test_half_of_a_vendor_that_is_dead_for_long_makes_no_noise() -> None:
    air = Air([100, 300], [4.0, 4.0])
    air.run(SETTLED_S)
    air.silent[:45] = True
    assert air.run(400) == []
    # What is left of it is lost: by what was usual lately.
    air.silent[:100] = True
    assert after_s(air, air.now_s)["vendor v0"] <= 7


def test_devices_enrolled_without_a_vendor_are_named_as_such() -> None:
    assert words("vendor/acme/sub") == "vendor acme/sub"
    assert words("vendor/") == "the group without a vendor"
