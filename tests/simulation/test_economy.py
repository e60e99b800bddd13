"""Command economy: a setpoint is sent again for its timer, or when it has left its dead-band."""

import pytest

from kapelle.dispatch.settings import DispatchSettings
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan
from kapelle.sim.run import perform
from kapelle.sim.scenario import OrderPlan, Scenario

ORDERED_S = 180.0
SETTINGS = DispatchSettings()
CLOUDY = {"battery": 0.5, "pv": 0.5}


def floor(fleet: FleetPlan) -> float:
    """Return how many commands an hour the timers of one device take, and being told at first."""
    part = SETTINGS.refresh_at * (1.0 - SETTINGS.refresh_spread / 2)
    return 3600.0 / (part * fleet.revert_s) + 3600.0 / ORDERED_S


@pytest.mark.parametrize(
    ("mix", "dead", "most"),
    [
        pytest.param({"battery": 1.0}, 0.0, 1.4, id="nothing moves"),
        # Twice as much sun as is ordered: each battery follows a part of every cloud.
        pytest.param(CLOUDY, 0.0, 5.0, id="half the plant lies under clouds"),
        pytest.param({"battery": 1.0}, 0.1, 1.4, id="a tenth is dead"),
    ],
)
def test_commands_stay_near_what_timers_take(
    mix: dict[str, float], dead: float, most: float
) -> None:
    fleet = FleetPlan(devices=40, partitions=1, mix=mix)
    faults = FaultPlan(dead_fraction=dead, command_loss=0.02)
    order = OrderPlan(at_s=20, duration_s=ORDERED_S, fraction=0.5)
    done = perform(Scenario(20 + ORDERED_S, fleet, faults, (order,)), 1)
    (result,) = done.result.orders
    assert result.delivered_mean == pytest.approx(1.0, abs=0.03)
    # Who has no room to move, as the sun's whole yield has none upwards, takes no commands.
    moving = mix["battery"] * len(done.play.devices)
    each = done.result.commands_per_device_hour * len(done.play.devices) / moving
    assert each <= most * floor(fleet)
