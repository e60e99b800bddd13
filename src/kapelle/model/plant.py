"""Small bodies of journal entries that are about the plant as a whole, and the list of all."""

from typing import Literal

import msgspec

from kapelle.model.orders import Amend, Cancel, Hold, Order, Plan, Prospect
from kapelle.model.signals import Signal
from kapelle.model.summaries import Summary

Direction = Literal["up", "down"]
"""up: towards export; down: towards consumption."""


class Tick(msgspec.Struct, frozen=True, tag=True):
    """The time, as data. Written by the partition's owner at 1 Hz; never goes back."""

    now_ns: int


class Members(msgspec.Struct, frozen=True, tag=True):
    """The devices of one resource in one partition; replaces what was said before."""

    resource: str
    device_nos: list[int]


class Notice(msgspec.Struct, frozen=True, tag=True):
    """Something an operator should know: a shortfall, a common outage, a recovery."""

    at_ns: int
    code: str
    """`shortfall`, `group-lost`, `group-back`, …"""
    text: str
    order_no: int = 0
    power_w: float = 0.0
    device_no: int = -1
    """The one device it is about; -1 where it is about several or none."""
    devices: int = 0
    """How many devices it is about; 0 where it is not about devices."""
    group: str = ""
    """What they share. Every partition tells of its own: notices of one moment, code and group are
    one notice, see `fleet.reconciliation.alarms.merged`."""


class Envelopes(msgspec.Struct, frozen=True, tag=True):
    """What sites, feeders or zones may export and import together, for a time.

    At each moment the latest that was said of a group and covers the moment counts. It is written
    to every partition's topic and to the plant's.
    """

    level: Literal["site", "feeder", "zone"]
    names: list[str]
    export_w: float
    """The sum of power of each is at most this; infinite for no limit. [W]"""
    import_w: float
    """… and at least minus this. [W]"""
    starts_at_ns: int
    ends_at_ns: int
    issued_by: str
    at_ns: int


class Correction(msgspec.Struct, frozen=True, tag=True):
    """A person's correction of the energy of one device over a period; the readings stay as they
    came. A later correction of the same intervals counts instead of an earlier one."""

    correction_no: int
    device_no: int
    register: Literal["export", "import"]
    starts_at_ns: int
    """[starts_at_ns, ends_at_ns), both on quarter-hours."""
    ends_at_ns: int
    method: Literal["set", "scale", "interpolate", "undo"]
    """set: `value` Wh over the period; scale: what was found times `value`; interpolate: evenly
    between what came before and after; undo: take back correction number `undoes`."""
    value: float
    at_ns: int
    issued_by: str
    reason: str
    undoes: int = 0
    key: str = ""
    """Idempotency key of the request that made it."""


class Verdict(msgspec.Struct, frozen=True, tag=True):
    """What a person decided about rows in quarantine: where they lie, and what became of them."""

    partition: int
    position: int
    """Of the `Quarantined` entry in the partition's topic."""
    rows: list[int]
    verdict: Literal["replayed", "dropped"]
    at_ns: int
    """Repeats that come later than this are open again."""
    issued_by: str
    reason: str
    fix: str = ""
    """What was changed in the rows before they were replayed, as JSON; empty for nothing."""


Small = (
    Tick
    | Members
    | Signal
    | Summary
    | Order
    | Amend
    | Cancel
    | Hold
    | Plan
    | Prospect
    | Notice
    | Correction
    | Verdict
    | Envelopes
)
