"""Energy in whole milliwatt-hours: accounts of cumulative registers, and their intervals.

Everything here is pure and works on the readings of many devices at once. Integers, because sums
of them do not depend on the order they are taken in: parts add up to the whole, to the last digit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.metering.registers import LAG_NS, ROUND_MWH, Mark, Meter, mend
from kapelle.model.enums import Quality
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Floats, Ints, Longs

MARGIN = 1.2
"""A register may rise by this many times what full power allows: ratings are nominal."""
SLACK_W = 100.0
"""And by this much on top: what stands beside the device on the same meter. [W]"""
RESOLUTION_S = 60.0
"""A register of unknown resolution is taken to step by what full power moves in this time. [s]"""
GAP_S = 900.0
"""Readings further apart than this tell the sum between them and only guess its course. [s]"""

MWH_PER_WH = 1000
_MWH_PER_W_NS = 1000.0 / (3600.0 * NS_PER_S)
_OUT_OF_TURN_NS = 3600 * NS_PER_S
_ZERO_ORDER = -(2**63)

Places = NDArray[np.intp]


@unique
class EnergyQuality(IntEnum):
    """Bits of the quality of an interval's energy."""

    MEASURED = 1
    """From the register, read close to both ends of the interval."""
    ESTIMATED = 2
    """From the register, but how much fell into just this interval is a guess."""
    INTEGRATED = 4
    """From power, for want of a register."""
    CORRECTED = 8
    """Somebody has corrected it."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Energy of devices in consecutive intervals; shapes are (devices, intervals)."""

    device_no: Ints
    """Ascending, shape (devices,)."""
    mwh: Longs
    """0 where not known. [mWh]"""
    quality: Bytes
    """Bits of `EnergyQuality`; 0 where not known."""
    known: Flags


def to_mwh(register_wh: Floats) -> Longs:
    """Return registers as whole milliwatt-hours."""
    mwh: Longs = np.rint(register_wh * MWH_PER_WH).astype(np.int64)
    return mwh


def arrange(
    device_no: Ints, order: Longs, measured_at_ns: Longs, received_at_ns: Longs, quality: Bytes
) -> Places:
    """Return which reports count, each once, by device and in the order they were made.

    Reports that carry counters are put in order by them, from one start of the device to its next
    by when each began, so that neither a clock that was set back nor a counter that begins anew
    turns them round. Where a device counts only sometimes, or its counters contradict its clock
    by hours, its clock decides. A report that came several times counts once.
    """
    if len(device_no) == 0:
        return np.zeros(0, np.intp)
    counted = order < 0
    by_time = _sorted(device_no, measured_at_ns, order, received_at_ns)
    if counted.any():
        places = _by_counters(device_no, order, measured_at_ns, received_at_ns, by_time)
    else:
        places = by_time
    device, number, at_ns = device_no[places], order[places], measured_at_ns[places]
    again = np.zeros(len(places), np.bool_)
    # Where arrival stands for the time, the same report bears another one each time it comes.
    unstamped = (quality[places] & Quality.UNSTAMPED) != 0
    same = (device[1:] == device[:-1]) & (number[1:] == number[:-1])
    again[1:] = same & ((at_ns[1:] == at_ns[:-1]) | (unstamped[1:] & counted[places][1:]))
    return places[~again]


def _by_counters(
    device_no: Ints, order: Longs, measured_at_ns: Longs, received_at_ns: Longs, by_time: Places
) -> Places:
    """Return all rows in order, taking each device's word for it where it counts its reports."""
    places = _sorted(device_no, order, measured_at_ns, received_at_ns)
    device, number, at_ns = device_no[places], order[places], measured_at_ns[places]
    boot = _boots(number)
    first = np.ones(len(places), np.bool_)
    first[1:] = (device[1:] != device[:-1]) | (boot[1:] != boot[:-1])
    run = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    # An uncounted report among counted ones, and a run whose time falls by hours.
    owner = device[starts]
    mixed = np.isin(owner, np.intersect1d(owner[boot[starts] < 0], owner[boot[starts] >= 0]))
    falls = np.zeros(len(places), np.bool_)
    falls[1:] = ~first[1:] & (at_ns[1:] < at_ns[:-1] - _OUT_OF_TURN_NS)
    by_clock = (mixed | np.logical_or.reduceat(falls, starts))[run]
    began_ns = np.minimum.reduceat(at_ns, starts)[run]
    key_ns = np.where(by_clock, at_ns, began_ns)
    if not by_clock.any() and _ascends(device, key_ns):
        return places
    # Stable: within a run, and at equal times, the order by counters stays.
    return places[np.lexsort((key_ns, device))]


def _sorted(device_no: Ints, *keys: Longs) -> Places:
    """Return the stable order of rows by device and keys."""
    # Reports mostly come in the order they were made in: one sort by device is enough then.
    places = np.argsort(device_no, kind="stable")
    is_level = device_no[places[1:]] == device_no[places[:-1]]
    for key in keys:
        ordered = key[places]
        if (is_level & (ordered[1:] < ordered[:-1])).any():
            columns: list[Ints | Longs] = [*reversed(keys), device_no]
            return np.lexsort(columns)
        is_level &= ordered[1:] == ordered[:-1]
    return places


def _ascends(device: Ints, key_ns: Longs) -> bool:
    return not ((device[1:] == device[:-1]) & (key_ns[1:] < key_ns[:-1])).any()


def _boots(order: Longs) -> Longs:
    """Return the start of the device each report belongs to; -1 where it does not count them."""
    boots: Longs = np.where(order < 0, (order ^ _ZERO_ORDER) >> 32, -1)
    return boots


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
    starts, at = _devices(device_no)
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
        boot = _boots(order)
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
    return Account(device_no, _never_falling(measured_at_ns, starts, at), mwh, mark)


def _devices(device_no: Ints) -> tuple[Places, Places]:
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
    mwh_per_ns = np.minimum(most_w * _MWH_PER_W_NS, 1e18)
    return mwh_per_ns, 2 * to_mwh(resolution_wh), to_mwh(rollover_wh)


def _never_falling(at_ns: Longs, starts: Places, at: Places) -> Longs:
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


_LEFT_OUT = np.zeros(256, np.bool_)
_LEFT_OUT[[Mark.SUSPECT, Mark.PENDING]] = True
_DOUBTED = np.zeros(256, np.bool_)
_DOUBTED[[Mark.RESET, Mark.REPLACED]] = True


def intervals(
    counted: Account, edges_ns: Sequence[int] | Longs, *, gap_s: float = GAP_S
) -> Intervals:
    """Divide accounts over intervals, interpolating at their edges.

    Each edge gets one whole number per device, so consecutive intervals add up exactly to the
    account between the outer ones. Nothing is known before a device's first reading or after
    its last. An interval is estimated where one of its edges lies between readings further apart
    than `gap_s`, and where a segment begins in it: what the old register last counted is lost.

    Args:
        counted: What `account` or `integrate` returned.
        edges_ns: Ascending; n + 1 of them bound n intervals.
        gap_s: The longest distance of readings whose course in between is taken as known. [s]
    """
    edges = np.asarray(edges_ns, np.int64)
    kept = np.flatnonzero(~_LEFT_OUT[counted.mark])
    device_no, at_ns, mwh = counted.device_no[kept], counted.at_ns[kept], counted.mwh[kept]
    starts, at = _devices(device_no)
    devices, count = len(starts), len(edges)
    shape = (devices, max(count - 1, 0))
    if devices == 0 or count < 2:
        none = np.zeros(shape, np.int64)
        return Intervals(device_no[starts], none, none.astype(np.uint8), np.zeros(shape, np.bool_))
    # Rows up to and including each edge, per device: counted once, added up along the edges.
    bucket = np.searchsorted(edges, at_ns, side="left")
    in_bucket = np.bincount(at * (count + 1) + bucket, minlength=devices * (count + 1))
    through = np.cumsum(in_bucket.reshape(devices, count + 1)[:, :count], axis=1)
    last = starts[:, np.newaxis] + through - 1
    begun = through > 0
    before = np.where(begun, last, starts[:, np.newaxis])
    after = np.minimum(before + 1, len(device_no) - 1)
    exact = begun & (at_ns[before] == edges)
    is_inside = exact | (
        begun & (at[after] == np.arange(devices)[:, np.newaxis]) & (after > before)
    )
    width_ns = np.where(exact | ~is_inside, 1, at_ns[after] - at_ns[before])
    share = np.where(exact | ~is_inside, 0.0, (edges - at_ns[before]) / width_ns)
    rise_mwh = mwh[after] - mwh[before]
    at_edge_mwh = mwh[before] + np.rint(np.where(is_inside, rise_mwh, 0) * share).astype(np.int64)
    guessed = ~exact & (width_ns > int(gap_s * NS_PER_S))

    known = is_inside[:, 1:] & is_inside[:, :-1]
    estimated = guessed[:, 1:] | guessed[:, :-1]
    mark = counted.mark[kept]
    _spread(estimated, True, np.flatnonzero(_DOUBTED[mark]), at, at_ns, edges)
    _spread(known, False, np.flatnonzero(mark == Mark.GAP), at, at_ns, edges)
    found = np.where(estimated, np.uint8(EnergyQuality.ESTIMATED), np.uint8(counted.basis))
    return Intervals(
        device_no[starts],
        np.where(known, np.diff(at_edge_mwh, axis=1), 0),
        np.where(known, found, np.uint8(0)),
        known,
    )


def _spread(into: Flags, value: bool, rows: Places, at: Places, at_ns: Longs, edges: Longs) -> None:
    """Say something of all intervals that the way from the row before to each of these touches."""
    for row in rows.tolist():
        if row and at[row] == at[row - 1]:
            first = int(np.searchsorted(edges, at_ns[row - 1], side="right")) - 1
            last = int(np.searchsorted(edges, at_ns[row], side="left"))
            into[at[row], max(first, 0) : last] = value


def integrate(
    device_no: Ints, measured_at_ns: Longs, power_w: Floats, *, gap_s: float = GAP_S
) -> tuple[Account, Account]:
    """Add up power for want of registers: towards the grid, and from it.

    Between two readings power goes from one to the other in a straight line; where it changes its
    sign, each direction gets its triangle. A silence longer than `gap_s` counts for nothing, and
    no interval that touches it is known (`Mark.GAP`).

    Args:
        device_no: Ascending, in the order of `arrange`.
        measured_at_ns: Time of each reading.
        power_w: Finite; positive towards the grid. [W]
        gap_s: The longest silence that is filled. [s]
    """
    rows = len(device_no)
    starts, at = _devices(device_no)
    at_ns = _never_falling(measured_at_ns, starts, at) if rows else measured_at_ns
    passed_ns = np.zeros(rows, np.int64)
    passed_ns[1:] = np.diff(at_ns)
    passed_ns[starts] = 0
    silent = passed_ns > int(gap_s * NS_PER_S)
    passed_ns[silent] = 0
    before_w = np.concatenate([power_w[:1], power_w[:-1]])
    mark = np.where(silent, np.uint8(Mark.GAP), np.uint8(Mark.OK))
    accounts = []
    for sign in (1.0, -1.0):
        old_w, new_w = before_w * sign, power_w * sign
        mean_w = (np.maximum(old_w, 0.0) + np.maximum(new_w, 0.0)) / 2
        crosses = old_w * new_w < 0
        if crosses.any():
            above_w, below_w = np.maximum(old_w, new_w), -np.minimum(old_w, new_w)
            span_w = np.where(crosses, above_w + below_w, 1.0)
            mean_w = np.where(crosses, above_w * above_w / span_w / 2, mean_w)
        risen_mwh = np.rint(mean_w * passed_ns * _MWH_PER_W_NS).astype(np.int64)
        mwh = np.cumsum(risen_mwh)
        if rows:
            mwh -= mwh[starts][at]
        accounts.append(Account(device_no, at_ns, mwh, mark, EnergyQuality.INTEGRATED))
    return accounts[0], accounts[1]
