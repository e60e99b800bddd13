"""Slow devices in the whole loop: others fill in at once, and hand over what arrives later."""

from typing import Any

import numpy as np
import pytest

from kapelle.fleet.envelopes import Book, StandingCap
from kapelle.model.enums import Exclusion


@pytest.mark.parametrize(
    ("cadence_s", "caps", "commands"),
    # Where groups have caps, nobody is told more than he reaches soon: that takes more commands.
    [(4.0, (), 15), (20.0, (), 15), (4.0, (StandingCap(feeder="*", export_limit_w=1e9),), 45)],
)
def test_an_order_is_met_at_once_and_slow_devices_take_over_their_share(
    make_box: Any, cadence_s: float, caps: tuple[StandingCap, ...], commands: int
) -> None:
    box = make_box(devices=300, slow=0.4, cadence_s=cadence_s, mix=(1.0, 0, 0, 0, 0, 0))
    for fleet in box.fleets:
        fleet.envelopes = Book(standing=caps)
    box.run(60.0)
    box.order(0.35 * float(box.up_w.sum()), for_s=300.0)
    sent = box.commands_sent
    box.run(240.0)
    t, share = box.share()
    assert (np.abs(share[t > 70.0] - 1.0) < 0.03).all()
    slow = np.isfinite(box.ramp_w_per_s)
    part = (box.power_w - box.own_w) / (box.up_w - box.own_w)
    assert part[slow].mean() == pytest.approx(part[~slow].mean(), abs=0.05)
    excluded = np.concatenate([fleet.excluded[: fleet.size] for fleet in box.fleets])
    assert (excluded == Exclusion.NONE).all()
    # A setpoint each to begin with, one every few seconds while it moves, refreshes, and what the
    # others hand over: far from one a second.
    assert (box.commands_sent - sent) / box.devices < commands


def test_slow_devices_alone_are_promised_what_they_reach_in_the_end(make_box: Any) -> None:
    box = make_box(devices=50, slow=1.0, mix=(1.0, 0, 0, 0, 0, 0))
    box.run(60.0)
    asked_w = 0.5 * float(box.up_w.sum())
    box.order(asked_w, for_s=300.0)
    box.run(180.0)
    assert box.plans[0].committed_w == pytest.approx(asked_w)
    t, share = box.share()
    assert share[(t > 140.0)].min() > 0.95
    excluded = np.concatenate([fleet.excluded[: fleet.size] for fleet in box.fleets])
    assert (excluded == Exclusion.NONE).all()
