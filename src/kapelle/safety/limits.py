"""S-20, power: how far and how fast setpoints may move a group, per configured limit.

Two ledgers, each kept for both directions on its own, since nobody can say that a device told to
go up and one told to go down will both do so:

- **power**: how far all devices of a group together may stand from their own schedules, whatever
  of what was sent has arrived (`passed.standing_w`). It is what a group can swing back by at
  once, when its timers end or everybody is released.
- **ramp**: a bucket of watts. It fills at the limit's pace up to `ramp_burst_s` of it, and each
  setpoint takes from it what it moves.

A release takes nothing from either and is refused by neither (ADR 12).
"""

from collections.abc import Mapping
from math import inf

import numpy as np
from numpy.typing import NDArray

from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints, Longs
from kapelle.ports import Directory, Places
from kapelle.safety.arrival import fits
from kapelle.safety.groups import NO_GROUP, Groups
from kapelle.safety.passed import Moves, Passed
from kapelle.safety.settings import GroupLimit
from kapelle.safety.windows import Window, below, check_lengths

SWITCHING_S = 10.0
_SWITCHING_PARTS = 5
_BLIND_NS = int(SWITCHING_S * (1 + 1 / _SWITCHING_PARTS) * NS_PER_S)
_ROUNDING_W = 1e-3
_S_PER_MINUTE = 60.0


class Ledger:
    """What one limit has let out, by group."""

    def __init__(self, limit: GroupLimit) -> None:
        self.limit = limit
        self.groups = Groups(limit)
        self._group = np.zeros(0, np.int32)
        """Group + 1 of each device under a setpoint, where it is now; 0 for none."""
        self._standing_w: Floats = np.zeros((2, 0))
        """Up and down, by group. [W]"""
        self._left_w: Floats = np.zeros((2, 0))
        """In the ramp's bucket of each group, as of `_filled_ns`. [W]"""
        self._filled_ns: Longs = np.zeros(0, np.int64)
        self._now_ns = 0
        self._spent_ns = 0
        """When it began as if all was used up; 0: it began with everything."""
        self._switched = Window(SWITCHING_S, _SWITCHING_PARTS, np.int32)
        self._population: Floats = np.zeros(0)
        """Switched devices in each group."""

    @property
    def capacity_w(self) -> float:
        """What the ramp's bucket holds. [W]"""
        return self.limit.ramp_w_per_min * self.limit.ramp_burst_s / _S_PER_MINUTE

    def know(self, directory: Directory, passed: Passed) -> None:
        """Take over who is enrolled, and where; for when the directory has changed.

        A setpoint that stands counts from now on where its device is now.
        """
        self.groups.know(directory)
        if self.limit.power_w < inf:
            commanded = passed.commanded(self._now_ns)
            self._note_groups(commanded, self.of(commanded, directory.places(commanded)))
        if self.limit.switching_share < 1.0:
            everyone = directory.everyone()
            places = directory.places(everyone)
            group = self.of(everyone, places)[places.switched]
            self._population = np.bincount(group[group >= 0]).astype(np.float64)

    def of(self, device_no: Ints, places: Places) -> Ints:
        """Return the group of each device, and be ready for all of them."""
        group = self.groups.of(device_no, places)
        more = len(self.groups) - self._left_w.shape[1]
        if more > 0:
            # Filled since the beginning of time: full by now.
            more = max(more, len(self._filled_ns))
            self._left_w = np.append(self._left_w, np.zeros((2, more)), axis=1)
            since_ns = np.full(more, self._spent_ns, np.int64)
            self._filled_ns = np.append(self._filled_ns, since_ns)
            self._standing_w = np.append(self._standing_w, np.zeros((2, more)), axis=1)
        return group

    def begin_spent(self, now_ns: int) -> None:
        """Begin as if this limit had just been used up: nobody knows what was sent before."""
        self._spent_ns = now_ns

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return what there is to remember, for `restore`. Standing power is in `Passed`."""
        group = np.array(list(self.groups.numbers), np.int64)
        left_w = self._left_w.reshape(-1)
        columns = {"group": group, "left_w": left_w, "filled_ns": self._filled_ns}
        turned = self._switched.columns()
        return columns | {f"switched/{name}": column for name, column in turned.items()}

    def restore(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on with what `columns` returned."""
        keys = columns["group"].astype(np.int64).tolist()
        self.groups.numbers.update({key: number for number, key in enumerate(keys)})
        self._left_w = columns["left_w"].astype(np.float64).reshape(2, -1)
        self._filled_ns = columns["filled_ns"].astype(np.int64)
        check_lengths(self._left_w, self._filled_ns)
        if len(keys) > len(self._filled_ns) or np.isnan(self._left_w).any():
            raise ValueError("what is left is not known of every group")
        self._standing_w = np.zeros(self._left_w.shape)
        self._switched.restore(below("switched/", columns))

    def advance(self, now_ns: int) -> None:
        """Go on to this time, which is never before an earlier one."""
        self._now_ns = now_ns
        self._switched.advance(now_ns)

    def settle(self, passed: Passed, now_ns: int) -> None:
        """Add up anew who may stand where: setpoints have run out, and sums do not drift."""
        if self.limit.power_w == inf:
            return
        device_no = passed.commanded(now_ns)
        device_no = device_no[device_no < len(self._group)]
        group = self._group[device_no]
        standing_w = passed.standing_w(device_no, now_ns)
        groups = self._standing_w.shape[1]
        self._standing_w = np.stack(
            [np.bincount(group, weights=each, minlength=groups + 1)[1:] for each in standing_w],
            # Of nobody, bincount makes integers, and what is added to these would lose its parts.
            dtype=np.float64,
        )

    def keeps_power(self, group: Ints, more_w: Floats, departs_w: Floats) -> Flags:
        """Tell which rows keep the power limit, in order of arrival; `more_w` adds to standing.

        A group that stands beyond its limit (a device was moved into it, or nobody knows what left
        before a restart) is not kept there: nothing that departs passes until timers have ended.
        """
        left_w = self.limit.power_w - self._standing_w[:, group]
        beyond = (left_w < -_ROUNDING_W) & (departs_w > 0.0) & (group >= 0)
        keeps: Flags = fits(group, more_w, left_w) & ~beyond.any(axis=0)
        return keeps

    def keeps_ramp(self, group: Ints, power_w: Floats) -> Flags:
        """Tell which rows keep the ramp, in order of arrival."""
        if self.limit.ramp_w_per_min == inf:
            return np.ones(len(group), np.bool_)
        return fits(group, power_w, self._filled_w(group))

    def keeps_switching(self, group: Ints, switches: Flags) -> Flags:
        """Tell which rows keep the number of devices that may be switched at once."""
        if not self.limit.limits_switching:
            return np.ones(len(group), np.bool_)
        most = np.full(len(group), self.limit.switching_max)
        if self.limit.switching_share < 1.0:
            population = np.append(self._population, np.zeros(len(self.groups) + 1))
            # A share of a few is at least one of them, or they could never be switched.
            share = np.maximum(np.floor(self.limit.switching_share * population[group]), 1.0)
            most = np.minimum(most, share)
        left = most - self._switched.total(np.maximum(group, 0))
        if self._spent_ns and self._now_ns < self._spent_ns + _BLIND_NS:
            left = np.zeros(len(group))
        return fits(group, switches.astype(np.float64)[np.newaxis], left[np.newaxis])

    def charge(self, group: Ints, moves: Moves, more_w: Floats, switches: Flags) -> None:
        """Enter what passed."""
        mine = group >= 0
        if self.limit.limits_switching:
            turned = mine & switches
            self._switched.add(group[turned], np.ones(int(turned.sum())))
        rows = np.flatnonzero(mine & moves.is_setpoint)
        if not len(rows):
            return
        group, device_no = group[rows], moves.device_no[rows]
        if self.limit.ramp_w_per_min < inf:
            touched = np.unique(group)
            self._left_w[:, touched] = self._filled_w(touched)
            self._filled_ns[touched] = self._now_ns
            for left_w, power_w in zip(self._left_w, moves.power_w[:, rows], strict=True):
                np.subtract.at(left_w, group, power_w)
                # Nothing here overdraws; what is charged anew after a restart may, for want of
                # knowing when it was sent.
                np.maximum(left_w, 0.0, out=left_w)
        if self.limit.power_w < inf:
            for standing_w, each_w in zip(self._standing_w, more_w[:, rows], strict=True):
                np.add.at(standing_w, group, each_w)
            self._note_groups(device_no, group)

    def _note_groups(self, device_no: Ints, group: Ints) -> None:
        needed = int(device_no.max()) + 1 if len(device_no) else 0
        if needed > len(self._group):
            room = max(needed, 2 * len(self._group)) - len(self._group)
            self._group = np.append(self._group, np.zeros(room, np.int32))
        self._group[device_no] = np.maximum(group, NO_GROUP) + 1

    def _filled_w(self, group: Ints) -> Floats:
        """Return what is in the bucket of each of these groups now, up and down. [W]"""
        elapsed_s = (self._now_ns - self._filled_ns[group]) / NS_PER_S
        earned_w = elapsed_s * self.limit.ramp_w_per_min / _S_PER_MINUTE
        filled_w: Floats = np.minimum(self._left_w[:, group] + earned_w, self.capacity_w)
        return filled_w
