"""How many commands come to each stage, and how long it takes, counted as entries are applied."""

from dataclasses import dataclass, field

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.redispatch import Redispatch
from kapelle.model.blocks import Acks, Commands, Phases
from kapelle.model.entries import Body
from kapelle.model.enums import AckStatus, Phase
from kapelle.model.ids import NS_PER_S, Bytes, Ints, Longs
from kapelle.runtime.histogram import Histogram

BOUNDS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
TIMED = (Phase.SENT, Phase.RECEIVED, Phase.ACCEPTED, Phase.APPLIED, Phase.VERIFIED)
GIVEN_UP = (Phase.REJECTED, Phase.OPTED_OUT, Phase.UNKNOWN, Phase.DIVERGED, Phase.LOST)
"""Phases whose share of the target goes to other devices."""
_PHASE_OF = np.zeros(max(AckStatus) + 1, np.uint8)
for _status in AckStatus:
    _PHASE_OF[_status] = Phase[_status.name]


@dataclass(slots=True)
class Timings:
    """Counters of this process; no part of the state."""

    entered: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(Phase, 0))
    """Commands that entered each phase."""
    took: dict[Phase, Histogram] = field(
        default_factory=lambda: {phase: Histogram(BOUNDS_S) for phase in TIMED}
    )
    """From planning to each stage. [s]"""
    redispatch: Redispatch = field(default_factory=Redispatch)
    """From the loss of devices to the sending of their replacement."""

    def note(self, fleet: Fleet, body: Body) -> None:
        """Count what an entry brings, just before it is applied."""
        self.redispatch.note(fleet, body)
        match body:
            case Commands() as commands:
                # A retry repeats a revision; a refresh and a release are commands of their own.
                rows = (commands.device_no // fleet.partitions).astype(np.intp)
                known = rows < fleet.size
                new = commands.revision[known] > fleet.revision[rows[known]]
                self.entered[Phase.PLANNED] += int(np.count_nonzero(new))
            case Phases() as phases:
                self._note(fleet, phases.device_no, phases.revision, phases.phase, phases.at_ns)
            case Acks() as acks:
                phase = _PHASE_OF[acks.status]
                self._note(fleet, acks.device_no, acks.revision, phase, acks.at_ns)
            case _:
                pass

    def _note(
        self, fleet: Fleet, device_no: Ints, revision: Longs, phase: Bytes, at_ns: Longs
    ) -> None:
        rows = (device_no // fleet.partitions).astype(np.intp)
        known = np.flatnonzero(rows < fleet.size)
        rows = rows[known]
        current = (revision[known] == fleet.revision[rows]) & (fleet.phase[rows] != phase[known])
        rows, which = rows[current], known[current]
        took_s = (at_ns[which] - fleet.planned_at_ns[rows]) / NS_PER_S
        for number in np.unique(phase[which]).tolist():
            here = phase[which] == number
            entered = Phase(number)
            self.entered[entered] += int(np.count_nonzero(here))
            histogram = self.took.get(entered)
            if histogram is not None:
                seconds = np.maximum(took_s[here], 0.0)
                places = np.searchsorted(BOUNDS_S, seconds, side="left")
                counts = np.bincount(places, minlength=len(BOUNDS_S) + 1).tolist()
                histogram.counts = [a + b for a, b in zip(histogram.counts, counts, strict=True)]
                histogram.sum += float(seconds.sum())
