"""Who is lost together is named with what is missing, and nobody when the plant stalls."""

import pytest

from kapelle.sim.acceptance.lines import lines
from kapelle.sim.devices import FleetPlan
from kapelle.sim.drills.losses import gateway_of, vendor_of, without_headroom
from kapelle.sim.faults import FaultPlan, Restart
from kapelle.sim.run import perform
from kapelle.sim.scenario import OrderPlan, Scenario


@pytest.mark.parametrize("by", ["vendor", "provider"])
def test_the_size_and_the_cause_of_a_shortfall_are_said_within_ten_seconds(by: str) -> None:
    fleet = FleetPlan(devices=240, partitions=2, revert_s=30.0)
    lost = vendor_of(fleet, None) if by == "vendor" else gateway_of(fleet, None, by="provider")
    drill = "vendor-loss" if by == "vendor" else "gateway-loss"
    said, size, named = without_headroom(drill, fleet, lost, seed=1)
    assert said.measured is not None
    assert said.measured == named.measured <= 10.0
    assert size.passed


def test_a_shortfall_is_not_taken_back_while_timers_end_one_by_one() -> None:
    """Silent devices hold what they were told, each until its timer ends; the others cannot make
    up for them. For a moment nothing is missing, and all of it will be."""
    (scarce,) = (line for line in lines(quick=True) if line.name == "vendor-scarce")
    done = perform(scarce.scenario, 2)
    (loss,) = scarce.scenario.faults.group_loss
    said = [notice for notice in done.play.notices if notice.code.startswith("shortfall")]
    assert [notice.code for notice in said] == ["shortfall"]
    assert "will miss" in said[0].text
    assert done.play.elapsed_s(said[0].at_ns) - loss.at_s < 20.0


@pytest.mark.parametrize("down_s", [6.0, 15.0])
def test_nobody_is_lost_while_the_gateway_of_the_plant_is_down(down_s: float) -> None:
    """All devices fall silent together, and return each in its turn."""
    fleet = FleetPlan(devices=80, partitions=2)
    faults = FaultPlan(command_loss=0.02, restart=(Restart("gateway", 60.0, down_s),))
    order = OrderPlan(at_s=30.0, duration_s=90.0, fraction=0.5)
    done = perform(Scenario(125.0, fleet, faults, (order,)), 1)
    assert [n.text for n in done.play.notices if n.code.startswith("group")] == []
