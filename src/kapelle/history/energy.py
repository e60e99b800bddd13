"""Quarter-hours of energy from raw readings, and what of them is new: pure, for many devices.

A `Grid` is a table of devices by quarter-hours by registers. The ledger measures one from readings,
fills another with what it holds already, and appends the difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kapelle.fleet.metering.accounts import Account, Meters, account
from kapelle.fleet.metering.arrange import arrange
from kapelle.fleet.metering.integration import integrate
from kapelle.fleet.metering.intervals import intervals
from kapelle.history.corrections import REGISTERS, Energy, corrected
from kapelle.history.order import changes as changes_between
from kapelle.history.order import numbers
from kapelle.history.tables import QUARTER_NS, TABLES
from kapelle.model.ids import Bytes, Flags, Floats, Ints, Longs
from kapelle.model.plant import Correction

UNKNOWN = -1
"""Energy nobody knows; in tables null."""
_COLUMNS = ("export_wh", "import_wh")
REPORTED = (
    "device_no",
    "order",
    "measured_at_ns",
    "received_at_ns",
    "quality",
    "power_w",
    *_COLUMNS,
)
"""What is read of the table `readings`."""
LEDGERED = (
    *("device_no", "starts_at_ns", "register", "mwh", "quality", "revision"),
    *("measured_mwh", "measured_quality", "correction_no"),
)
"""What is read of the table `energy`."""
_MANY = len(REGISTERS)


@dataclass(frozen=True, slots=True, eq=False)
class Reported:
    """Raw readings of some devices, each report once, in the order of `metering.arrange`."""

    device_no: Ints
    order: Longs
    measured_at_ns: Longs
    power_w: Floats
    register_wh: tuple[Floats, Floats]
    """Export and import."""

    @classmethod
    def of(cls, rows: pa.Table) -> Self:
        """Take up rows of the table `readings`, in the order they arrived in."""
        device_no = numbers(rows, "device_no").astype(np.int32)
        order = numbers(rows, "order").astype(np.int64)
        measured_at_ns = numbers(rows, "measured_at_ns").astype(np.int64)
        received_at_ns = numbers(rows, "received_at_ns").astype(np.int64)
        quality = numbers(rows, "quality").astype(np.uint8)
        places = arrange(device_no, order, measured_at_ns, received_at_ns, quality)
        power_w, export_wh, import_wh = (
            numbers(rows, name).astype(np.float64)[places] for name in ("power_w", *_COLUMNS)
        )
        return cls(
            device_no[places],
            order[places],
            measured_at_ns[places],
            power_w,
            (export_wh, import_wh),
        )

    def only(self, device_nos: Ints) -> Self:
        """Return the rows of some devices."""
        kept = np.isin(self.device_no, device_nos)
        if kept.all():
            return self
        return type(self)(
            self.device_no[kept],
            self.order[kept],
            self.measured_at_ns[kept],
            self.power_w[kept],
            (self.register_wh[0][kept], self.register_wh[1][kept]),
        )

    def nearest(self, device_no: Ints, at_ns: int, count: int) -> tuple[Longs, Longs]:
        """Return how many reports each device made after a time, and when the last of so many was.

        `count` < 0: before it. The time itself where there are none.
        """
        chosen = self.measured_at_ns > at_ns if count > 0 else self.measured_at_ns < at_ns
        time_ns = self.measured_at_ns[chosen]
        device = np.searchsorted(device_no, self.device_no[chosen])
        # Nearest first.
        places = np.lexsort((time_ns if count > 0 else -time_ns, device))
        found = np.bincount(device, minlength=len(device_no))
        starts = np.cumsum(found) - found
        last = starts + np.minimum(found, abs(count)) - 1
        reached_ns = np.full(len(device_no), at_ns, np.int64)
        some = found > 0
        reached_ns[some] = time_ns[places[last[some]]]
        return found, reached_ns

    def account(self, register: int, meters: Meters) -> Account:
        """Return the account of one register of the devices that report it."""
        said = np.isfinite(self.register_wh[register])
        return account(
            self.device_no[said],
            self.order[said],
            self.measured_at_ns[said],
            self.register_wh[register][said],
            meters,
        )

    def integral(self, register: int, device_nos: Ints) -> Account:
        """Return the account of one direction of the power of some devices."""
        said = np.isfinite(self.power_w) & np.isin(self.device_no, device_nos)
        return integrate(self.device_no[said], self.measured_at_ns[said], self.power_w[said])[
            register
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Energy of devices in quarter-hours; arrays have shape (devices, quarters, registers)."""

    device_no: Ints
    """Ascending, shape (devices,)."""
    starts_at_ns: int
    mwh: Longs
    """What counts; `UNKNOWN` where nobody knows. [mWh]"""
    quality: Bytes
    """Bits of `EnergyQuality`; 0 where nobody knows."""
    measured_mwh: Longs
    """What was measured, whatever corrections say of it. [mWh]"""
    measured_quality: Bytes
    correction_no: Ints
    """Of the correction that counts; 0: as measured."""
    revision: Ints
    """-1: nothing was ever said."""

    @classmethod
    def empty(cls, device_no: Ints, starts_at_ns: int, ends_at_ns: int) -> Self:
        """Return a grid in which nothing is known."""
        shape = (len(device_no), (ends_at_ns - starts_at_ns) // QUARTER_NS, _MANY)
        return cls(
            device_no,
            starts_at_ns,
            np.full(shape, UNKNOWN, np.int64),
            np.zeros(shape, np.uint8),
            np.full(shape, UNKNOWN, np.int64),
            np.zeros(shape, np.uint8),
            np.zeros(shape, np.int32),
            np.full(shape, -1, np.int32),
        )

    def anew(self) -> Self:
        """Return a grid with what was measured, to be measured again."""
        return type(self)(
            self.device_no,
            self.starts_at_ns,
            np.full(self.mwh.shape, UNKNOWN, np.int64),
            np.zeros(self.mwh.shape, np.uint8),
            self.measured_mwh.copy(),
            self.measured_quality.copy(),
            np.zeros(self.mwh.shape, np.int32),
            self.revision,
        )

    def between(self, starts_at_ns: int, ends_at_ns: int) -> Self:
        """Return some of its intervals, as a view: what is written there is written here."""
        first = (starts_at_ns - self.starts_at_ns) // QUARTER_NS
        inside = slice(first, first + (ends_at_ns - starts_at_ns) // QUARTER_NS)
        return type(self)(
            self.device_no,
            starts_at_ns,
            self.mwh[:, inside],
            self.quality[:, inside],
            self.measured_mwh[:, inside],
            self.measured_quality[:, inside],
            self.correction_no[:, inside],
            self.revision[:, inside],
        )

    @property
    def edges_ns(self) -> Longs:
        """Return the edges of its quarter-hours."""
        ends_at_ns = self.starts_at_ns + self.mwh.shape[1] * QUARTER_NS
        return np.arange(self.starts_at_ns, ends_at_ns + 1, QUARTER_NS)


def ledgered(device_no: Ints, starts_at_ns: int, ends_at_ns: int, rows: pa.Table) -> Grid:
    """Return what rows of the table `energy` say last of each interval."""
    grid = Grid.empty(device_no, starts_at_ns, ends_at_ns)
    if not len(rows) or not len(device_no):
        return grid
    device = numbers(rows, "device_no").astype(np.int32)
    of = np.minimum(np.searchsorted(device_no, device), len(device_no) - 1)
    start = numbers(rows, "starts_at_ns").astype(np.int64)
    inside = (device_no[of] == device) & (start >= starts_at_ns) & (start < ends_at_ns)
    quarter = (start - starts_at_ns) // QUARTER_NS
    register = numbers(rows, "register").astype(np.intp)
    revision = numbers(rows, "revision").astype(np.int32)
    # Rows of an interval ascend by revision: assigned one after the other, the last stays.
    inside = np.flatnonzero(inside)
    inside = inside[np.argsort(revision[inside], kind="stable")]
    cells = of[inside], quarter[inside], register[inside]
    grid.mwh[cells] = _known(rows, "mwh")[inside]
    grid.quality[cells] = numbers(rows, "quality").astype(np.uint8)[inside]
    grid.measured_mwh[cells] = _known(rows, "measured_mwh")[inside]
    grid.measured_quality[cells] = numbers(rows, "measured_quality").astype(np.uint8)[inside]
    grid.correction_no[cells] = numbers(rows, "correction_no").astype(np.int32)[inside]
    grid.revision[cells] = revision[inside]
    return grid


def _known(rows: pa.Table, name: str) -> Longs:
    filled = rows.set_column(
        rows.schema.get_field_index(name), name, pc.fill_null(rows.column(name), UNKNOWN)
    )
    return numbers(filled, name).astype(np.int64)


def measure(reported: Reported, meters: Meters, metered: Bytes, grid: Grid) -> None:
    """Write what readings tell about the intervals of a grid into its measured columns.

    Args:
        reported: Readings from some time before its start to some time after its end.
        meters: The registers of every device in `reported`.
        metered: Of each device in the grid, the registers it has, as bits; the others are made
            up for by its power.
        grid: What readings do not tell stays as it is.
    """
    for register in range(_MANY):
        has = (metered >> register & 1).astype(np.bool_)
        accounts = [
            reported.account(register, meters),
            reported.integral(register, grid.device_no[~has]),
        ]
        for counted, mine in zip(accounts, (has, ~has), strict=True):
            found = intervals(counted, grid.edges_ns)
            of = np.searchsorted(grid.device_no, found.device_no)
            of = np.minimum(of, max(len(grid.device_no) - 1, 0))
            places = np.flatnonzero((grid.device_no[of] == found.device_no) & mine[of])
            known = found.known[places]
            into_mwh = grid.measured_mwh[of[places], :, register]
            into_quality = grid.measured_quality[of[places], :, register]
            grid.measured_mwh[of[places], :, register] = np.where(
                known, found.mwh[places], into_mwh
            )
            grid.measured_quality[of[places], :, register] = np.where(
                known, found.quality[places], into_quality
            )


def changes(
    before: Grid,
    after: Grid,
    corrections: Sequence[Correction],
    *,
    computed_at_ns: int,
    author: str = "",
    reason: str = "",
) -> pa.Table:
    """Return the rows that lead the ledger from one grid to what was measured in another.

    Args:
        before: What the ledger holds.
        after: The same devices and intervals, measured anew; its other columns are written.
        corrections: Those in force for any device of the grid.
        computed_at_ns: When; goes into every row.
        author: Who causes the revision; empty for readings.
        reason: Why, for intervals about which something was said before.
    """
    after.mwh[:], after.quality[:] = after.measured_mwh, after.measured_quality
    after.correction_no[:] = 0
    for device in {each.device_no for each in corrections}:
        of = int(np.searchsorted(after.device_no, device))
        if of < len(after.device_no) and after.device_no[of] == device:
            for register, name in enumerate(REGISTERS):
                mine = [c for c in corrections if c.device_no == device and c.register == name]
                _correct(after, of, register, mine)
    changed = (
        (before.mwh != after.mwh)
        | (before.quality != after.quality)
        | (before.measured_mwh != after.measured_mwh)
        | (before.correction_no != after.correction_no)
    )
    return _rows(before, after, changed, computed_at_ns, author, reason)


def _correct(grid: Grid, of: int, register: int, mine: Sequence[Correction]) -> None:
    if not mine:
        return
    edges = grid.edges_ns.tolist()
    measured = {
        edges[place]: Energy(int(mwh), int(grid.measured_quality[of, place, register]))
        for place, mwh in enumerate(grid.measured_mwh[of, :, register].tolist())
        if mwh != UNKNOWN
    }
    for start, energy in corrected(measured, mine).items():
        place = (start - grid.starts_at_ns) // QUARTER_NS
        if 0 <= place < grid.mwh.shape[1]:
            grid.mwh[of, place, register] = energy.mwh
            grid.quality[of, place, register] = energy.quality
            grid.correction_no[of, place, register] = energy.correction_no


def _rows(
    before: Grid, after: Grid, changed: Flags, computed_at_ns: int, author: str, reason: str
) -> pa.Table:
    device, quarter, register = np.nonzero(changed)
    revision = before.revision[changed] + 1
    count = len(device)
    mwh, measured_mwh = after.mwh[changed], after.measured_mwh[changed]
    columns = {
        "device_no": after.device_no[device],
        "starts_at_ns": after.starts_at_ns + quarter * QUARTER_NS,
        "register": register.astype(np.uint8),
        "mwh": pa.array(mwh, mask=mwh == UNKNOWN),
        "quality": after.quality[changed],
        "revision": revision,
        "computed_at_ns": np.full(count, computed_at_ns, np.int64),
        "author": pa.array([author]).take(pa.array(np.zeros(count, np.int64))),
        "reason": pa.array([reason if number else "" for number in revision.tolist()], pa.string()),
        "measured_mwh": pa.array(measured_mwh, mask=measured_mwh == UNKNOWN),
        "measured_quality": after.measured_quality[changed],
        "correction_no": after.correction_no[changed],
    }
    return pa.table(columns, schema=TABLES["energy"].schema)


def newest(rows: pa.Table) -> Meters:
    """Return what rows of the table `devices` say last of each device's registers."""
    if not len(rows):
        nothing = np.zeros(0)
        return Meters(np.zeros(0, np.int32), nothing, nothing, nothing)
    device_no = numbers(rows, "device_no").astype(np.int32)
    places = np.lexsort((numbers(rows, "position"), device_no))
    last = np.ones(len(places), np.bool_)
    last[:-1] = device_no[places[1:]] != device_no[places[:-1]]
    places = places[last]
    up_w, down_w, rollover_wh, resolution_wh = (
        numbers(rows, name).astype(np.float64)[places]
        for name in (
            "nameplate_up_w",
            "nameplate_down_w",
            "meter_rollover_wh",
            "meter_resolution_wh",
        )
    )
    return Meters(device_no[places], np.fmax(up_w, down_w), rollover_wh, resolution_wh)


def meters_of(known: Meters, device_no: Ints) -> Meters:
    """Return the registers of some devices, ascending; NaN of those nobody enrolled."""
    of = np.searchsorted(known.device_no, device_no)
    found = np.isin(device_no, known.device_no)
    of = np.where(found, of, 0)
    return Meters(
        device_no,
        *(
            np.where(found, values[of], np.nan) if len(values) else np.full(len(of), np.nan)
            for values in (known.power_w, known.rollover_wh, known.resolution_wh)
        ),
    )


def latest(rows: pa.Table, computed_by_ns: int | None = None) -> pa.Table:
    """Return the last revision of each interval: as corrected; or as it was known at a time."""
    if computed_by_ns is not None:
        rows = rows.filter(pc.field("computed_at_ns") <= computed_by_ns)
    if len(rows) < 2:
        return rows
    keys = ["device_no", "starts_at_ns", "register"]
    rows = rows.sort_by([(name, "ascending") for name in (*keys, "revision")])
    is_last = np.ones(len(rows), np.bool_)
    is_last[:-1] = changes_between([numbers(rows, name) for name in keys])[1:]
    return rows.filter(pa.array(is_last))


def published(rows: pa.Table) -> pa.Table:
    """Return the first revision of each interval: as the plant said it at the time."""
    return rows.filter(pc.field("revision") == 0)
