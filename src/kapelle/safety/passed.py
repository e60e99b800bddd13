"""What the gate itself has let through to each device: it trusts no other room's memory.

Nobody tells the gate what arrived. So it takes the worst that what it passed allows: a device may
stand at any setpoint whose timer may still run, and one without a setpoint anywhere within its
nameplate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.model.blocks import Commands
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Floats, Ints, Longs
from kapelle.safety.settings import SafetySettings
from kapelle.safety.windows import check_lengths

Rows = NDArray[np.intp]
NEVER_NS = 1 << 62
"""When a setpoint runs out of a device that has no timer."""


class Told(IntEnum):
    """What a device was last told, as far as switching goes."""

    NOTHING = 0
    OFF = 1
    ON = 2
    RELEASED = 3
    NOBODY_KNOWS = 4


class Moves(NamedTuple):
    """What the commands of a block would do, at worst. Powers have shape (2, rows): up, down."""

    device_no: Ints
    is_setpoint: Flags
    """False: a release."""
    power_w: Floats
    """How far the setpoint may move the device. [W]"""
    known_w: Floats
    """Its signed change against the setpoint before, 0 where none is in force. Shape (rows,)."""
    departs_w: Floats
    """How far from its own schedule the device may then stand. [W]"""
    span_w: Floats
    """Between its highest and its lowest power. Shape (rows,). [W]"""
    told: Bytes
    """What it tells the device: a `Told`."""
    until_ns: Longs
    """When it has certainly run out: obeyed as late as it may be, then the timer. Of a release: by
    when it has arrived, for whoever has no timer."""
    sure_ns: Longs
    """When it runs out at the earliest: obeyed at once, then the timer."""

    @property
    def furthest_w(self) -> Floats:
        """The larger of both ways. Shape (rows,). [W]"""
        furthest_w: Floats = self.power_w.max(axis=0)
        return furthest_w

    def at(self, rows: Rows) -> "Moves":
        """Return some rows."""
        return Moves._make(column[..., rows] for column in self)


@dataclass(slots=True, eq=False)
class Passed:
    """One column per thing remembered, by device number; 0 where nothing was ever passed."""

    setpoint_w: Floats = field(default_factory=lambda: np.zeros(0))
    until_ns: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    """As in `Moves`; the device is on its own schedule afterwards."""
    sure_ns: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    told: Bytes = field(default_factory=lambda: np.zeros(0, np.uint8))
    told_ns: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    """When that last changed."""
    recent_w: Floats = field(default_factory=lambda: np.zeros((2, 0)))
    """Furthest departure among the recent setpoints, up and down; see `_note_departure`. [W]"""
    recent_ns: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    """When the last of them has certainly run out."""
    earlier_w: Floats = field(default_factory=lambda: np.zeros((2, 0)))
    """The same of those before. [W]"""
    earlier_ns: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    span_w: Floats = field(default_factory=lambda: np.zeros(0))
    turned_ns: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    """When it was last sent far, and …"""
    turned: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    """… which way: 1 up, -1 down."""

    def reserve(self, device_no: Ints) -> None:
        """Make room for these devices."""
        have = len(self.told)
        needed = int(device_no.max()) + 1 if len(device_no) else 0
        if needed <= have:
            return
        size = max(needed, 2 * have)
        for name in self.__slots__:
            short = getattr(self, name)
            longer = np.zeros((*short.shape[:-1], size), short.dtype)
            longer[..., :have] = short
            setattr(self, name, longer)

    def doubt(self, device_no: Ints, before_ns: Longs, now_ns: int) -> None:
        """Take it that nobody knows whether these were told the latest.

        They may do as before, whose timer ends by `before_ns`, or as told, or have been let go.
        """
        ends_ns = np.stack([before_ns, self.until_ns[device_no]])
        ends_ns[ends_ns == NEVER_NS] = 0
        self.until_ns[device_no] = ends_ns.max(axis=0)
        self.told[device_no] = Told.NOBODY_KNOWS
        self.told_ns[device_no] = now_ns

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return what there is to remember, for `restore`."""
        return {name: getattr(self, name).reshape(-1) for name in self.__slots__}

    def restore(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on with what `columns` returned."""
        for name in self.__slots__:
            empty = getattr(self, name)
            setattr(self, name, columns[name].astype(empty.dtype).reshape(*empty.shape[:-1], -1))
        check_lengths(*(getattr(self, name) for name in self.__slots__))

    def standing_w(self, device_no: Ints, now_ns: int) -> Floats:
        """Return how far each device may stand from its own schedule now, shape (2, rows). [W]"""
        recent = np.where(self.recent_ns[device_no] > now_ns, self.recent_w[:, device_no], 0.0)
        earlier = np.where(self.earlier_ns[device_no] > now_ns, self.earlier_w[:, device_no], 0.0)
        standing: Floats = np.maximum(recent, earlier)
        return standing

    def commanded(self, now_ns: int) -> Ints:
        """Return the devices that may be under a setpoint now."""
        return np.flatnonzero(np.maximum(self.recent_ns, self.earlier_ns) > now_ns).astype(np.int32)

    def state(self, device_no: Ints, now_ns: int) -> tuple[Bytes, Longs]:
        """Return what each device was last told and since when, at the latest.

        A timer that ended is a release.
        """
        told, since_ns = self.told[device_no], self.told_ns[device_no]
        ended = ((told == Told.ON) | (told == Told.OFF)) & (self.sure_ns[device_no] <= now_ns)
        since_ns[ended] = np.minimum(self.until_ns[device_no[ended]], now_ns)
        told[ended] = Told.RELEASED
        doubted = told == Told.NOBODY_KNOWS
        latest_ns = np.minimum(self.until_ns[device_no[doubted]], now_ns)
        since_ns[doubted] = np.maximum(since_ns[doubted], latest_ns)
        return told, since_ns


def moves(
    passed: Passed,
    commands: Commands,
    nameplate_w: tuple[Floats, Floats],
    now_ns: int,
    settings: SafetySettings,
) -> Moves:
    """Return what commands within their nameplates would do to devices, at worst."""
    device_no, setpoint_w = commands.device_no, commands.setpoint_w
    up_w, down_w = nameplate_w
    passed.reserve(device_no)
    is_setpoint = ~np.isnan(setpoint_w)
    told, _ = passed.state(device_no, now_ns)
    is_known = is_setpoint & ((told == Told.ON) | (told == Told.OFF))
    known_w = np.where(is_known, setpoint_w - passed.setpoint_w[device_no], 0.0)
    departs_w = np.stack([setpoint_w + down_w, up_w - setpoint_w])
    departs_w = np.where(is_setpoint, np.maximum(departs_w, 0.0), 0.0)
    step_w = np.maximum(np.stack([known_w, -known_w]), 0.0)
    turned_on = np.abs(setpoint_w) > 0.5 * np.maximum(up_w, down_w)
    is_timed = ~np.isnan(commands.revert_s)
    # A release that gets lost is repeated: it is given as long as any timer to arrive.
    timer_s = np.where(is_setpoint & is_timed, commands.revert_s, settings.revert_s_max)
    timer_ns = (timer_s * NS_PER_S).astype(np.int64)
    endless = is_setpoint & ~is_timed
    obeyed_ns = np.maximum(
        commands.not_after_ns, now_ns + (commands.ttl_s * NS_PER_S).astype(np.int64)
    )
    return Moves(
        device_no=device_no,
        is_setpoint=is_setpoint,
        power_w=np.where(is_known, step_w, departs_w),
        known_w=known_w,
        departs_w=departs_w,
        span_w=up_w + down_w,
        told=np.where(is_setpoint, np.where(turned_on, Told.ON, Told.OFF), Told.RELEASED).astype(
            np.uint8
        ),
        until_ns=np.where(endless, NEVER_NS, obeyed_ns + timer_ns),
        sure_ns=np.where(endless, NEVER_NS, now_ns + timer_ns),
    )


def apply_moves(passed: Passed, moves: Moves, setpoint_w: Floats, now_ns: int) -> None:
    """Remember what was passed. A device occurs once."""
    device_no = moves.device_no
    told, since_ns = passed.state(device_no, now_ns)
    passed.told[device_no] = moves.told
    passed.told_ns[device_no] = np.where(told == moves.told, since_ns, now_ns)
    _note_release(passed, device_no[~moves.is_setpoint], moves.until_ns[~moves.is_setpoint])
    rows = np.flatnonzero(moves.is_setpoint)
    device_no = device_no[rows]
    _note_departure(passed, device_no, moves.departs_w[:, rows], moves.until_ns[rows], now_ns)
    passed.setpoint_w[device_no] = setpoint_w[rows]
    passed.until_ns[device_no] = moves.until_ns[rows]
    passed.sure_ns[device_no] = moves.sure_ns[rows]
    passed.span_w[device_no] = moves.span_w[rows]


def _note_release(passed: Passed, device_no: Ints, until_ns: Longs) -> None:
    """Let setpoints without a timer end; those with one end by it, whether this arrives or not."""
    for ends_ns in (passed.recent_ns, passed.earlier_ns):
        endless = ends_ns[device_no] == NEVER_NS
        ends_ns[device_no[endless]] = until_ns[endless]


def _note_departure(
    passed: Passed, device_no: Ints, departs_w: Floats, until_ns: Longs, now_ns: int
) -> None:
    """Add a setpoint to the recent ones; these become the earlier ones when those have run out.

    So one that was replaced, by a command that may have got lost, is counted until its timer has
    certainly run out, and forgotten after the timer of its successors at the latest.
    """
    ended = passed.earlier_ns[device_no] <= now_ns
    gone = device_no[ended]
    passed.earlier_w[:, gone] = passed.recent_w[:, gone]
    passed.earlier_ns[gone] = passed.recent_ns[gone]
    passed.recent_w[:, gone] = 0.0
    passed.recent_ns[gone] = 0
    passed.recent_w[:, device_no] = np.maximum(passed.recent_w[:, device_no], departs_w)
    passed.recent_ns[device_no] = np.maximum(passed.recent_ns[device_no], until_ns)
