"""One run of a scenario while it goes on: the plant, its devices, and what was seen so far."""

from dataclasses import dataclass, field

from kapelle.app import Doors
from kapelle.fleet.plant import PlantView
from kapelle.journal.memory import MemoryJournal
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Order
from kapelle.model.plant import Notice
from kapelle.sim.clock import HostClock, VirtualClock
from kapelle.sim.devices import Devices
from kapelle.sim.disk import Disk
from kapelle.sim.link import SimAdapter
from kapelle.sim.resources import NetPower
from kapelle.sim.result import Published
from kapelle.sim.scenario import Scenario
from kapelle.sim.world import World


@dataclass(slots=True, eq=False, repr=False)
class Play:
    """One run while it goes on. Tests reach in; everything they may change is here."""

    scenario: Scenario
    seed: int
    devices: Devices
    clock: VirtualClock
    world: World
    adapter: SimAdapter
    journal: MemoryJournal
    disk: Disk
    doors: Doors
    """What the roles stand on; their settings may be changed before they start."""
    view: PlantView
    start_ns: int
    registers_wh: float
    """Sum of all energy registers at the start. [Wh]"""
    at_s: list[float] = field(default_factory=list)
    power_w: list[float] = field(default_factory=list)
    worst_w: list[float] = field(default_factory=list)
    """What the devices would do if each obeyed everything it may still obey; as `power_w`. [W]"""
    net: NetPower | None = None
    """The true power of named resources; None where the fleet has none."""
    published: list[Published] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    host: HostClock | None = None
    """The clock of the plant's host, where the scenario sets it."""
    thorough: bool = True
    """Whether to note what is published and what might be obeyed, and hold it against the truth."""
    restarts: int = 0
    problems: list[str] = field(default_factory=list)
    """What was seen to go wrong while it went on."""

    def elapsed_s(self, at_ns: int | None = None) -> float:
        """Return the time since the start. [s]"""
        return ((self.clock.now_ns() if at_ns is None else at_ns) - self.start_ns) / NS_PER_S

    def is_ordered(self, last_s: float) -> bool:
        """Return whether any order ran in the last seconds of the run."""
        since_ns = self.ended_ns - round(last_s * NS_PER_S)
        return any(order.ends_at_ns >= since_ns for order in self.orders)

    @property
    def ended_ns(self) -> int:
        """Return the last moment the world has seen."""
        return self.start_ns + round((self.at_s[-1] if self.at_s else 0.0) * NS_PER_S)

    async def wait_until(self, at_s: float) -> None:
        """Wait for a moment of the run."""
        await self.clock.sleep(max(0.0, at_s - self.elapsed_s()))
