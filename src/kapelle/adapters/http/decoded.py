"""What a body of telemetry becomes, whatever its format: readings, and rows that are none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kapelle.model.blocks import Quarantined, Readings
from kapelle.model.enums import DeviceMode, Metric
from kapelle.model.ids import Floats, Ints, Longs

METRIC_OF = {metric.name.lower(): metric for metric in Metric}
MODE_OF = {mode.name.lower(): float(mode) for mode in DeviceMode}
"""The one value that is a word on the wire."""
RAW_BYTES_MAX = 4_096
NAME_LENGTH_MAX = 128


class Unreadable(Exception):
    """Nothing in the body can be read. `code` names the kind for good."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no reading, as the sender counts rows."""

    row: int
    device: str
    code: str
    detail: str
    field: str = ""
    """The field at fault where one is."""
    device_no: int = -1

    @property
    def reason(self) -> str:
        """The same as the quarantine keeps it."""
        return f"{self.code}: {self.detail}"


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Rows as they were sent, before anyone asked who the devices are."""

    rows: NDArray[np.intp]
    """Place of each row in the request."""
    device_no: Ints
    at_ns: Longs
    """0 where no time was sent."""
    order: Longs
    """0 where neither a time nor both `boot` and `seq` were sent."""
    values: Mapping[Metric, Floats]
    bad: list[BadRow]
    """Rows that are not in the columns."""
    raw: Callable[[int], bytes]
    """What was sent for a row of the request."""
    name: Callable[[int], str]
    """The device named in a row of the request."""
    count: int
    """Rows in the request."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A whole request: every row of it is in `readings` or in `bad`."""

    readings: Readings
    rows: NDArray[np.intp]
    """Place in the request of each reading."""
    bad: list[BadRow]
    raw: Callable[[int], bytes]
    name: Callable[[int], str]
    count: int

    def quarantined(self, received_at_ns: int, source: str) -> Quarantined | None:
        """Return the bad rows for the quarantine; None where there are none."""
        if not self.bad:
            return None
        count = len(self.bad)
        return Quarantined(
            device_no=np.fromiter((bad.device_no for bad in self.bad), np.int32, count),
            received_at_ns=np.full(count, received_at_ns, np.int64),
            source=(source.encode(),) * count,
            reason=tuple(bad.reason.encode(errors="replace") for bad in self.bad),
            raw=tuple(self.raw(bad.row)[:RAW_BYTES_MAX] for bad in self.bad),
        )


def settle(columns: Columns, received_at_ns: int, sender_no: int | None) -> Decoded:
    """Set apart rows that say nothing or speak for others; the rest are readings.

    Args:
        columns: As read from the body.
        received_at_ns: Our time.
        sender_no: The device whose credentials came with the request; None: one that may speak
            for all.
    """
    bad = list(columns.bad)
    count = len(columns.rows)
    is_bad = np.zeros(count, np.bool_)
    if sender_no is not None:
        is_foreign = columns.device_no != sender_no
        for place in np.flatnonzero(is_foreign).tolist():
            row = int(columns.rows[place])
            detail = "these credentials speak for another device; use its own"
            name = columns.name(row)
            bad.append(BadRow(row, name, "device-foreign", detail, "device", sender_no))
        is_bad |= is_foreign
    says_nothing = np.ones(count, np.bool_)
    for column in columns.values.values():
        says_nothing &= np.isnan(column)
    for place in np.flatnonzero(says_nothing & ~is_bad).tolist():
        row = int(columns.rows[place])
        detail = f"no metric; send at least one of {', '.join(METRIC_OF)}"
        device_no = int(columns.device_no[place])
        bad.append(BadRow(row, columns.name(row), "row-empty", detail, "", device_no))
    is_bad |= says_nothing
    good = slice(None) if not is_bad.any() else ~is_bad
    values = {metric: column[good] for metric, column in columns.values.items()}
    kept = columns.device_no[good]
    readings = Readings(
        device_no=kept,
        order=columns.order[good],
        measured_at_ns=columns.at_ns[good],
        received_at_ns=np.full(len(kept), received_at_ns, np.int64),
        quality=np.zeros(len(kept), np.uint8),
        values={m: column for m, column in values.items() if not np.isnan(column).all()},
    )
    bad.sort(key=lambda one: one.row)
    return Decoded(readings, columns.rows[good], bad, columns.raw, columns.name, columns.count)
