"""What the gate remembers, and what it takes note of besides commands: time, owners, devices."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kapelle.model.blocks import Commands
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints
from kapelle.ports import Directory, Places
from kapelle.safety.authority import OrderBook
from kapelle.safety.limits import Ledger
from kapelle.safety.passed import Passed
from kapelle.safety.plausibility import TripWire
from kapelle.safety.rates import Rates
from kapelle.safety.settings import LEVELS, SafetySettings

_SETTLE_NS = NS_PER_S
"""Setpoints that have run out are taken off the sums this often."""
_NARROWEST_FIRST = (*reversed(LEVELS), "plant")


class Known(NamedTuple):
    """What the registry knows of the devices of a block."""

    nameplate_w: tuple[Floats, Floats]
    """Highest power towards export and towards consumption; NaN: not enrolled."""
    places: Places


@dataclass(slots=True, eq=False)
class GateState:
    """What the gate remembers."""

    held: bool = False
    hold_reason: str = ""
    now_ns: int = 0
    """The latest time it was told."""
    epochs: dict[int, int] = field(default_factory=dict)
    """Highest epoch seen of each partition's owner."""
    passed: Passed = field(default_factory=Passed)
    rates: Rates = field(default_factory=Rates)
    orders: OrderBook = field(default_factory=OrderBook)
    ledgers: list[Ledger] = field(default_factory=list)
    """Of each configured limit, the narrowest first."""
    trip_wire: TripWire = field(default_factory=TripWire)
    tripped: str = ""
    """Why the gate has just held the plant by itself, until somebody has taken note."""
    settled_ns: int = 0
    version: int = -1
    """Of the directory the ledgers know."""

    @classmethod
    def of(cls, settings: SafetySettings) -> "GateState":
        """Return the state of a gate that has passed nothing yet."""
        limits = sorted(settings.limits, key=lambda each: _NARROWEST_FIRST.index(each.level))
        return cls(ledgers=[Ledger(limit) for limit in limits])


def rearm(state: GateState) -> None:
    """End a hold. What tripped the wire was seen by whoever lifts it, and is forgotten."""
    state.held, state.hold_reason, state.tripped = False, "", ""
    state.trip_wire = TripWire()


def know(state: GateState, directory: Directory, device_no: Ints) -> Known:
    """Return what the directory says of devices; the ledgers hear of it where it has changed."""
    if state.version != directory.version:
        for ledger in state.ledgers:
            ledger.know(directory, state.passed)
        state.version = directory.version
        # Standing power is added up anew: devices may have come under another limit.
        state.settled_ns = 0
    return Known(directory.nameplate(device_no), directory.places(device_no))


def go_on(state: GateState, now_ns: int) -> None:
    """Take note that it is this late, though nobody asks: time does not go back on a restart."""
    now_ns = state.now_ns = max(state.now_ns, now_ns)
    state.rates.advance(now_ns)
    state.orders.advance(now_ns)
    state.trip_wire.advance(now_ns)
    for ledger in state.ledgers:
        ledger.advance(now_ns)
    if now_ns - state.settled_ns >= _SETTLE_NS:
        state.settled_ns = now_ns
        state.trip_wire.settle(state.passed, now_ns)
        for ledger in state.ledgers:
            ledger.settle(state.passed, now_ns)


def note_owners(state: GateState, commands: Commands, is_known: Flags, partitions: int) -> Flags:
    """Take note of who owns partitions; tell which commands are of a writer of the past."""
    stale = np.zeros(len(commands), np.bool_)
    partition = commands.device_no % partitions
    for each in np.unique(partition).tolist():
        mine = partition == each
        # A row of nobody's proves no ownership.
        newest = commands.epoch[mine & is_known].max(initial=0)
        highest = max(state.epochs.get(each, 0), int(newest))
        state.epochs[each] = highest
        stale |= mine & (commands.epoch < highest)
    return stale
