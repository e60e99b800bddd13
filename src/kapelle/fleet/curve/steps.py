"""Devices that are on or off, or have a few steps: the powers they can have, and their turns.

A device changes over at levels of its own, spread by its number, so that the staircase of many
follows the line that continuous devices with the same headroom would draw.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.traits import any_of, has
from kapelle.model.enums import SWITCHED, Trait
from kapelle.model.ids import Flags, Floats, Ints

_GOLDEN = 0.6180339887498949
_SAME = 1e-9
"""Sums of floats that mean the same step differ by less, in steps."""
_IS_SWITCHED = np.isin(np.arange(256), [int(kind) for kind in SWITCHED])

Places = NDArray[np.intp]


class Steps(NamedTuple):
    """Changes of stepped devices in one direction; those of one device follow each other."""

    owner: Places
    """Whose step it is, as a place among those asked about."""
    turn: Floats
    """|λ| beyond the beginning of its tier at which it is taken."""
    rise_w: Floats
    """How far the device moves with it, > 0. [W]"""


def is_switched(fleet: Fleet, rows: Ints) -> Flags:
    """Tell which devices are on or off, or have steps: they do not follow any setpoint."""
    at = span(rows)
    switched: Flags = _IS_SWITCHED.take(fleet.kind[at])
    if has(any_of(fleet.traits[at]), Trait.STEPS):
        switched |= fleet.steps[at] > 0
    return switched


def with_many(fleet: Fleet, rows: Ints) -> Places:
    """Return the places of devices with more than one step."""
    return np.flatnonzero(fleet.steps[span(rows)] > 1)


def turn(fleet: Fleet, rows: Ints, which: Places) -> Floats:
    """Return |λ| at which each switched device changes over: spread evenly over (0, 1]."""
    device_no = fleet.device_nos(np.asarray(rows[which], np.int32))
    place = device_no * _GOLDEN
    # What `np.mod` gives, at a tenth of its cost: numbers of devices are not negative.
    turn: Floats = 1.0 - (place - np.floor(place))
    return turn


class Ladder:
    """The powers that devices with several steps can have: n steps of the rating each way."""

    def __init__(self, fleet: Fleet, rows: Ints) -> None:
        steps = np.maximum(fleet.steps[rows], 1).astype(np.float64)
        self._up_w = fleet.nameplate_up_w[rows] / steps
        self._down_w = fleet.nameplate_down_w[rows] / steps

    def power_w(self, step: Floats, which: Places | slice = slice(None)) -> Floats:
        """Return the power on a step; steps below zero consume. [W]"""
        return step * np.where(step >= 0, self._up_w[which], self._down_w[which])

    def step(self, power_w: Floats) -> Floats:
        """Return the step of a power, and the parts of one above it."""
        unit_w = np.where(power_w >= 0, self._up_w, self._down_w)
        # Without a rating in a direction there is no power in it either.
        return np.divide(power_w, unit_w, out=np.zeros(len(unit_w)), where=unit_w > 0)


class Climb(NamedTuple):
    """From where a device is, the steps it has room for: first, first + sign, … last."""

    first: Floats
    last: Floats
    number: Places
    """How many they are."""
    head_w: Floats
    """From its own schedule to the last one. [W]"""


def climb(ladder: Ladder, own_w: Floats, limit_w: Floats, least_w: Floats, sign: int) -> Climb:
    """Return which steps lie between the own schedule and a limit, in one direction.

    Args:
        ladder: Of these devices.
        own_w: Own schedule; need not be on a step. [W]
        limit_w: How far they may go. [W]
        least_w: A step nearer than this is no move. [W]
        sign: 1 towards export, -1 towards consumption.
    """
    # Turned round, consumption is what export is: the next step beyond, and the last within.
    first = np.floor(sign * ladder.step(own_w + sign * least_w) + _SAME) + 1.0
    last = np.floor(sign * ladder.step(limit_w) + _SAME)
    number = np.maximum(last - first + 1.0, 0.0).astype(np.intp)
    head_w = np.where(number > 0, sign * (ladder.power_w(sign * last) - own_w), 0.0)
    return Climb(sign * first, sign * last, number, head_w)


def steps_of(ladder: Ladder, own_w: Floats, way: Climb, base: Floats, sign: int) -> Steps:
    """Return every step of every device, each at its own |λ|.

    Between two of its steps the line of a device rises by the difference; somewhere on that
    stretch, at the part of it that its number tells (`base`), it takes the upper one.
    """
    owner = np.repeat(np.arange(len(own_w)), way.number)
    begun = np.cumsum(way.number) - way.number
    nth = (np.arange(len(owner)) - begun[owner]).astype(np.float64)
    step = way.first[owner] + sign * nth
    power_w = ladder.power_w(step, owner)
    before_w = np.where(nth > 0, ladder.power_w(step - sign, owner), own_w[owner])
    rise_w = sign * (power_w - before_w)
    risen_w = sign * (before_w - own_w[owner])
    return Steps(owner, (risen_w + base[owner] * rise_w) / way.head_w[owner], rise_w)
