"""What devices nobody counts on may still do, device by device (R-17)."""

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.columns import Fleet
from kapelle.fleet.doubt import ANSWER_S, doubt
from kapelle.model.enums import Exclusion, Freshness, Metric, Phase
from kapelle.model.ids import NS_PER_S

NOW_NS = 1_000 * NS_PER_S
MAY_OBEY = (Phase.PLANNED, Phase.SENT, Phase.RECEIVED, Phase.UNKNOWN, Phase.EXPIRED)

DEVICE = st.fixed_dictionaries(
    {
        "desired_w": st.sampled_from([nan, -9000.0, -2000.0, 0.0, 3000.0, 9000.0]),
        "own_w": st.sampled_from([-1000.0, 0.0, 500.0]),
        "reading_w": st.sampled_from([nan, -4000.0, 0.0, 3000.0]),
        "counted_w": st.sampled_from([-3000.0, 0.0, 2500.0]),
        "phase": st.sampled_from(list(Phase)),
        "freshness": st.sampled_from(list(Freshness)),
        "left_s": st.sampled_from([-60.0, -0.4, 0.5, 4.0]),
        "timer_s": st.sampled_from([-1.0, 0.5, 60.0]),
        "answered": st.booleans(),
        "excluded": st.sampled_from([Exclusion.NONE, Exclusion.UNKNOWN]),
        "pause_s": st.sampled_from([-5.0, 1.0, 20.0]),
        "order_no": st.sampled_from([0, 7]),
        "connected": st.booleans(),
    }
)


def partition(devices: list[dict[str, float]]) -> Fleet:
    fleet = Fleet.empty(0, 1, len(devices))
    fleet.reserve(len(devices))
    fleet.now_ns = NOW_NS
    fleet.nameplate_up_w[:] = fleet.nameplate_down_w[:] = 5000.0
    for row, each in enumerate(devices):
        fleet.desired_w[row], fleet.own_w[row] = each["desired_w"], each["own_w"]
        fleet.value[Metric.POWER_W, row] = each["reading_w"]
        fleet.phase[row], fleet.freshness[row] = each["phase"], each["freshness"]
        fleet.not_after_ns[row] = NOW_NS + int(each["left_s"] * NS_PER_S)
        fleet.reverts_at_ns[row] = NOW_NS + int(each["timer_s"] * NS_PER_S)
        fleet.applied_at_ns[row] = NOW_NS - NS_PER_S if each["answered"] else 0
        fleet.excluded[row], fleet.order_no[row] = each["excluded"], each["order_no"]
        fleet.excluded_until_ns[row] = NOW_NS + int(each["pause_s"] * NS_PER_S)
        fleet.active[row], fleet.connected[row] = True, each["connected"]
    return fleet


def possible_w(each: dict[str, float]) -> list[float]:
    """Return where one device may be, the slow and obvious way; first what is counted for it."""
    found = [each["counted_w"]]
    goal_w = each["own_w"] if isnan(each["desired_w"]) else each["desired_w"]
    goal_w = min(max(goal_w, -5000.0), 5000.0)
    in_time = each["left_s"] > -ANSWER_S
    if not each["answered"] and in_time and each["phase"] in MAY_OBEY:
        found.append(goal_w)
    heard = each["freshness"] in (Freshness.LIVE, Freshness.LATE)
    is_reached = heard and each["connected"] and each["order_no"]
    if each["excluded"] and each["pause_s"] <= 1.5 and is_reached:
        found.append(goal_w)
    if each["timer_s"] > 0 and not heard and not isnan(each["reading_w"]):
        found.append(each["reading_w"])
        if not isnan(each["desired_w"]):
            found.append(goal_w)
    return found


@given(st.lists(DEVICE, min_size=1, max_size=6))
def test_it_is_what_each_could_add_one_by_one(devices: list[dict[str, float]]) -> None:
    fleet = partition(devices)
    rows = np.arange(len(devices), dtype=np.int32)
    found = doubt(fleet, rows, np.array([each["counted_w"] for each in devices]))
    more = [max(possible_w(each)) - each["counted_w"] for each in devices]
    less = [each["counted_w"] - min(possible_w(each)) for each in devices]
    assert found.up_w == pytest.approx(sum(more))
    assert found.down_w == pytest.approx(sum(less))
    assert found.most_w == pytest.approx(max(more + less))


def test_of_nobody_there_is_none() -> None:
    fleet = partition([])
    assert doubt(fleet, np.empty(0, np.int32), np.empty(0)) == (0.0, 0.0, 0.0)
