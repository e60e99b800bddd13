"""All devices of one protocol, as the process that plays them needs them.

What every protocol shares is here: what a party is given, what it must do, what it counts, and how
a setpoint that bears no revision becomes a command.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from kapelle.config import Config
from kapelle.model.blocks import Commands
from kapelle.model.ids import NS_PER_S, Ints
from kapelle.sim.agents import NEVER_NS, Answers
from kapelle.sim.devices import Devices
from kapelle.sim.peers.messages import Start
from kapelle.sim.telemetry import Reports

_ROOM_MAX = 100_000
_WAITS_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Ground:
    """What a party stands on."""

    start: Start
    protocol: str
    devices: Devices
    rows: Ints
    """The devices that are its own, of those."""
    rng: random.Random
    now_ns: Callable[[], int]

    @property
    def names(self) -> list[str]:
        """Return the names of its devices."""
        return [self.devices.enrolled.device_id[row].decode() for row in self.rows.tolist()]

    @property
    def secrets(self) -> list[str]:
        """Return the secrets of its devices; empty for those that stay out."""
        return [self.start.secrets.get(name, "") for name in self.names]


@dataclass(slots=True)
class Tally:
    """What happened to all devices of a party together."""

    published: int = 0
    acked: int = 0
    repeated: int = 0
    forgotten: int = 0
    commands: int = 0
    unreadable: int = 0
    connects: int = 0
    refused: int = 0
    drops: int = 0
    waits_s: list[float] = field(default_factory=list)
    """How long publications waited for their acknowledgement, since it was last emptied."""

    def wait(self, waited_s: float) -> None:
        """Note an acknowledgement, and how long it took."""
        self.acked += 1
        if len(self.waits_s) < _WAITS_MAX:
            self.waits_s.append(waited_s)


class Party(Protocol):
    """All devices of one protocol. Rows are places in the fleet."""

    is_read: bool
    """Others ask its devices when they like: they are told what is measured at every step."""

    async def run(self) -> None:
        """Keep the devices connected until cancelled."""

    def say(self, reports: Reports) -> None:
        """Send what devices measure, or show it to whoever reads them."""

    def answer(self, answers: Answers, at_ns: int) -> None:
        """Answer commands, where the protocol says more than that one arrived."""

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """Return the commands that arrived since this was last asked, and whose they are."""

    def lose(self, rows: Sequence[int], share_deaf: float) -> None:
        """Take devices off the network; a share stays half open where the protocol can."""

    def bring_back(self, rows: Sequence[int], within_s: float) -> None:
        """Give devices their network back, each at its own moment."""

    def leave(self) -> None:
        """Close what is open."""

    def connected(self) -> int:
        """Return how many devices have a session with the plant."""

    def tally(self) -> Tally:
        """Return what happened so far."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where a plant and the devices of a protocol are to meet."""

    directory: Path
    """For files both sides need."""
    port: int
    """Free on the loopback: for devices that are called by the plant, through a server of theirs.
    What calls the plant is told the port of its adapter instead."""
    names: tuple[str, ...]
    """Of the devices, in the order of their rows."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """What a plant needs to hear the devices of a protocol."""

    config: Config
    addresses: tuple[str, ...] = ()
    """How the protocol calls each device; empty: as the plant does."""


class Side(Protocol):
    """A module that plays the devices of one protocol."""

    def configured(self, config: Config, meeting: Meeting) -> Hearing:
        """Add to a plant's configuration what it needs to hear them."""

    def party(self, ground: Ground) -> Party:
        """Return the devices, for the process that plays them."""


class Setpoints:
    """Turns setpoints without revision or epoch into commands, numbered as they arrive."""

    def __init__(self, rows: Ints) -> None:
        self._rows = rows.tolist()
        self._number = 0
        self._arrived: list[tuple[int, int, float, int]] = []
        self.count = 0

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        """Keep a setpoint for the next step; `index` is the device's place in its party."""
        if len(self._arrived) < _ROOM_MAX:
            self.count += 1
            self._number += 1
            self._arrived.append((self._rows[index], self._number, setpoint_w, until_ns))

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """Return what arrived, in order; each stands until its protocol's revert takes it back."""
        arrived, self._arrived = self._arrived, []
        n = len(arrived)
        rows = np.array([row for row, *_ in arrived], np.int32)
        until_ns = np.array([until for *_, until in arrived], np.int64)
        block = Commands(
            device_no=rows,
            order_no=np.zeros(n, np.int32),
            revision=np.array([number for _, number, *_ in arrived], np.int64),
            epoch=np.zeros(n, np.int64),
            attempt=np.ones(n, np.int32),
            setpoint_w=np.array([watts for _, _, watts, _ in arrived], np.float64),
            issued_at_ns=np.full(n, now_ns),
            not_after_ns=np.full(n, NEVER_NS),
            ttl_s=np.full(n, np.inf),
            revert_s=np.maximum(until_ns - now_ns, 0) / NS_PER_S,
        )
        return rows, block
