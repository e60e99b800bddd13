"""The closed loop in a box: what is delivered, how fast, and after the worst has happened.

The targets are those of the field reports: a one-shot division with silent devices delivers
76-92 %; here >= 99 % on average and >= 97 % in any five minutes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kapelle.fleet.plant import total
from kapelle.model.enums import Exclusion, OrderStatus, Phase

SETTLED_S = 60.0
ORDERED_S = 30.0
Settle = Callable[[np.ndarray, np.ndarray, float, float], float]


def play(box: Any, part: float, for_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Let the plant find its devices, order a part of what it could do, and play to the end."""
    box.run(ORDERED_S)
    known = total(box.view)
    room_w = known.headroom_up_w if part > 0 else known.headroom_down_w
    box.order(part * room_w, for_s)
    box.run(ORDERED_S + for_s - 2)
    t, share = box.share()
    return t, share


@pytest.mark.parametrize(("seed", "part"), [(1, 0.6), (2, -0.6)])
def test_with_a_tenth_dead_the_plant_delivers(
    make_box: Any, make_faults: Any, settle_time: Settle, seed: int, part: float
) -> None:
    faults = make_faults(dead=0.1, command_loss=0.02, ack_loss=0.02, telemetry_loss=0.01)
    box = make_box(devices=200, partitions=1, seed=seed, faults=faults)
    t, share = play(box, part, 120.0)
    after = share[t >= SETTLED_S]
    assert after.mean() >= 0.99
    assert after.min() >= 0.97
    assert after.max() <= 1.03
    early = t < ORDERED_S + 60
    assert settle_time(t[early], share[early], ORDERED_S, 0.02) <= 30.0
    # That a bad day could leave it short is said, and no shortfall.
    assert [notice for notice in box.notices if notice.code != "at-risk"] == []


@pytest.mark.parametrize("part", [0.6, -0.6])
def test_nobody_under_an_order_is_taken_for_weather(
    make_box: Any, make_faults: Any, part: float
) -> None:
    """What an order takes from a kind, and who fell silent, moves nobody on his own schedule.

    No device here moves but by an order, so that every watt that is said beyond the truth is the
    plant's own invention. It stays below a part in a thousand, for whichever devices are dead, and
    so what is delivered keeps to what was promised.
    """
    errors, delivered = [], []
    for seed in range(11, 14):
        faults = make_faults(dead=0.1, command_loss=0.02, ack_loss=0.02, telemetry_loss=0.01)
        box = make_box(devices=200, partitions=1, seed=seed, faults=faults)
        box.run(ORDERED_S)
        known = total(box.view)
        box.order(part * (known.headroom_up_w if part > 0 else known.headroom_down_w), 75.0)
        box.run(SETTLED_S)
        off_w = []
        while box.now_s < ORDERED_S + 74.0:
            box.run(box.now_s + 1.0)
            off_w.append(total(box.view).power_w - box.power_w.sum())
        t, share = box.share()
        errors.append(np.mean(off_w) / abs(box.plans[0].committed_w))
        delivered.append(share[t >= SETTLED_S].mean())
    assert np.abs(errors).max() < 0.003
    assert abs(np.mean(errors)) < 0.001
    assert min(delivered) >= 0.99
    assert max(delivered) <= 1.01


def test_a_lost_vendor_is_made_up_for_and_taken_back(
    make_box: Any, make_faults: Any, settle_time: Settle
) -> None:
    faults = make_faults(
        dead=0.1, command_loss=0.02, ack_loss=0.02, vendor_lost_at_s=70.0, vendor_back_at_s=150.0
    )
    box = make_box(devices=200, seed=2, faults=faults, revert_s=60.0)
    t, share = play(box, 0.55, 160.0)
    lost = (t >= 70.0) & (t < 150.0)
    assert share[lost].mean() >= 0.99
    assert share[lost].min() >= 0.95
    assert settle_time(t, share, 150.0, 0.05) <= 15.0
    assert settle_time(t, share, 150.0, 0.02) <= 30.0
    assert [notice.code for notice in box.notices][:2] == ["group-lost", "group-back"]


def test_the_deaf_and_the_frozen_are_found_out_and_replaced(
    make_box: Any, make_faults: Any
) -> None:
    box = make_box(devices=200, partitions=1, seed=4, faults=make_faults(frozen=0.05, deaf=0.03))
    t, share = play(box, 0.5, 100.0)
    assert abs(share[t >= 80.0].mean() - 1.0) < 0.02
    deaf = np.flatnonzero(box.deaf & (box.kind == 0))
    for device_no in deaf:
        fleet = box.fleets[device_no % box.partitions]
        assert fleet.excluded[device_no // box.partitions] == Exclusion.UNKNOWN


def test_commands_stay_few(make_box: Any, make_faults: Any) -> None:
    box = make_box(
        devices=100, partitions=1, seed=5, faults=make_faults(dead=0.1, command_loss=0.02)
    )
    play(box, 0.6, 150.0)
    # A start, a refresh every 36 to 60 s, and a retry for every fourth.
    assert box.commands_sent < 100 * (1 + 150 / 36) * 1.5


def test_at_the_end_everybody_is_let_go(make_box: Any, make_faults: Any) -> None:
    box = make_box(devices=100, seed=6, faults=make_faults(command_loss=0.05, ack_loss=0.05))
    play(box, 0.6, 30.0)
    box.run(110.0)
    assert box.plans[-1].status == OrderStatus.COMPLETED
    assert np.isnan(box.setpoint_w).all()
    for fleet in box.fleets:
        assert np.isnan(fleet.desired_w[: fleet.size]).all()
        open_ = np.isin(fleet.phase, (Phase.PLANNED, Phase.SENT, Phase.UNKNOWN))
        assert not open_.any()
    np.testing.assert_allclose(box.power_w, box.own_w, atol=1.0)


def test_a_dispatcher_that_dies_leaves_the_plant_where_it_is(
    make_box: Any, make_faults: Any
) -> None:
    """Without new levels the owners go on refreshing; a new one takes up the promise."""
    box = make_box(devices=100, partitions=1, seed=7, faults=make_faults(command_loss=0.02))
    box.run(ORDERED_S)
    box.order(0.5 * total(box.view).headroom_up_w, 100.0)
    box.run(70.0)
    box.control = type(box.control)()
    box.run(120.0)
    t, share = box.share()
    after = share[t >= SETTLED_S]
    assert after.mean() >= 0.99
    assert after.min() >= 0.97
    assert [plan.status for plan in box.plans] == [OrderStatus.ACTIVE]
