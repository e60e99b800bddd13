"""What is under way between devices and plant: messages that arrive at their own times."""

from collections import defaultdict
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from kapelle.model.ids import Flags, Ints, Longs


class Sliceable(Protocol):
    """A block that can be cut by rows."""

    def __len__(self) -> int: ...

    def where(self, keep: Flags) -> Self:
        """Return some of the rows."""


Messages = TypeVar("Messages", bound=Sliceable)


class Air(Generic[Messages]):
    """Messages in flight, sorted into slots of time. What is put in comes out once, when due."""

    def __init__(self, start_ns: int, slot_ns: int) -> None:
        self._start_ns = start_ns
        self._slot_ns = slot_ns
        self._slots: dict[int, list[tuple[Messages, Longs]]] = defaultdict(list)
        self._taken = 0

    def put(self, messages: Messages, arrives_ns: Longs) -> None:
        """Let a block fly; each row arrives at its own time."""
        if not len(messages):
            return
        slots: Longs = -((self._start_ns - arrives_ns) // self._slot_ns)
        np.maximum(slots, self._taken + 1, out=slots)
        # Mostly a handful of rows, for which a set is far quicker than np.unique.
        places = sorted(set(slots.tolist()))
        if len(places) == 1:
            self._slots[places[0]].append((messages, arrives_ns))
            return
        for slot in places:
            mine: Flags = slots == slot
            self._slots[slot].append((messages.where(mine), arrives_ns[mine]))

    def take(self, now_ns: int) -> list[tuple[Messages, Longs]]:
        """Return what has arrived by now, with the times of arrival."""
        arrived: list[tuple[Messages, Longs]] = []
        last = (now_ns - self._start_ns) // self._slot_ns
        for slot in range(self._taken + 1, last + 1):
            arrived += self._slots.pop(slot, ())
        self._taken = max(self._taken, last)
        return arrived


def index_of(device_no: Ints) -> Ints:
    """Return a table from device number to place; -1 where nobody bears the number."""
    table = np.full(int(device_no.max(initial=-1)) + 1, -1, np.int32)
    table[device_no] = np.arange(len(device_no), dtype=np.int32)
    return table
