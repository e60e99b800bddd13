"""How soon the lost are replaced, counted from entries: one time per device and loss."""

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.redispatch import Redispatch
from kapelle.model.blocks import Phases
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.enums import Exclusion, Freshness, Phase
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Tick
from kapelle.model.signals import Signal

START_S = 1_000


def s(seconds: float) -> int:
    return int((START_S + seconds) * NS_PER_S)


class Partition:
    """Four devices that were asked at 0 s, and what is told about them."""

    def __init__(self) -> None:
        fleet = self.fleet = Fleet.empty(0, 1, 4)
        fleet.reserve(4)
        fleet.now_ns = s(0)
        fleet.active[:] = fleet.connected[:] = True
        fleet.freshness[:] = Freshness.LIVE
        fleet.heard_at_ns[:] = fleet.planned_at_ns[:] = fleet.tried_at_ns[:] = s(0)
        fleet.order_no[:], fleet.desired_w[:], fleet.revision[:] = 7, 1000.0, 1
        fleet.phase[:], fleet.not_after_ns[:] = Phase.SENT, s(5)
        self.told, self.position = Redispatch(), 0
        self.say(Signal("all", 7, 0.5, 0.5, 1, s(900)))

    def say(self, body: Body) -> None:
        self.position += 1
        self.told.note(self.fleet, body)
        kind = KIND_OF[type(body)]
        apply_entry(self.fleet, Entry("p/0", self.position, kind, "x", 1, 0, body))

    def sent(self, at_s: float) -> None:
        row, ns = np.array([0], np.int32), np.array([s(at_s)])
        self.say(Phases(row, np.ones(1, np.int64), np.array([Phase.SENT], np.uint8), ns))


def test_a_device_that_never_answered_is_timed_from_its_command_to_the_next_that_is_sent() -> None:
    part = Partition()
    part.fleet.excluded[2] = Exclusion.UNKNOWN
    part.fleet.phase[2] = Phase.UNKNOWN
    part.say(Tick(s(5)))
    part.say(Signal("all", 7, 0.6, 0.6, 1, s(900)))
    part.sent(5.2)
    assert not part.told.latest_s, "it may still act: nobody takes its place yet"
    part.say(Tick(s(6)))
    part.sent(6.1)
    assert not part.told.latest_s, "this command knows nothing of it"
    part.say(Signal("all", 7, 0.7, 0.7, 1, s(900)))
    part.sent(6.3)
    assert list(part.told.latest_s) == [6.3]
    part.say(Tick(s(7)))
    part.say(Signal("all", 7, 0.8, 0.8, 1, s(900)))
    part.sent(7.3)
    assert part.told.took.count == 1, "once per loss"


def test_a_silent_device_is_lost_when_its_timer_ends() -> None:
    part = Partition()
    fleet = part.fleet
    fleet.phase[:], fleet.applied_at_ns[:], fleet.reverts_at_ns[:] = Phase.APPLIED, s(0), s(300)
    fleet.reverts_at_ns[1] = s(20)
    fleet.connected[1] = False
    for at_s in range(1, 22):
        part.say(Tick(s(at_s)))
        part.say(Signal("all", 7, at_s / 100, 0.5, 1, s(900)))
    part.sent(21.5)
    # Levels that followed the tick at which its timer was over; nobody here had to be told.
    assert list(part.told.latest_s) == [0.0]


def test_without_an_order_nobody_is_replaced() -> None:
    part = Partition()
    part.fleet.signals.clear()
    part.fleet.excluded[2] = Exclusion.UNKNOWN
    part.say(Tick(s(6)))
    part.say(Signal("all", 0, 0.0, 0.0, 1, s(900)))
    part.sent(6.3)
    assert not part.told.latest_s
