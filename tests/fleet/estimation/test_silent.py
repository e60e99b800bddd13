"""What is said of the silent: how far they stray, what they share, and whom they are held against.

Where there is one, a slow and obvious version stands beside the formula (`docs/estimation.md`).
"""

import numpy as np
import pytest
from fleet_worlds import block, fleet_of, power, say, tick
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.estimation.evidence import OCTAVES, PV_CLUSTER
from kapelle.fleet.estimation.learned import Learned, merged
from kapelle.fleet.estimation.levels import Level, learn_levels
from kapelle.fleet.estimation.scatter import Cell, Moves, Prior, strayed
from kapelle.fleet.estimation.sharing import Group, alone, apart_w2, learn_weights
from kapelle.fleet.estimation.silent import expect
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.summary import summarise
from kapelle.model.enums import DeviceKind
from kapelle.model.summaries import Evidence

EV = int(DeviceKind.EV)
SHARE, HALF_S = 0.2, 1800.0
weights_w = st.dictionaries(st.sampled_from("abcdef"), st.floats(1.0, 1e6), min_size=1)


def prior(moves: Moves | None = None, spread2: float = 0.0) -> Prior:
    return Prior((SHARE, HALF_S), moves or Moves(), spread2, gap_s=4.0, alike=1.0)


def anchors(octave: int, count: int, moved: list[float]) -> dict[int, Cell]:
    """Return what so many devices showed, once each, of which some moved by so much."""
    square = sum(move**2 for move in moved)
    return {
        EV * OCTAVES + octave: Cell(
            freedom=count - 1.0,
            then2=0.2 * count,
            both=0.2 * count,
            now2=0.2 * count + square,
            age=1.5 * 2**octave * count,
            count=count,
            square=square,
            fourth=sum(move**4 for move in moved),
        )
    }


@given(jumps=st.integers(1, 50), size=st.floats(0.01, 1.0), rests=st.integers(0, 1000))
def test_equal_jumps_count_as_events_whatever_rests(jumps: int, size: float, rests: int) -> None:
    moves = Moves(seconds=4.0 * (jumps + rests), square=jumps * size**2, fourth=jumps * size**4)
    assert moves.events == pytest.approx(jumps)


@given(
    jumps=st.integers(0, 100),
    hours=st.floats(0.1, 1000.0),
    spread2=st.floats(0.01, 0.25),
    ages=st.tuples(st.floats(1.0, 1e6), st.floats(1.0, 1e6)),
)
def test_longer_silence_is_less_sure_but_nobody_leaves_his_kind(
    jumps: int, hours: float, spread2: float, ages: tuple[float, float]
) -> None:
    known = prior(Moves(seconds=3600.0 * hours, square=jumps, fourth=jumps), spread2)
    sooner, later = sorted(ages)
    assert known.variance(sooner) <= known.variance(later) * (1.0 + 1e-9)
    assert known.variance(later) <= max(spread2, SHARE**2)


def test_rare_events_that_no_anchor_has_seen_are_known_from_the_moves_of_all() -> None:
    """300 chargers for ten minutes, one event each five hours: ten; none of 50 anchors saw one."""
    moves = Moves(seconds=300 * 600.0, square=10 * 0.5, fourth=10 * 0.25)
    expected = 0.5 * 128 * 1.5 / 18_000
    found = strayed(anchors(7, 50, []), EV, 192.0, prior(moves, 0.25))
    assert found.variance == pytest.approx(expected, rel=0.4)
    assert found.events == pytest.approx(3.0)


def test_anchors_that_have_seen_many_events_are_believed() -> None:
    moves = Moves(seconds=1e6, square=1000.0, fourth=1000.0)
    few, many = ([0.7] * n for n in (1, 400))
    known = prior(moves, 0.25)
    found = strayed(anchors(7, 1000, many), EV, 192.0, known)
    assert found.variance == pytest.approx(0.4 * 0.49, rel=0.02)
    first = known.variance(192.0)
    found = strayed(anchors(7, 1000, few), EV, 192.0, known)
    assert 0.49 / 1000 < found.variance < first
    assert found.variance == pytest.approx((3.0 * first + 0.49 / 999) / 4.0)


def test_an_event_seen_again_and_again_is_one_event() -> None:
    """An anchor in its third minute has told of the same charger with each of 33 reports."""
    cell = anchors(7, 50, [0.7])[EV * OCTAVES + 7]
    assert cell.events(4.0) == pytest.approx(1.0)
    cell.seconds = 1e4
    assert cell.events(4.0) == pytest.approx(1.0 / (0.7 * 192.0 / 4.0))


@given(heard_w=weights_w, part=st.floats(0.01, 10.0))
def test_the_silent_of_every_group_alike_share_nothing_the_level_does_not_show(
    heard_w: dict[str, float], part: float
) -> None:
    silent_w = {name: part * weight for name, weight in heard_w.items()}
    assert apart_w2(silent_w, heard_w) <= 1e-12 * sum(silent_w.values()) ** 2


@given(silent_w=weights_w, heard_w=weights_w)
def test_what_groups_do_errs_by_where_the_silent_differ(
    silent_w: dict[str, float], heard_w: dict[str, float]
) -> None:
    """Each group moves by itself; the level shows their mean, weighted by who reports."""
    whole_w, names = sum(silent_w.values()), silent_w.keys() | heard_w.keys()
    by_one = [
        silent_w.get(name, 0.0) - whole_w * heard_w.get(name, 0.0) / sum(heard_w.values())
        for name in names
    ]
    assert apart_w2(silent_w, heard_w) == pytest.approx(sum(w * w for w in by_one))
    assert apart_w2(silent_w, {}) == pytest.approx(sum(w * w for w in silent_w.values()))
    assert 1.0 - 1e-9 <= alone(heard_w) <= len(heard_w) + 1e-9


def test_what_pairs_show_by_chance_is_not_shared() -> None:
    """200 devices in five groups, over many draws: nothing shared, and half of the variance."""
    rng = np.random.default_rng(5)

    def found(common: float) -> list[float]:
        shares = []
        for _ in range(200):
            off = np.sqrt(1.0 - common) * rng.standard_normal((5, 40))
            off += np.sqrt(common) * rng.standard_normal((5, 1))
            square = float((off**2).sum())
            product = float((off.sum(axis=1) ** 2).sum()) - square
            shares.append(Group(product, 5 * 40 * 39.0, square, 200.0).shared(200.0))
        return shares

    # Of the positive half of a normal distribution of 1.6 % the mean is 0.6 %.
    assert np.mean(found(0.0)) < 0.003
    assert np.mean(found(0.5)) == pytest.approx(0.45, abs=0.1)


def test_who_falls_silent_stops_weighing_within_some_reports() -> None:
    levels = {EV: Level(count_rate=4.0, report_rate=1.0)}
    weights: dict[str, dict[str, float]] = {}
    both = {f"{EV}/acme": 300.0, f"{EV}/bolt": 100.0, f"{PV_CLUSTER}3": 50.0}
    for _ in range(100):
        learn_weights(weights, levels, both, 1.0)
    assert weights[f"{EV}/"] == pytest.approx({f"{EV}/acme": 300.0, f"{EV}/bolt": 100.0}, rel=1e-3)
    for _ in range(40):
        learn_weights(weights, levels, {f"{EV}/acme": 300.0}, 1.0)
    assert weights[f"{EV}/"].get(f"{EV}/bolt", 0.0) < 5.0


def test_a_kind_of_which_some_fall_silent_moves_as_far_as_the_others_do() -> None:
    """A third stops reporting in the minute in which all begin to move."""
    levels: dict[int, Level] = {}
    for _ in range(200):
        learn_levels(levels, {EV: [400.0, 400.0, 0.0, 0.0, 100.0]}, 1.0)
    level = levels[EV]
    before = level.chained
    for _ in range(60):
        learn_levels(levels, {EV: [268.0, 268.0, 0.0, 0.001 * 268.0, 67.0]}, 1.0)
    assert level.chained - before == pytest.approx(0.06, rel=0.1)


def test_a_lost_vendor_is_in_doubt_by_what_vendors_share() -> None:
    """The same devices, silent all over the plant or all of one vendor; a quarter each."""
    family, cell = f"{EV}/", EV * OCTAVES + 8
    learned = Learned(
        levels={EV: Level(count_rate=1200.0, report_rate=300.0, seconds=4.0, plate_rate_w=1200.0)},
        cells=anchors(8, 1000, [0.5] * 200),
        groups={family: Group(0.1 * 300 * 74, 300 * 74, 300.0, 300.0)},
        weights={family: {f"{EV}/acme": 150.0, f"{EV}/bolt": 150.0}},
    )

    def variance_w2(silent_groups: dict[str, float]) -> float:
        silent = {cell: [100.0, 100.0, 0.0, 100.0 * 300.0, 100.0]}
        told = Evidence(silent=silent, silent_groups=silent_groups)
        return expect(learned, told, FleetSettings()).variance_w2

    spread = variance_w2({f"{EV}/acme": 50.0, f"{EV}/bolt": 50.0})
    lost = variance_w2({f"{EV}/core": 100.0})
    assert 3.0 * spread < lost


def test_nothing_known_is_presumed() -> None:
    """Before the first reports, and from summaries of a version that told less."""
    silent = {EV * OCTAVES + 8: [10.0, 1e4, -5e3, 3e6, 1e7]}
    found = expect(Learned(), Evidence(silent=silent), FleetSettings())
    assert found.moved_w == {}
    assert found.variance_w2 == pytest.approx(1e7 * 0.04 * 300 / 2100)
    old = Evidence(anchors={1: [1.0] * 7})
    assert merged((old, Evidence(moves={1: [1.0, 2.0, 3.0]}))).moves == {1: [1.0, 2.0, 3.0]}


def test_a_partition_tells_how_far_its_devices_moved() -> None:
    fleet = fleet_of(report_every_s=5.0)
    for second in range(5, 101, 5):
        say(fleet, block([power(0, second, 500.0)]))
        tick(fleet, second)
    say(fleet, block([power(0, 105.0, 1500.0)]))
    tick(fleet, 105.0)
    evidence = summarise(fleet, FleetSettings()).resources[0].evidence
    plate_w = float(max(fleet.nameplate_up_w[0], fleet.nameplate_down_w[0]))
    share, kind = 1000.0 / plate_w, int(fleet.kind[0])
    assert evidence.moves[kind] == pytest.approx([5.0, share**2, share**4], rel=2e-3)
    assert sum(evidence.fourths.values()) == pytest.approx(share**4, rel=2e-2)
    assert set(evidence.heard.values()) == {5.0 * plate_w}
