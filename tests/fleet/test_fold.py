"""The fold: replayed, cut by a crash or spread over partitions, it gives the same state."""

import numpy as np
import pytest
from fleet_worlds import (
    SETTINGS,
    acks,
    block,
    commands,
    enrolled,
    entry,
    fleet_of,
    histories,
    power,
    reports,
    s,
    say,
    sessions,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.errors import JournalDamaged
from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.plant import PlantView, apply_plant, total
from kapelle.fleet.snapshots import digest, from_snapshot, to_snapshot
from kapelle.fleet.summary import summarise
from kapelle.model.blocks import Quarantined
from kapelle.model.entries import Body, Entry, Kind
from kapelle.model.enums import DeviceKind, SessionEvent
from kapelle.model.plant import Members, Tick
from kapelle.model.signals import Signal
from kapelle.ports import Snapshot


def folded(entries: list[Entry], onto: Fleet | None = None) -> Fleet:
    fleet = Fleet.empty() if onto is None else onto
    for each in entries:
        apply_entry(fleet, each, SETTINGS)
    return fleet


def entries_of(bodies: list[Body]) -> list[Entry]:
    return [entry(position, body) for position, body in enumerate(bodies, 1)]


def stored(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot as a journal would give it back."""
    columns = {
        name: np.frombuffer(np.ascontiguousarray(column).tobytes(), column.dtype)
        for name, column in snapshot.columns.items()
    }
    return Snapshot(snapshot.position, columns, bytes(snapshot.meta))


@settings(max_examples=120)
@given(histories(), st.data())
def test_snapshot_and_replay_is_full_replay_bit_for_bit(
    bodies: list[Body], data: st.DataObject
) -> None:
    """R-05, at several random crash points of each history."""
    entries = entries_of(bodies)
    whole = digest(folded(entries))
    crashes = sorted(data.draw(st.integers(0, len(entries))) for _ in range(8))
    crashing = Fleet.empty()
    for crash in crashes:
        folded(entries[crashing.position : crash], crashing)
        restored = from_snapshot(stored(to_snapshot(crashing)))
        assert restored.position == crash
        # Entries before the snapshot may come again; they change nothing.
        again = data.draw(st.integers(0, crash))
        assert digest(folded(entries[again:], restored)) == whole


@settings(max_examples=50)
@given(histories(), histories())
def test_different_states_have_different_digests(one: list[Body], other: list[Body]) -> None:
    first, second = folded(entries_of(one)), folded(entries_of(other))
    second.position = first.position
    assert digest(first) == digest(folded(entries_of(one)))
    same = all(np.array_equal(a, b) for a, b in zip(_columns(first), _columns(second), strict=True))
    if not same:
        assert digest(first) != digest(second)


def _columns(fleet: Fleet) -> list[bytes]:
    snapshot = to_snapshot(fleet)
    columns = sorted(snapshot.columns.items())
    return [snapshot.meta, *(np.ascontiguousarray(column).tobytes() for _, column in columns)]


def test_snapshot_of_another_version_is_refused_and_a_young_column_is_empty() -> None:
    fleet = fleet_of()
    snapshot = stored(to_snapshot(fleet))
    younger = {k: v for k, v in snapshot.columns.items() if k != "desired_w"}
    restored = from_snapshot(Snapshot(snapshot.position, younger, snapshot.meta))
    assert np.isnan(restored.desired_w).all()
    # Metrics that had no number then were never reported; of what was, not a bit is lost.
    fleet.value[:] = -0.0
    value, time = fleet.value[:3].reshape(-1), fleet.measured_at_ns[:3].reshape(-1)
    older = {**snapshot.columns, "value": value, "measured_at_ns": time}
    restored = from_snapshot(Snapshot(snapshot.position, older, snapshot.meta))
    assert np.isnan(restored.value[3:]).all()
    assert np.signbit(restored.value[:3]).all()
    assert not restored.measured_at_ns.any()
    with pytest.raises(JournalDamaged, match="meta"):
        from_snapshot(Snapshot(1, snapshot.columns, b"\xc1"))
    with pytest.raises(JournalDamaged, match="kind"):
        from_snapshot(Snapshot(1, {**snapshot.columns, "kind": np.zeros(1, "u1")}, snapshot.meta))


def test_entries_that_say_nothing_about_devices_move_the_position_on() -> None:
    fleet = fleet_of()
    before = digest(fleet)
    none = np.zeros(0, np.int32)
    lost = Quarantined(none, none.astype(np.int64), (), (), ())
    apply_entry(fleet, Entry("p/0", 7, Kind.QUARANTINED, "ingest", 0, 0, lost), SETTINGS)
    assert fleet.position == 7
    fleet.position = 0
    assert digest(fleet) == before


def test_levels_of_a_dispatcher_that_was_replaced_change_nothing() -> None:
    fleet = folded(entries_of([Signal("all", 1, 0.5, 0.5, 4, 900)]))
    late = [Signal("all", 2, 0.9, 0.9, 3, 900), Signal("north", 2, 0.9, 0.9, 3, 900)]
    newer = Signal("north", 3, 0.2, 0.2, 5, 900)
    for body in (*late, newer):
        apply_entry(fleet, Entry("p/0", fleet.position + 1, Kind.SIGNAL, "dispatch", 0, 0, body))
    assert fleet.signals == {"all": Signal("all", 1, 0.5, 0.5, 4, 900), "north": newer}


@pytest.mark.parametrize(
    ("ended_no", "is_released"),
    [(1, True), (2, False), (0, True)],
    ids=["its own order's", "another order's", "from before releases had a number"],
)
def test_a_release_ends_the_order_it_is_of(ended_no: int, is_released: bool) -> None:
    present = Signal("all", 1, 0.5, 0.5, 4, 900)
    fleet = folded(entries_of([present]))
    release = Signal("all", 0, 0.0, 0.0, 4, 800, ended_no=ended_no)
    for _ in range(2):
        again = Entry("p/0", fleet.position + 1, Kind.SIGNAL, "dispatch", 0, 0, release)
        apply_entry(fleet, again)
        assert fleet.signals == {"all": release if is_released else present}


def test_a_tick_that_goes_back_changes_nothing() -> None:
    fleet = fleet_of()
    say(fleet, block([power(0, 1.0, 5.0)]), Tick(s(2)))
    once = digest(fleet)
    say(fleet, Tick(s(1)), Tick(s(2)))
    fleet.position -= 2
    assert digest(fleet) == once


DEVICES = 16


def plant_over(partitions: int, moments: list[list]) -> PlantView:
    """Play the same moments to a plant of so many partitions."""
    kinds = np.resize(np.array([int(kind) for kind in DeviceKind], np.uint8), DEVICES)
    view = PlantView(partitions)
    for partition in range(partitions):
        nos = range(partition, DEVICES, partitions)
        fleet = Fleet.empty(partition, partitions)
        say(fleet, enrolled(nos, kind=kinds[partition::partitions]))
        say(fleet, Members("odd", [no for no in nos if no % 2]))
        say(fleet, sessions(*((no, SessionEvent.UP, 1) for no in nos)))
        asked = [no for no in nos if no % 5 == 0]
        if asked:
            say(fleet, commands(asked, 1000.0, at_s=1), acks(asked, at_s=2))
        for second, stream in enumerate(moments, 1):
            mine = [report for report in stream if report.device_no % partitions == partition]
            say(fleet, block(mine), Tick(s(second * 7)))
        summary = summarise(fleet, SETTINGS)
        apply_plant(view, entry(partition + 1, summary))
    return view


@settings(max_examples=25)
@given(st.lists(reports(20, DEVICES), min_size=1, max_size=4))
def test_aggregates_do_not_depend_on_the_number_of_partitions(moments: list) -> None:
    """R-06."""
    plants = [plant_over(count, moments) for count in (1, 2, 8)]
    for resource in ("all", "odd"):
        one, two, eight = (total(plant, resource) for plant in plants)
        assert one.devices == (DEVICES if resource == "all" else DEVICES // 2)
        for other in (two, eight):
            assert other.freshness == one.freshness
            assert other.phases == one.phases
            assert other.excluded == one.excluded
            assert other.vendors == one.vendors
            for name in (
                "power_w",
                "std_w",
                "low_w",
                "high_w",
                "measured_w",
                "measured_share",
                "oldest_age_s",
                "nameplate_w",
                "uncontrolled_w",
                "headroom_up_w",
                "headroom_down_w",
                "commanded_w",
            ):
                expected = pytest.approx(getattr(one, name), rel=1e-9, abs=1e-6, nan_ok=True)
                assert getattr(other, name) == expected, name
            assert other.by_kind_w == pytest.approx(one.by_kind_w, rel=1e-9, abs=1e-6)
