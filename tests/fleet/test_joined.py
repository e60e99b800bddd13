"""Joining readings before they are applied: the state must not show it, whatever stands between."""

from itertools import pairwise

from fleet_worlds import SETTINGS, Report, block, entry, fleet_of, s
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.fleet.fold import apply_entry
from kapelle.fleet.joined import joined
from kapelle.fleet.snapshots import digest
from kapelle.model.blocks import Quarantined, Readings
from kapelle.model.entries import Body
from kapelle.model.enums import Metric
from kapelle.model.plant import Tick

LOWEST = -(2**63)


@st.composite
def reports(draw: st.DrawFn) -> list[Report]:
    """Draw reports of devices that count, do not, or do both, with clocks that err."""
    made = []
    for number in range(draw(st.integers(0, 12))):
        seq = draw(st.integers(0, 15))
        metrics = draw(st.sets(st.sampled_from([Metric.POWER_W, Metric.SOC]), min_size=1))
        if draw(st.booleans()):
            # One number, one report; its time has little to do with it.
            at_ns, order = s(7 * seq % 15), LOWEST + (1 << 32 | seq)
            values = dict.fromkeys([Metric(seq % 2)], seq / 100)
        else:
            at_ns = order = s(seq)
            values = dict.fromkeys(metrics, number / 100)
        made.append(Report(draw(st.integers(0, 2)), order, at_ns, at_ns + 1, values))
    return made


@st.composite
def bodies(draw: st.DrawFn) -> list[Body]:
    """Draw blocks of readings with ticks and quarantined telemetry between them."""
    lost = Quarantined(*(block([]).device_no, block([]).order), (), (), ())
    told: list[Body] = []
    for second in range(draw(st.integers(0, 8))):
        kind = draw(st.integers(0, 5))
        told.append(
            Tick(s(2 * second)) if kind == 0 else lost if kind == 1 else block(draw(reports()))
        )
    return told


@settings(max_examples=200)
@given(bodies(), st.lists(st.integers(0, 8), max_size=3))
def test_joined_entries_leave_the_same_state(told: list[Body], cuts: list[int]) -> None:
    entries = [entry(position, body) for position, body in enumerate(told, 1)]
    one, other = fleet_of(), fleet_of()
    for each in entries:
        apply_entry(one, each, SETTINGS)
    edges = [0, *sorted(cuts), len(entries)]
    for a, b in pairwise(edges):
        for each in joined(entries[a:b]):
            apply_entry(other, each, SETTINGS)
    assert digest(other) == digest(one)


def test_small_blocks_become_one_and_large_ones_stay() -> None:
    small = [block([Report(0, s(i), s(i), s(i), {Metric.POWER_W: i})]) for i in range(5)]
    large = block([Report(0, s(9), s(9), s(9), {Metric.POWER_W: 1.0})] * 16_384)
    told = [entry(i, body) for i, body in enumerate([*small, large, Tick(s(10)), small[0]], 1)]
    found = list(joined(told))
    assert [each.position for each in found] == [5, 6, 7, 8]
    lengths = [len(each.body) if isinstance(each.body, Readings) else 0 for each in found]
    assert lengths == [5, 16_384, 0, 1]
    assert found[1] is told[5]
