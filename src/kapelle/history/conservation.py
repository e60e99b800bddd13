"""Does the ledger hold what the registers counted? Worked out another way than the ledger does.

Only where nothing has to be judged: registers that were read close to both ends and counted up all
along. What they rose by between the two ends needs no account then, and must be in the ledger.
"""

import numpy as np

from kapelle.fleet.metering.accounts import MWH_PER_WH
from kapelle.fleet.metering.arrange import Places
from kapelle.history.energy import Grid, Reported
from kapelle.model.enums import EnergyQuality
from kapelle.model.ids import Flags, Floats, Longs

_ROUNDED_MWH = 2.0
"""Each end is rounded to a whole milliwatt-hour, and so is each register."""


def conservation_error_wh(reported: Reported, grid: Grid) -> float:
    """Return by how much registers and ledger differ, summed over devices and registers. [Wh]

    Args:
        reported: Readings from before the grid's start to after its end, by device and in the
            order they were made.
        grid: What the ledger holds of the same devices.
    """
    error_mwh = 0.0
    if not len(grid.device_no):
        return error_mwh
    of = np.minimum(np.searchsorted(grid.device_no, reported.device_no), len(grid.device_no) - 1)
    inside = grid.device_no[of] == reported.device_no
    for register, register_wh in enumerate(reported.register_wh):
        kept = inside & np.isfinite(register_wh)
        rows: Flags | slice = slice(None) if kept.all() else kept
        plain, rise_wh = _rises(
            of[rows],
            reported.measured_at_ns[rows],
            register_wh[rows],
            len(grid.device_no),
            grid.edges_ns,
        )
        plain &= np.all(grid.quality[:, :, register] == EnergyQuality.MEASURED, axis=1)
        held_mwh = grid.mwh[plain, :, register].sum(axis=1)
        off_mwh = np.abs(rise_wh[plain] * MWH_PER_WH - held_mwh) - _ROUNDED_MWH
        error_mwh += float(np.maximum(off_mwh, 0.0).sum())
    return error_mwh / MWH_PER_WH


def _rises(
    of: Places, at_ns: Longs, wh: Floats, count: int, edges_ns: Longs
) -> tuple[Flags, Floats]:
    """Return which devices' registers counted up from edge to edge, and by how much. [Wh]"""
    starts_ns, ends_ns = int(edges_ns[0]), int(edges_ns[-1])
    rows = np.bincount(of, minlength=count)
    first = np.cumsum(rows) - rows
    falls = (at_ns[1:] <= at_ns[:-1]) | (wh[1:] < wh[:-1])
    falls &= of[1:] == of[:-1]
    plain = np.ones(count, np.bool_)
    plain[of[1:][falls]] = False
    before = np.bincount(of[at_ns <= starts_ns], minlength=count)
    within = np.bincount(of[at_ns < ends_ns], minlength=count)
    plain &= (before > 0) & (within < rows)
    at = np.flatnonzero(plain)
    began_wh = _between(starts_ns, first[at] + before[at] - 1, at_ns, wh)
    ended_wh = _between(ends_ns, first[at] + within[at] - 1, at_ns, wh)
    rise_wh = np.zeros(count)
    rise_wh[at] = ended_wh - began_wh
    return plain, rise_wh


def _between(edge_ns: int, low: Places, at_ns: Longs, wh: Floats) -> Floats:
    """Return registers at an edge, between the readings in given places and those after them."""
    share = (edge_ns - at_ns[low]) / (at_ns[low + 1] - at_ns[low])
    reached_wh: Floats = wh[low] + share * (wh[low + 1] - wh[low])
    return reached_wh
