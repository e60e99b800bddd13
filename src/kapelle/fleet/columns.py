"""The columns of a partition's fleet: their names, types, units and what an empty row holds.

Whoever compares many codes with one compares them with `np.uint8(Freshness.LIVE)`: beside an
IntEnum NumPy makes int64 of the whole column first, twenty times the cost.
"""

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.capacity.trials import Trials
from kapelle.fleet.counting.gaps import Gaps
from kapelle.fleet.envelopes import Book
from kapelle.model.enums import Freshness, Metric
from kapelle.model.ids import Bytes, Flags, Floats, Ints, Longs
from kapelle.model.plant import Notice
from kapelle.model.signals import Signal

Floats32 = NDArray[np.float32]
Floats16 = NDArray[np.float16]
Shorts = NDArray[np.int16]
Shorts16 = NDArray[np.uint16]
Words = NDArray[np.uint16]
Seconds = NDArray[np.uint32]
Counts = NDArray[np.uint32]
Marks = NDArray[np.int8]

CLUSTERS = 64
"""Groups that feeders fall into: bounded, whatever the number of feeders."""
_GROWTH = 1.0625
"""Little, because room nobody uses costs memory for ever and growing is rare."""
_COLUMN = "dtype"


def _column(dtype: str, fill: float, rows: int = 0) -> NDArray[Any]:
    """Declare a column; `rows` > 0 makes it two-dimensional, shape (rows, devices)."""
    declared: NDArray[Any] = field(metadata={_COLUMN: (np.dtype(dtype), fill, rows)})
    return declared


@dataclass(slots=True, eq=False)
class Fleet:
    """State of every device of one partition. Row = `device_no // partitions`.

    Only `apply_…` and `step_…` functions of this room write into it, from entries alone, so that
    replaying the same entries gives the same bytes.
    """

    partition: int
    partitions: int
    size: int
    """Rows in use; the arrays may be longer."""
    position: int
    """Position of the last applied entry."""
    now_ns: int
    """The last tick."""
    names: dict[str, list[str]]
    """Code tables of vendor, zone, feeder, provider, site: a code is a place in its list."""
    members: dict[str, Ints]
    """Rows of each resource, ascending. `all` is every active row and is not listed."""
    signals: dict[str, Signal]
    """The signal in force for each resource."""
    notices: list[Notice]
    """What the last tick found worth telling. Said, not kept: no part of the state."""
    gaps: Gaps
    """Which reports are missing, of devices that miss some (see `fleet.counting.sequence`)."""
    trials: Trials
    """Commands followed and not followed, by kind and vendor."""
    envelopes: Book
    """What sites, feeders and zones may export and import."""

    # As enrolled.
    active: Flags = _column("?", 0)
    kind: Bytes = _column("u1", 0)
    vendor: Shorts = _column("i2", 0)
    zone: Shorts = _column("i2", 0)
    feeder: Ints = _column("i4", 0)
    provider: Ints = _column("i4", 0)
    site: Ints = _column("i4", 0)
    nameplate_up_w: Floats = _column("f8", 0)
    nameplate_down_w: Floats = _column("f8", 0)
    energy_wh: Floats = _column("f8", np.nan)
    reserve_soc: Floats32 = _column("f4", 0)
    ramp_w_per_s: Floats32 = _column("f4", np.nan)
    revert_s: Floats32 = _column("f4", np.nan)
    report_every_s: Floats32 = _column("f4", np.nan)
    meter_rollover_wh: Floats32 = _column("f4", 0)
    """0: not declared. [Wh]"""
    meter_resolution_wh: Floats32 = _column("f4", 0)
    """0: not known. [Wh]"""
    cluster: Bytes = _column("u1", 0)
    """Which of a fixed number of groups the feeder falls into: neighbours share one sky."""

    traits: Bytes = _column("u1", 0)
    """Bits of `Trait`: which of the following matter. One look tells that none does."""
    tier: Bytes = _column("u1", 0)
    priority: Floats32 = _column("f4", 0)
    """0: 1, as where nothing is said."""
    steps: Bytes = _column("u1", 0)
    """0: as its kind."""
    min_on_s: Shorts16 = _column("u2", 0)
    min_off_s: Shorts16 = _column("u2", 0)
    must_run: Flags = _column("?", 0)
    opted_out_until_s: Seconds = _column("u4", 0)
    """Whole seconds since 1970; 0: it takes part."""

    waits: Flags = _column("?", 0)
    """Its order has begun and is not yet for it (see `fleet.stages`)."""

    # As reported. One row per `Metric`.
    value: Floats = _column("f8", np.nan, len(Metric))
    order: Longs = _column("i8", 0, len(Metric))
    measured_at_ns: Longs = _column("i8", 0, len(Metric))
    received_at_ns: Longs = _column("i8", 0)
    """Newest arrival of anything from the device itself."""
    skew_ns: Longs = _column("i8", np.iinfo(np.int64).max)
    """Least (received - measured) in this window: clock error + shortest delay."""
    skew_before_ns: Longs = _column("i8", np.iinfo(np.int64).max)
    """The same for the window before."""
    session: Longs = _column("i8", 0)
    connected: Flags = _column("?", 0)

    # As counted (see `fleet.counting.sequence`).
    mark: Longs = _column("i8", 0)
    """Highest `order` by counters so far; 0 where the device sends none."""
    began: Counts = _column("u4", 0)
    """Lowest number that was counted under the boot of `mark`."""
    counting: Bytes = _column("u1", 0)
    """Bits of `sequence.Counting`."""
    newest_ns: Longs = _column("i8", 0)
    """No report was measured later than this and every `measured_at_ns` (device time)."""
    floor_ns: Longs = _column("i8", 0)
    """What was measured no later belongs to the device's life before its counters restarted."""
    ahead_ns: Longs = _column("i8", 0)
    """Latest time ahead of ours that a device without counters has claimed."""
    restart_order: Longs = _column("i8", 0)
    """Last report of what may be a restart of the counters …"""
    restart_count: Bytes = _column("u1", 0)
    """… and how many such reports came in a row."""
    received: Counts = _column("u4", 0)
    """Reports that came, repeats left out."""
    duplicates: Counts = _column("u4", 0)
    """Repeats of reports that had come."""
    late: Counts = _column("u4", 0)
    """Reports that came after a newer one, and filled a gap."""
    lost: Counts = _column("u4", 0)
    """Numbers that were skipped and have not come since."""
    undecided: Counts = _column("u4", 0)
    """Old reports of which we cannot tell any more whether they had come."""

    # As metered (see `fleet.metering.live`). One row per register: export, import.
    energy_mwh: Longs = _column("i8", 0, 2)
    """Counted since the device was first heard. [mWh]"""
    register_mwh: Longs = _column("i8", 0, 2)
    """What the register read when it was last counted. [mWh]"""
    register_at: Counts = _column("u4", 0, 2)
    """When it was last looked at (device time); 0: never. [2**30 ns]"""
    register_doubt: Bytes = _column("u1", 0)
    """By register four bits: readings in a row that cannot be, and calm ones yet to come."""

    # Learned and derived at ticks.
    marked_at_ns: Longs = _column("i8", 0)
    """Measuring time of the newest power reading at the last tick; 0 before the first."""
    heard_at_ns: Longs = _column("i8", 0)
    """Our time at which the newest power reading was true; 0 before the first."""
    cadence_s: Floats32 = _column("f4", np.nan)
    freshness: Bytes = _column("u1", 0)
    estimate_w: Floats = _column("f8", 0)
    estimate_std_w: Floats32 = _column("f4", 0)
    gap_s: Floats16 = _column("f2", 0)
    """Time between the reading that came since the tick before and the one before it; 0: none
    came; negative: a command was on its way; infinite: it came out of silence. [s]"""
    surprise: Floats16 = _column("f2", 0)
    """That reading less what was estimated before it, as a share of nameplate."""
    anchor: Floats16 = _column("f2", 0)
    """An old reading on its own schedule, as a share of nameplate: what a device does now
    tells how far it would have strayed from it in silence."""
    anchored_at: Shorts16 = _column("u2", 0)
    """When that was: second on a dial of 65,535, from 1; 0: never."""

    # Desired: what we ask, and how far it has come.
    desired_w: Floats = _column("f8", np.nan)
    """Setpoint in force or on its way; NaN: none, the device follows its own schedule."""
    own_w: Floats = _column("f8", 0)
    """What the device does, or did last, on its own schedule."""
    order_no: Ints = _column("i4", 0)
    prior_no: Ints = _column("i4", 0)
    """The order whose setpoint it may still be at, until it has answered the command since."""
    revision: Longs = _column("i8", 0)
    epoch: Longs = _column("i8", 0)
    phase: Bytes = _column("u1", 0)
    attempt: Ints = _column("i4", 0)
    planned_at_ns: Longs = _column("i8", 0)
    """When the present revision was first issued."""
    tried_at_ns: Longs = _column("i8", 0)
    """When it was last issued."""
    sent_at_ns: Longs = _column("i8", 0)
    applied_at_ns: Longs = _column("i8", 0)
    """When the device said so (accepted or applied); 0 where it has not."""
    not_after_ns: Longs = _column("i8", 0)
    reverts_at_ns: Longs = _column("i8", 0)
    """When the device's revert timer ends, counted from its last acknowledged command."""
    seen_at_ns: Longs = _column("i8", 0)
    """Measuring time of the last reading that was held against the setpoint."""
    followed: Bytes = _column("u1", 0)
    """Readings in a row that agree with the setpoint."""
    strayed: Bytes = _column("u1", 0)
    """Readings in a row that do not."""
    excluded: Bytes = _column("u1", 0)
    """Why the device is not counted on: an `Exclusion`."""
    excluded_until_ns: Longs = _column("i8", 0)
    failures: Bytes = _column("u1", 0)
    responses: Floats32 = _column("f4", 9.0)
    """Beta–Bernoulli counts with forgetting of commands followed …"""
    refusals: Floats32 = _column("f4", 1.0)
    """… and not followed."""

    # Of devices with least times on and off (see `fleet.curve.dwell`).
    is_on: Flags = _column("?", 0)
    """What the meter last showed."""
    switched_at_s: Seconds = _column("u4", 0)
    """The tick that first saw it so; 0: it was never seen to change."""

    # How devices stand to what is desired, and what is wrong with them for longer than a moment.
    # Whole seconds since 1970 fit four bytes until 2106.
    enrolments: Ints = _column("i4", 0)
    """Rows of the registry that changed the device: the version of what is enrolled."""
    standing: Bytes = _column("u1", 0)
    """A `Standing`."""
    standing_at_s: Seconds = _column("u4", 0)
    """The tick it began."""
    condition: Words = _column("u2", 0)
    """Bits of `Condition`."""
    condition_at_s: Seconds = _column("u4", 0)
    """The tick any of its bits last changed."""
    announced: Words = _column("u2", 0)
    """Conditions a notice was written about, and whose end is not announced yet."""
    muted_until_s: Seconds = _column("u4", 0)
    """When a muted device is listened to again; 0: it is not muted (`reconciliation.mutes`)."""
    unanswered: Bytes = _column("u1", 0)
    """Commands in a row the device, though heard and connected, gave no answer to."""
    lost_at_s: Seconds = _column("u4", 0, 3)
    """When its connection was lost: the last three times, newest first."""
    taken_at_s: Seconds = _column("u4", 0, 3)
    """When a newer session took over from a live one: the last three times, newest first."""
    seen_w: Floats = _column("f8", 0)
    """The newest power reading at the last tick that had one."""
    seen_w_at_s: Seconds = _column("u4", 0)
    """When that was measured, by the device's clock."""
    same: Bytes = _column("u1", 0)
    """Readings in a row that repeat it to the bit."""
    same_since_s: Seconds = _column("u4", 0)
    """When the first of them was measured."""
    window_at_s: Seconds = _column("u4", 0)
    """When the present comparison of power with energy began, by the device's clock."""
    window_wh: Floats32 = _column("f4", 0)
    """Power added up since. [Wh]"""
    window_register_wh: Floats = _column("f8", 0)
    """Export less import by the registers when it began; NaN where they did not say. [Wh]"""
    window_soc: Floats32 = _column("f4", 0)
    proofs: Marks = _column("i1", 0, 6)
    """For (positive) and against (negative) a condition, in a row: a row per `Proof`."""

    @classmethod
    def empty(cls, partition: int = 0, partitions: int = 1, capacity: int = 0) -> Self:
        """Return a fleet without devices and room for `capacity`."""
        specs = column_specs().items()
        made: dict[str, Any] = {name: _filled(*spec, capacity) for name, spec in specs}
        return cls(
            partition=partition,
            partitions=partitions,
            size=0,
            position=0,
            now_ns=0,
            names={table: [""] for table in ("vendor", "zone", "feeder", "provider", "site")},
            members={},
            signals={},
            notices=[],
            gaps=Gaps(),
            trials=Trials(),
            envelopes=Book(),
            **made,
        )

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows; the new ones are empty."""
        have = len(self.active)
        if rows > have:
            capacity = max(rows, int(have * _GROWTH))
            for name, (dtype, fill, deep) in column_specs().items():
                longer = _filled(dtype, fill, deep, capacity)
                if have:
                    _refill(longer, getattr(self, name))
                setattr(self, name, longer)
        self.size = max(self.size, rows)

    def rows(self, device_no: Ints) -> Ints:
        """Return the row of each device number."""
        return device_no // np.int32(self.partitions)

    def device_nos(self, rows: Ints) -> Ints:
        """Return the device number of each row."""
        return (rows * np.int32(self.partitions) + np.int32(self.partition)).astype(np.int32)


def span(rows: Ints) -> slice | Ints:
    """Return a slice where ascending rows have no gaps: views cost nothing, copies do."""
    count = len(rows)
    if count and int(rows[-1]) - int(rows[0]) + 1 == count:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def is_heard(freshness: Bytes) -> Flags:
    """Tell which devices are live or late."""
    # These are 1 and 2; never, 0, wraps to 255.
    heard: Flags = freshness - np.uint8(Freshness.LIVE) < 2
    return heard


@cache
def column_specs() -> dict[str, tuple[np.dtype[np.generic], float, int]]:
    """Return dtype, value in an empty row, and depth (0: a plain column) of each, in order."""
    return {f.name: f.metadata[_COLUMN] for f in fields(Fleet) if _COLUMN in f.metadata}


def _filled(
    dtype: np.dtype[np.generic], fill: float, deep: int, capacity: int
) -> NDArray[np.generic]:
    shape = (deep, capacity) if deep else (capacity,)
    # Zeros come from the system untouched: columns nobody reports take no memory.
    return np.full(shape, fill, dtype) if fill else np.zeros(shape, dtype)


def _refill(longer: NDArray[np.generic], shorter: NDArray[np.generic]) -> None:
    if longer.ndim == 2:
        for into, out_of in zip(longer, shorter, strict=True):
            _refill(into, out_of)
    # What is zero already stays untouched, and so takes no memory.
    elif longer[-1] != 0 or shorter.any():
        longer[: len(shorter)] = shorter
