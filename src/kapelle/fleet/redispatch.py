"""How long it takes from a device's loss until commands for its replacement are sent (R-18).

Counted where entries are applied, once per device and loss; no part of the state. A device is lost
with the command it never answered, from when that was planned; one that answered goes on delivering
until its timer ends, so it is lost from then on. It counts as replaced with the first commands that
go out after levels were solved without it and without what it might still have done. Where others
made up for it ahead of that, within the budget, the time told is longer than it was.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve.trust import controllable
from kapelle.fleet.desired import in_force
from kapelle.fleet.doubt import ANSWER_S
from kapelle.model.blocks import Phases
from kapelle.model.entries import Body
from kapelle.model.enums import Exclusion, Phase
from kapelle.model.ids import NS_PER_S, Flags, Ints, Longs
from kapelle.model.plant import Tick
from kapelle.model.signals import Signal
from kapelle.runtime.histogram import Histogram

BOUNDS_S = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 13.0, 20.0, 30.0, 60.0, 125.0, 300.0)
_KEPT = 4096


@dataclass(slots=True)
class _Waiting:
    """What one partition has lost."""

    counted: Flags = field(default_factory=lambda: np.zeros(0, np.bool_))
    """By row: lost, and noted as such."""
    since_ns: list[Longs] = field(default_factory=list)
    """Of those lost and not replaced yet."""
    is_solved: bool = False
    """Whether levels came that were solved without them."""


@dataclass(slots=True)
class Redispatch:
    """Latencies of this process."""

    took: Histogram = field(default_factory=lambda: Histogram(BOUNDS_S))
    latest_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """The newest, one by one. [s]"""
    _waiting: dict[int, _Waiting] = field(default_factory=dict)

    def note(self, fleet: Fleet, body: Body) -> None:
        """Take up what an entry brings, just before it is applied."""
        waiting = self._waiting.setdefault(fleet.partition, _Waiting())
        match body:
            case Tick() as tick:
                if waiting.since_ns and waiting.is_solved:
                    # Nobody here had to be told anything: others have sent meanwhile.
                    self._replaced(waiting, fleet.now_ns)
                _look(fleet, waiting, tick.now_ns)
            case Signal() as signal:
                waiting.is_solved = bool(waiting.since_ns) and signal.order_no != 0
            case Phases() as phases if waiting.since_ns and waiting.is_solved:
                sent_ns = phases.at_ns[phases.phase == Phase.SENT]
                if len(sent_ns):
                    self._replaced(waiting, int(sent_ns.min()))
            case _:
                pass

    def _replaced(self, waiting: _Waiting, at_ns: int) -> None:
        took_s = np.maximum(at_ns - np.concatenate(waiting.since_ns), 0) / NS_PER_S
        places = np.searchsorted(BOUNDS_S, took_s, side="left")
        counts = np.bincount(places, minlength=len(BOUNDS_S) + 1).tolist()
        self.took.counts = [a + b for a, b in zip(self.took.counts, counts, strict=True)]
        self.took.sum += float(took_s.sum())
        self.latest_s.extend(took_s.tolist())
        waiting.since_ns, waiting.is_solved = [], False


def _look(fleet: Fleet, waiting: _Waiting, now_ns: int) -> None:
    """Find who was lost since the tick before."""
    size = fleet.size
    if not in_force(fleet):
        waiting.counted = np.zeros(0, np.bool_)
        waiting.since_ns = []
        return
    asked = (fleet.order_no[:size] != 0) & ~np.isnan(fleet.desired_w[:size])
    lost = np.zeros(size, np.bool_)
    rows = np.flatnonzero(asked).astype(np.int32)
    rows = rows[~controllable(fleet, rows)]
    lost[rows[_is_over(fleet, rows, now_ns)]] = True
    before = np.zeros(size, np.bool_)
    before[: len(waiting.counted)] = waiting.counted[:size]
    new = np.flatnonzero(lost & ~before).astype(np.int32)
    if len(new):
        waiting.since_ns.append(_since_ns(fleet, new))
        waiting.is_solved = False
    waiting.counted = lost


def _is_over(fleet: Fleet, rows: Ints, now_ns: int) -> Flags:
    """Tell of whom nothing can be expected any more: neither a setpoint held nor one obeyed."""
    silent = fleet.excluded[rows] == Exclusion.UNKNOWN
    silent |= fleet.excluded[rows] == Exclusion.NONE
    ends_ns = fleet.not_after_ns[rows] + int(ANSWER_S * NS_PER_S)
    over: Flags = silent & (fleet.reverts_at_ns[rows] <= now_ns)
    over &= (fleet.applied_at_ns[rows] > 0) | (ends_ns <= now_ns)
    return over


def _since_ns(fleet: Fleet, rows: Ints) -> Longs:
    """Return since when each is lost: its timer's end, or the command it never answered."""
    held = fleet.reverts_at_ns[rows] > fleet.planned_at_ns[rows]
    since_ns: Longs = np.where(held, fleet.reverts_at_ns[rows], fleet.planned_at_ns[rows])
    return since_ns
