"""The ledger's energy as people ask for it: by quarter-hour, local day or local month."""

from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kapelle.errors import Invalid, Problem
from kapelle.history.corrections import REGISTERS
from kapelle.history.days import local_day
from kapelle.history.order import numbers
from kapelle.history.reader import Reader
from kapelle.history.tables import QUARTER_NS
from kapelle.model.enums import EnergyQuality
from kapelle.model.ids import NS_PER_S, Longs

Span = Literal["15m", "day", "month"]
Revision = Literal["latest", "all"] | int

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_MWH_PER_WH = 1_000
_STEPS_MAX = 200_000
_COUNTED = ("known", *(bit.name.lower() for bit in EnergyQuality if bit != EnergyQuality.MEASURED))


def series(
    reader: Reader,
    whose: int | str,
    starts_at_ns: int,
    ends_at_ns: int,
    *,
    step: Span,
    zone: ZoneInfo,
    revision: Revision,
) -> pa.Table:
    """Return energy over [starts_at_ns, ends_at_ns) by steps, for each register ever told of.

    Args:
        reader: The record.
        whose: A device's number or a resource's name.
        starts_at_ns: From here on.
        ends_at_ns: Before here.
        step: Quarter-hours, or days or months of `zone`: a day has 23 or 25 hours twice a year.
        zone: Also of the column `local`.
        revision: As known now, as it stood at a revision (0: as first told), or every revision.

    Returns:
        A row per step and register; what nobody knows is null, and `coverage` says how much of a
        step is known. `mwh` is what the ledger holds, `energy_wh` the same in Wh. With `all`: the
        rows of the ledger, each with its author and reason.

    Raises:
        Invalid: All revisions of sums were asked for, or too many steps.
        NotFound: There is no such resource.
    """
    if revision == "all":
        if step != "15m":
            raise Invalid(
                "which revision?",
                [Problem("revision", f"a {step} has no revisions of its own", "ask for step 15m")],
            )
        return _revisions(reader.energy(whose, starts_at_ns, ends_at_ns, "all"), zone)
    edges_ns = edges(starts_at_ns, ends_at_ns, step, zone)
    sums = reader.energy_sums(whose, starts_at_ns, ends_at_ns, revision)
    return _summed(sums, edges_ns, step, zone)


def edges(starts_at_ns: int, ends_at_ns: int, step: Span, zone: ZoneInfo) -> Longs:
    """Return where steps begin, and the end of the last; the first and last may be cut."""
    if step == "15m":
        if (ends_at_ns - starts_at_ns) // QUARTER_NS > _STEPS_MAX:
            raise Invalid(
                "the period is too long",
                [Problem("step", f"more than {_STEPS_MAX:,} quarter-hours", "ask for step day")],
            )
        first_ns = -(-starts_at_ns // QUARTER_NS) * QUARTER_NS
        return np.arange(first_ns, -(-ends_at_ns // QUARTER_NS) * QUARTER_NS + 1, QUARTER_NS)
    inner: list[int] = []
    date = (_EPOCH + timedelta(seconds=starts_at_ns // NS_PER_S)).astimezone(zone).date()
    while True:
        date += _DAY
        if step == "month" and date.day != 1:
            continue
        starts_ns = local_day(date, zone).starts_at_ns
        if starts_ns >= ends_at_ns:
            return np.array([starts_at_ns, *inner, ends_at_ns], np.int64)
        if starts_ns > starts_at_ns:
            inner.append(starts_ns)


def qualities(bits: int) -> str:
    """Return the names of quality bits: `measured`, `estimated+corrected`; empty for none."""
    return "+".join(bit.name.lower() for bit in EnergyQuality if bits & bit)


def _summed(sums: pa.Table, edges_ns: Longs, step: Span, zone: ZoneInfo) -> pa.Table:
    register = numbers(sums, "register").astype(np.intp)
    told = np.unique(register)
    steps = len(edges_ns) - 1
    place = np.searchsorted(edges_ns, numbers(sums, "starts_at_ns"), "right") - 1
    cell = np.searchsorted(told, register) * steps + place
    inside = (place >= 0) & (place < steps)
    cell, rows = cell[inside], sums.filter(pa.array(inside))
    size = len(told) * steps

    def total(name: str) -> Longs:
        found = np.zeros(size, np.int64)
        column = pc.fill_null(rows.column(name), 0).to_numpy(zero_copy_only=False)
        np.add.at(found, cell, column.astype(np.int64))
        return found

    def most(name: str) -> Longs:
        found = np.full(size, -1, np.int64)
        np.maximum.at(found, cell, numbers(rows, name).astype(np.int64))
        return found

    bits = np.zeros(size, np.int64)
    np.bitwise_or.at(bits, cell, numbers(rows, "quality").astype(np.int64))
    counts = {name: total(name) for name in _COUNTED}
    is_known = counts["known"] > 0
    devices, revision, computed_ns = most("devices"), most("revision"), most("computed_at_ns")
    mwh, starts_ns = total("mwh"), np.tile(edges_ns[:-1], len(told))
    # Of a cut first or last step only the whole quarter-hours count.
    quarters = np.tile(np.diff(edges_ns) // QUARTER_NS, len(told))
    whole = np.maximum(quarters * np.maximum(devices, 1), 1)
    # By time first: both registers of a step stand together.
    order = np.lexsort((np.repeat(told, steps), starts_ns))
    names = [REGISTERS[number] for number in told.tolist()]
    columns = {
        "time": pa.array(starts_ns).cast(pa.timestamp("ns")),
        "local": pa.array(np.tile(_labels(edges_ns[:-1], step, zone), len(told)), pa.string()),
        "starts_at_ns": pa.array(starts_ns),
        "ends_at_ns": pa.array(np.tile(edges_ns[1:], len(told))),
        "register": pa.array([name for name in names for _ in range(steps)], pa.string()),
        "mwh": pa.array(mwh, mask=~is_known),
        "energy_wh": pa.array(mwh / _MWH_PER_WH, mask=~is_known),
        "quality": pa.array([qualities(each) for each in bits.tolist()], pa.string()),
        "coverage": pa.array(counts["known"] / whole),
        "quarters": pa.array(quarters.astype(np.int32)),
        "devices": pa.array(np.maximum(devices, 0).astype(np.int32)),
        **{name: pa.array(found.astype(np.int32)) for name, found in counts.items()},
        "revision": pa.array(revision.astype(np.int32), mask=revision < 0),
        "computed_at": pa.array(computed_ns, mask=computed_ns < 0).cast(pa.timestamp("ns")),
    }
    return pa.table(columns).take(pa.array(order))


def _revisions(rows: pa.Table, zone: ZoneInfo) -> pa.Table:
    starts_ns = numbers(rows, "starts_at_ns").astype(np.int64)
    mwh = rows.column("mwh")
    register = numbers(rows, "register").tolist()
    return pa.table(
        {
            "time": rows.column("time"),
            "local": pa.array(_labels(starts_ns, "15m", zone), pa.string()),
            "starts_at_ns": rows.column("starts_at_ns"),
            "device_no": rows.column("device_no"),
            "register": pa.array([REGISTERS[number] for number in register], pa.string()),
            "mwh": mwh,
            "energy_wh": pc.divide(mwh.cast(pa.float64()), _MWH_PER_WH),
            "quality": pa.array(map(qualities, numbers(rows, "quality").tolist()), pa.string()),
            "revision": rows.column("revision"),
            "computed_at": rows.column("computed_at_ns").cast(pa.timestamp("ns")),
            "author": rows.column("author"),
            "reason": rows.column("reason"),
            "correction_no": rows.column("correction_no"),
            "measured_mwh": rows.column("measured_mwh"),
        }
    )


def _labels(starts_ns: Longs, step: Span, zone: ZoneInfo) -> list[str]:
    local = [
        (_EPOCH + timedelta(seconds=start // NS_PER_S)).astimezone(zone)
        for start in starts_ns.tolist()
    ]
    if step == "15m":
        # With the offset: in autumn an hour comes twice.
        return [at.isoformat(timespec="minutes") for at in local]
    return [f"{at:%Y-%m-%d}" if step == "day" else f"{at:%Y-%m}" for at in local]
