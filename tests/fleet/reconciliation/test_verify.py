"""Devices are held against their meters: every reading once, none too soon."""

import numpy as np
import pytest

from kapelle.fleet.columns import Fleet
from kapelle.fleet.reconciliation.verify import VerifySettings, step_verification
from kapelle.model.enums import DeviceKind, Metric, Phase, Trait
from kapelle.model.ids import NS_PER_S

SETTINGS = VerifySettings(settle_s=5.0)


def s(seconds: float) -> int:
    return 1_000 * NS_PER_S + int(seconds * NS_PER_S)


def make_fleet(phase: Phase = Phase.APPLIED, kind: DeviceKind = DeviceKind.BATTERY) -> Fleet:
    """Return one device asked for 3 kW of 5 at 0 s, which does nothing by itself."""
    fleet = Fleet.empty(0, 1, 1)
    fleet.reserve(1)
    fleet.kind[:] = kind
    fleet.nameplate_up_w[:] = fleet.nameplate_down_w[:] = 5000.0
    fleet.desired_w[:], fleet.own_w[:] = 3000.0, 0.0
    fleet.phase[:], fleet.order_no[:] = phase, 1
    fleet.tried_at_ns[:] = s(0)
    fleet.applied_at_ns[:] = 0 if phase in (Phase.SENT, Phase.UNKNOWN) else s(0)
    return fleet


def read(fleet: Fleet, at_s: float, power_w: float, ahead_s: float = 0.0) -> None:
    fleet.value[Metric.POWER_W] = power_w
    fleet.heard_at_ns[:] = s(at_s)
    fleet.measured_at_ns[Metric.POWER_W] = s(at_s + ahead_s)
    fleet.now_ns = s(at_s + 0.5)
    step_verification(fleet, SETTINGS)


@pytest.mark.parametrize(
    ("phase", "kind", "readings", "followed", "strayed"),
    [
        (Phase.APPLIED, DeviceKind.BATTERY, [(6, 3000.0), (10, 3240.0)], 2, 0),
        (Phase.APPLIED, DeviceKind.BATTERY, [(6, 3260.0), (10, 0.0)], 0, 2),
        (Phase.APPLIED, DeviceKind.BATTERY, [(6, 0.0), (10, 3000.0)], 1, 0),
        (Phase.APPLIED, DeviceKind.BATTERY, [(1, 0.0), (4.9, 500.0)], 0, 0),
        (Phase.APPLIED, DeviceKind.BATTERY, [(6, 3000.0), (6, 3000.0)], 1, 0),
        (Phase.APPLIED, DeviceKind.HEAT_PUMP, [(6, 2000.0)], 1, 0),
        (Phase.UNKNOWN, DeviceKind.BATTERY, [(6, 3000.0), (10, 3000.0)], 2, 0),
        (Phase.UNKNOWN, DeviceKind.BATTERY, [(6, 0.0), (10, 0.0)], 0, 0),
        (Phase.COMPLETED, DeviceKind.BATTERY, [(6, 3000.0)], 0, 0),
    ],
)
def test_readings_count(
    phase: Phase,
    kind: DeviceKind,
    readings: list[tuple[float, float]],
    followed: int,
    strayed: int,
) -> None:
    fleet = make_fleet(phase, kind)
    for at_s, power_w in readings:
        read(fleet, at_s, power_w)
    assert (fleet.followed[0], fleet.strayed[0]) == (followed, strayed)


def test_a_device_whose_clock_was_set_back_is_held_against_its_meter_at_once() -> None:
    fleet = make_fleet()
    read(fleet, 6, 3000.0, ahead_s=100.0)
    read(fleet, 10, 0.0)
    read(fleet, 14, 0.0)
    assert (fleet.followed[0], fleet.strayed[0]) == (0, 2)


def test_who_would_be_there_anyway_proves_nothing_without_an_answer() -> None:
    fleet = make_fleet(Phase.UNKNOWN)
    fleet.own_w[:] = 2900.0
    read(fleet, 6, 3000.0)
    assert fleet.followed[0] == 0


def test_nothing_is_counted_for_a_device_on_its_own_schedule() -> None:
    fleet = make_fleet()
    fleet.desired_w[:] = np.nan
    read(fleet, 6, 3000.0)
    assert fleet.seen_at_ns[0] == 0


def test_a_slow_device_on_its_way_has_not_strayed_and_one_that_stands_still_has() -> None:
    for moves, strayed in ((True, 0), (False, 3)):
        fleet = make_fleet()
        fleet.ramp_w_per_s[:], fleet.traits[:] = 50.0, Trait.SLOW
        # 3 kW at 50 W/s take a minute.
        for at_s in (6.0, 20.0, 40.0, 59.0):
            read(fleet, at_s, 50.0 * at_s if moves else 0.0)
            assert fleet.strayed[0] == 0
        for at_s in (61.0, 65.0, 69.0):
            read(fleet, at_s, 3000.0 if moves else 0.0)
        assert fleet.strayed[0] == strayed
        assert (fleet.followed[0] > 0) == moves
