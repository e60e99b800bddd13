"""The thinner tiers: means per minute from readings, and per quarter-hour from minutes.

A minute's mean is by samples: every report of the minute counts once. A quarter-hour's is the mean
of its minutes, so a burst of reports weighs no more than the minute it came in. Registers and
state of charge are the last reported.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kapelle.history.order import changes, numbers
from kapelle.history.tables import MINUTE_NS, QUARTER_NS, TABLES
from kapelle.model.ids import Flags, Floats, Longs

_LAST = ("soc", "export_wh", "import_wh")


def minutes(readings: pa.Table) -> pa.Table:
    """Return readings, in order and each once, as minutes."""
    starts_ns = numbers(readings, "measured_at_ns") // MINUTE_NS * MINUTE_NS
    power_w = floats(readings, "power_w")
    groups = _Groups(numbers(readings, "device_no"), starts_ns)
    return groups.table(
        readings=groups.sizes,
        power_w=groups.mean(power_w),
        power_w_min=groups.lowest(power_w),
        power_w_max=groups.highest(power_w),
        powers=groups.count(power_w),
        **{name: groups.last(floats(readings, name)) for name in _LAST},
    )


def quarters(minutes: pa.Table) -> pa.Table:
    """Return minutes, in order, as quarter-hours."""
    starts_ns = numbers(minutes, "starts_at_ns") // QUARTER_NS * QUARTER_NS
    groups = _Groups(numbers(minutes, "device_no"), starts_ns)
    return groups.table(
        readings=groups.total(numbers(minutes, "readings")),
        power_w=groups.mean(floats(minutes, "power_w")),
        power_w_min=groups.lowest(floats(minutes, "power_w_min")),
        power_w_max=groups.highest(floats(minutes, "power_w_max")),
        powers=groups.total(numbers(minutes, "powers")),
        **{name: groups.last(floats(minutes, name)) for name in _LAST},
    )


def floats(rows: pa.Table, name: str) -> Floats:
    """Return a column as an array with NaN where nothing is known."""
    column = rows.column(name).combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    found: Floats = array.to_numpy(zero_copy_only=False)
    return found


class _Groups:
    """Rows with the same device and start, which lie side by side."""

    def __init__(self, device_no: Longs, starts_ns: Longs) -> None:
        self._firsts = np.flatnonzero(changes([device_no, starts_ns]))
        self._device_no = device_no[self._firsts]
        self._starts_ns = starts_ns[self._firsts]
        self.sizes = np.diff(np.append(self._firsts, len(device_no)))

    def table(self, **columns: NDArray[np.generic]) -> pa.Table:
        known = {"device_no": self._device_no, "starts_at_ns": self._starts_ns, **columns}
        schema = TABLES["minutes"].schema
        arrays = [
            pa.array(known[field.name].astype(field.type.to_pandas_dtype()), from_pandas=True)
            for field in schema
        ]
        return pa.table(arrays, schema=schema)

    def total(self, values: Longs) -> Longs:
        summed: Longs = np.add.reduceat(values, self._firsts) if len(values) else values
        return summed

    def count(self, values: Floats) -> Longs:
        return self.total((~np.isnan(values)).astype(np.int64))

    def mean(self, values: Floats) -> Floats:
        known, count = ~np.isnan(values), self.count(values)
        if not len(values):
            return values
        summed = np.add.reduceat(np.where(known, values, 0.0), self._firsts)
        mean: Floats = np.divide(summed, count, out=np.full(len(count), np.nan), where=count > 0)
        return mean

    def lowest(self, values: Floats) -> Floats:
        if not len(values):
            return values
        least = np.minimum.reduceat(np.where(np.isnan(values), np.inf, values), self._firsts)
        return np.where(self.count(values) > 0, least, np.nan)

    def highest(self, values: Floats) -> Floats:
        return -self.lowest(-values)

    def last(self, values: Floats) -> Floats:
        if not len(values):
            return values
        known: Flags = ~np.isnan(values)
        places = np.maximum.reduceat(np.where(known, np.arange(len(values)), -1), self._firsts)
        return np.where(places >= 0, values[places], np.nan)
