"""Who can hold his power for how long, and the largest part of it he is given of a plan.

A plan that looks ahead does not know devices, only sums at fixed durations, the knots. A device
whose store lasts for some time in between counts as two smaller ones, one at each knot beside it,
with its power and its energy in sum. Whatever these two can do the device can do as well; so what
is planned for the knots is possible for the devices, and what it wastes is of second order.
"""

import numpy as np
from numpy.typing import NDArray

from kapelle.model.ids import NS_PER_S, Floats
from kapelle.model.signals import Rationing

KNOTS = 58
_SHORTEST_S = 5.0
_PER_OCTAVE = 4
KNOTS_S: Floats = np.append(0.0, _SHORTEST_S * 2.0 ** (np.arange(KNOTS - 1) / _PER_OCTAVE))
"""Durations, ascending: nothing, then five seconds to a day. Who lasts longer lasts a day. [s]"""
EFFICIENCY = 0.95
"""One way into or out of a store, of every one: what planning and bounds reckon with."""

Places = NDArray[np.intp]


def lasting_s(power_w: Floats, energy_wh: Floats) -> Floats:
    """Return how long stores can hold all their power. [s]"""
    with np.errstate(divide="ignore", invalid="ignore"):
        lasts_s = energy_wh * 3600.0 / power_w
    # Without power nobody runs out of energy.
    found: Floats = np.minimum(np.where(power_w > 0.0, lasts_s, np.inf), KNOTS_S[-1])
    return found


def beside(lasts_s: Floats) -> tuple[Places, Floats]:
    """Return the knot below each duration, and the part of a device that counts at the next."""
    place = np.clip(np.searchsorted(KNOTS_S, lasts_s, "right") - 1, 0, KNOTS - 2)
    part: Floats = (lasts_s - KNOTS_S[place]) / (KNOTS_S[place + 1] - KNOTS_S[place])
    return place, part


def energies(
    soc: Floats, reserve_soc: Floats, energy_wh: Floats, own_w: Floats, rest_s: float
) -> tuple[Floats, Floats]:
    """Return what stores can give and take besides their own schedule, until an order ends. [Wh]

    An unknown state of charge is neither full nor empty: nothing can be given or taken.
    """
    own_wh = own_w * (rest_s / 3600.0)
    give_wh = (soc - reserve_soc) * energy_wh * EFFICIENCY - np.maximum(own_wh, 0.0)
    take_wh = (1.0 - soc) * energy_wh / EFFICIENCY + np.minimum(own_wh, 0.0)
    return np.fmax(give_wh, 0.0), np.fmax(take_wh, 0.0)


def rest_s(rationing: Rationing, now_ns: int) -> float:
    """Return how long the order lasts yet. [s]"""
    return max((rationing.ends_at_ns - now_ns) / NS_PER_S, 0.0)


def rationed(allowed: tuple[float, ...], lasts_s: Floats) -> Floats:
    """Return the part of its power each device may move; where nothing is said, all of it."""
    if not allowed:
        return np.ones(len(lasts_s))
    found: Floats = np.interp(lasts_s, KNOTS_S, np.array(allowed))
    return found
