"""A command takes effect at most once, from the highest epoch only, in time, and ends by itself."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S
from kapelle.sim.agents import Agents, Answers

REVERT_S = 120.0


def agents(n: int = 3, *, skew_s: float = 0.0, opt_out: float = 0.0, timer: bool = True) -> Agents:
    revert_s = np.full(n, REVERT_S if timer else np.nan)
    skew_ns = np.full(n, round(skew_s * NS_PER_S), np.int64)
    return Agents(revert_s, np.random.default_rng(1), skew_ns=skew_ns, opt_out=opt_out)


def give(
    to: Agents,
    now_s: float,
    rows: list[int],
    revision: list[int],
    setpoint_w: list[float],
    *,
    epoch: int = 1,
    not_after_s: float | None = None,
    ttl_s: float = 10.0,
    revert_s: float = REVERT_S,
) -> Answers:
    n = len(rows)
    until_s = now_s + 10.0 if not_after_s is None else not_after_s
    return to.receive(
        np.array(rows, np.int32),
        np.array(revision, np.int64),
        np.full(n, epoch, np.int64),
        np.array(setpoint_w, np.float64),
        np.full(n, round(until_s * NS_PER_S), np.int64),
        np.full(n, ttl_s),
        np.full(n, revert_s),
        round(now_s * NS_PER_S),
    )


def wait(to: Agents, until_s: float) -> Answers:
    return to.step(round(until_s * NS_PER_S))


def test_a_command_is_followed_after_its_lag_and_answered_twice() -> None:
    devices = agents()
    answers = give(devices, 1.0, [1], [1], [500.0])
    assert answers.status.tolist() == [AckStatus.ACCEPTED]
    assert np.isnan(devices.setpoint_w).all()
    applied = wait(devices, 3.0)
    assert (applied.rows.tolist(), applied.status.tolist()) == ([1], [AckStatus.APPLIED])
    assert devices.setpoint_w[1] == 500.0


def test_a_repeat_is_answered_and_changes_nothing() -> None:
    devices = agents()
    give(devices, 1.0, [0], [1], [500.0])
    wait(devices, 3.0)
    reverts_at_ns = devices.reverts_at_ns[0]
    again = give(devices, 5.0, [0, 0], [1, 1], [500.0, 500.0])
    assert again.status.tolist() == [AckStatus.APPLIED, AckStatus.APPLIED]
    assert devices.reverts_at_ns[0] == reverts_at_ns
    assert devices.effects[0] == 1


def test_an_older_revision_or_owner_is_refused() -> None:
    devices = agents()
    give(devices, 1.0, [0], [5], [500.0], epoch=3)
    old = give(devices, 2.0, [0], [4], [100.0], epoch=3)
    stale = give(devices, 2.0, [0], [6], [100.0], epoch=2)
    assert old.reason == (b"superseded",)
    assert stale.reason == (b"stale epoch",)
    wait(devices, 4.0)
    assert devices.setpoint_w[0] == 500.0
    assert devices.fenced == 1


def test_what_is_late_is_refused_and_may_be_tried_again() -> None:
    devices = agents()
    late = give(devices, 20.0, [0], [1], [500.0], not_after_s=19.0)
    assert late.status.tolist() == [AckStatus.EXPIRED]
    again = give(devices, 21.0, [0], [1], [500.0], not_after_s=30.0)
    assert again.status.tolist() == [AckStatus.ACCEPTED]


def test_a_device_with_a_wrong_clock_goes_by_the_ttl() -> None:
    devices = agents(skew_s=90.0)
    assert give(devices, 1.0, [0], [1], [1.0]).status.tolist() == [AckStatus.ACCEPTED]
    assert give(devices, 1.0, [0], [2], [1.0], ttl_s=0.01).status.tolist() == [AckStatus.EXPIRED]


def test_the_timer_ends_what_nobody_refreshes() -> None:
    devices = agents()
    give(devices, 0.0, [0, 1], [1, 1], [500.0, 500.0])
    wait(devices, 2.0)
    give(devices, 60.0, [1], [2], [500.0])
    wait(devices, 119.0)
    assert devices.commanded().tolist() == [True, True, False]
    wait(devices, 120.5)
    assert devices.commanded().tolist() == [False, True, False]
    wait(devices, 181.0)
    assert not devices.commanded().any()
    assert devices.reverted == 2


def test_a_setpoint_without_a_timer_is_refused() -> None:
    assert give(agents(), 0.0, [0], [1], [1.0], revert_s=np.nan).reason == (b"no revert timer",)
    simple = agents(timer=False)
    assert give(simple, 0.0, [0], [1], [1.0], revert_s=np.nan).status.tolist() == [
        AckStatus.ACCEPTED
    ]


def test_a_release_completes_and_ends_the_timer() -> None:
    devices = agents()
    give(devices, 0.0, [0], [1], [500.0])
    wait(devices, 2.0)
    give(devices, 3.0, [0], [2], [np.nan])
    done = wait(devices, 5.0)
    assert done.status.tolist() == [AckStatus.COMPLETED]
    wait(devices, 500.0)
    assert devices.reverted == 0


def test_owners_may_refuse() -> None:
    devices = agents(200, opt_out=0.5)
    answers = give(devices, 0.0, list(range(200)), [1] * 200, [500.0] * 200)
    out = answers.status == AckStatus.OPTED_OUT
    assert 60 < out.sum() < 140
    wait(devices, 2.0)
    np.testing.assert_array_equal(devices.commanded(), ~out)


@dataclass(frozen=True, slots=True)
class Sent:
    """One command as it was sent."""

    revision: int
    epoch: int
    setpoint_w: float


@settings(max_examples=200, deadline=None)
@given(
    epochs=st.lists(st.integers(0, 1), min_size=1, max_size=8),
    arrivals=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 4)), min_size=1, max_size=30),
)
def test_whatever_order_and_however_often_it_arrives_the_effect_is_the_newest_once(
    epochs: list[int], arrivals: list[tuple[int, int]]
) -> None:
    epoch = np.cumsum(epochs)
    sent = [Sent(n + 1, int(epoch[n]), 100.0 * n) for n in range(len(epochs))]
    devices = agents(1)
    now_s, came = 0.0, []
    for number, times in arrivals:
        command = sent[number % len(sent)]
        came.append(command)
        now_s += 1.0
        give(
            devices,
            now_s,
            [0] * times,
            [command.revision] * times,
            [command.setpoint_w] * times,
            epoch=command.epoch,
        )
        newest = max(came, key=lambda each: each.revision)
        wait(devices, now_s + 0.9)
        assert devices.setpoint_w[0] == newest.setpoint_w
    assert devices.double_effects == 0
    assert devices.stale_effects == 0
    assert devices.effects[0] <= len({each.revision for each in came})
