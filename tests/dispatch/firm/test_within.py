"""No promise is for more than the envelopes known of its window leave."""

from math import inf

import msgspec
import numpy as np
import pytest
from tests.dispatch.control_worlds import EPOCH, SETTINGS, Plant, s
from tests.dispatch.firm.test_orders import plant_of

from kapelle.dispatch.control import step
from kapelle.dispatch.firm.capacity import FirmCapacity, firm_capacity
from kapelle.dispatch.memory import Outcome
from kapelle.model.ids import ALL, Floats
from kapelle.model.plant import Envelopes
from kapelle.model.summaries import CellCorners, Cells

NOW_W, LATER_W = 9_000.0, 4_000.0
LATER_S = 600.0


def packed(*values: float) -> bytes:
    row: Floats = np.array(values)
    return row.astype("<f8").tobytes()


def cells(head_w: float) -> Cells:
    """Return what a partition tells of one feeder that all its devices are on."""
    ramp = CellCorners(np.zeros(1, "<i4").tobytes(), packed(0.0), packed(1.0), packed(head_w))
    none = CellCorners(b"", b"", b"", b"")
    of = np.array([0, -1, -1], "<i4").tobytes()
    return Cells(["feeder/f-1"], [0.0], [0.0], [NOW_W], [inf], of, ramp, ramp, none, none, [0.0])


def tell(plant: Plant) -> None:
    for partition in range(2):
        told = plant.summary(partition, 1)
        every = msgspec.structs.replace(told.resources[0], cells=cells(plant.up_w))
        plant.say(msgspec.structs.replace(told, resources=[every]))


def capped_plant() -> Plant:
    """Return a plant with a feeder at 9 kW, and at 4 kW from ten minutes on."""
    plant = plant_of()
    tell(plant)
    for export_w, starts_s in ((NOW_W, 0.0), (LATER_W, LATER_S)):
        ends_ns = 1 << 62
        told = Envelopes("feeder", ["f-1"], export_w, inf, s(starts_s), ends_ns, "grid", s(0))
        plant.view.envelopes.apply(told)
    return plant


def most_w(found: FirmCapacity) -> float:
    return max(*found.promise_w, *found.alone_w, found.headroom_w, found.expected_w)


def test_the_tightest_envelope_of_the_window_bounds_what_is_promised() -> None:
    plant = capped_plant()
    assert most_w(firm_capacity(plant.view, ALL, "up", 300.0)) == pytest.approx(NOW_W)
    later = firm_capacity(plant.view, ALL, "up", 900.0)
    assert most_w(later) == pytest.approx(LATER_W)
    assert later.worst is not None
    assert max(later.worst.left_w) <= LATER_W
    assert most_w(firm_capacity(plant.view, ALL, "down", 900.0)) > NOW_W


def test_an_order_that_outlasts_its_envelope_is_told_to_be_at_risk() -> None:
    def started(ends_s: float) -> Outcome:
        plant = capped_plant()
        plant.order(8_000.0, ends_s=ends_s)
        return step(plant.state, plant.view, s(1), EPOCH, SETTINGS)

    assert started(LATER_S - 60.0).notices == []
    out = started(LATER_S + 60.0)
    assert [plan.firm_w for plan in out.plans] == [pytest.approx(LATER_W)]
    assert [notice.code for notice in out.notices] == ["at-risk"]
