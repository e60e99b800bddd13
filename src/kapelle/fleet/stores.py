"""What a resource's devices can move and for how long, summed up for who plans a profile with it.

Made only while a `Signal` asks for it: a pass like that of a curve, and some thirty numbers.
"""

import numpy as np

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.curve import division, rations, trust
from kapelle.fleet.curve.limits import HOLD_S_MIN
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S, Ints
from kapelle.model.plant import Signal

FREE = "free"
"""The group of those without a store: power alone bounds them."""

_SUMS = 4


def stores(fleet: Fleet, rows: Ints, signal: Signal) -> dict[str, list[float]]:
    """Return sums by group of the controllable rows.

    Returns:
        By `up/down` (steps of duration, 0 in a direction nobody asks for) and `free`: power up and
        down [W], energy that can be given and taken until the order ends [Wh].
    """
    count = rations.STEPS
    sums = np.zeros((_SUMS, count * count + 1))
    rest_s = max((signal.ends_at_ns - fleet.now_ns) / NS_PER_S, 0.0)
    for start in range(0, len(rows), division.CHUNK):
        piece = rows[start : start + division.CHUNK]
        piece = piece[trust.controllable(fleet, piece)]
        at = span(piece)
        part = division.shares(fleet, piece, HOLD_S_MIN)
        energy_wh = fleet.energy_wh[at]
        give_wh, take_wh = rations.energies(
            fleet.value[Metric.SOC][at],
            fleet.reserve_soc[at].astype(np.float64),
            energy_wh,
            part.own_w,
            rest_s,
        )
        cell = np.zeros(len(piece), np.intp)
        if signal.stores != "down":
            cell += rations.step_of(part.up_w, give_wh) * count
        if signal.stores != "up":
            cell += rations.step_of(part.down_w, take_wh)
        cell[np.isnan(energy_wh)] = count * count
        for place, values in enumerate((part.up_w, part.down_w, give_wh, take_wh)):
            sums[place] += np.bincount(cell, values, count * count + 1)
    told = {}
    for cell_no in np.flatnonzero(sums[:2].any(axis=0)).tolist():
        up, down = divmod(cell_no, count)
        told[FREE if up == count else f"{up}/{down}"] = sums[:, cell_no].tolist()
    return told
