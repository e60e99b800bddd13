"""Who can hold his power for how long, and the largest part of it he is given of a plan.

A plan that looks ahead does not know devices, only groups: by how long a device could hold all the
power it can move, in half octaves. Each device finds its own group anew whenever it is looked at.
"""

from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from kapelle.model.ids import NS_PER_S, Floats
from kapelle.model.plant import Rationing

STEPS_PER_OCTAVE = 2
SHORTEST_S = 60.0
"""Who lasts for less is in the first group. [s]"""
LONGEST_S = 86_400.0
"""Who lasts for longer is in the last one. [s]"""
STEPS = ceil(log2(LONGEST_S / SHORTEST_S) * STEPS_PER_OCTAVE) + 2
EFFICIENCY = 0.95
"""One way into or out of a store, of every one: what planning reckons with."""

Steps = NDArray[np.intp]


def step_of(power_w: Floats, energy_wh: Floats) -> Steps:
    """Return the group of each device: 0 below `SHORTEST_S`, then one more per half octave."""
    with np.errstate(divide="ignore", invalid="ignore"):
        octaves = np.log2(energy_wh * (3600.0 / SHORTEST_S) / power_w)
    # Without power nobody runs out of energy; without both nobody is asked.
    octaves[np.isnan(octaves)] = np.inf
    steps = np.floor(octaves * STEPS_PER_OCTAVE) + 1.0
    clipped: Steps = np.clip(steps, 0.0, STEPS - 1.0).astype(np.intp)
    return clipped


def shortest_s(step: int) -> float:
    """Return how long each device of a group lasts at least. [s]"""
    return SHORTEST_S * 2.0 ** ((step - 1) / STEPS_PER_OCTAVE) if step > 0 else 0.0


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


def rationed(allowed: tuple[float, ...], steps: Steps) -> Floats:
    """Return the part of its power each device may move; where nothing is said, all of it."""
    table = np.ones(STEPS)
    table[: len(allowed)] = allowed
    found: Floats = table[steps]
    return found
