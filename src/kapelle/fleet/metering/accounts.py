"""Energy in whole milliwatt-hours: what cumulative registers of many devices have counted.

Everything here is pure. Integers, because sums of them do not depend on the order they are taken
in: parts add up to the whole, to the last digit.
"""

from dataclasses import dataclass

import numpy as np

from kapelle.fleet.metering.arrange import Places, boots
from kapelle.fleet.metering.registers import LAG_NS, ROUND_MWH, Meter, mend
from kapelle.model.enums import EnergyQuality
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Floats, Ints, Longs

MARGIN = 1.2
"""A register may rise by this many times what full power allows: ratings are nominal."""
SLACK_W = 100.0
"""And by this much on top: what stands beside the device on the same meter. [W]"""
RESOLUTION_S = 60.0
"""A register of unknown resolution is taken to step by what full power moves in this time. [s]"""

MWH_PER_WH = 1000
MWH_PER_W_NS = 1000.0 / (3600.0 * NS_PER_S)


@dataclass(frozen=True, slots=True, eq=False)
class Meters:
    """What is known of each device's registers."""

    device_no: Ints
    """Ascending."""
    power_w: Floats
    """The larger nameplate; NaN or 0: unknown, and no rise is too steep. [W]"""
    rollover_wh: Floats
    """Its registers count from 0 to below this; 0 or NaN: no rollover is declared. [Wh]"""
    resolution_wh: Floats
    """Last digit of its registers; 0 or NaN: unknown. [Wh]"""


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """Energy counted by the registers of many devices. A row is one reading."""

    device_no: Ints
    """Ascending."""
    at_ns: Longs
    """When; never falls within a device."""
    mwh: Longs
    """Counted since the device's first row; never falls. [mWh]"""
    mark: Bytes
    """What the reading was found to be: a `Mark`."""
    basis: EnergyQuality = EnergyQuality.MEASURED
    """What its intervals rest on."""


def to_mwh(register_wh: Floats) -> Longs:
    """Return registers as whole milliwatt-hours."""
    mwh: Longs = np.rint(register_wh * MWH_PER_WH).astype(np.int64)
    return mwh


def account(
    device_no: Ints, order: Longs, measured_at_ns: Longs, register_wh: Floats, meters: Meters
) -> Account:
    """Add up the readings of one register of many devices.

    Args:
        device_no: Ascending; every device is in `meters`.
        order: Rank among the device's reports, of which only the start of the device is read.
        measured_at_ns: In the order of `arrange`; where it falls, the device's clock was set.
        register_wh: Finite. [Wh]
        meters: What is known of the devices' registers.

    The sum of a device's energy is the sum over its segments of last minus first register, to
    twice the register's resolution, whatever spikes, wobbles and gaps lie in it.
    """
    rows = len(device_no)
    register_mwh = to_mwh(register_wh)
    mark = np.zeros(rows, np.uint8)
    if rows == 0:
        return Account(device_no, measured_at_ns, register_mwh, mark)
    starts, at = by_device(device_no)
    mwh_per_ns, slack_mwh, rollover_mwh = _limits(meters, device_no[starts])

    risen_mwh = np.zeros(rows, np.int64)
    risen_mwh[1:] = np.diff(register_mwh)
    passed_ns = np.zeros(rows, np.int64)
    passed_ns[1:] = np.diff(measured_at_ns)
    # Where a clock was set back, nobody knows how long it was.
    passed_ns = np.where(passed_ns < 0, LAG_NS - passed_ns, passed_ns)
    risen_mwh[starts] = 0
    passed_ns[starts] = 0
    odd = (risen_mwh < 0) | (risen_mwh > passed_ns * mwh_per_ns[at] + slack_mwh[at])
    is_declared = _resolution_wh(meters, device_no[starts]) > 0
    _excuse_round(odd, risen_mwh, register_mwh, passed_ns * mwh_per_ns[at], is_declared[at])
    if odd.any():
        boot = boots(order)
        ends = np.append(starts[1:], rows)
        for device in np.unique(at[odd]).tolist():
            piece = slice(int(starts[device]), int(ends[device]))
            found = mend(
                register_mwh[piece].tolist(),
                np.cumsum(passed_ns[piece]).tolist(),
                boot[piece].tolist(),
                np.flatnonzero(odd[piece]).tolist(),
                Meter(
                    float(mwh_per_ns[device]),
                    int(slack_mwh[device]),
                    int(rollover_mwh[device]),
                    bool(is_declared[device]),
                ),
            )
            places = np.fromiter(found, np.intp, len(found)) + piece.start
            mark[places] = [each[0] for each in found.values()]
            risen_mwh[places] = [each[1] for each in found.values()]
    # Sums over all devices wrap round where they must, and so do their differences.
    mwh = np.cumsum(risen_mwh)
    mwh -= mwh[starts][at]
    return Account(device_no, never_falling(measured_at_ns, starts, at), mwh, mark)


def by_device(device_no: Ints) -> tuple[Places, Places]:
    """Return where each device's rows start, and the place of each row's device among them."""
    first = np.ones(len(device_no), np.bool_)
    first[1:] = device_no[1:] != device_no[:-1]
    return np.flatnonzero(first), np.cumsum(first) - 1


def round_mwh(one_mwh: Longs, other_mwh: Longs) -> Longs:
    """Return two steps of registers whose resolution is not known, as far as round numbers show
    it (see `registers.ROUND_MWH`). [mWh]"""
    steps_mwh = np.zeros(len(one_mwh), np.int64)
    for unit in reversed(ROUND_MWH):
        steps_mwh[(one_mwh % unit == 0) & (other_mwh % unit == 0)] = 2 * unit
    return steps_mwh


def _excuse_round(
    odd: Flags, risen_mwh: Longs, register_mwh: Longs, most_mwh: Floats, is_declared: Flags
) -> None:
    """Take back what is odd only because a register counts in larger steps than was presumed."""
    steep = np.flatnonzero(odd & (risen_mwh > 0) & ~is_declared)
    steps_mwh = round_mwh(register_mwh[steep], register_mwh[steep - 1])
    odd[steep] = risen_mwh[steep] > most_mwh[steep] + steps_mwh


def _resolution_wh(meters: Meters, device_no: Ints) -> Floats:
    return meters.resolution_wh[np.searchsorted(meters.device_no, device_no)]


def _limits(meters: Meters, device_no: Ints) -> tuple[Floats, Longs, Longs]:
    """Return how fast each device's register can rise, how far it may wobble, and its end."""
    of = np.searchsorted(meters.device_no, device_no)
    return limits(meters.power_w[of], meters.rollover_wh[of], meters.resolution_wh[of])


def limits(
    power_w: Floats, rollover_wh: Floats, resolution_wh: Floats
) -> tuple[Floats, Longs, Longs]:
    """Return how fast registers can rise [mWh/ns], how far they wobble and their end [mWh].

    0 or NaN stands for what is not known.
    """
    is_rated = power_w > 0
    power_w = np.where(is_rated, power_w, 0.0)
    most_w = np.where(is_rated, power_w * MARGIN + SLACK_W, np.inf)
    assumed_wh = np.maximum(power_w * (RESOLUTION_S / 3600.0), 1.0)
    resolution_wh = np.where(resolution_wh > 0, resolution_wh, assumed_wh)
    rollover_wh = np.where(rollover_wh > 0, rollover_wh, 0.0)
    # Infinity times no time at all is not a number; this is as good as infinite.
    mwh_per_ns = np.minimum(most_w * MWH_PER_W_NS, 1e18)
    return mwh_per_ns, 2 * to_mwh(resolution_wh), to_mwh(rollover_wh)


def never_falling(at_ns: Longs, starts: Places, at: Places) -> Longs:
    """Return times that stay, within each device, where its clock was set back."""
    falls = at_ns[1:] < at_ns[:-1]
    falls[starts[1:] - 1] = False
    if not falls.any():
        return at_ns
    held_ns = at_ns.copy()
    ends = np.append(starts[1:], len(at_ns))
    for device in np.unique(at[1:][falls]).tolist():
        piece = slice(int(starts[device]), int(ends[device]))
        np.maximum.accumulate(held_ns[piece], out=held_ns[piece])
    return held_ns
