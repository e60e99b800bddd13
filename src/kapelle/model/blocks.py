"""Columnar bodies of journal entries: many rows at once, one array per column.

Every class lists its columns and their dtypes in `COLUMNS`; `bytes` marks a ragged column, held as
a tuple of `bytes`. Rows are never modified after a block is built.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from kapelle.model.enums import Metric
from kapelle.model.ids import Bytes, Floats, Ints, Longs

Ragged = tuple[bytes, ...]
ColumnType = np.dtype[np.generic] | type[bytes]

I4, I8, F8, U1 = np.dtype("<i4"), np.dtype("<i8"), np.dtype("<f8"), np.dtype("<u1")


def _nothing() -> Floats:
    """Stand for a column that was not given: NaN in every row."""
    return np.zeros(0)


def _no_bytes() -> Bytes:
    """Stand for a column that was not given: 0 in every row."""
    return np.zeros(0, np.uint8)


def _no_longs() -> Longs:
    """Stand for a column that was not given: 0 in every row."""
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Measured values. A row is one report of one device; NaN where it did not say."""

    COLUMNS: ClassVar[Mapping[str, ColumnType]] = {
        "device_no": I4,
        "order": I8,
        "measured_at_ns": I8,
        "received_at_ns": I8,
        "quality": U1,
    }
    device_no: Ints
    order: Longs
    """Rank among the device's reports: `(boot << 32 | seq) - 2**63` where it sends both counters,
    else `measured_at_ns`. So counters are negative and times are not; between the two kinds
    `measured_at_ns` decides. Arrival never does."""
    measured_at_ns: Longs
    received_at_ns: Longs
    quality: Bytes
    """Bits of `Quality`."""
    values: Mapping[Metric, Floats]
    """Only the metrics that some row has; each as long as `device_no`. [unit of the metric]"""

    def __len__(self) -> int:
        return len(self.device_no)


@dataclass(frozen=True, slots=True, eq=False)
class Quarantined:
    """What was sent and could not be used: raw, with the reason."""

    COLUMNS: ClassVar[Mapping[str, ColumnType]] = {
        "device_no": I4,
        "received_at_ns": I8,
        "source": bytes,
        "reason": bytes,
        "raw": bytes,
    }
    device_no: Ints
    """-1 where the sender could not be resolved."""
    received_at_ns: Longs
    source: Ragged
    """Adapter and sender: `mqtt/dev-0007`."""
    reason: Ragged
    """`code: sentence with the remedy`, for example `power-unit: … looks like kW, send W`."""
    raw: Ragged

    def __len__(self) -> int:
        return len(self.device_no)


@dataclass(frozen=True, slots=True, eq=False)
class Sessions:
    """Connections that came and went."""

    COLUMNS: ClassVar[Mapping[str, ColumnType]] = {
        "device_no": I4,
        "event": U1,
        "session": I8,
        "at_ns": I8,
    }
    device_no: Ints
    event: Bytes
    """`SessionEvent`."""
    session: Longs
    """Number of the connection; the newest (highest) owns the device's reports."""
    at_ns: Longs

    def __len__(self) -> int:
        return len(self.device_no)


@dataclass(frozen=True, slots=True, eq=False)
class Enrolled:
    """Registry rows, new or changed. A later row for the same device replaces the earlier whole."""

    _FIRST_OPTIONAL: ClassVar[int] = 19
    """Columns from here on are younger than the first journals."""
    COLUMNS: ClassVar[Mapping[str, ColumnType]] = {
        "device_no": I4,
        "active": U1,
        "kind": U1,
        "device_id": bytes,
        "site": bytes,
        "vendor": bytes,
        "model": bytes,
        "zone": bytes,
        "feeder": bytes,
        "provider": bytes,
        "adapter": bytes,
        "address": bytes,
        "nameplate_up_w": F8,
        "nameplate_down_w": F8,
        "energy_wh": F8,
        "reserve_soc": F8,
        "ramp_w_per_s": F8,
        "revert_s": F8,
        "report_every_s": F8,
        "meter_rollover_wh": F8,
        "meter_resolution_wh": F8,
        "tier": U1,
        "priority": F8,
        "steps": U1,
        "min_on_s": F8,
        "min_off_s": F8,
        "must_run": U1,
        "opted_out_until_ns": I8,
    }
    device_no: Ints
    active: Bytes
    """0: the device has left; its row stays and counts for nothing."""
    kind: Bytes
    """`DeviceKind`."""
    device_id: Ragged
    site: Ragged
    vendor: Ragged
    model: Ragged
    zone: Ragged
    feeder: Ragged
    provider: Ragged
    """Internet provider or gateway the device is reached through; empty where not known."""
    adapter: Ragged
    address: Ragged
    nameplate_up_w: Floats
    """Highest power towards export, >= 0. [W]"""
    nameplate_down_w: Floats
    """Highest consumption, >= 0; the lowest power is minus this. [W]"""
    energy_wh: Floats
    """Usable storage; NaN where there is none. [Wh]"""
    reserve_soc: Floats
    """State of charge below which the owner keeps the energy. 0-1"""
    ramp_w_per_s: Floats
    """NaN: as fast as asked. [W/s]"""
    revert_s: Floats
    """Device-side revert timer; NaN: it has none (`no_failsafe`). [s]"""
    report_every_s: Floats
    """Cadence its maker promises; NaN: learned only. [s]"""
    meter_rollover_wh: Floats = field(default_factory=_nothing)
    """Its energy registers count from 0 to below this and begin anew; NaN: they never do. [Wh]"""
    meter_resolution_wh: Floats = field(default_factory=_nothing)
    """Last digit of its energy registers; NaN: not known. [Wh]"""
    tier: Bytes = field(default_factory=_no_bytes)
    """Place in the merit order, 0-15: lower tiers are used up before the next begins."""
    priority: Floats = field(default_factory=_nothing)
    """Weight within its tier, > 0; NaN: 1."""
    steps: Bytes = field(default_factory=_no_bytes)
    """1: on or off; n: n equal steps of its rating; 0: as is usual for its kind."""
    min_on_s: Floats = field(default_factory=_nothing)
    """Once on it stays on for so long; NaN: as it likes. [s]"""
    min_off_s: Floats = field(default_factory=_nothing)
    must_run: Bytes = field(default_factory=_no_bytes)
    """1: a device that only consumes is not turned down, any other not below its own schedule."""
    opted_out_until_ns: Longs = field(default_factory=_no_longs)
    """Its owner keeps it to himself until then; 0: he does not."""

    def __post_init__(self) -> None:
        for name in tuple(self.COLUMNS)[self._FIRST_OPTIONAL :]:
            given = getattr(self, name)
            if not len(given):
                empty = np.nan if given.dtype.kind == "f" else 0
                object.__setattr__(self, name, np.full(len(self), empty, given.dtype))

    def __len__(self) -> int:
        return len(self.device_no)


@dataclass(frozen=True, slots=True, eq=False)
class Commands:
    """Instructions to devices. (`device_no`, `revision`) is the idempotency key."""

    COLUMNS: ClassVar[Mapping[str, ColumnType]] = {
        "device_no": I4,
        "order_no": I4,
        "revision": I8,
        "epoch": I8,
        "attempt": I4,
        "setpoint_w": F8,
        "issued_at_ns": I8,
        "not_after_ns": I8,
        "ttl_s": F8,
        "revert_s": F8,
    }
    device_no: Ints
    order_no: Ints
    """0 where no order stands behind it (a release)."""
    revision: Longs
    """Per device strictly rising with every new desire; a retry repeats it."""
    epoch: Longs
    """Fencing token of the partition's owner; devices follow only the highest."""
    attempt: Ints
    setpoint_w: Floats
    """NaN releases the device to its own schedule. [W]"""
    issued_at_ns: Longs
    not_after_ns: Longs
    ttl_s: Floats
    """The same expiry relative to sending, for devices whose clock is not trusted. [s]"""
    revert_s: Floats
    """The device returns to its own schedule this long after its last command. [s]"""

    def __len__(self) -> int:
        return len(self.device_no)


@dataclass(frozen=True, slots=True, eq=False)
class Acks:
    """What devices answered."""

    COLUMNS: ClassVar[Mapping[str, ColumnType]] = {
        "device_no": I4,
        "revision": I8,
        "epoch": I8,
        "status": U1,
        "at_ns": I8,
        "reason": bytes,
    }
    device_no: Ints
    revision: Longs
    epoch: Longs
    """-1 where the answer carries none (a transport acknowledgement)."""
    status: Bytes
    """`AckStatus`."""
    at_ns: Longs
    reason: Ragged

    def __len__(self) -> int:
        return len(self.device_no)


@dataclass(frozen=True, slots=True, eq=False)
class Phases:
    """Commands that entered a phase, on evidence (sent, verified) or for want of it (unknown)."""

    COLUMNS: ClassVar[Mapping[str, ColumnType]] = {
        "device_no": I4,
        "revision": I8,
        "phase": U1,
        "at_ns": I8,
    }
    device_no: Ints
    revision: Longs
    phase: Bytes
    """`Phase`."""
    at_ns: Longs

    def __len__(self) -> int:
        return len(self.device_no)


@dataclass(frozen=True, slots=True, eq=False)
class Mutings:
    """Devices that send so much rubbish that it is counted only, and no longer kept, for a while.

    What they send and can be read is taken as ever.
    """

    COLUMNS: ClassVar[Mapping[str, ColumnType]] = {"device_no": I4, "at_ns": I8, "until_ns": I8}
    device_no: Ints
    at_ns: Longs
    until_ns: Longs
    """Not later than `at_ns`: the device is listened to again."""

    def __len__(self) -> int:
        return len(self.device_no)


Block = Readings | Quarantined | Sessions | Enrolled | Commands | Acks | Phases | Mutings
