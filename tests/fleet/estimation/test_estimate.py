"""What a device does now: its reading, where its command takes it, or where it falls back to."""

import numpy as np
import pytest
from fleet_worlds import SETTINGS, acks, block, commands, fleet_of, power, s, say, tick

from kapelle.fleet.columns import Fleet
from kapelle.fleet.summary import summarise
from kapelle.model.enums import AckStatus, DeviceKind, Freshness


def running(**changed: object) -> Fleet:
    """Return a fleet whose device 0 reported 500 W every 5 s for 100 s."""
    fleet = fleet_of(report_every_s=5.0, **changed)
    for second in range(5, 101, 5):
        say(fleet, block([power(0, second, 500.0)]))
        tick(fleet, second)
    return fleet


def report(fleet: Fleet, at_s: float, power_w: float) -> None:
    say(fleet, block([power(0, at_s, power_w, 0.0)]))
    tick(fleet, at_s)


def test_live_reading_is_the_estimate_and_its_error_is_small() -> None:
    fleet = running()
    assert fleet.estimate_w[0] == 500.0
    assert fleet.own_w[0] == 500.0
    assert fleet.estimate_std_w[0] < 0.05 * 5000


def test_acknowledged_command_moves_the_estimate_before_the_meter_shows_it() -> None:
    fleet = running()
    say(fleet, commands([0], 3000.0, at_s=101))
    tick(fleet, 101)
    assert fleet.estimate_w[0] == 500.0, "sent is not followed"
    say(fleet, acks([0], at_s=101.5))
    tick(fleet, 102)
    assert fleet.estimate_w[0] == 3000.0
    report(fleet, 107, 2500.0)
    assert fleet.estimate_w[0] == 2500.0, "the meter knows better"
    assert fleet.own_w[0] == 500.0, "what it does for us is not its own schedule"


def test_ramp_bounds_the_move() -> None:
    fleet = running(ramp_w_per_s=100.0)
    say(fleet, commands([0], 3000.0, at_s=101), acks([0], at_s=101))
    tick(fleet, 102)
    assert fleet.estimate_w[0] == pytest.approx(600.0)
    tick(fleet, 104)
    assert fleet.estimate_w[0] == pytest.approx(800.0)


def test_a_reading_taken_on_the_way_is_carried_on_unless_the_meter_has_contradicted() -> None:
    fleet = running(ramp_w_per_s=100.0)
    say(fleet, commands([0], 3000.0, at_s=101), acks([0], at_s=101))
    report(fleet, 103, 650.0)
    tick(fleet, 105)
    assert fleet.estimate_w[0] == pytest.approx(850.0)
    fleet.strayed[0] = 1
    tick(fleet, 106)
    assert fleet.estimate_w[0] == 650.0


def test_a_newer_command_without_answer_does_not_undo_the_one_before() -> None:
    fleet = running(ramp_w_per_s=1000.0)
    say(fleet, commands([0], 3000.0, at_s=101), acks([0], at_s=101))
    tick(fleet, 103)
    assert fleet.estimate_w[0] == pytest.approx(2500.0)
    say(fleet, commands([0], 3100.0, 2, at_s=103))
    tick(fleet, 104)
    assert fleet.estimate_w[0] == pytest.approx(3100.0)


def test_received_is_not_followed() -> None:
    fleet = running()
    say(fleet, commands([0], 3000.0, at_s=101), acks([0], AckStatus.RECEIVED, at_s=101))
    tick(fleet, 102)
    assert fleet.estimate_w[0] == 500.0


def test_silent_device_is_taken_to_hold_its_setpoint_until_its_timer_ends() -> None:
    fleet = running()
    say(fleet, commands([0], 3000.0, at_s=101), acks([0], at_s=101))
    report(fleet, 105, 2990.0)
    tick(fleet, 180)
    assert fleet.freshness[0] == Freshness.LOST
    assert fleet.estimate_w[0] == pytest.approx(3000.0)
    doubtful = fleet.estimate_std_w[0]
    assert doubtful < 0.1 * 5000
    tick(fleet, 230)
    assert fleet.estimate_w[0] == pytest.approx(500.0), "back on its own schedule"
    assert fleet.estimate_std_w[0] > doubtful


def test_silent_device_without_command_keeps_its_last_value_with_growing_doubt() -> None:
    fleet = running()
    errors = []
    for second in (101, 130, 300, 3000, 30_000):
        tick(fleet, second)
        assert fleet.estimate_w[0] == 500.0
        errors.append(float(fleet.estimate_std_w[0]))
    assert errors == sorted(errors)
    assert errors[-1] <= (SETTINGS.drift_share[DeviceKind.BATTERY] + 0.01) * 5000


def test_released_device_returns_to_its_own_schedule_and_is_believed_again() -> None:
    fleet = running()
    say(fleet, commands([0], 3000.0, at_s=101), acks([0], at_s=101))
    report(fleet, 105, 3000.0)
    say(fleet, commands([0], np.nan, 2, at_s=106), acks([0], revision=2, at_s=106))
    tick(fleet, 107)
    assert fleet.estimate_w[0] == 500.0
    report(fleet, 108, 2000.0)
    assert fleet.own_w[0] == 500.0, "still settling"
    report(fleet, 115, 700.0)
    assert fleet.own_w[0] == 700.0


def test_release_nobody_answered_is_believed_after_the_timer() -> None:
    fleet = running()
    say(fleet, commands([0], 3000.0, at_s=101), acks([0], at_s=101))
    say(fleet, commands([0], np.nan, 2, at_s=106))
    report(fleet, 110, 3000.0)
    assert fleet.own_w[0] == 500.0
    for second in range(115, 231, 5):
        report(fleet, second, 3000.0 if second < 221 else 650.0)
    assert fleet.own_w[0] == 650.0


def test_device_never_heard_adds_doubt_but_no_power() -> None:
    fleet = running()
    assert fleet.estimate_w[1] == 0.0
    assert fleet.estimate_std_w[1] == pytest.approx(SETTINGS.never_share * 5000)


def test_estimate_never_leaves_the_nameplate() -> None:
    fleet = running()
    say(fleet, commands([0], 9000.0, at_s=101), acks([0], at_s=s(101) and 101))
    tick(fleet, 102)
    assert fleet.estimate_w[0] == 5000.0


def test_what_was_asked_and_cannot_be_seen_yet_is_doubted() -> None:
    fleet = running()
    before = float(fleet.estimate_std_w[0])
    say(fleet, commands([0], 3000.0, at_s=101))
    tick(fleet, 102)
    assert fleet.estimate_std_w[0] > before + 0.9 * SETTINGS.flight_share * 2500
    part = summarise(fleet, SETTINGS).resources[0]
    assert part.shared_std_w == pytest.approx({"maker-0": float(fleet.estimate_std_w[0])})
    report(fleet, 107, 500.0)
    assert fleet.estimate_std_w[0] < 2 * before, "seen not to move"
    say(fleet, acks([0], at_s=108))
    report(fleet, 109, 3000.0)
    say(fleet, commands([0], np.nan, 2, at_s=110))
    tick(fleet, 110)
    assert fleet.estimate_std_w[0] > 0.9 * SETTINGS.flight_share * 2500, "a release, too"
