"""Silence is judged by each device's own rhythm, and only the device itself can break it."""

import pytest
from fleet_worlds import (
    SETTINGS,
    acks,
    block,
    commands,
    fleet_of,
    phases,
    power,
    s,
    say,
    sessions,
    tick,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.fleet.columns import Fleet
from kapelle.fleet.snapshots import digest
from kapelle.model.enums import Freshness, Metric, Phase, SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.model.signals import Signal

LIVE, LATE, STALE, LOST = Freshness.LIVE, Freshness.LATE, Freshness.STALE, Freshness.LOST


def reported(fleet: Fleet, every_s: float, until_s: float, lost: frozenset[int] = frozenset()):
    """Let device 0 report every so often, and time pass."""
    number = 0
    for second in range(1, int(until_s) + 1):
        while number * every_s <= second:
            if number not in lost:
                say(fleet, block([power(0, number * every_s, 100.0)]))
            number += 1
        tick(fleet, second)
    return fleet


def at(fleet: Fleet, now_s: float) -> Freshness:
    tick(fleet, now_s)
    return Freshness(fleet.freshness[0])


@pytest.mark.parametrize("every_s", [1.0, 2.0, 5.0, 30.0, 60.0])
def test_rhythm_is_learned(every_s: float) -> None:
    fleet = reported(fleet_of(), every_s, every_s * 20)
    assert fleet.cadence_s[0] == pytest.approx(every_s, rel=0.1)


@settings(max_examples=30)
@given(st.sets(st.integers(5, 59), max_size=12))
def test_lost_reports_do_not_spoil_the_rhythm(lost: set[int]) -> None:
    fleet = reported(fleet_of(), 5.0, 300, frozenset(lost))
    assert 4.9 < fleet.cadence_s[0] < 15.0
    tick(fleet, 301)
    say(fleet, *(block([power(0, 305.0 + 5 * i, 1.0)]) for i in range(1)))
    for second in range(305, 360, 5):
        say(fleet, block([power(0, float(second), 1.0)]))
        tick(fleet, second)
    assert fleet.cadence_s[0] < 6.5


def test_one_lost_report_or_outage_hardly_moves_the_rhythm() -> None:
    steady = reported(fleet_of(), 5.0, 200).cadence_s[0]
    assert steady == pytest.approx(5.0)
    one_lost = reported(fleet_of(), 5.0, 200, frozenset({39})).cadence_s[0]
    assert one_lost <= 1.1 * steady
    fleet = reported(fleet_of(), 5.0, 200)
    say(fleet, block([power(0, 4000.0, 1.0)]))
    tick(fleet, 4000)
    assert fleet.cadence_s[0] <= 1.4 * steady


def test_a_promise_holds_until_learned_otherwise_and_the_prior_without_one() -> None:
    promised, unknown = fleet_of(report_every_s=300.0), fleet_of()
    for fleet in (promised, unknown):
        say(fleet, block([power(0, 0.0, 1.0)]))
    assert at(promised, 400.0) == LIVE
    assert at(unknown, SETTINGS.cadence_prior_s * 1.4) == LIVE
    assert at(unknown, 400.0) == STALE


def test_silence_grows_from_live_to_lost_in_cadences() -> None:
    fleet = reported(fleet_of(), 10.0, 200)
    heard_s = 200.0
    bounds = (SETTINGS.late_after, SETTINGS.stale_after, SETTINGS.lost_after)
    for bound, before, after in zip(bounds, (LIVE, LATE, STALE), (LATE, STALE, LOST), strict=True):
        edge_s = heard_s + SETTINGS.slack_s + bound * float(fleet.cadence_s[0])
        assert at(fleet, edge_s - 0.5) == before
        assert at(fleet, edge_s + 0.5) == after
    say(fleet, block([power(0, 400.0, 1.0)]))
    assert at(fleet, 401.0) == LIVE
    assert fleet.freshness[1] == Freshness.NEVER


def test_nothing_we_send_and_no_connection_makes_a_device_live() -> None:
    """R-13."""
    fleet = reported(fleet_of(), 5.0, 100)
    assert at(fleet, 300.0) == LOST
    say(
        fleet,
        Signal("all", 1, 1.0, 1.0, 1, s(600)),
        commands([0], 1000.0, at_s=300),
        phases([0], Phase.SENT, at_s=300),
        sessions((0, SessionEvent.UP, 2), at_s=300),
        acks([0], at_s=301),
    )
    assert at(fleet, 302.0) == LOST


@pytest.mark.parametrize("clock_error_s", [-180.0, 0.0, 180.0])
def test_a_wrong_clock_does_not_make_a_device_stale(clock_error_s: float) -> None:
    fleet = fleet_of()
    for second in range(1, 100):
        measured = power(0, second + clock_error_s, 1.0, 0.2 - clock_error_s)
        say(fleet, block([measured]))
        assert at(fleet, second + 0.5) == LIVE
    assert fleet.heard_at_ns[0] == pytest.approx(s(99.2), abs=1e8)
    assert at(fleet, 120.0) == LOST


def test_a_clock_set_back_is_not_silence() -> None:
    fleet = fleet_of()
    for second in range(1, 200):
        back_s = 0.0 if second < 100 else 3600.0
        measured = power(0, second - back_s, 1.0, 0.1 + back_s)._replace(order=second - 2**63)
        say(fleet, block([measured]))
        assert at(fleet, second + 0.5) == LIVE


def test_late_data_says_nothing_about_now() -> None:
    fleet = reported(fleet_of(), 5.0, 100)
    assert at(fleet, 118.0) == STALE
    say(fleet, block([power(0, 90.0 + i, 5.0, 30.0) for i in range(8)]))
    assert at(fleet, 119.0) == STALE
    assert fleet.value[Metric.POWER_W, 0] == 100.0


@given(st.data())
def test_how_reports_are_cut_between_ticks_changes_nothing(data: st.DataObject) -> None:
    whole, pieces = fleet_of(), fleet_of()
    for second in range(1, 8):
        stream = data.draw(
            st.lists(
                st.builds(
                    power,
                    st.integers(0, 3),
                    st.sampled_from([second - 1.5, second - 1.0, second - 0.5]),
                    st.just(100.0),
                    st.just(0.1),
                ),
                max_size=6,
            )
        )
        cut = data.draw(st.integers(0, 6))
        say(whole, block(stream))
        say(pieces, block(stream[cut:]), block(stream[:cut]))
        tick(whole, second)
        tick(pieces, second)
        whole.position = pieces.position
    for fleet in (whole, pieces):
        # Which of two was the repeat, or late, depends on which came first.
        for counts in (fleet.received, fleet.duplicates, fleet.undecided):
            counts[:] = 0
    assert digest(whole) == digest(pieces)


def test_skew_is_the_least_of_the_last_two_windows_with_reports() -> None:
    window_s = SETTINGS.skew_window_s
    fleet = fleet_of()

    def skew_s(at_s: float, delay_s: float) -> float:
        say(fleet, block([power(0, at_s - delay_s, 1.0, delay_s)]))
        tick(fleet, at_s + 1)
        return (int(fleet.heard_at_ns[0]) - s(at_s - delay_s)) / NS_PER_S

    assert skew_s(10.0, 2.0) == 2.0
    assert skew_s(20.0, 0.5) == 0.5
    tick(fleet, window_s)
    assert skew_s(window_s + 10.0, 3.0) == 0.5
    tick(fleet, window_s * 5)
    assert skew_s(window_s * 5 + 10, 100.0) == 3.0, "kept over silence"
    tick(fleet, window_s * 6)
    tick(fleet, window_s * 7)
    assert skew_s(window_s * 7 + 10, 100.0) == 100.0
