"""Whatever bounds a device is named, with its number; and nothing that does not."""

import msgspec
import numpy as np
import pytest
from fleet_worlds import T0, block, enrolled, fleet_of, power, s, say, tick

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division
from kapelle.fleet.curve.corners import TIER
from kapelle.fleet.enrol import apply_enrolled
from kapelle.fleet.envelopes import Book, StandingCap
from kapelle.fleet.why import Why, why
from kapelle.model.enums import Condition, DeviceKind, Exclusion, Metric, Phase
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Members
from kapelle.model.signals import Rationing, Signal

DIRECTIONS = 2
"""Of the reasons, so many say where a device ends upwards and downwards."""


def lone(level: float | None = None, **attributes: object) -> Fleet:
    """Return a battery that is heard, half full, idle; under an order where a level is given."""
    fleet = fleet_of(1)
    apply_enrolled(fleet, enrolled([0], **attributes))
    say(fleet, block([power(0, at_s, 0.0) for at_s in (1.0, 2.0, 3.0)]))
    tick(fleet, 3.5)
    fleet.connected[0] = True
    fleet.value[Metric.SOC, 0] = 0.5
    if level is not None:
        fleet.signals["all"] = Signal("all", 7, level, level, 1, s(3603.5))
    return fleet


def codes(found: Why) -> list[str]:
    return [reason.code for reason in found.reasons]


def test_an_idle_device_is_bound_by_its_nameplate_and_asked_for_nothing() -> None:
    found = why(lone(), 0)
    assert codes(found) == ["nameplate", "nameplate"]
    assert [reason.value for reason in found.reasons] == [5000.0, -4000.0]
    assert (found.order_no, found.up_w, found.down_w) == (0, 5000.0, 4000.0)
    assert found.used == 0.0
    assert np.isnan(found.asked_w)


def test_energy_binds_over_the_window_of_the_order() -> None:
    found = why(lone(0.5), 0)
    # (0.5 - 0.1) of 10 kWh over an hour, 5 % lost on the way; and room for 5 kWh, more than the
    # nameplate takes.
    assert codes(found)[:DIRECTIONS] == ["energy", "nameplate"]
    assert found.reasons[0].value == pytest.approx(3800.0)
    assert "3.8 kW" in found.reasons[0].text
    assert "60 min" in found.reasons[0].text
    assert found.used == pytest.approx(0.45)
    assert found.asked_w == pytest.approx(0.45 * 3800.0)


def test_energy_binds_over_the_present_interval_of_a_profile_however_short() -> None:
    fleet = lone(0.5)
    fleet.value[Metric.SOC, 0] = 0.101
    until = Rationing(s(13.5), s(3603.5))
    fleet.signals["all"] = msgspec.structs.replace(fleet.signals["all"], rations=until)
    up = why(fleet, 0).reasons[0]
    # 10 Wh above the reserve in 10 s, 5 % lost on the way.
    assert (up.code, up.value) == ("energy", pytest.approx(3_420.0, rel=1e-3))
    assert "10 s" in up.text


@pytest.mark.parametrize(
    ("soc", "metric", "value", "up", "down"),
    [
        (np.nan, None, 0.0, "charge_unknown", "charge_unknown"),
        (0.1, None, 0.0, "reserve", "nameplate"),
        (0.99, None, 0.0, "nameplate", "room_left"),
        (0.5, Metric.MAX_W, 1234.0, "reported", "nameplate"),
        (0.5, Metric.MIN_W, -321.0, "energy", "reported"),
    ],
)
def test_the_tightest_limit_is_named(
    soc: float, metric: Metric | None, value: float, up: str, down: str
) -> None:
    fleet = lone(0.5)
    fleet.value[Metric.SOC, 0] = soc
    if metric is not None:
        fleet.value[metric, 0] = value
    found = why(fleet, 0)
    assert codes(found)[:DIRECTIONS] == [up, down]
    if metric is not None:
        assert value in [reason.value for reason in found.reasons]


@pytest.mark.parametrize(
    ("low_w", "high_w", "code"),
    [(0.0, 0.0, "no_session"), (-3_500.0, -3_500.0, "departure"), (-3_500.0, 0.0, "")],
)
def test_a_charger_that_cannot_be_moved_says_why(low_w: float, high_w: float, code: str) -> None:
    fleet = lone(-0.5, kind=np.uint8(DeviceKind.EV), energy_wh=np.nan)
    fleet.value[Metric.MIN_W, 0], fleet.value[Metric.MAX_W, 0] = low_w, high_w
    named = {"no_session", "departure"} & set(codes(why(fleet, 0)))
    assert named == ({code} if code else set())


def test_a_tier_that_is_not_reached_and_one_that_is() -> None:
    found = why(lone(0.5, tier=np.uint8(2)), 0)
    assert "tier_not_reached" in codes(found)
    assert np.isnan(found.asked_w)
    assert found.depth == 0.0
    found = why(lone(2 * TIER + 0.5, tier=np.uint8(2)), 0)
    assert "tier_not_reached" not in codes(found)
    assert found.depth == pytest.approx(0.5)
    assert found.used == pytest.approx(0.45)


@pytest.mark.parametrize("level", [0.0, 0.05])
def test_a_device_with_steps_that_is_left_alone_says_when_its_next_step_comes(level: float) -> None:
    fleet = lone(level, steps=np.uint8(4))
    found = why(fleet, 0)
    assert np.isnan(found.asked_w)
    (reason,) = (each for each in found.reasons if each.code == "turn_not_reached")
    assert reason.value > level
    assert "its next step comes at" in reason.text
    fleet.signals["all"] = Signal("all", 7, reason.value, reason.value, 1, s(3603.5))
    found = why(fleet, 0)
    assert found.asked_w > 0.0
    assert "turn_not_reached" not in codes(found)


def test_a_device_without_room_for_a_step_says_so() -> None:
    fleet = lone(0.5, steps=np.uint8(4))
    fleet.value[Metric.MAX_W, 0] = 1_000.0
    found = why(fleet, 0)
    assert np.isnan(found.asked_w)
    assert "none of its 4 steps lies within its room" in [each.text for each in found.reasons]


def test_a_device_on_or_off_has_its_turn() -> None:
    fleet = lone(0.1, kind=np.uint8(DeviceKind.HEAT_PUMP), energy_wh=np.nan)
    fleet.own_w[0] = -4000.0
    found = why(fleet, 0)
    assert codes(found) == ["consumes_only", "nameplate", "turn_not_reached"]
    # The device number 0 changes over last of all.
    assert found.reasons[-1].value == 1.0


def test_opted_out_until_when_and_released_at_once() -> None:
    until_ns = s(1000.0)
    fleet = lone(0.5, opted_out_until_ns=np.int64(until_ns))
    found = why(fleet, 0)
    assert np.isnan(found.asked_w)
    reason = next(reason for reason in found.reasons if reason.code == "opted_out")
    assert reason.until_ns == until_ns
    fleet.now_ns = until_ns
    assert "opted_out" not in codes(why(fleet, 0))
    assert why(fleet, 0).asked_w > 0.0


def test_must_run_least_times_and_ramps_are_told_with_their_numbers() -> None:
    fleet = lone(0.5, must_run=np.uint8(1), ramp_w_per_s=20.0)
    found = {reason.code: reason for reason in why(fleet, 0).reasons}
    assert "below its own schedule" in found["must_run"].text
    assert found["ramp"].value == 20.0
    assert "between 0 W and 50 W" in found["ramp"].text

    fleet = lone(0.5, min_off_s=600.0)
    fleet.switched_at_s[0] = fleet.now_ns // NS_PER_S - 100
    found = {reason.code: reason for reason in why(fleet, 0).reasons}
    assert found["dwell"].value == pytest.approx(500.0, abs=1.0)
    assert "stays off" in found["dwell"].text
    assert found["dwell"].until_ns == int(fleet.switched_at_s[0] + 600) * NS_PER_S


def test_who_is_not_counted_on_and_why() -> None:
    fleet = lone(0.5)
    fleet.connected[0] = False
    assert "unreachable" in codes(why(fleet, 0))
    fleet.connected[0] = True
    fleet.excluded[0], fleet.excluded_until_ns[0] = Exclusion.DIVERGED, s(99.0)
    reason = next(reason for reason in why(fleet, 0).reasons if reason.code == "excluded")
    assert "diverged" in reason.text
    assert reason.until_ns == s(99.0)
    fleet.excluded[0] = Exclusion.NONE
    fleet.condition[0] = Condition.FROZEN
    reason = next(reason for reason in why(fleet, 0).reasons if reason.code == "condition")
    assert "frozen" in reason.text
    tick(fleet, 5000.0)
    fleet.condition[0] = 0
    assert "silent" in codes(why(fleet, 0))


def test_of_two_orders_the_first_has_it_and_prices_of_its_groups_are_told() -> None:
    fleet = lone()
    say(fleet, Members("north", [0]))
    ends_ns = T0 + 4000 * NS_PER_S
    fleet.signals["all"] = Signal("all", 7, 0.5, 0.5, 1, ends_ns, rank=2)
    prices = {"vendor/maker-0": 0.25, "vendor/maker-1": 9.0}
    fleet.signals["north"] = Signal("north", 9, 0.5, 0.5, 1, ends_ns, rank=1, prices=prices)
    found = why(fleet, 0)
    assert (found.order_no, found.resource) == (9, "north")
    assert codes(found)[DIRECTIONS:] == ["price", "claimed"]
    assert found.reasons[DIRECTIONS].value == 0.25
    assert found.depth == pytest.approx(0.25)
    assert found.used == pytest.approx(0.9 * 0.25)


def test_a_tier_that_prices_keep_back_is_not_said_to_be_met_by_others() -> None:
    fleet = lone(tier=1)
    ends_ns = T0 + 4000 * NS_PER_S
    fleet.signals["all"] = Signal("all", 7, TIER + 0.5, 0.0, 1, ends_ns)
    assert "tier_not_reached" not in codes(why(fleet, 0))
    prices = {"vendor/maker-0": 1.0}
    fleet.signals["all"] = Signal("all", 7, TIER + 0.5, 0.0, 1, ends_ns, prices=prices)
    found = {reason.code: reason for reason in why(fleet, 0).reasons}
    assert "caps keep its level back" in found["tier_not_reached"].text
    fleet.signals["all"] = Signal("all", 7, 0.5, 0.0, 1, ends_ns, prices=prices)
    found = {reason.code: reason for reason in why(fleet, 0).reasons}
    assert "lower tiers meet the target" in found["tier_not_reached"].text


def test_the_envelope_of_its_site_and_a_start_that_waits_are_told() -> None:
    fleet = lone(0.5)
    site = fleet.names["site"][fleet.site[0]]
    fleet.envelopes = Book(standing=(StandingCap(site=site, export_limit_w=1500.0),))
    found = {reason.code: reason for reason in why(fleet, 0).reasons}
    assert found["envelope"].value == pytest.approx(1500.0)
    assert "of 3.8 kW" in found["envelope"].text
    fleet.waits[0] = True
    assert "waits" in codes(why(fleet, 0))
    assert np.isnan(why(fleet, 0).asked_w)


def test_a_least_time_begins_when_the_meter_shows_it() -> None:
    fleet = lone(min_on_s=60.0, kind=np.uint8(DeviceKind.GENERATOR), energy_wh=np.nan)
    assert not fleet.is_on[0]
    say(fleet, block([power(0, 4.0, 3000.0)]))
    tick(fleet, 4.5)
    assert fleet.is_on[0]
    assert fleet.switched_at_s[0] == s(4.5) // NS_PER_S
    rows = np.zeros(1, np.int32)
    assert division.shares(fleet, rows).up_w[0] == 0.0
    fleet.now_ns = s(70.0)
    assert division.shares(fleet, rows).up_w[0] > 0.0
    # A switch that is under way is not called back, though the meter does not show it yet.
    fleet.is_on[0], fleet.desired_w[0], fleet.phase[0] = False, 3000.0, Phase.SENT
    fleet.own_w[0] = 0.0
    assert division.setpoints(fleet, rows, 0.0, 0.0)[0] == 3000.0
    fleet.phase[0] = Phase.UNKNOWN
    assert division.setpoints(fleet, rows, 0.0, 0.0)[0] == 0.0


def test_no_such_row() -> None:
    with pytest.raises(IndexError):
        why(fleet_of(2), 2)
