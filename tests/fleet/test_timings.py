"""Commands are counted once per stage, and timed from the moment they were planned."""

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.timings import Timings
from kapelle.model.blocks import Acks, Commands, Phases
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.enums import AckStatus, Phase
from kapelle.model.ids import NS_PER_S

START = 1_790_000_000 * NS_PER_S


def test_stages_of_a_command_and_its_retry() -> None:
    fleet, timings = Fleet.empty(capacity=4), Timings()
    fleet.size = 4
    fleet.active[:4] = True
    fleet.now_ns = START
    position = 0

    def say(body: Body) -> None:
        nonlocal position
        position += 1
        timings.note(fleet, body)
        apply_entry(fleet, Entry("p/0", position, KIND_OF[type(body)], "owner", 1, START, body))

    def commands(attempt: int) -> Commands:
        ints, longs = np.arange(2, dtype=np.int32), np.full(2, 7, np.int64)
        ahead = np.full(2, START + 60 * NS_PER_S, np.int64)
        return Commands(
            ints, np.ones(2, np.int32), longs, np.ones(2, np.int64),
            np.full(2, attempt, np.int32), np.full(2, 100.0), np.full(2, START, np.int64), ahead,
            np.full(2, 60.0), np.full(2, 300.0),
        )  # fmt: skip

    def phases(phase: Phase, after_s: float, devices: int = 2) -> Phases:
        return Phases(
            np.arange(devices, dtype=np.int32), np.full(devices, 7, np.int64),
            np.full(devices, phase, np.uint8),
            np.full(devices, START + int(after_s * NS_PER_S), np.int64),
        )  # fmt: skip

    say(commands(1))
    say(commands(2))
    assert timings.entered[Phase.PLANNED] == 2, "a retry is the same command"
    say(phases(Phase.SENT, 0.3))
    say(phases(Phase.SENT, 1.3))
    assert timings.entered[Phase.SENT] == 2
    assert timings.took[Phase.SENT].count == 2
    assert abs(timings.took[Phase.SENT].sum - 0.6) < 1e-9
    ack = Acks(
        np.array([0, 3, 99], np.int32), np.full(3, 7, np.int64), np.ones(3, np.int64),
        np.full(3, AckStatus.ACCEPTED, np.uint8), np.full(3, START + 4 * NS_PER_S, np.int64),
        (b"",) * 3,
    )  # fmt: skip
    say(ack)
    assert timings.entered[Phase.ACCEPTED] == 1, "neither another revision nor an unknown device"
    assert timings.took[Phase.ACCEPTED].sum == 4.0
    say(phases(Phase.UNKNOWN, 9.0, devices=1))
    assert timings.entered[Phase.UNKNOWN] == 1
