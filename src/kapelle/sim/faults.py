"""What goes wrong: who is out of reach and when, which messages get lost, late or doubled."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.random import Generator

from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints, Longs
from kapelle.sim.devices import Devices

By = Literal["vendor", "provider", "feeder", "gateway"]
Role = Literal["all", "gateway", "fleet", "dispatch"]
Paired = Literal["fleet", "dispatch"]
Silencing = Literal["paused", "cut-off"]

_NEVER_NS = np.iinfo(np.int64).max
_SPREAD = 0.8
"""Sigma of the log-normal times between and until repair."""
_NOTICE_S = (10.0, 30.0)
"""A broken connection is noticed when its keep-alive runs out. [s]"""
_RETURN_S = 10.0
"""Devices of a group that returns reconnect within this time. [s]"""


@dataclass(frozen=True, slots=True)
class GroupLoss:
    """All devices of a group lose their communications together."""

    by: By
    name: str
    at_s: float
    return_s: float | None = None
    """None: never."""
    stops: bool = False
    """Its devices go back to their own schedules at once, without waiting for their timers."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Two processes of a role are alive; the one that acts falls silent, and returns unaware.

    The other stands by from the start, as on another host, and takes over once the lease is out.
    """

    role: Paired
    at_s: float
    for_s: float
    how: Silencing = "paused"
    """`paused`: nothing of it runs, as after SIGSTOP; `cut-off`: it runs and the journal does not
    hear it."""


@dataclass(frozen=True, slots=True)
class Restart:
    """A role dies and comes back from the journal."""

    role: Role
    at_s: float
    down_s: float = 2.0


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The clock of the plant's host is set, by an operator or a bad time server."""

    at_s: float
    by_s: float


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The faults of a scenario; shares and probabilities 0-1."""

    dead_fraction: float = 0.0
    command_loss: float = 0.0
    ack_loss: float = 0.0
    command_latency_s: float = 0.3
    telemetry_delay_s: float = 0.2
    telemetry_loss: float = 0.0
    duplicate: float = 0.0
    late_fraction: float = 0.0
    late_s: float = 600.0
    skew_s: float = 0.0
    frozen_fraction: float = 0.0
    mtbf_s: float = 0.0
    mttr_s: float = 0.0
    opt_out: float = 0.0
    """Probability that an owner refuses a command."""
    sign_turned_fraction: float = 0.0
    """Devices whose power has the wrong sign; their registers are right."""
    kw_fraction: float = 0.0
    """Devices that send kW where W is meant."""
    one_way_fraction: float = 0.0
    """Devices that are heard and cannot hear."""
    contested_fraction: float = 0.0
    """Devices with a twin that connects with the same credential, in turns."""
    flapping_fraction: float = 0.0
    """Devices whose connection breaks and returns every `flap_s`."""
    flap_s: float = 20.0
    poison: float = 0.0
    """Probability that a report arrives as something nobody can read."""
    reset_fraction: float = 0.0
    """Devices that go back to the factory's state at `reset_s`: boot and numbers begin again."""
    reset_s: float = 60.0
    local_fraction: float = 0.0
    """Devices that somebody on site takes over at `local_s`; they say so."""
    local_s: float = 0.0
    register_reset_fraction: float = 0.0
    """Devices whose energy registers begin again at 0, at `reset_s`."""
    register_jitter_wh: float = 0.0
    """Registers now and then fall back by up to this. [Wh]"""
    register_rollover_wh: float = 0.0
    """Registers begin again at 0 when they reach this; 0: never. [Wh]"""
    group_loss: Sequence[GroupLoss] = field(default_factory=tuple)
    restart: Sequence[Restart] = field(default_factory=tuple)
    rival: Sequence[Rival] = field(default_factory=tuple)
    clock_step: Sequence[ClockStep] = field(default_factory=tuple)


class Faults:
    """Which devices can be reached, and the fate of each message. All of it seeded.

    A device without communications lives on: it keeps its physics and its revert timer.
    """

    def __init__(self, plan: FaultPlan, devices: Devices, rng: Generator, start_ns: int) -> None:
        n = len(devices)
        self.plan = plan
        """What goes wrong with messages now."""
        self._rng = rng
        self._start_ns = start_ns
        self.skew_ns: Longs = np.round(rng.normal(0.0, plan.skew_s, size=n) * NS_PER_S).astype(
            np.int64
        )
        self.frozen = _chosen(plan.frozen_fraction, n, rng)
        self._doomed = _chosen(plan.dead_fraction, n, rng)
        self.dead = np.zeros(n, np.bool_)
        self._down = np.zeros(n, np.bool_)
        self._changes_ns = np.full(n, _NEVER_NS)
        if plan.mtbf_s > 0:
            # The first outage falls anywhere in a first life, not all at once.
            life_s = self._lasts(plan.mtbf_s, n) * rng.random(n)
            self._changes_ns = start_ns + (life_s * NS_PER_S).astype(np.int64)
        self._groups = [
            (loss, np.array([name == loss.name for name in devices.groups(loss.by)], np.bool_))
            for loss in plan.group_loss
        ]
        self._return_jitter_ns = (rng.random(n) * _RETURN_S * NS_PER_S).astype(np.int64)
        self._notice_ns = (rng.uniform(*_NOTICE_S, size=n) * NS_PER_S).astype(np.int64)
        self.reachable = np.ones(n, np.bool_)
        self._since_ns = np.zeros(n, np.int64)
        # What came later draws from a stream of its own, so that old seeds stay what they were.
        self._more = more = rng.spawn(1)[0]
        self.sign_turned = _chosen(plan.sign_turned_fraction, n, more)
        self.in_kw = _chosen(plan.kw_fraction, n, more)
        self.deaf = _chosen(plan.one_way_fraction, n, more)
        self.contested = _chosen(plan.contested_fraction, n, more)
        self.flapping = _chosen(plan.flapping_fraction, n, more)
        self.resets = _chosen(plan.reset_fraction, n, more)
        self.register_resets = _chosen(plan.register_reset_fraction, n, more)
        self._local = _chosen(plan.local_fraction, n, more)
        self._local_ns = start_ns + round(plan.local_s * NS_PER_S)
        self._turn_ns = (more.random(n) * plan.flap_s * NS_PER_S).astype(np.int64)
        self._flap_ns = max(1, round(plan.flap_s * NS_PER_S))

    @property
    def lying(self) -> Flags:
        """Return whose power readings cannot be: the plant may refuse them."""
        return self.sign_turned | self.in_kw

    def kill(self) -> None:
        """Let the doomed fall silent for good: they obey nothing and say nothing."""
        self.dead = self._doomed.copy()

    def calm(self) -> None:
        """Let everything work from here on, but for devices that are dead and clocks that err."""
        self.plan = FaultPlan()
        self._groups = []
        for link in (self.deaf, self.contested, self.flapping):
            link[:] = False
        self._down[:] = False
        self._changes_ns[:] = _NEVER_NS

    def step(self, now_ns: int) -> tuple[Ints, Ints]:
        """Advance all outages; return who was just lost and who just came back."""
        due = np.flatnonzero(self._changes_ns <= now_ns)
        if len(due):
            self._down[due] = ~self._down[due]
            mean_s = np.where(self._down[due], self.plan.mttr_s, self.plan.mtbf_s)
            lasts_s = self._lasts(1.0, len(due)) * mean_s
            self._changes_ns[due] = now_ns + np.maximum(lasts_s * NS_PER_S, 1).astype(np.int64)
        reachable = ~(self.dead | self._down)
        for loss, members in self._groups:
            reachable &= ~(members & self._lost(loss, now_ns))
        lost = np.flatnonzero(self.reachable & ~reachable).astype(np.int32)
        back = np.flatnonzero(~self.reachable & reachable).astype(np.int32)
        self._since_ns[lost] = now_ns
        self.reachable = reachable
        return lost, back

    def stopped(self, lost: Ints, now_ns: int) -> Ints:
        """Return which of the devices just lost go back to their own schedules at once."""
        stopping = np.zeros(len(self.dead), np.bool_)
        for loss, members in self._groups:
            if loss.stops:
                stopping |= members & self._lost(loss, now_ns)
        return lost[stopping[lost]]

    def _lost(self, loss: GroupLoss, now_ns: int) -> Flags:
        at_ns = self._start_ns + round(loss.at_s * NS_PER_S)
        gone = np.full(len(self.dead), now_ns >= at_ns)
        if loss.return_s is not None:
            back_ns = self._start_ns + round(loss.return_s * NS_PER_S)
            gone &= now_ns < back_ns + self._return_jitter_ns
        return gone

    def noticed(self, now_ns: int) -> Flags:
        """Return whose broken connection the plant's end has noticed by now."""
        silent: Flags = ~self.reachable & (now_ns >= self._since_ns + self._notice_ns)
        return silent

    def local(self, now_ns: int) -> Flags:
        """Return which devices somebody on site has taken over."""
        return self._local & (now_ns >= self._local_ns)

    def hears(self, now_ns: int) -> Flags:
        """Return which devices hear what is sent to them, where they can be reached."""
        heard: Flags = ~self.deaf & ~(self.contested & self._odd_turn(now_ns))
        return heard

    def turns(self, before_ns: int, now_ns: int) -> Flags:
        """Return whose connection is taken over by a twin, or breaks, in this step."""
        turned: Flags = self._turn(before_ns) != self._turn(now_ns)
        return turned & (self.contested | self.flapping)

    def _odd_turn(self, now_ns: int) -> Flags:
        odd: Flags = self._turn(now_ns) % 2 == 1
        return odd

    def _turn(self, now_ns: int) -> Longs:
        turn: Longs = (now_ns - self._start_ns + self._turn_ns) // self._flap_ns
        return turn

    def poisoned(self, size: int) -> Flags:
        """Return which of some reports nobody can read."""
        if self.plan.poison <= 0:
            return np.zeros(size, np.bool_)
        spoilt: Flags = self._more.random(size) < self.plan.poison
        return spoilt

    def jitter_wh(self, size: int) -> Floats:
        """Draw how far registers fall back: 0 for nine of ten."""
        falls = self._more.random(size) < 0.1
        fell: Floats = falls * self._more.random(size) * self.plan.register_jitter_wh
        return fell

    def _lasts(self, mean_s: float, size: int) -> Floats:
        """Draw log-normal durations with this mean."""
        drawn: Floats = mean_s * self._rng.lognormal(-(_SPREAD**2) / 2, _SPREAD, size=size)
        return drawn

    def delivered(self, loss: float, size: int) -> Flags:
        """Return which of some messages are not lost."""
        if loss <= 0:
            return np.ones(size, np.bool_)
        kept: Flags = self._rng.random(size) >= loss
        return kept

    def doubled(self, size: int) -> Flags:
        """Return which of some messages travel twice."""
        if self.plan.duplicate <= 0:
            return np.zeros(size, np.bool_)
        twice: Flags = self._rng.random(size) < self.plan.duplicate
        return twice

    def delay_ns(self, mean_s: float, size: int) -> Longs:
        """Draw exponential latencies."""
        return (self._rng.exponential(mean_s, size=size) * NS_PER_S).astype(np.int64)

    def held_back_ns(self, size: int) -> Longs:
        """Return how long each report is held back by its device: 0 for nearly all."""
        if self.plan.late_fraction <= 0:
            return np.zeros(size, np.int64)
        late = self._rng.random(size) < self.plan.late_fraction
        held_s = np.where(late, self.plan.late_s * self._rng.uniform(0.5, 1.5, size=size), 0.0)
        return (held_s * NS_PER_S).astype(np.int64)


def _chosen(share: float, n: int, rng: Generator) -> Flags:
    """Choose an exact share of n devices."""
    chosen = np.zeros(n, np.bool_)
    chosen[rng.permutation(n)[: round(share * n)]] = True
    return chosen
