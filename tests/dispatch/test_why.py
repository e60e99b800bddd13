"""Why an order is as it is: counted against the devices, and said in words."""

from typing import Any

import numpy as np
import pytest

from kapelle.dispatch.extent import extent
from kapelle.dispatch.settings import DispatchSettings
from kapelle.dispatch.why import why
from kapelle.fleet.plant import total
from kapelle.model.ids import ALL, NS_PER_S, PLANT, partition_topic
from kapelle.model.orders import Hold, Order
from kapelle.model.plant import Members
from kapelle.words import power

SETTINGS = DispatchSettings(reserve_share=0.2)


def ordered(make_box: Any, part: float) -> Any:
    """Return a plant in the middle of an order on `all`, beside one on a third of it."""
    box = make_box(devices=60, seed=2, settings=SETTINGS, cadence_s=1.0, revert_s=25.0)
    for p in range(box.partitions):
        box.say(partition_topic(p), Members("north", [n for n in range(20) if n % 2 == p]))
    box.run(10)
    box.order(1_000.0, 60, "north", 1)
    box.run(15)
    box.order(part * total(box.view).headroom_up_w, 60, ALL, 2)
    box.run(35)
    return box


def test_every_device_is_at_its_limit_in_between_or_left_alone(make_box: Any) -> None:
    box = ordered(make_box, 0.5)
    found = extent(box.fleets, 2)
    assert found is not None
    # Nothing goes wrong here: whoever follows the order is counted on.
    assert found.at_limit + found.between + found.untouched == 40
    setpoints = np.concatenate([f.desired_w[f.order_no == 2] for f in box.fleets])
    assert found.untouched == 40 - np.count_nonzero(~np.isnan(setpoints))
    assert found.tier == 0
    assert found.level == pytest.approx(box.signals[-1].level, rel=0.2)
    assert extent(box.fleets, 7) is None


def test_what_bound_an_order_is_said_from_its_promise_to_now(make_box: Any) -> None:
    box = ordered(make_box, 1.2)
    found = why(box.view, box.view.orders[2], SETTINGS, box.fleets)
    assert found.bound[0].startswith(power(box.view.orders[2].committed_w))
    assert "promised: reserve: of" in found.bound[0]
    assert "20 devices follow order 1" in found.bound
    assert found.claimed == {1: 20}
    assert found.bound[-1].endswith("of headroom are kept to replace who drops out")
    assert found.delivered_w == pytest.approx(box.view.orders[2].committed_w, rel=0.02)
    assert found.shortfall is None
    other = why(box.view, box.view.orders[1], SETTINGS, box.fleets)
    assert other.bound[0] == "1.0 kW of 1.0 kW are promised: nothing bound it"
    assert other.claimed == {}


def test_a_shortfall_is_said_with_size_and_cause_until_it_is_over(make_box: Any) -> None:
    box = ordered(make_box, 0.7)
    box.silent[:] = True
    box.run(70)
    found = why(box.view, box.view.orders[2], SETTINGS, box.fleets)
    assert found.shortfall is not None
    assert found.shortfall.text in found.bound
    assert "kW of " in found.shortfall.text
    assert found.life
    assert any("not counted on: " in sentence for sentence in found.bound)


def test_an_order_that_was_declined_or_not_planned_says_so(make_box: Any) -> None:
    box = make_box(devices=10, seed=2)
    box.run(2)
    order = box.order(1_000.0, 60, "nowhere", 1)
    assert why(box.view, box.view.orders[1], SETTINGS, ()).bound == [
        "dispatch has not spoken of it yet: nothing is promised"
    ]
    later = Order(2, "all", 1_000.0, box.now_ns + 9 * NS_PER_S, box.now_ns + 99 * NS_PER_S, 0)
    box.say(PLANT, later)
    told = why(box.view, box.view.orders[2], SETTINGS, ())
    assert told.bound[0] == "nothing is promised before it begins"
    box.say(PLANT, Hold(True, box.now_ns))
    assert "until kapelle release" in why(box.view, box.view.orders[2], SETTINGS, ()).bound[0]
    box.say(PLANT, Hold(False, box.now_ns))
    box.run(4)
    (said,) = why(box.view, box.view.orders[1], SETTINGS, ()).bound
    assert said == "nothing of 1.0 kW is promised: resource 'nowhere' has no devices"
    assert order.why == ""
