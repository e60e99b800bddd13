"""However a stream of reports is cut, repeated or shuffled, the newest of each device stays."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from fleet_worlds import DEVICES, Report, block, fleet_of, reports, s
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from kapelle.fleet.columns import Fleet
from kapelle.fleet.readings import apply_readings
from kapelle.model.enums import Metric

SHOWN = ("value", "order", "measured_at_ns")
TOUCHED = (*SHOWN, "received_at_ns", "skew_ns")


def fleet_after(*streams: list[Report]) -> Fleet:
    fleet = fleet_of()
    for stream in streams:
        apply_readings(fleet, block(stream))
    return fleet


def assert_same(one: Fleet, other: Fleet, columns: Sequence[str] = TOUCHED) -> None:
    for column in columns:
        assert_array_equal(getattr(one, column), getattr(other, column), column)


@given(reports())
def test_newest_report_of_each_device_and_metric_stays(stream: list[Report]) -> None:
    fleet = fleet_after(stream)
    for metric in Metric:
        for device_no in range(DEVICES):
            said = [r for r in stream if r.device_no == device_no and metric in r.values]
            newest = max(said, key=lambda r: r.order, default=None)
            assert fleet.order[metric, device_no] == (newest.order if newest else 0)
            if newest is None:
                assert np.isnan(fleet.value[metric, device_no])
            else:
                assert fleet.value[metric, device_no] == newest.values[metric]
                assert fleet.measured_at_ns[metric, device_no] == newest.measured_at_ns
    for device_no in range(DEVICES):
        heard: list[Report] = []
        for told in stream:
            # Without counters, what was measured before the newest may have come before, too.
            newest_ns = max((r.measured_at_ns for r in heard), default=0)
            if told.device_no == device_no and told.measured_at_ns > newest_ns:
                heard.append(told)
        if heard:
            assert fleet.received_at_ns[device_no] == max(r.received_at_ns for r in heard)
            assert fleet.skew_ns[device_no] == min(
                r.received_at_ns - r.measured_at_ns for r in heard
            )


@given(reports(), st.lists(st.integers(0, 12), max_size=4))
def test_cutting_the_stream_changes_nothing(stream: list[Report], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert_same(fleet_after(*pieces), fleet_after(stream))


@given(reports(), st.data())
def test_shuffling_and_repeating_the_stream_changes_nothing(
    stream: list[Report], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(stream), max_size=8)) if stream else []
    shuffled = data.draw(st.permutations(stream + again))
    cut = data.draw(st.integers(0, len(shuffled)))
    assert_same(fleet_after(shuffled[:cut], shuffled[cut:]), fleet_after(stream), SHOWN)


COUNTED = -(2**63)


@st.composite
def fickle(draw: st.DrawFn) -> list[Report]:
    """Draw distinct reports of devices that now count them and now do not."""
    keys = st.tuples(st.integers(0, DEVICES - 1), st.integers(1, 5), st.booleans())
    return [
        Report(
            no, COUNTED + n if counted else s(n), s(n), s(n), {Metric.POWER_W: 10.0 * n + counted}
        )
        for no, n, counted in draw(st.lists(keys, unique=True, max_size=12))
    ]


@given(fickle(), st.data())
def test_a_device_that_begins_or_ceases_to_count_is_still_heard(
    stream: list[Report], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(stream), max_size=8)) if stream else []
    shuffled = data.draw(st.permutations(stream + again))
    cut = data.draw(st.integers(0, len(shuffled)))
    fleet = fleet_after(shuffled[:cut], shuffled[cut:])
    for device_no in range(DEVICES):
        said = [r for r in stream if r.device_no == device_no]
        if said:
            newest = max(said, key=lambda r: (r.measured_at_ns, r.order < 0))
            assert fleet.value[Metric.POWER_W, device_no] == newest.values[Metric.POWER_W]
            assert fleet.order[Metric.POWER_W, device_no] == newest.order


def test_counters_outdo_a_clock_that_went_back() -> None:
    reports = [Report(0, COUNTED + n, s(9 - n), s(9), {Metric.POWER_W: n}) for n in (0, 1, 2)]
    for stream in (reports, reports[::-1]):
        assert fleet_after(stream).value[Metric.POWER_W, 0] == 2
        assert fleet_after(*([one] for one in stream)).value[Metric.POWER_W, 0] == 2


def test_of_equal_orders_the_later_arrival_wins() -> None:
    first = Report(1, 7, s(7), s(8), {Metric.POWER_W: 100.0})
    second = first._replace(values={Metric.POWER_W: 200.0})
    assert fleet_after([first, second]).value[Metric.POWER_W, 1] == 200.0
    assert fleet_after([second], [first]).value[Metric.POWER_W, 1] == 100.0


def test_what_a_report_does_not_say_is_kept() -> None:
    fleet = fleet_after(
        [Report(0, 1, s(1), s(1), {Metric.POWER_W: 10.0, Metric.SOC: 0.5})],
        [Report(0, 2, s(2), s(2), {Metric.POWER_W: 20.0, Metric.SOC: np.nan})],
    )
    assert fleet.value[Metric.POWER_W, 0] == 20.0
    assert fleet.value[Metric.SOC, 0] == 0.5
    assert fleet.order[Metric.SOC, 0] == 1
    assert fleet.measured_at_ns[Metric.SOC, 0] == s(1)


def test_devices_never_enrolled_here_are_left_out() -> None:
    report = Report(1, 1, s(1), s(1), {Metric.POWER_W: 10.0})
    strangers = [report._replace(device_no=no) for no in (-1, DEVICES, 10**9)]
    assert_same(fleet_after([*strangers, report]), fleet_after([report]))


def test_rows_of_a_partition_are_every_nth_device() -> None:
    fleet = fleet_of(12, partition=2, partitions=4)
    apply_readings(fleet, block([Report(6, 1, s(1), s(1), {Metric.POWER_W: 6.0})]))
    assert_array_equal(fleet.value[Metric.POWER_W, : fleet.size], [np.nan, 6.0, np.nan])
