"""The demo's verdict counts what the devices did, and says so when it was not enough."""

from math import isnan, nan

import numpy as np
import pytest

from kapelle.model.ids import NS_PER_S
from kapelle.sim.demo_record import Event, Record, Seen, judge

BASE_W, PROMISE_W = -1e6, 2e6


def seconds(value: float) -> int:
    return round(value * NS_PER_S)


def record(power, *, until: float = 60.0, fault_at: float | None = 30.0) -> Record:
    """Return what was seen of a power curve (share of the promise by second) from 10 to 60 s."""
    made = Record(0)
    for at in np.arange(0.0, until, 0.5):
        true_w = BASE_W + PROMISE_W * power(at)
        made.true.append((seconds(at), true_w))
        if at == int(at):
            made.seen.append(Seen(seconds(at), true_w + 1e4, true_w - 2e4, true_w + 2e4, nan))
    if fault_at is not None:
        made.events.append(Event(seconds(fault_at), "✕", "fault", is_fault=True))
    return made


def verdict(made: Record):
    return judge(made, PROMISE_W, BASE_W, seconds(10), seconds(60))


def rise(at: float, lasts: float = 4.0) -> float:
    return min(1.0, max(0.0, (at - 10) / lasts))


def test_a_promise_kept() -> None:
    said = verdict(record(rise))
    assert said.met
    assert said.delivered_mean == pytest.approx(1.0, abs=1e-3)
    assert said.settle_s == pytest.approx(4.0, abs=0.5)
    assert said.recoveries[0].outside_s == 0.0
    assert said.error_mean == pytest.approx(1e4 / PROMISE_W)
    assert said.interval_coverage == 1.0
    assert said.delivered_with_rise < said.delivered_mean
    assert said.believed_mean > said.delivered_mean


def test_a_dip_after_a_fault_is_timed_and_named() -> None:
    said = verdict(record(lambda at: rise(at) - (0.2 if 35 <= at < 40 else 0.0)))
    recovery = said.recoveries[0]
    assert recovery.text == "fault"
    assert recovery.back_s == pytest.approx(10.0, abs=0.5)
    assert recovery.outside_s == pytest.approx(5.0, abs=0.5)
    assert said.worst_5s == pytest.approx(0.8, abs=0.02)
    assert said.delivered_mean == pytest.approx(1 - 0.2 * 5 / 46, abs=2e-3)


def test_less_than_the_tolerance_is_a_failure() -> None:
    said = verdict(record(lambda at: 0.97 * rise(at)))
    assert not said.met
    assert isnan(said.settle_s)
    later = verdict(record(lambda at: rise(at) if at < 30 else 0.9))
    assert not later.met
    assert isnan(later.recoveries[0].back_s)
    assert later.recoveries[0].outside_s == pytest.approx(30.0)


def test_consumption_is_judged_the_same_way() -> None:
    made = Record(0)
    for at in np.arange(0.0, 60.0, 0.5):
        made.true.append((seconds(at), BASE_W - PROMISE_W * rise(at)))
    said = judge(made, -PROMISE_W, BASE_W, seconds(10), seconds(60))
    assert said.met
    assert said.delivered_mean == pytest.approx(1.0, abs=1e-3)


def test_nothing_seen_is_no_success() -> None:
    assert not judge(Record(0), PROMISE_W, BASE_W, seconds(10), seconds(60)).met
    assert not judge(record(rise), 0.0, BASE_W, seconds(10), seconds(60)).met
