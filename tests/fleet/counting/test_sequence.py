"""Counting reports: against plain sets, however reports are cut, repeated or sent again."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from fleet_worlds import DEVICES, SETTINGS, Report, block, fleet_of, s, tick
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from kapelle.fleet.columns import Fleet, column_specs
from kapelle.fleet.counting.gaps import WINDOW
from kapelle.fleet.readings import apply_readings
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.snapshots import digest, from_snapshot, to_snapshot
from kapelle.model.enums import Condition, Freshness, Metric

LOWEST = -(2**63)
COUNTS = ("received", "duplicates", "late", "lost", "undecided")
ONLY_REPEATS = ("duplicates", "undecided")
"""What may change when something is sent again."""


def order(boot: int, seq: int) -> int:
    return LOWEST + (boot << 32 | seq)


def report(no: int, boot: int, seq: int, at_s: float, late_s: float = 0.1) -> Report:
    return Report(no, order(boot, seq), s(at_s), s(at_s + late_s), {Metric.POWER_W: 10.0 * at_s})


@dataclass
class Slow:
    """One device, counted the obvious way."""

    mark: tuple[int, int] | None = None
    began: int = 0
    came: set[int] = field(default_factory=set)
    newest_ns: int = 0
    received: int = 0
    duplicates: int = 0
    late: int = 0
    lost: int = 0
    undecided: int = 0

    def tell(self, told: Report) -> None:
        if told.order >= 0:
            self._tell_timed(told)
        else:
            self._tell_counted(told)
        self.newest_ns = max(self.newest_ns, told.measured_at_ns)

    def _tell_timed(self, told: Report) -> None:
        if told.measured_at_ns > self.newest_ns:
            self.received += 1
        elif told.measured_at_ns == self.newest_ns:
            self.duplicates += 1
        else:
            self.undecided += 1

    def _tell_counted(self, told: Report) -> None:
        boot, seq = divmod(told.order - LOWEST, 2**32)
        if self.mark is None or (boot, seq) > self.mark:
            if self.mark is not None and boot == self.mark[0]:
                self.lost += seq - self.mark[1] - 1
            else:
                self.began, self.came = seq, set()
            self.mark = (boot, seq)
            self.received += 1
        elif boot < self.mark[0] or self.mark[1] - seq >= WINDOW:
            self.undecided += 1
        elif seq in self.came:
            self.duplicates += 1
        else:
            self.received += 1
            self.late += 1
            if seq < self.began:
                self.lost += self.began - seq
                self.began = seq
            self.lost -= 1
        if boot == self.mark[0] and self.mark[1] - seq < WINDOW:
            self.came.add(seq)


NUMBERS = st.one_of(
    st.integers(0, 7),
    st.integers(WINDOW - 3, WINDOW + 3),
    st.integers(2 * WINDOW - 2, 2 * WINDOW + 2),
    st.sampled_from([3 * WINDOW, 100_000, 2**32 - 1]),
)


@st.composite
def streams(draw: st.DrawFn, most: int = 40) -> list[Report]:
    """Draw reports of counting devices (and one that does not), mostly in order, some again."""
    made: list[Report] = []
    next_seq = dict.fromkeys(range(DEVICES), 0)
    boots = dict.fromkeys(range(DEVICES), 1)
    at_s = 0.0
    for choice in draw(st.lists(st.integers(0, 9), max_size=most)):
        at_s += 1
        no = draw(st.integers(0, DEVICES - 1))
        if no == DEVICES - 1:
            told = Report(no, s(at_s), s(at_s), s(at_s + 0.1), {Metric.POWER_W: at_s})
        elif choice <= 4:
            told = report(no, boots[no], next_seq[no], at_s)
            next_seq[no] += 1
        elif choice == 5:
            boots[no] += 1
            next_seq[no] = draw(st.integers(0, 2))
            told = report(no, boots[no], next_seq[no], at_s)
            next_seq[no] += 1
        elif choice == 6 and next_seq[no] < 2**31:
            next_seq[no] += draw(st.sampled_from([1, 2, 70, WINDOW - 1, WINDOW, 3 * WINDOW]))
            told = report(no, boots[no], next_seq[no], at_s)
            next_seq[no] += 1
        elif choice == 7 and next_seq[no]:
            # Held back by the device: measured long ago, never seen before or seen.
            boot = draw(st.integers(max(1, boots[no] - 1), boots[no]))
            seq = max(0, next_seq[no] - draw(st.integers(1, 80)))
            # One number, one report.
            same = [each for each in made if (each.device_no, each.order) == (no, order(boot, seq))]
            told = [*same, report(no, boot, seq, 1e-6 * seq + 100 * boot - 9000, late_s=9000)][0]
        elif made:
            told = draw(st.sampled_from(made))
        else:
            continue
        made.append(told)
    return made


def fleet_after(*streams: list[Report], config: FleetSettings = SETTINGS) -> Fleet:
    fleet = fleet_of()
    for stream in streams:
        apply_readings(fleet, block(stream), config)
    return fleet


def assert_counts(fleet: Fleet, stream: list[Report]) -> None:
    slow = [Slow() for _ in range(DEVICES)]
    for told in stream:
        slow[told.device_no].tell(told)
    for name in COUNTS:
        expected = [getattr(each, name) for each in slow]
        assert getattr(fleet, name)[:DEVICES].tolist() == expected, name
    marks = [order(*each.mark) if each.mark else 0 for each in slow]
    assert fleet.mark[:DEVICES].tolist() == marks


@settings(max_examples=300)
@given(streams(), st.lists(st.integers(0, 40), max_size=4))
def test_counts_are_those_of_plain_sets_however_the_stream_is_cut(
    stream: list[Report], cuts: list[int]
) -> None:
    edges = [0, *sorted(cuts), len(stream)]
    fleet = fleet_after(*(stream[a:b] for a, b in pairwise(edges)))
    assert_counts(fleet, stream)
    assert digest(fleet) == digest(fleet_after(stream))
    assert digest(fleet) == digest(fleet_after(*([one] for one in stream)))


@settings(max_examples=200)
@given(st.lists(NUMBERS, max_size=30), st.lists(st.integers(0, 30), max_size=3))
def test_numbers_far_apart(numbers: list[int], cuts: list[int]) -> None:
    stream = [report(0, 1, seq, 0.0, late_s=1000) for seq in numbers]
    edges = [0, *sorted(cuts), len(stream)]
    assert_counts(fleet_after(*(stream[a:b] for a, b in pairwise(edges))), stream)


def unchanged(fleet: Fleet, before: dict[str, np.ndarray]) -> None:
    for name, was in before.items():
        if name not in ONLY_REPEATS:
            assert_array_equal(getattr(fleet, name), was, name)


def columns_of(fleet: Fleet) -> dict[str, np.ndarray]:
    return {name: getattr(fleet, name).copy() for name in column_specs()}


@settings(max_examples=200)
@given(streams(), st.data())
def test_sending_any_slice_again_changes_nothing_but_the_counts_of_repeats(
    stream: list[Report], data: st.DataObject
) -> None:
    """R-26."""
    fleet = fleet_after(stream)
    before, windows = columns_of(fleet), fleet.gaps.columns()
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 40), st.integers(0, 40))))
    pause_s = data.draw(st.sampled_from([0.0, 60.0, 7 * 86_400.0]))
    again = [
        told._replace(received_at_ns=told.received_at_ns + s(pause_s) - s(0))
        for told in stream[start:stop]
    ]
    for piece in (again, *([one] for one in again)):
        apply_readings(fleet, block(piece), SETTINGS)
        unchanged(fleet, before)
    for name, was in windows.items():
        assert_array_equal(fleet.gaps.columns()[name], was, name)
    assert (fleet.restart_count == 0).all()


@given(streams(), st.data())
def test_shuffled_reports_leave_the_same_digest(stream: list[Report], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(stream))
    one, other = fleet_after(stream), fleet_after(shuffled)
    for name in ("value", "order", "measured_at_ns", "mark"):
        assert_array_equal(getattr(one, name), getattr(other, name), name)


@settings(max_examples=100)
@given(streams(), st.integers(0, 40))
def test_windows_survive_a_restart_of_ours(stream: list[Report], cut: int) -> None:
    fleet = from_snapshot(to_snapshot(fleet_after(stream[:cut])))
    apply_readings(fleet, block(stream[cut:]), SETTINGS)
    assert digest(fleet) == digest(fleet_after(stream[:cut], stream[cut:]))


def test_beyond_the_bound_windows_of_who_was_heard_longest_ago_go_and_are_counted() -> None:
    few = FleetSettings(gap_windows_max=2)
    stream = [report(no, 1, seq, seq + no) for no in range(4) for seq in (1, 3)]
    missing = [report(no, 1, 2, 2 + no) for no in range(4)]
    for cut in ([stream], [[one] for one in stream]):
        fleet = fleet_after(*cut, config=few)
        tick(fleet, 10.0, few)
        assert (len(fleet.gaps), fleet.gaps.evicted) == (2, 2)
        apply_readings(fleet, block(missing), few)
        # Of the first two we cannot tell any more; nothing is counted twice.
        assert fleet.undecided[:4].tolist() == [1, 1, 0, 0]
        assert fleet.late[:4].tolist() == [0, 0, 1, 1]
        assert fleet.lost[:4].tolist() == [1, 1, 0, 0]


def live(no: int, boot: int, seqs: range, from_s: float) -> list[Report]:
    return [report(no, boot, seq, from_s + i) for i, seq in enumerate(seqs)]


OLD = live(0, 7, range(100, 110), 0.0)
RESET = live(0, 1, range(1, 9), 100.0)


@given(st.lists(st.integers(0, 18), max_size=4))
def test_a_device_whose_counters_fell_back_is_let_in_again(cuts: list[int]) -> None:
    stream = OLD + RESET
    edges = [0, *sorted(cuts), len(stream)]
    fleet = fleet_after(*(stream[a:b] for a, b in pairwise(edges)))
    assert fleet.value[Metric.POWER_W, 0] == RESET[-1].values[Metric.POWER_W]
    assert fleet.mark[0] == RESET[-1].order
    assert fleet.condition[0] & Condition.COUNTER_RESTARTED
    assert digest(fleet) == digest(fleet_after(stream))


@pytest.mark.parametrize("behind_s", [-50.0, 90.0])
def test_a_device_whose_clock_is_known_to_err_is_let_in_again(behind_s: float) -> None:
    fleet = fleet_of()
    for told in (OLD, RESET):
        off_ns = s(behind_s) - s(0)
        apply_readings(
            fleet,
            block([each._replace(measured_at_ns=each.measured_at_ns - off_ns) for each in told]),
        )
        fleet.skew_before_ns[:] = s(behind_s + 0.1) - s(0)
    assert fleet.mark[0] == RESET[-1].order
    assert fleet.condition[0] & Condition.COUNTER_RESTARTED


@given(st.data())
def test_old_data_sent_again_restarts_nothing_and_overtakes_nobody(data: st.DataObject) -> None:
    reset = data.draw(st.booleans())
    stream = OLD + RESET if reset else OLD
    fleet = fleet_after(stream)
    before = columns_of(fleet)
    again = data.draw(st.lists(st.sampled_from(stream), max_size=30))
    late_s = data.draw(st.sampled_from([0.0, 5.0, 1e6]))
    again = [a._replace(received_at_ns=a.received_at_ns + s(late_s) - s(0)) for a in again]
    apply_readings(fleet, block(again))
    unchanged(fleet, before)
    after = report(0, 1, 9, 108.0) if reset else report(0, 7, 110, 108.0)
    apply_readings(fleet, block([after]))
    assert fleet.value[Metric.POWER_W, 0] == after.values[Metric.POWER_W]


def test_two_counters_that_take_turns_restart_nothing() -> None:
    turns = [
        told
        for i in range(20)
        for told in (report(0, 7, 200 + i, 200.0 + 2 * i), report(0, 1, i, 201.0 + 2 * i))
    ]
    fleet = fleet_after(OLD, turns)
    assert not fleet.condition[0] & Condition.COUNTER_RESTARTED
    assert fleet.mark[0] == order(7, 219)


def test_a_clock_that_was_ahead_and_went_back_is_no_restart() -> None:
    ahead = [report(0, 7, 110 + i, 300.0 + i, late_s=-190.0) for i in range(5)]
    right = [report(0, 7, 115 + i, 115.0 + i) for i in range(5)]
    fleet = fleet_after(OLD, ahead, right)
    later = [each._replace(received_at_ns=each.measured_at_ns + 1) for each in ahead]
    apply_readings(fleet, block(later))
    assert not fleet.condition[0]
    assert fleet.mark[0] == order(7, 119)


@pytest.mark.parametrize("devices", [3, 500])
def test_a_long_backlog_in_one_block(devices: int) -> None:
    fleet = fleet_of(devices)
    backlog = [report(no, 1, seq, seq) for seq in range(1, 40) for no in range(devices)]
    apply_readings(fleet, block(backlog))
    assert (fleet.received[:devices] == 39).all()
    assert not fleet.lost.any()
    assert len(fleet.gaps) == 0
    tick(fleet, 50.0)


def timed(at_s: float, ahead_s: float = 0.0) -> Report:
    at_ns = s(at_s + ahead_s)
    return Report(0, at_ns, at_ns, s(at_s + 0.1), {Metric.POWER_W: at_s})


def test_one_stamp_ahead_of_its_time_shuts_nobody_out() -> None:
    fleet = fleet_of()
    for second in range(1, 60):
        apply_readings(fleet, block([timed(second, 240.0 if second == 30 else 0.0)]))
        tick(fleet, second + 0.5)
        assert fleet.value[Metric.POWER_W, 0] == second
        assert fleet.freshness[0] == Freshness.LIVE
    before = fleet.value.copy()
    again = timed(30, 240.0)._replace(received_at_ns=s(61))
    apply_readings(fleet, block([again]))
    assert_array_equal(fleet.value, before)


def test_a_clock_that_is_always_ahead_is_heard_in_its_own_order() -> None:
    fleet = fleet_of()
    for second in range(1, 30):
        apply_readings(fleet, block([timed(second, 200.0)]))
        tick(fleet, second + 0.5)
        if second > 2:
            # An earlier one comes again.
            apply_readings(fleet, block([timed(second - 2, 200.0)]))
            tick(fleet, second + 0.6)
        assert fleet.value[Metric.POWER_W, 0] == second
        assert fleet.freshness[0] == Freshness.LIVE


def test_a_single_stamp_ahead_does_not_age_the_true_ones() -> None:
    """The least delay of a device must not be that of one wrong stamp."""
    fleet = fleet_of()
    for second in range(1, 700):
        told = [report(0, 1, 2 * second, second)]
        if second == 600:
            told = [report(0, 1, 2 * second - 1, second + 240.0, late_s=-239.8), *told]
        apply_readings(fleet, block(told))
        tick(fleet, second + 0.5)
        assert fleet.freshness[0] == Freshness.LIVE
