"""What devices are told: once, again, anew, and when to let go."""

from dataclasses import fields, replace

import numpy as np
import pytest

from kapelle.dispatch.delivery import decide
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet, column_specs
from kapelle.fleet.desired import apply_acks, apply_commands, apply_phases, step_exclusions
from kapelle.model.blocks import Acks, Commands, Phases
from kapelle.model.enums import AckStatus, DeviceKind, Exclusion, Freshness, Metric, Phase
from kapelle.model.ids import NS_PER_S
from kapelle.model.signals import Signal
from kapelle.safety.gate import HOLD, PHASE_OF, RATE

SETTINGS = DispatchSettings()
EPOCH = 4


def s(seconds: float) -> int:
    return 1_000 * NS_PER_S + int(seconds * NS_PER_S)


def revision(seconds: float) -> int:
    """Return the revision of a desire of this moment: they rise with the time in ms."""
    return s(seconds) // 1_000_000


class Plant:
    """Ten batteries of 5 kW at rest, and the fold of what is decided about them."""

    def __init__(self, size: int = 10) -> None:
        self.fleet = Fleet.empty(1, 3, size)
        self.fleet.reserve(size)
        fleet = self.fleet
        fleet.active[:] = fleet.connected[:] = True
        fleet.freshness[:] = Freshness.LIVE
        fleet.kind[:] = DeviceKind.BATTERY
        fleet.nameplate_up_w[:] = fleet.nameplate_down_w[:] = 5000.0
        fleet.value[Metric.POWER_W] = 0.0
        fleet.revert_s[:] = 120.0
        # So much experience that one more answer changes nothing: nine of ten commands work.
        fleet.responses[:], fleet.refusals[:] = 90_000.0, 10_000.0

    def order(self, level: float, order_no: int = 7, ends_s: float = 3600.0) -> None:
        self.fleet.signals["all"] = Signal("all", order_no, level, level, 1, s(ends_s))

    def tick(self, at_s: float) -> Commands | None:
        """Return the commands of this moment, after all of it was applied."""
        self.fleet.now_ns = s(at_s)
        sent = None
        for body in decide(self.fleet, SETTINGS, EPOCH):
            if isinstance(body, Commands):
                sent = body
                apply_commands(self.fleet, body)
            elif isinstance(body, Phases):
                apply_phases(self.fleet, body)
        return sent

    def answer(
        self,
        rows: list[int],
        at_s: float,
        status: AckStatus = AckStatus.APPLIED,
        meter: bool = True,
    ) -> None:
        at = np.array(rows, np.int32)
        self.fleet.now_ns = s(at_s)
        apply_acks(
            self.fleet,
            Acks(
                device_no=self.fleet.device_nos(at),
                revision=self.fleet.revision[at],
                epoch=self.fleet.epoch[at],
                status=np.full(len(rows), status, np.uint8),
                at_ns=np.full(len(rows), s(at_s), np.int64),
                reason=(b"",) * len(rows),
            ),
        )
        if meter:
            self.fleet.value[Metric.POWER_W, at] = np.nan_to_num(self.fleet.desired_w[at])

    def hold_back(self, rows: list[int], at_s: float, rule: str) -> None:
        """Do as the last hop does with commands that break a rule."""
        at = np.array(rows, np.int32)
        apply_phases(
            self.fleet,
            Phases(
                device_no=self.fleet.device_nos(at),
                revision=self.fleet.revision[at],
                phase=np.full(len(rows), PHASE_OF[rule], np.uint8),
                at_ns=np.full(len(rows), s(at_s), np.int64),
            ),
        )

    def phases(self) -> list[int]:
        return self.fleet.phase[: self.fleet.size].tolist()


ALL = list(range(10))


def copied(fleet: Fleet) -> list[np.ndarray]:
    return [getattr(fleet, name).copy() for name in column_specs()]


def same(a: list[object], b: list[object]) -> bool:
    assert [type(x) for x in a] == [type(x) for x in b]
    for one, other in zip(a, b, strict=True):
        for each in fields(one):  # type: ignore[arg-type]  # blocks are dataclasses
            np.testing.assert_array_equal(getattr(one, each.name), getattr(other, each.name))
    return True


def test_deciding_changes_nothing_and_says_the_same_again() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.fleet.now_ns = s(0)
    before = copied(plant.fleet)
    first = decide(plant.fleet, SETTINGS, EPOCH)
    assert same(list(first), list(decide(plant.fleet, SETTINGS, EPOCH)))
    for was, now in zip(before, copied(plant.fleet), strict=True):
        np.testing.assert_array_equal(was, now)


def test_everybody_is_told_once_with_all_that_makes_it_safe() -> None:
    plant = Plant()
    plant.order(0.5)
    sent = plant.tick(0)
    assert sent is not None
    assert sent.device_no.tolist() == [1 + 3 * row for row in ALL]
    assert set(sent.order_no) == {7}
    assert set(sent.revision) == {revision(0)}
    assert set(sent.epoch) == {EPOCH}
    assert set(sent.attempt) == {1}
    np.testing.assert_allclose(sent.setpoint_w, 0.5 * 0.9 * 5000.0)
    assert set(sent.revert_s) == {120.0}
    assert set(sent.not_after_ns) == {s(SETTINGS.command_ttl_s)}
    assert set(sent.ttl_s) == {SETTINGS.command_ttl_s}
    assert plant.tick(0) is None
    assert plant.tick(1) is None


def test_revisions_rise_with_a_lost_journal_and_with_a_clock_that_stands_still() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.fleet.revision[0] = revision(60)
    sent = plant.tick(5)
    assert sent is not None
    # A device remembers what the journal has lost; nobody gets the same one twice.
    assert sent.revision.tolist() == [revision(60) + 1] + [revision(5)] * 9


def test_no_command_outlives_its_order() -> None:
    plant = Plant()
    plant.order(0.5, ends_s=4.0)
    sent = plant.tick(0)
    assert sent is not None
    assert set(sent.not_after_ns) == {s(4)}


def test_silence_is_asked_again_becomes_unknown_and_at_last_expires() -> None:
    plant = Plant()
    plant.order(0.5)
    tries, unknown_s, expired_s = [], None, None
    for at_s in range(30):
        if (sent := plant.tick(at_s)) is not None:
            assert set(sent.revision) == {revision(0)}
            tries.append((at_s, int(sent.attempt[0])))
        if plant.phases()[0] == Phase.UNKNOWN and unknown_s is None:
            unknown_s = at_s
        if plant.phases()[0] == Phase.EXPIRED and expired_s is None:
            expired_s = at_s
    # Nobody is asked again once he is not counted on: what he may still obey must run out.
    assert tries == [(0, 1), (3, 2)]
    assert unknown_s == SETTINGS.unknown_s
    assert plant.fleet.not_after_ns[0] <= s(SETTINGS.unknown_s)
    assert expired_s is not None
    assert expired_s > tries[-1][0] + SETTINGS.command_ttl_s
    assert set(plant.fleet.excluded[:10]) == {Exclusion.UNKNOWN}
    # Not given up: after the back-off it is probed, with what is wanted then.
    plant.order(0.8)
    probes = {}
    for at_s in range(30, 100):
        if (sent := plant.tick(at_s)) is not None:
            probes |= dict.fromkeys((sent.device_no // 3)[sent.attempt == 1].tolist(), at_s)
    # Not all at once, or their acting together would be too much.
    assert set(probes) == set(ALL)
    assert 35 <= min(probes.values()) < max(probes.values()) <= 95
    assert len(set(probes.values())) > 5
    assert set(plant.fleet.excluded[:10]) == {Exclusion.UNKNOWN}
    last = max(probes, key=probes.__getitem__)
    plant.answer([last], 99.5)
    assert plant.fleet.excluded[last] == Exclusion.NONE


def test_only_one_command_is_open_per_device() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.tick(0)
    plant.order(0.51)
    assert plant.tick(1) is None
    plant.answer(ALL, 1.5)
    sent = plant.tick(2)
    assert sent is not None
    assert set(sent.revision) == {revision(2)}


def test_what_moved_far_overtakes_what_was_not_answered() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.tick(0)
    plant.order(0.2)
    assert plant.tick(0.5) is None
    sent = plant.tick(1)
    assert sent is not None
    assert set(sent.revision) == {revision(1)}
    assert set(plant.fleet.planned_at_ns[:10]) == {s(0)}


def test_small_changes_are_made_by_few_and_their_sum_is_right() -> None:
    plant = Plant(500)
    plant.order(0.5)
    plant.tick(0)
    plant.answer(list(range(500)), 1)
    for step in range(1, 20):
        plant.order(0.5 + 0.004 * step)
        sent = plant.tick(1 + step)
        plant.answer(list(range(500)), 1.5 + step)
        wanted_w = 500 * (0.5 + 0.004 * step) * 5000.0 * 0.9
        asked_w = float(plant.fleet.desired_w[:500].sum())
        assert abs(asked_w / wanted_w - 1.0) < 0.004
        assert sent is None or len(sent.device_no) < 250
    assert (plant.fleet.desired_w[:500] <= 5000.0).all()


def test_setpoints_are_refreshed_before_half_their_time_and_not_all_at_once() -> None:
    plant = Plant(200)
    plant.order(0.5)
    plant.tick(0)
    plant.answer(list(range(200)), 0)
    asked: dict[int, int] = {}
    for at_s in range(1, 61):
        sent = plant.tick(at_s)
        if sent is not None:
            rows = (sent.device_no // 3).tolist()
            assert set(sent.revision[sent.attempt == 1]) <= {revision(at_s)}
            for row in rows:
                asked.setdefault(row, at_s)
            plant.answer(rows, at_s)
    assert len(asked) == 200
    assert max(asked.values()) <= 60
    busiest = max(list(asked.values()).count(at_s) for at_s in range(61))
    assert busiest < 40


def test_a_refreshed_setpoint_is_verified_as_soon_as_it_is_answered() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.tick(0)
    plant.answer(ALL, 1)
    plant.fleet.followed[:], plant.fleet.seen_at_ns[:] = SETTINGS.verify_after, s(10)
    plant.tick(11)
    assert plant.phases() == [Phase.VERIFIED] * 10
    refreshed_s = next(at_s for at_s in range(12, 90) if _asks(plant, at_s, 2))
    # Not by what the meter showed before, as long as there is no answer.
    plant.tick(refreshed_s + 1)
    assert plant.phases()[2] == Phase.PLANNED
    plant.answer([2], refreshed_s + 1)
    plant.tick(refreshed_s + 2)
    assert plant.phases()[2] == Phase.VERIFIED


def test_an_order_that_ends_lets_everybody_go_and_asks_until_they_say_so() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.tick(0)
    plant.answer(ALL, 1)
    plant.order(0.0, order_no=0)
    sent = plant.tick(2)
    assert sent is not None
    assert np.isnan(sent.setpoint_w).all()
    assert set(sent.order_no) == {0}
    plant.answer(ALL[:9], 3)
    tries_s = []
    for at_s in range(3, 300):
        if (sent := plant.tick(at_s)) is not None:
            assert sent.device_no.tolist() == [1 + 3 * 9]
            assert set(sent.revision) == {revision(2)}
            tries_s.append(at_s)
    # Less often each time, and until its timer has let it go at 121 s.
    assert tries_s[0] < 6
    assert max(np.diff(tries_s)) <= 31
    assert 90 < tries_s[-1] <= 121
    assert plant.phases() == [Phase.COMPLETED] * 9 + [Phase.EXPIRED]
    assert set(plant.fleet.excluded[:10]) == {0}


def test_an_order_whose_end_has_come_needs_nobody_to_say_so() -> None:
    plant = Plant()
    plant.order(0.5, ends_s=10.0)
    plant.tick(0)
    plant.answer(ALL, 1)
    sent = plant.tick(10)
    assert sent is not None
    assert np.isnan(sent.setpoint_w).all()


def test_the_unreachable_are_not_told_and_the_returned_get_what_is_wanted_now() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.fleet.connected[3] = False
    plant.fleet.freshness[4] = Freshness.STALE
    sent = plant.tick(0)
    assert sent is not None
    assert not {1 + 9, 1 + 12} & set(sent.device_no.tolist())
    plant.order(0.8)
    plant.fleet.connected[3] = True
    plant.fleet.freshness[4] = Freshness.LIVE
    sent = plant.tick(0.5)
    assert sent is not None
    assert sent.device_no.tolist() == [1 + 9, 1 + 12]
    np.testing.assert_allclose(sent.setpoint_w, 0.8 * 0.9 * 5000.0)


def test_of_the_silent_nothing_more_is_said_once_their_order_is_over() -> None:
    plant = Plant()
    fleet = plant.fleet
    plant.order(0.5, ends_s=60.0)
    plant.tick(0)
    others = [row for row in ALL if row != 3]
    plant.answer(others, 1)
    fleet.freshness[3], fleet.connected[3] = Freshness.LOST, False
    for second in range(2, 70):
        step_exclusions(fleet)
        plant.tick(second)
        plant.answer(others, second + 0.5)
    refusals, failures = fleet.refusals[3].copy(), fleet.failures[3].copy()
    for second in range(70, 200):
        fleet.now_ns = s(second)
        step_exclusions(fleet)
        assert decide(fleet, SETTINGS, EPOCH) == []
    assert (fleet.refusals[3], fleet.failures[3]) == (refusals, failures)
    assert failures == 1


def test_whoever_strays_on_the_meter_is_let_go_and_probed_later() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.tick(0)
    plant.answer(ALL, 1)
    plant.fleet.strayed[2] = SETTINGS.diverge_after
    plant.fleet.followed[5] = SETTINGS.verify_after
    plant.tick(2)
    assert plant.phases()[2] == Phase.DIVERGED
    assert plant.phases()[5] == Phase.VERIFIED
    released = plant.tick(3)
    assert released is not None
    assert released.device_no.tolist() == [1 + 6]
    assert np.isnan(released.setpoint_w).all()
    plant.answer([2], 3.5)
    asked_again_s = next(at_s for at_s in range(4, 200) if _asks(plant, at_s, 2))
    assert asked_again_s == 62
    plant.answer([2], 63)
    assert plant.fleet.excluded[2] == Exclusion.DIVERGED


def test_whoever_strays_from_what_a_former_owner_said_is_told_again_first() -> None:
    """After a restore from a backup devices follow what an owner said that nobody remembers."""
    plant = Plant()
    plant.order(0.5)
    plant.tick(0)
    plant.answer(ALL, 1)
    plant.fleet.epoch[:] = EPOCH - 1
    plant.fleet.strayed[2] = SETTINGS.diverge_after
    told = plant.tick(2)
    assert told is not None
    assert told.device_no.tolist() == [1 + 6]
    assert told.setpoint_w == plant.fleet.desired_w[2]
    plant.answer([2], 3)
    assert plant.fleet.excluded[2] == Exclusion.NONE
    plant.fleet.strayed[2] = SETTINGS.diverge_after
    plant.tick(5)
    assert plant.phases()[2] == Phase.DIVERGED


def _asks(plant: Plant, at_s: int, row: int) -> bool:
    sent = plant.tick(at_s)
    if sent is None:
        return False
    rows = sent.device_no // 3
    plant.answer([r for r in rows.tolist() if r != row], at_s)
    return row in rows.tolist()


def test_a_new_owner_takes_up_what_the_old_one_left() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.tick(0)
    plant.fleet.now_ns = s(3)
    again = next(b for b in decide(plant.fleet, SETTINGS, EPOCH + 1) if isinstance(b, Commands))
    assert set(again.epoch) == {EPOCH + 1}
    assert set(again.revision) == {revision(0)}
    assert set(again.attempt) == {2}


def test_a_device_in_two_resources_follows_the_lower_order_number() -> None:
    plant = Plant()
    half = np.arange(5, dtype=np.int32)
    plant.fleet.members["north"] = half
    plant.fleet.members["south"] = np.arange(3, 10, dtype=np.int32)
    plant.fleet.signals["north"] = Signal("north", 9, 0.2, 0.2, 1, s(100))
    plant.fleet.signals["south"] = Signal("south", 8, 0.6, 0.6, 1, s(100))
    sent = plant.tick(0)
    assert sent is not None
    assert sent.order_no.tolist() == [9, 9, 9] + [8] * 7


def test_whom_we_may_not_ask_so_often_is_asked_later_and_thought_no_worse_of() -> None:
    plant = Plant()
    plant.order(0.5)
    plant.tick(0)
    before = plant.fleet.refusals[3]
    plant.hold_back([3], 0.1, RATE)
    plant.answer([row for row in ALL if row != 3], 0.5)
    assert plant.fleet.excluded[3] == Exclusion.NONE
    assert plant.fleet.refusals[3] == before
    asked_s = [at_s for at_s in range(1, 6) if _asks(plant, at_s, 3)]
    assert asked_s == [3]
    plant.answer([3], 6)
    assert plant.phases()[3] == Phase.APPLIED


@pytest.mark.parametrize("rule", [HOLD, RATE])
@pytest.mark.parametrize("revert_s", [120.0, np.nan])
def test_a_release_that_was_held_back_follows_later(rule: str, revert_s: float) -> None:
    plant = Plant()
    plant.fleet.revert_s[:] = revert_s
    plant.order(0.5)
    plant.tick(0)
    plant.answer(ALL, 1)
    plant.order(0.0, order_no=0)
    held_s = 100
    for at_s in range(2, held_s):
        if plant.tick(at_s) is not None:
            plant.hold_back(ALL, at_s, rule)
    assert plant.phases() == [Phase.CANCELLED] * 10
    released_s = next(at_s for at_s in range(held_s, 200) if plant.tick(at_s) is not None)
    assert released_s <= held_s + 30
    plant.answer(ALL, released_s + 1)
    assert plant.phases() == [Phase.COMPLETED] * 10
    assert all(plant.tick(at_s) is None for at_s in range(released_s + 1, 400))


def test_a_device_without_a_timer_is_asked_until_it_has_let_go() -> None:
    plant = Plant()
    plant.fleet.revert_s[:] = np.nan
    plant.order(0.5)
    plant.tick(0)
    plant.answer(ALL, 1)
    plant.order(0.0, order_no=0)
    tries_s = [at_s for at_s in range(2, 1000) if plant.tick(at_s) is not None]
    assert tries_s[-1] > 960
    plant.answer(ALL, 1000)
    assert plant.tick(1100) is None


def test_a_device_without_a_timer_is_refreshed_all_the_same() -> None:
    plant = Plant()
    plant.fleet.revert_s[:] = np.nan
    plant.order(0.5)
    plant.tick(0)
    plant.answer(ALL, 0)
    asked_s = [at_s for at_s in range(1, 61) if _asks(plant, at_s, 2)]
    assert len(asked_s) > 0


@pytest.mark.parametrize("size", [0, 1])
def test_nothing_to_do_is_nothing_said(size: int) -> None:
    plant = Plant(size)
    assert plant.tick(0) is None
    assert replace(SETTINGS) == SETTINGS
