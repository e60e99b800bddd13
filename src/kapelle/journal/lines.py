"""What a topic remembers of its writers, and the rules an append must pass. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kapelle.errors import JournalConflict


@dataclass(frozen=True, slots=True)
class Line:
    """The entries of one writer in one topic."""

    last: int = 0
    """Position of its newest entry, trimmed or not; 0 before the first."""
    epoch: int = 0
    """Highest fencing token seen on it."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """Where a topic stands. Replaced as a whole, never modified."""

    last: int = 0
    trimmed: int = 0
    """Entries up to here were forgotten on purpose."""
    lines: Mapping[str, Line] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)
    """By reader, up to where it has taken over all."""


def step_append(
    topic: str, state: TopicState, count: int, writer: str, epoch: int, expected: int | None
) -> TopicState:
    """Return the topic's state after `count` entries of a writer, or refuse them.

    Raises:
        JournalConflict: The line has moved on from `expected`, or holds a higher epoch.
    """
    line = state.lines.get(writer, Line())
    if epoch < line.epoch:
        raise JournalConflict(
            f"{topic}: writer {writer} has epoch {epoch}, but epoch {line.epoch} has written; "
            "another owner took over"
        )
    if expected is not None and expected != line.last:
        raise JournalConflict(
            f"{topic}: writer {writer} expected its last entry at {expected}, it is at {line.last}"
        )
    last = state.last + count
    return replace(state, last=last, lines={**state.lines, writer: Line(last, epoch)})


def step_trim(state: TopicState, through: int) -> TopicState:
    """Return the topic's state without its entries up to a position that every reader has had."""
    through = min(through, state.last, *state.marks.values())
    return replace(state, trimmed=max(state.trimmed, through))


def step_mark(state: TopicState, reader: str, position: int) -> TopicState:
    """Return the topic's state with a reader at a position, at most the topic's end.

    It may go back, as after a restore; what was forgotten meanwhile stays forgotten.
    """
    return replace(state, marks={**state.marks, reader: max(0, min(position, state.last))})


def step_unmark(state: TopicState, reader: str) -> TopicState:
    """Return the topic's state without a reader."""
    left = {name: position for name, position in state.marks.items() if name != reader}
    return replace(state, marks=left)
