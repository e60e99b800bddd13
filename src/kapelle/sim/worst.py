"""What simulated devices would do if each obeyed everything it may still obey (R-17).

Counted with the devices themselves, not with the plant's opinion of them: a command that was sent
may be obeyed until it runs out, whether or not it got lost on its way.
"""

from dataclasses import dataclass

import numpy as np

from kapelle.model.blocks import Commands
from kapelle.model.ids import Floats, Ints, Longs
from kapelle.sim.world import World


@dataclass(slots=True, eq=False)
class Asked:
    """The newest command that was sent to each device, one entry per device."""

    revision: Longs
    setpoint_w: Floats
    until_ns: Longs

    @classmethod
    def nothing(cls, devices: int) -> "Asked":
        """Return what was asked of devices that nobody has asked anything."""
        never = np.full(devices, -1, np.int64)
        return cls(never, np.full(devices, np.nan), never.copy())

    def note(self, rows: Ints, commands: Commands) -> None:
        """Take up what was handed to the devices' connections; a further try may live longer."""
        newest = commands.revision >= self.revision[rows]
        rows, until_ns = rows[newest], commands.not_after_ns[newest]
        again = commands.revision[newest] == self.revision[rows]
        self.until_ns[rows] = np.where(again, np.maximum(self.until_ns[rows], until_ns), until_ns)
        self.revision[rows] = commands.revision[newest]
        self.setpoint_w[rows] = commands.setpoint_w[newest]


def worst_w(world: World, asked: Asked, now_ns: int) -> float:
    """Return the power of all devices once each does what it was last asked in time. [W]

    It is where they are heading, with ramps behind them: nobody is counted twice, as one who still
    does what it was asked before.
    """
    agents = world.agents
    may = (asked.revision > agents.revision) & (asked.until_ns >= now_ns)
    setpoint_w = np.where(may, asked.setpoint_w, agents.meant_w())
    local = world.faults.local(now_ns)
    return float(world.physics.wanted_w(np.where(local, np.nan, setpoint_w)).sum())
