"""How long ago groups were last heard: the sums do not depend on how devices are spread."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fleet.fleet_worlds import SETTINGS, block, enrolled, entry, power, say, tick

from kapelle.fleet.columns import Fleet
from kapelle.fleet.plant import PlantView, apply_plant, total
from kapelle.fleet.silence import AGES, SINCE_S, quarter_octaves
from kapelle.fleet.summary import summarise
from kapelle.model.plant import Members

DEVICES = 12


def test_an_age_is_in_the_last_place_that_began_before_it() -> None:
    ages_s = np.concatenate([np.geomspace(0.01, 10_000, 5_000), SINCE_S]).astype(np.float32)
    slow = np.searchsorted(SINCE_S, ages_s, side="right") - 1
    assert quarter_octaves(ages_s).tolist() == slow.tolist()
    assert quarter_octaves(np.array([-3.0], np.float32)) == 0
    assert len(SINCE_S) == AGES


def plant_over(partitions: int, moments: list[list[int]], providers: int):
    """Let devices report at whole multiples of three seconds; look five seconds after the last."""
    view = PlantView(partitions)
    for partition in range(partitions):
        nos = range(partition, DEVICES, partitions)
        fleet = Fleet.empty(partition, partitions)
        through = tuple(b"net-%d" % (no % providers) if no % 4 else b"" for no in nos)
        say(fleet, enrolled(nos, provider=through), Members("odd", [no for no in nos if no % 2]))
        for second, heard in enumerate(moments, 1):
            mine = [power(no, second * 3, 1000.0) for no in nos if no in heard]
            say(fleet, block(mine))
            tick(fleet, second * 3 + 1)
        tick(fleet, len(moments) * 3 + 5)
        apply_plant(view, entry(partition + 1, summarise(fleet, SETTINGS)))
    return view


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, DEVICES - 1)), min_size=1, max_size=8))
def test_what_is_told_of_groups_does_not_depend_on_partitions(moments: list[list[int]]) -> None:
    one, *others = (plant_over(count, moments, 2) for count in (1, 3, 5, DEVICES))
    for resource in ("all", "odd"):
        expected = total(one, resource)
        for other in others:
            found = total(other, resource)
            assert found.silences == expected.silences
            assert found.providers == expected.providers
            assert found.vendors == expected.vendors


def test_of_each_group_is_told_who_is_due_and_who_is_late() -> None:
    # Device 1 of each four is heard every three seconds throughout; the others stop after half.
    moments = [[no for no in range(DEVICES) if second < 10 or no % 4 == 1] for second in range(12)]
    known = total(plant_over(2, moments, 2))
    assert known.providers == {"net-0": (3, 0), "net-1": (6, 3)}
    net = known.silences["provider/net-1"]
    # All are due, five seconds after the last word of any less 0.1 s that it took; who stopped is
    # stale.
    assert (net.due, net.late, sum(net.ages)) == (6, 0, 6)
    assert net.ages[SINCE_S.index(4.0)] == 3
    assert net.ages[SINCE_S.index(10.0)] == 3
    assert total(plant_over(2, moments, 2), "odd").silences == {}


@pytest.mark.parametrize(("providers", "told"), [(64, 0), (2, 2)])
def test_providers_are_told_by_name_only_where_few_are_named(providers: int, told: int) -> None:
    fleet = Fleet.empty(0, 1)
    nos = range(2 * providers)
    say(fleet, enrolled(nos, provider=tuple(b"net-%d" % (no % providers) for no in nos)))
    tick(fleet, 1)
    (whole,) = summarise(fleet, SETTINGS).resources
    assert len(whole.providers) == told
