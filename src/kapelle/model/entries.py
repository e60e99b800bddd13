"""One entry of the journal."""

from dataclasses import dataclass
from enum import IntEnum, unique

from kapelle.model import blocks, orders, plant, signals, summaries
from kapelle.model.blocks import Block
from kapelle.model.plant import Small

Body = Block | Small


@unique
class Kind(IntEnum):
    """What an entry's body is. Numbers are stored and never reused."""

    READINGS = 1
    QUARANTINED = 2
    SESSIONS = 3
    ENROLLED = 4
    COMMANDS = 5
    ACKS = 6
    PHASES = 7
    MUTINGS = 8
    TICK = 20
    MEMBERS = 21
    SIGNAL = 22
    SUMMARY = 23
    ORDER = 24
    AMEND = 25
    CANCEL = 26
    HOLD = 27
    PLAN = 28
    NOTICE = 29
    CORRECTION = 30
    VERDICT = 31
    PROSPECT = 32
    ENVELOPES = 33


BODY_OF: dict[Kind, type[Body]] = {
    Kind.READINGS: blocks.Readings,
    Kind.QUARANTINED: blocks.Quarantined,
    Kind.SESSIONS: blocks.Sessions,
    Kind.ENROLLED: blocks.Enrolled,
    Kind.COMMANDS: blocks.Commands,
    Kind.ACKS: blocks.Acks,
    Kind.PHASES: blocks.Phases,
    Kind.MUTINGS: blocks.Mutings,
    Kind.TICK: plant.Tick,
    Kind.MEMBERS: plant.Members,
    Kind.SIGNAL: signals.Signal,
    Kind.SUMMARY: summaries.Summary,
    Kind.ORDER: orders.Order,
    Kind.AMEND: orders.Amend,
    Kind.CANCEL: orders.Cancel,
    Kind.HOLD: orders.Hold,
    Kind.PLAN: orders.Plan,
    Kind.NOTICE: plant.Notice,
    Kind.CORRECTION: plant.Correction,
    Kind.VERDICT: plant.Verdict,
    Kind.PROSPECT: orders.Prospect,
    Kind.ENVELOPES: plant.Envelopes,
}
KIND_OF: dict[type[Body], Kind] = {body: kind for kind, body in BODY_OF.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened, at its place in one topic."""

    topic: str
    position: int
    """1, 2, 3, … within the topic."""
    kind: Kind
    writer: str
    """Which line of entries in the topic: `ingest`, `owner`, `dispatch`, `registry`, `api`."""
    epoch: int
    """Fencing token of the writer; 0 where it needs none."""
    written_at_ns: int
    body: Body
