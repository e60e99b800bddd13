"""Devices that are not listened to where they cannot be read: a condition that ends by itself."""

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.reconciliation.conditions import mark
from kapelle.model.blocks import Mutings
from kapelle.model.enums import Condition
from kapelle.model.ids import NS_PER_S

_LOOK_S = 10
"""How often it is looked whose time is over. [s]"""


def apply_mutings(fleet: Fleet, block: Mutings) -> None:
    """Note who is muted until when, and who is listened to again. The last word on each counts."""
    rows = (block.device_no // fleet.partitions).astype(np.intp)
    rows, last = np.unique(rows[::-1], return_index=True)
    until_ns = block.until_ns[::-1][last]
    muted = until_ns > block.at_ns[::-1][last]
    known = rows.view(np.uintp) < fleet.size
    rows, until_ns, muted = rows[known], until_ns[known], muted[known]
    until_s = np.where(muted, -(-until_ns // NS_PER_S), 0)
    fleet.muted_until_s[rows] = until_s.astype(np.uint32)
    mark(fleet, rows, Condition.MUTED, muted)


def step_mutes(fleet: Fleet, before_ns: int) -> None:
    """Listen again to those whose time is over; looked at every ten seconds."""
    now_s = fleet.now_ns // NS_PER_S
    if now_s // _LOOK_S == before_ns // NS_PER_S // _LOOK_S:
        return
    rows = np.flatnonzero(fleet.muted_until_s[: fleet.size])
    over = rows[fleet.muted_until_s[rows] <= now_s]
    if len(over):
        fleet.muted_until_s[over] = 0
        mark(fleet, over, Condition.MUTED, np.zeros(len(over), np.bool_))
