"""What partitions add up for a promise: the same sums, however devices are divided."""

import msgspec
import numpy as np
import pytest
from fleet_worlds import SETTINGS

from kapelle.dispatch.firm.capacity import firm_capacity
from kapelle.fleet.capacity.room import (
    OWN_WEIGHT,
    ROOM_EVERY_S,
    WINDOWS_S,
    reach,
    room,
    window_due_s,
)
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, trust
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.snapshots import (
    digest,
    from_snapshot,
    to_snapshot,
    view_from_snapshot,
    view_to_snapshot,
)
from kapelle.fleet.summary import summarise
from kapelle.model.entries import KIND_OF, Entry
from kapelle.model.enums import Freshness, Metric
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.plant import Direction
from kapelle.model.summaries import Summary
from kapelle.sim.devices import Devices, FleetPlan, make_fleet

NOW_S = 1_800_000_000
EVERY_KIND = {"battery": 0.4, "pv": 0.1, "ev": 0.2, "heat_pump": 0.1, "load": 0.2}


def some_devices(count: int = 240) -> Devices:
    plan = FleetPlan(count, 8, mix=EVERY_KIND)
    return make_fleet(plan, np.random.default_rng(11))


def fleets_of(devices: Devices, partitions: int) -> list[Fleet]:
    """Return the partitions with everybody heard; what a device does depends on its number only."""
    told = []
    for k in range(partitions):
        fleet = Fleet.empty(k, partitions)
        block = devices.part(k, partitions)
        apply_entry(fleet, Entry("p", 1, KIND_OF[type(block)], "sim", 0, 0, block), SETTINGS)
        number = fleet.device_nos(np.arange(fleet.size, dtype=np.int32))
        draw = np.mod(number * 0.6180339887, 1.0)
        fleet.now_ns = NOW_S * NS_PER_S
        fleet.connected[: fleet.size] = True
        fleet.freshness[: fleet.size] = np.where(
            draw < 0.1, np.uint8(Freshness.STALE), np.uint8(Freshness.LIVE)
        )
        fleet.own_w[: fleet.size] = -0.5 * draw * fleet.nameplate_down_w[: fleet.size]
        fleet.value[Metric.SOC, : fleet.size] = 0.2 + 0.6 * draw
        fleet.responses[: fleet.size] = (9.0 + 20.0 * draw).astype(np.float32)
        fleet.trials.add_followed(
            fleet.kind[: fleet.size], fleet.vendor[: fleet.size], np.zeros(fleet.size, np.bool_)
        )
        told.append(fleet)
    return told


def view_of(fleets: list[Fleet], seconds: int = 3 * ROOM_EVERY_S) -> PlantView:
    view = PlantView(len(fleets))
    for at_s in range(NOW_S, NOW_S + seconds, 10):
        for fleet in fleets:
            fleet.now_ns = at_s * NS_PER_S
            body = summarise(fleet, SETTINGS)
            entry = Entry("plant", view.position + 1, KIND_OF[Summary], "sim", 0, 0, body)
            apply_plant(view, entry)
    return view


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_division_into_partitions_changes_nothing(direction: Direction) -> None:
    devices = some_devices()
    whole, parts = (view_of(fleets_of(devices, n)) for n in (1, 8))
    for window_s in (900.0, 1800.0, 20_000.0):
        one = firm_capacity(whole, ALL, direction, window_s)
        many = firm_capacity(parts, ALL, direction, window_s)
        assert one.headroom_w > 0
        assert many.headroom_w == pytest.approx(one.headroom_w, rel=1e-9)
        # Sums to 1e-9; the bisection ends within a billionth of all there is.
        assert many.promise_w == pytest.approx(one.promise_w, rel=1e-6)
        assert many.alone_w == pytest.approx(one.alone_w, rel=1e-6)
    assert msgspec.to_builtins(parts.firmness.outages) == msgspec.to_builtins(
        whole.firmness.outages
    )


def test_headroom_is_what_can_be_held_to_the_end_of_the_window() -> None:
    (fleet,) = fleets_of(some_devices(), 1)
    rows = np.arange(fleet.size, dtype=np.int32)
    heard = rows[trust.controllable(fleet, rows)]
    for window_s in WINDOWS_S:
        told = room(fleet, rows, window_s)
        expected = division.shares(fleet, heard, window_s)
        up_w, down_w = (sum(sums[at] for sums in told.cells.values()) for at in (1, 5))
        assert up_w == pytest.approx(expected.up_w.sum())
        assert down_w == pytest.approx(expected.down_w.sum())
        assert sum(sums[0] for sums in told.cells.values()) == len(heard)


def test_longer_is_never_more_and_what_lies_between_lies_between() -> None:
    view = view_of(fleets_of(some_devices(), 1))
    lengths_s = (300.0, 900.0, 1500.0, 3600.0, 7200.0, 14_400.0, 40_000.0)
    heads_w = [firm_capacity(view, ALL, "up", length).headroom_w for length in lengths_s]
    assert heads_w == sorted(heads_w, reverse=True)


def test_a_record_counts_without_the_prior_it_began_with() -> None:
    """Who followed 30 of 40 commands, forgotten at the columns' pace, is told as that."""
    (fleet,) = fleets_of(some_devices(80), 1)
    fleet.responses[: fleet.size], fleet.refusals[: fleet.size] = 9.0, 1.0
    followed = asked = 0.0
    for number in range(40):
        answer = number % 4 != 0
        followed, asked = followed * 0.98 + answer, asked * 0.98 + 1.0
        fleet.responses[: fleet.size] = fleet.responses[: fleet.size] * 0.98 + answer
        fleet.refusals[: fleet.size] = fleet.refusals[: fleet.size] * 0.98 + (not answer)
    told = room(fleet, np.arange(fleet.size, dtype=np.int32), 900.0)
    for sums in told.cells.values():
        head_w, prior_w, own_w, _ = sums[5:]
        if head_w:
            assert prior_w / head_w == pytest.approx(OWN_WEIGHT / (OWN_WEIGHT + asked), rel=1e-4)
            assert own_w / head_w == pytest.approx(followed / (OWN_WEIGHT + asked), rel=1e-4)


def test_each_length_is_told_within_a_minute() -> None:
    told = [window_due_s((NOW_S + second) * NS_PER_S) for second in range(60)]
    assert sorted(length for length in told if length) == sorted(WINDOWS_S)


def test_what_is_told_is_bounded_whatever_the_fleet() -> None:
    small, large = (fleets_of(some_devices(count), 1)[0] for count in (2_000, 20_000))
    sizes = []
    for fleet in (small, large):
        every = np.arange(fleet.size, dtype=np.int32)
        sizes.append(
            len(msgspec.msgpack.encode(room(fleet, every, 900.0)))
            + len(msgspec.msgpack.encode(reach(fleet)))
        )
    # 64 places, 5 vendors, 5 kinds at most.
    assert max(sizes) < 25_000


def test_trials_and_what_was_learned_survive_a_snapshot() -> None:
    (fleet,) = fleets_of(some_devices(), 1)
    again = from_snapshot(to_snapshot(fleet))
    assert again.trials.counts == fleet.trials.counts
    assert digest(again) == digest(fleet)
    view = view_of([fleet])
    kept = view_from_snapshot(view_to_snapshot(view), 1)
    assert msgspec.to_builtins(kept.firmness) == msgspec.to_builtins(view.firmness)
