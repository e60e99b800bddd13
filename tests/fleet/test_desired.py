"""Commands, answers and findings: evidence moves them on, nothing else does."""

from itertools import permutations

import numpy as np
import pytest

from kapelle.fleet import desired
from kapelle.fleet.columns import Fleet
from kapelle.fleet.desired import apply_acks, apply_commands, apply_phases, step_exclusions
from kapelle.fleet.estimation.estimate import step_estimate
from kapelle.fleet.settings import FleetSettings
from kapelle.model.blocks import Acks, Commands, Phases
from kapelle.model.enums import AckStatus, Exclusion, Freshness, Metric, Phase
from kapelle.model.ids import NS_PER_S
from kapelle.model.signals import Signal

NOW_NS = 1_000 * NS_PER_S


def make_fleet(size: int = 3) -> Fleet:
    fleet = Fleet.empty(0, 1, size)
    fleet.reserve(size)
    fleet.active[:] = fleet.connected[:] = True
    fleet.freshness[:] = Freshness.LIVE
    fleet.nameplate_up_w[:] = fleet.nameplate_down_w[:] = 5000.0
    fleet.value[Metric.POWER_W] = 0.0
    fleet.revert_s[:] = 120.0
    fleet.now_ns = NOW_NS
    return fleet


def commands(
    device_no: list[int],
    setpoint_w: float,
    revision: int = 1,
    *,
    order_no: int = 1,
    epoch: int = 1,
    attempt: int = 1,
    at_s: float = 0.0,
) -> Commands:
    count, at_ns = len(device_no), NOW_NS + int(at_s * NS_PER_S)
    return Commands(
        device_no=np.array(device_no, np.int32),
        order_no=np.full(count, order_no, np.int32),
        revision=np.full(count, revision, np.int64),
        epoch=np.full(count, epoch, np.int64),
        attempt=np.full(count, attempt, np.int32),
        setpoint_w=np.full(count, setpoint_w),
        issued_at_ns=np.full(count, at_ns, np.int64),
        not_after_ns=np.full(count, at_ns + 10 * NS_PER_S, np.int64),
        ttl_s=np.full(count, 10.0),
        revert_s=np.full(count, 120.0),
    )


def acks(*said: tuple[int, AckStatus], revision: int = 1, epoch: int = 1, at_s: float = 0) -> Acks:
    return Acks(
        device_no=np.array([no for no, _ in said], np.int32),
        revision=np.full(len(said), revision, np.int64),
        epoch=np.full(len(said), epoch, np.int64),
        status=np.array([status for _, status in said], np.uint8),
        at_ns=np.full(len(said), NOW_NS + int(at_s * NS_PER_S), np.int64),
        reason=(b"",) * len(said),
    )


def found(device_no: int, phase: Phase, revision: int = 1, at_s: float = 0.0) -> Phases:
    return Phases(
        device_no=np.array([device_no], np.int32),
        revision=np.array([revision], np.int64),
        phase=np.array([phase], np.uint8),
        at_ns=np.array([NOW_NS + int(at_s * NS_PER_S)], np.int64),
    )


def test_a_late_answer_reopens_an_unknown_command() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0))
    before = float(fleet.refusals[0])
    apply_phases(fleet, found(0, Phase.UNKNOWN, at_s=5))
    assert fleet.excluded[0] == Exclusion.UNKNOWN
    assert fleet.refusals[0] > before
    fleet.now_ns += 20 * NS_PER_S
    apply_acks(fleet, acks((0, AckStatus.APPLIED), at_s=20))
    assert fleet.phase[0] == Phase.APPLIED
    assert fleet.excluded[0] == Exclusion.NONE
    assert fleet.failures[0] == 0
    assert fleet.reverts_at_ns[0] == NOW_NS + 140 * NS_PER_S
    assert fleet.responses[0] / (fleet.responses[0] + fleet.refusals[0]) > 0.9


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (acks((0, AckStatus.APPLIED), revision=1), "an older revision"),
        (acks((0, AckStatus.APPLIED), revision=3), "a revision nobody issued"),
        (acks((0, AckStatus.APPLIED), revision=2, epoch=9), "an epoch that is not ours yet"),
        (acks((7, AckStatus.APPLIED), revision=2), "a stranger"),
        (acks((-1, AckStatus.APPLIED), revision=2), "nobody"),
    ],
)
def test_answers_that_are_not_meant_for_the_command_change_nothing(answer: Acks, why: str) -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0, 1))
    apply_commands(fleet, commands([0], 2000.0, 2))
    apply_acks(fleet, answer)
    assert fleet.phase[0] == Phase.PLANNED, why
    assert fleet.applied_at_ns[0] == 0


def test_writing_to_a_socket_is_not_delivery() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0))
    apply_phases(fleet, found(0, Phase.SENT))
    assert (fleet.phase[0], fleet.sent_at_ns[0]) == (Phase.SENT, NOW_NS)
    assert fleet.applied_at_ns[0] == fleet.reverts_at_ns[0] == 0
    apply_acks(fleet, acks((0, AckStatus.APPLIED)))
    apply_phases(fleet, found(0, Phase.SENT))
    assert fleet.phase[0] == Phase.APPLIED


@pytest.mark.parametrize(
    "finding", [Phase.SENT, Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED, Phase.UNKNOWN]
)
@pytest.mark.parametrize("said", [AckStatus.ACCEPTED, AckStatus.APPLIED, AckStatus.OPTED_OUT])
def test_what_became_of_one_try_takes_back_no_answer_to_another(
    finding: Phase, said: AckStatus
) -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0))
    apply_acks(fleet, acks((0, said)))
    before = fleet.phase[0], fleet.excluded[0], fleet.refusals[0]
    apply_commands(fleet, commands([0], 3000.0, attempt=2, at_s=3))
    apply_phases(fleet, found(0, finding, at_s=3))
    assert (fleet.phase[0], fleet.excluded[0], fleet.refusals[0]) == before


def test_a_try_that_was_held_back_does_not_hide_the_one_that_went_out() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0, 1], 3000.0))
    apply_phases(fleet, found(0, Phase.SENT))
    for device_no in (0, 1):
        apply_phases(fleet, found(device_no, Phase.CANCELLED, at_s=3))
    assert fleet.phase[:2].tolist() == [Phase.SENT, Phase.CANCELLED]
    assert fleet.excluded[:2].tolist() == [0, 0]


def test_commands_of_the_past_are_ignored() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0, 5, epoch=3))
    for late in (
        commands([0], 1.0, 4, epoch=3),
        commands([0], 1.0, 6, epoch=2),
        commands([0], 1.0, 5, epoch=3),
    ):
        apply_commands(fleet, late)
        assert (fleet.desired_w[0], fleet.revision[0], fleet.attempt[0]) == (3000.0, 5, 1)
    apply_commands(fleet, commands([0], 3000.0, 5, epoch=4, attempt=2, at_s=3))
    assert (fleet.revision[0], fleet.attempt[0], fleet.epoch[0]) == (5, 2, 4)
    assert fleet.planned_at_ns[0] == NOW_NS


SAID = [
    (0, AckStatus.RECEIVED),
    (0, AckStatus.ACCEPTED),
    (0, AckStatus.APPLIED),
    (0, AckStatus.EXPIRED),
    (0, AckStatus.REJECTED),
]


def test_the_order_of_answers_does_not_matter() -> None:
    states = set()
    for order in permutations(SAID):
        fleet = make_fleet()
        apply_commands(fleet, commands([0], 3000.0))
        apply_acks(fleet, acks(*order))
        apply_acks(fleet, acks(*reversed(order)))
        states.add((int(fleet.phase[0]), int(fleet.excluded[0]), float(fleet.responses[0])))
    assert len(states) == 1
    assert states.pop()[:2] == (Phase.APPLIED, Exclusion.NONE)


def test_opting_out_stands_whatever_was_said_before() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0))
    apply_acks(fleet, acks((0, AckStatus.OPTED_OUT), (0, AckStatus.APPLIED)))
    assert fleet.phase[0] == Phase.OPTED_OUT
    assert fleet.excluded[0] == Exclusion.OPTED_OUT
    assert fleet.excluded_until_ns[0] == NOW_NS + int(desired.BACK_OFF_S_MAX * NS_PER_S)
    apply_acks(fleet, acks((0, AckStatus.APPLIED)))
    assert fleet.phase[0] == Phase.OPTED_OUT


def test_a_release_is_completed_by_its_answer_and_excludes_nobody() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0, 1], 3000.0))
    apply_acks(fleet, acks((0, AckStatus.APPLIED), (1, AckStatus.APPLIED)))
    apply_commands(fleet, commands([0, 1], np.nan, 2, order_no=0))
    apply_acks(fleet, acks((0, AckStatus.ACCEPTED), revision=2))
    apply_phases(fleet, found(1, Phase.UNKNOWN, 2))
    assert fleet.phase[:2].tolist() == [Phase.COMPLETED, Phase.UNKNOWN]
    assert fleet.excluded[:2].tolist() == [0, 0]
    assert np.isnan(fleet.desired_w[:2]).all()
    # The one that did not answer still holds its setpoint until its timer ends.
    assert fleet.reverts_at_ns[0] == 0
    assert fleet.reverts_at_ns[1] == NOW_NS + 120 * NS_PER_S


def test_a_release_that_was_held_back_is_open_again_when_it_is_tried_again() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0))
    apply_commands(fleet, commands([0], np.nan, 2, order_no=0))
    apply_phases(fleet, found(0, Phase.CANCELLED, 2))
    apply_commands(fleet, commands([0], np.nan, 2, order_no=0, attempt=2, at_s=3))
    assert fleet.phase[0] == Phase.PLANNED
    apply_acks(fleet, acks((0, AckStatus.APPLIED), revision=2, at_s=4))
    assert (fleet.phase[0], fleet.reverts_at_ns[0]) == (Phase.COMPLETED, 0)


def test_a_device_without_a_timer_never_reverts_by_itself() -> None:
    fleet = make_fleet()
    fleet.revert_s[:] = np.nan
    apply_commands(fleet, commands([0], 3000.0))
    apply_acks(fleet, acks((0, AckStatus.APPLIED)))
    assert fleet.reverts_at_ns[0] == desired.NEVER_NS


@pytest.mark.parametrize("revert_s", [120.0, np.nan])
def test_a_setpoint_is_not_taken_for_what_a_device_does_by_itself(revert_s: float) -> None:
    fleet = make_fleet(1)
    fleet.revert_s[:] = revert_s
    apply_commands(fleet, commands([0], 3000.0))
    apply_acks(fleet, acks((0, AckStatus.APPLIED)))
    apply_commands(fleet, commands([0], np.nan, 2, order_no=0, at_s=10))
    fleet.value[Metric.POWER_W] = 3000.0
    for at_s in (100, 10_000):
        fleet.now_ns = NOW_NS + at_s * NS_PER_S
        fleet.heard_at_ns[:] = fleet.measured_at_ns[Metric.POWER_W] = fleet.now_ns
        step_estimate(fleet, FleetSettings())
        # After its timer has ended, power is its own; without one, only its answer frees it.
        ended = at_s > 120.0 and not np.isnan(revert_s)
        assert fleet.own_w[0] == (3000.0 if ended else 0.0)
    apply_acks(fleet, acks((0, AckStatus.APPLIED), revision=2, at_s=10_000))
    fleet.value[Metric.POWER_W] = 100.0
    fleet.now_ns += 60 * NS_PER_S
    fleet.heard_at_ns[:] = fleet.now_ns
    step_estimate(fleet, FleetSettings())
    assert fleet.own_w[0] == 100.0


def test_whoever_is_released_may_follow_what_was_never_answered() -> None:
    fleet = make_fleet()
    fleet.revert_s[1] = np.nan
    apply_commands(fleet, commands([0, 1], 3000.0))
    apply_commands(fleet, commands([0, 1, 2], np.nan, 2, order_no=0, at_s=20))
    ends_ns = [NOW_NS + 130 * NS_PER_S, desired.NEVER_NS, 0]
    assert fleet.reverts_at_ns[:3].tolist() == ends_ns


@pytest.mark.parametrize(("then_w", "followed"), [(3000.0, 4), (3090.0, 4), (2000.0, 0)])
def test_the_meters_evidence_outlasts_a_refresh(then_w: float, followed: int) -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0))
    apply_acks(fleet, acks((0, AckStatus.APPLIED)))
    fleet.followed[0] = 4
    apply_commands(fleet, commands([0], then_w, 2))
    assert fleet.followed[0] == followed
    apply_commands(fleet, commands([0], np.nan, 3, order_no=0))
    assert fleet.followed[0] == 0


def test_a_lost_refresh_excludes_nobody_who_is_seen_to_hold() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0, 1], 3000.0))
    apply_acks(fleet, acks((0, AckStatus.APPLIED), (1, AckStatus.APPLIED)))
    apply_commands(fleet, commands([0, 1], 3000.0, 2))
    fleet.value[Metric.POWER_W, :2] = (3010.0, 0.0)
    for device_no in (0, 1):
        apply_phases(fleet, found(device_no, Phase.UNKNOWN, 2))
    assert fleet.excluded[:2].tolist() == [Exclusion.NONE, Exclusion.UNKNOWN]


def test_failing_again_is_punished_longer_up_to_an_hour() -> None:
    fleet = make_fleet()
    pauses_s = []
    for revision in range(1, 10):
        apply_commands(fleet, commands([0], 3000.0, revision))
        apply_phases(fleet, found(0, Phase.DIVERGED, revision))
        pauses_s.append((int(fleet.excluded_until_ns[0]) - NOW_NS) / NS_PER_S)
    assert pauses_s == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    apply_commands(fleet, commands([0], 3000.0, 10))
    apply_acks(fleet, acks((0, AckStatus.APPLIED), revision=10))
    assert fleet.excluded[0] == Exclusion.DIVERGED
    apply_phases(fleet, found(0, Phase.VERIFIED, 10))
    assert (fleet.excluded[0], fleet.failures[0]) == (Exclusion.NONE, 0)


def test_whoever_was_out_of_reach_is_asked_again_at_once() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0))
    fleet.connected[0] = False
    apply_phases(fleet, found(0, Phase.UNKNOWN))
    assert fleet.excluded_until_ns[0] == NOW_NS


def test_time_alone_lets_nobody_back_in_while_an_order_runs() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0))
    apply_phases(fleet, found(0, Phase.UNKNOWN))
    fleet.now_ns += 3600 * NS_PER_S
    fleet.signals["all"] = Signal("all", 1, 0.5, 0.5, 1, fleet.now_ns + 1)
    step_exclusions(fleet)
    assert fleet.excluded[0] == Exclusion.UNKNOWN
    fleet.signals["all"] = Signal("all", 0, 0.0, 0.0, 1, fleet.now_ns + 1)
    step_exclusions(fleet)
    assert fleet.excluded[0] == Exclusion.NONE


def test_the_meter_is_evidence_where_the_answer_got_lost() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0], 3000.0))
    apply_phases(fleet, found(0, Phase.UNKNOWN))
    apply_phases(fleet, found(0, Phase.VERIFIED, at_s=20))
    assert (fleet.phase[0], fleet.excluded[0]) == (Phase.VERIFIED, Exclusion.NONE)
    assert fleet.applied_at_ns[0] == NOW_NS
    assert fleet.reverts_at_ns[0] == NOW_NS + 120 * NS_PER_S


def test_overtaking_does_not_start_the_waiting_anew_but_any_answer_does() -> None:
    fleet = make_fleet()
    apply_commands(fleet, commands([0, 1], 3000.0, 1))
    apply_commands(fleet, commands([0, 1], 2000.0, 2, at_s=2))
    assert fleet.planned_at_ns[:2].tolist() == [NOW_NS, NOW_NS]
    apply_acks(fleet, acks((1, AckStatus.APPLIED), revision=1, at_s=3))
    assert fleet.planned_at_ns[:2].tolist() == [NOW_NS, NOW_NS + 2 * NS_PER_S]
    assert fleet.phase[:2].tolist() == [Phase.PLANNED, Phase.PLANNED]


def test_an_empty_fleet_takes_everything_and_nothing() -> None:
    fleet = Fleet.empty()
    apply_commands(fleet, commands([0], 1.0))
    apply_acks(fleet, acks((0, AckStatus.APPLIED)))
    apply_phases(fleet, found(0, Phase.SENT))
    assert fleet.size == 0
