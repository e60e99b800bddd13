"""What the loop remembers between cycles, and what a cycle works on and has to say."""

from dataclasses import dataclass, field
from math import nan

from kapelle.dispatch.caps.cells import Near
from kapelle.dispatch.planning.horizon import Horizon
from kapelle.dispatch.settings import DispatchSettings
from kapelle.dispatch.watch import Watch
from kapelle.fleet.plant import PlantView
from kapelle.model.orders import Cancel, Plan, Prospect
from kapelle.model.plant import Notice
from kapelle.model.signals import Signal
from kapelle.model.summaries import Summary


@dataclass(slots=True)
class Running:
    """What the loop remembers of one order."""

    level: float = 0.0
    block_level: float = 0.0
    trim_w: float = 0.0
    reached_w: float = nan
    """What the solution asked of the controllable devices when it last moved. [W]"""
    uncounted: int = -1
    """Devices not counted on at the last step; -1 before the first."""
    settled_at_ns: int = 0
    """From here on measurements tell about the present plan."""
    trimmed_ns: int = 0
    """The oldest tick in the aggregate that the trim last followed."""
    signal: Signal | None = None
    signalled_at_ns: int = 0
    ends_at_ns: int = 0
    """The end of the order as last driven; 0 before."""
    rank: int = 0
    """When it began to claim devices; 0 before."""
    promised_at_ns: int = 0
    """Time of the plan the loop works on."""
    near: Near = field(default_factory=Near)
    """Where the last solution with caps lay."""
    horizon: Horizon = field(default_factory=Horizon)
    """Plans that look ahead, for an order with a profile."""
    window_ends_ns: int = 0
    """Until then it is told what could be promised (`firm.orders`); 0 before."""


@dataclass(slots=True)
class ControlState:
    """What dispatch remembers between cycles; a restart goes on without it."""

    running: dict[int, Running] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    before: dict[int, Summary] = field(default_factory=dict)
    """What partitions said before the restart, for those that do not speak after it."""


@dataclass(slots=True)
class Outcome:
    """What a cycle has to say: signals to every partition, the rest to the plant."""

    signals: list[Signal] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    prospects: list[Prospect] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cycle:
    """What every order of a cycle has in common."""

    view: PlantView
    now_ns: int
    epoch: int
    settings: DispatchSettings
    out: Outcome
