"""Energy as published: counted at ticks, never taken back, and the same on every partition."""

import random

import numpy as np
from fleet_worlds import T0, Report, block, enrolled, fleet_of, s
from numpy.testing import assert_array_equal

from kapelle.fleet.columns import Fleet
from kapelle.fleet.enrol import apply_enrolled
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.snapshots import digest, from_snapshot, to_snapshot
from kapelle.fleet.summary import summarise
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.enums import Condition, Metric
from kapelle.model.plant import Tick

COLUMNS = ("energy_mwh", "register_mwh", "register_at", "register_doubt", "condition")


def feed(fleet: Fleet, bodies: list[Body]) -> None:
    for body in bodies:
        kind = KIND_OF[type(body)]
        apply_entry(fleet, Entry("p", fleet.position + 1, kind, "", 0, 0, body))


def read(device_no: int, at_s: float, wh: float, metric: Metric = Metric.EXPORT_WH) -> Report:
    return Report(device_no, s(at_s), s(at_s), s(at_s + 0.1), {metric: wh})


def told(*registers: float, every_s: float = 60.0, **meter: float) -> tuple[list[int], list[bool]]:
    """Return what was counted, and whether the register was called wrong, after each reading."""
    fleet = Fleet.empty()
    columns = {name: np.array([value]) for name, value in meter.items()}
    apply_enrolled(fleet, enrolled([0], nameplate_up_w=np.array([5000.0]), **columns))
    counted, wrong = [], []
    for place, wh in enumerate(registers):
        at_s = 60 + place * every_s
        feed(fleet, [block([read(0, at_s, wh)]), Tick(s(at_s + 1))])
        counted.append(int(fleet.energy_mwh[0, 0]))
        wrong.append(bool(fleet.condition[0] & Condition.REGISTER_WRONG))
    return counted, wrong


def test_registers_are_counted_on() -> None:
    assert told(1000, 1010.5, 1010.5, 1030)[0] == [0, 10_500, 10_500, 30_000]
    # A wobble is held, a rollover counted on, a reset begins at 0 once it is confirmed.
    assert told(1000, 990, 1010, meter_resolution_wh=10.0)[0] == [0, 0, 10_000]
    assert told(99_990, 10, 20, meter_rollover_wh=1e5)[0] == [0, 20_000, 30_000]
    counted, wrong = told(90_000, 90_010, 5, 15, 25)
    assert (counted, any(wrong)) == ([0, 10_000, 10_000, 25_000, 35_000], False)


def test_a_spike_counts_for_nothing_and_alarms_nobody() -> None:
    counted, wrong = told(1000, 1010, 9e9, 1020, 0, 1030)
    assert (counted, any(wrong)) == ([0, 10_000, 10_000, 20_000, 20_000, 30_000], False)


def test_a_new_level_is_named_and_gone_on_from_and_never_counted() -> None:
    counted, wrong = told(1000, 1010, 9e6, 9e6 + 10, 9e6 + 20, *(9e6 + 20 + n for n in range(1, 5)))
    assert counted == [0, 10_000, 10_000, 10_000, 10_000, 11_000, 12_000, 13_000, 14_000]
    assert wrong == [False, False, False, True, True, True, True, False, False]


def test_both_registers_count_and_are_summed() -> None:
    fleet = fleet_of(2)
    for place, wh in enumerate((100.0, 150.0)):
        values = {Metric.EXPORT_WH: wh, Metric.IMPORT_WH: 3 * wh}
        at_ns = s(place * 600 + 1)
        reports = [Report(no, at_ns, at_ns, at_ns, values) for no in range(2)]
        feed(fleet, [block(reports), Tick(s(place * 600 + 2))])
    whole = summarise(fleet, FleetSettings()).resources[0]
    assert (whole.export_mwh, whole.import_mwh) == (100_000, 300_000)


def world(seed: int) -> list[list[Report] | Tick]:
    draw = random.Random(seed)
    wh = [draw.uniform(1e4, 1e5) for _ in range(8)]
    entries: list[list[Report] | Tick] = []
    for second in range(0, 1200, 20):
        reports = []
        for device in range(8):
            wh[device] += draw.choice([0, 5, 9])
            if draw.random() < 0.02:
                wh[device] = draw.choice([0.0, wh[device] * 3])
            shown = wh[device] if draw.random() < 0.95 else draw.uniform(0, 2e5)
            metric = Metric.IMPORT_WH if device % 3 == 0 else Metric.EXPORT_WH
            reports.append(read(device, second + 1, shown, metric))
        entries += [reports, Tick(s(second + 5))]
    return entries


def test_partitions_repeats_and_restarts_change_nothing() -> None:
    for seed in range(3):
        entries = world(seed)
        whole, pairs = fleet_of(8), [Fleet.empty(p, 2) for p in range(2)]
        for p, fleet in enumerate(pairs):
            apply_enrolled(fleet, enrolled([no for no in range(8) if no % 2 == p]))
        before = np.zeros((2, 8), np.int64)
        for entry in entries:
            if isinstance(entry, Tick):
                feed(whole, [entry])
                for fleet in pairs:
                    feed(fleet, [entry])
                assert (whole.energy_mwh[:, :8] >= before).all()
                before = whole.energy_mwh[:, :8].copy()
            else:
                feed(whole, [block(entry)])
                for p, fleet in enumerate(pairs):
                    mine = [report for report in entry if report.device_no % 2 == p]
                    feed(fleet, [block(mine[::-1]), block(mine)])
        whole_again = from_snapshot(to_snapshot(whole))
        assert digest(whole_again) == digest(whole)
        for column in COLUMNS:
            all_of_it = getattr(whole, column)[..., :8]
            for p, fleet in enumerate(pairs):
                assert_array_equal(getattr(fleet, column)[..., :4], all_of_it[..., p::2], column)
    assert T0
