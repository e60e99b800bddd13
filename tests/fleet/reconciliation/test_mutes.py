"""A muted device shows it for as long as it lasts, and is told of once an episode."""

import numpy as np
import pytest

from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.snapshots import digest, from_snapshot, to_snapshot
from kapelle.model.blocks import Mutings
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.enums import Condition
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Tick

START_S = 1_790_000_000


class Plant:
    def __init__(self, partitions: int = 1, partition: int = 0) -> None:
        self.fleet = Fleet.empty(partition, partitions)
        self.fleet.reserve(4)
        self.fleet.active[:4] = True
        self.codes: list[str] = []

    def say(self, body: Body) -> None:
        position = self.fleet.position + 1
        apply_entry(self.fleet, Entry("p/0", position, KIND_OF[type(body)], "owner", 1, 0, body))

    def until(self, second: int) -> None:
        for now_s in range(self.fleet.now_ns // NS_PER_S + 1 or START_S, START_S + second + 1):
            self.say(Tick(now_s * NS_PER_S))
            self.codes += [notice.code for notice in self.fleet.notices]

    def mute(self, device_no: list[int], at_s: int, until_s: int) -> None:
        count = len(device_no)
        at_ns = np.full(count, (START_S + at_s) * NS_PER_S, np.int64)
        until_ns = np.full(count, (START_S + until_s) * NS_PER_S, np.int64)
        self.say(Mutings(np.array(device_no, np.int32), at_ns, until_ns))

    def muted(self) -> list[int]:
        return np.flatnonzero(self.fleet.condition[:4] & Condition.MUTED).tolist()


def begun() -> Plant:
    plant = Plant()
    plant.say(Tick(START_S * NS_PER_S))
    return plant


def test_it_ends_by_itself_and_is_told_once() -> None:
    plant = begun()
    plant.mute([2, 99], 0, 300)
    assert plant.muted() == [2]
    plant.until(290)
    # Still bad: muted again, which is the same episode.
    plant.mute([2], 290, 590)
    plant.until(580)
    assert plant.muted() == [2]
    plant.until(610)
    assert plant.muted() == []
    assert plant.codes == ["condition-raised"]
    plant.until(1300)
    assert plant.codes == ["condition-raised", "condition-cleared"]


def test_unmuted_by_hand() -> None:
    plant = begun()
    plant.mute([1, 2, 1], 0, 300)
    plant.mute([1], 5, 5)
    assert plant.muted() == [2]


def test_a_restart_in_between_changes_nothing() -> None:
    plant = begun()
    plant.mute([3], 0, 300)
    plant.until(100)
    again = Plant()
    again.fleet = from_snapshot(to_snapshot(plant.fleet))
    for each in (plant, again):
        each.until(400)
    assert plant.muted() == again.muted() == []
    assert digest(plant.fleet) == digest(again.fleet)


@pytest.mark.parametrize("partitions", [2, 4])
def test_its_partition_does_not_matter(partitions: int) -> None:
    plant = Plant(partitions, 1)
    plant.say(Tick(START_S * NS_PER_S))
    plant.mute([1 + 2 * partitions], 0, 300)
    assert plant.muted() == [2]
