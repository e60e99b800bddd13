"""What a resource's devices can move and for how long, summed up for who plans a profile with it.

Made only while a `Signal` asks for it: a pass like that of a curve, and some dozens of numbers.
"""

import numpy as np

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.curve import division, rations, trust
from kapelle.fleet.curve.limits import MOMENT_S
from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S, Ints
from kapelle.model.signals import Signal

FREE = "free"
"""Those without a store: power alone bounds them."""

_SUMS = 4
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def stores(fleet: Fleet, rows: Ints, signal: Signal) -> dict[str, list[float]]:
    """Return sums at the knots of duration (`fleet.curve.rations`) of the controllable rows.

    Returns:
        By `up/down` (numbers of knots, 0 in a direction nobody asks for) and `free`: power up and
        down [W], energy that can be given and taken until the order ends [Wh].
    """
    count = rations.KNOTS
    sums = np.zeros((_SUMS, count * count))
    free = np.zeros(_SUMS)
    rest_s = max((signal.ends_at_ns - fleet.now_ns) / NS_PER_S, 0.0)
    for start in range(0, len(rows), division.CHUNK):
        piece = rows[start : start + division.CHUNK]
        piece = piece[trust.controllable(fleet, piece)]
        part = division.shares(fleet, piece, MOMENT_S)
        is_free = np.isnan(fleet.energy_wh[piece])
        free[:2] += part.up_w[is_free].sum(), part.down_w[is_free].sum()
        limited = np.flatnonzero(~is_free)
        every = piece[limited]
        up_w, down_w = part.up_w[limited], part.down_w[limited]
        give_wh, take_wh = rations.energies(
            fleet.value[Metric.SOC][span(every)],
            fleet.reserve_soc[every].astype(np.float64),
            fleet.energy_wh[every],
            part.own_w[limited],
            rest_s,
        )
        up_s, down_s = rations.lasting_s(up_w, give_wh), rations.lasting_s(down_w, take_wh)
        up, beyond_up = rations.beside(up_s if signal.stores != "down" else up_s * 0.0)
        down, beyond_down = rations.beside(down_s if signal.stores != "up" else down_s * 0.0)
        for more_up, more_down in _CORNERS:
            share = beyond_up if more_up else 1.0 - beyond_up
            share = share * (beyond_down if more_down else 1.0 - beyond_down)
            at_up, at_down = up + more_up, down + more_down
            gives_w, takes_w = share * up_w, share * down_w
            gives_wh = gives_w * (rations.KNOTS_S[at_up] / 3600.0)
            takes_wh = takes_w * (rations.KNOTS_S[at_down] / 3600.0)
            for place, values in enumerate((gives_w, takes_w, gives_wh, takes_wh)):
                sums[place] += np.bincount(at_up * count + at_down, values, count * count)
    told = {FREE: free.tolist()} if free.any() else {}
    for cell_no in np.flatnonzero(sums[:2].any(axis=0)).tolist():
        told[f"{cell_no // count}/{cell_no % count}"] = sums[:, cell_no].tolist()
    return told
