"""What dispatch remembers of the plans of a profile between cycles."""

from collections.abc import Callable
from dataclasses import dataclass, field

from kapelle.dispatch.planning.groups import Groups, Window
from kapelle.dispatch.planning.lookahead import Ahead, Unplanned, look_ahead
from kapelle.model.signals import Rationing


@dataclass(slots=True)
class Horizon:
    """What is remembered of the plans of one order; a restart takes it up from the partitions."""

    rations: Rationing | None = None
    """In force."""
    announced: Rationing | None = None
    announced_at_ns: int = 0
    from_ns: int = 0
    """From when on what is announced counts."""
    tried_at_ns: int = 0
    since_ns: int = 0
    """When this began to be remembered."""
    switched_at_ns: int = 0
    """When what is in force came into force."""
    asked_at_ns: int = 0
    """When partitions were asked for the energy an amended profile needs; 0: that is not open."""
    uncounted: int = 0
    """Devices not counted on when the plan was made."""
    rejected: str = ""
    """Why the last plan was not followed; empty where it was."""
    short: tuple[int, ...] = ()
    """Numbers of the intervals of which was told that they will fall short."""
    solve: Callable[[Groups, Window], Ahead | Unplanned] = field(default=look_ahead)
    """Makes plans. Whatever it says is checked."""
