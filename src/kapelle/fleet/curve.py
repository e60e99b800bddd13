"""What a fleet answers to one number: every setpoint is a clipped, monotone function of λ.

Tiers of merit order lie `TIER` apart along λ. Within its tier a device gives
`min(head, weight · x)`, with x the part of |λ| that lies in the tier; positive λ moves towards
export, negative towards consumption. So shares are proportional to weights until a limit binds, and
the sum over any set of devices is piecewise linear in λ: it can be summed, published and solved
without knowing the devices. Devices that are on or off change whole, each at its own λ, so
that their staircase follows the line the continuous ones would draw.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, is_heard, span
from kapelle.fleet.desired import NEVER_NS
from kapelle.fleet.limits import HOLD_S, HOLD_S_MIN, bounds
from kapelle.fleet.reconciliation.conditions import distrusted
from kapelle.fleet.thinning import staircase, thinned
from kapelle.model.enums import SWITCHED, Exclusion, Freshness
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints
from kapelle.model.plant import Curve

TIER = 1024.0
"""Width of a tier along λ. Weights are at least head / TIER: a tier's end is all of everyone."""

_AHEAD_S = 0.9
"""From a summary to the commands that follow from it, and the device's own start. [s]"""
_ANSWER_S = 1.0
"""How long an answer takes where none has come yet. [s]"""
_ANSWER_S_MAX = 4.0
"""An answer that took longer was one to a lost command. [s]"""
_ASKED = 4096
"""So many devices tell how long answers take."""
_CHUNK = 1 << 15
"""Rows at once: their temporaries stay in the processor's cache."""
_SORTED_MAX = 2048
"""Up to here breakpoints are sorted; beyond, they are counted into cells."""
_CELLS = 1 << 14
_NO_FAILSAFE_PRIORITY = 0.5
"""A device without a revert timer counts less (DESIGN: dead-man)."""
_ROOM_MIN = 0.02
"""Headroom below this part of nameplate does not count."""
_GONE = 0.5
"""When more than this part of a vendor's devices is late, the vendor is."""
_GROUP_MIN = 5
_GOLDEN = 0.6180339887498949

_IS_SWITCHED = np.isin(np.arange(256), [int(kind) for kind in SWITCHED])
_CELL_EDGES = np.append(
    (lambda part: part / (1.0 - part))(np.arange(_CELLS) / _CELLS * (TIER / (TIER + 1.0))), TIER
)
_CELLS_PER_PART = _CELLS * (TIER + 1.0) / TIER

Rows = Ints


class Shares(NamedTuple):
    """How far each device can move from its own schedule, and how readily."""

    own_w: Floats
    """Own schedule, within the bounds. [W]"""
    up_w: Floats
    """Headroom towards export, >= 0. [W]"""
    down_w: Floats
    readiness: Floats
    """Part of its headroom a device gives per unit of λ. It is at its limit at 1 / readiness."""
    switched: Flags


def horizon_s(fleet: Fleet, resource: str) -> float:
    """Return how long setpoints of a resource must be possible: the rest of its order. [s]"""
    signal = fleet.signals.get(resource)
    if signal is None or signal.order_no == 0 or signal.ends_at_ns <= fleet.now_ns:
        return HOLD_S
    return max((signal.ends_at_ns - fleet.now_ns) / NS_PER_S, HOLD_S_MIN)


def controllable(fleet: Fleet, rows: Rows) -> Flags:
    """Tell which devices a setpoint will reach now and who can be counted on to follow it."""
    trusted: Flags = fleet.excluded[span(rows)] == np.uint8(Exclusion.NONE)
    trusted &= ~distrusted(fleet, rows)
    return reachable(fleet, rows) & trusted


def reachable(fleet: Fleet, rows: Rows) -> Flags:
    """Tell which devices report and have a session: a command sent now would meet them."""
    at = span(rows)
    return is_heard(fleet.freshness[at]) & fleet.active[at] & fleet.connected[at]


def left_alone_w(fleet: Fleet, rows: Rows, power_w: Floats) -> Floats:
    """Return what devices that no setpoint will reach do by the time others could make up for it.

    A silent device holds its setpoint until its revert timer ends. That moment is known, so its
    replacement is under way when it comes, and not only afterwards.

    Args:
        fleet: The partition.
        rows: Devices that are not controllable.
        power_w: What they do now.
    """
    at = span(rows)
    left_ns = fleet.reverts_at_ns[at] - fleet.now_ns
    ends = (left_ns > 0) & (left_ns <= int((_AHEAD_S + _ANSWER_S_MAX) * NS_PER_S))
    ends &= fleet.freshness[at] >= np.uint8(Freshness.STALE)
    if not ends.any():
        return power_w
    ends &= left_ns <= int((_AHEAD_S + _answer_s(fleet)) * NS_PER_S)
    return np.where(ends, fleet.own_w[at], power_w)


def _answer_s(fleet: Fleet) -> float:
    """Return how long devices take, on average, from a command to their answer. [s]

    Too long a look ahead overshoots as much as too short a one falls short, so it is measured.
    """
    sample = slice(0, fleet.size, max(fleet.size // _ASKED, 1))
    took_ns = fleet.applied_at_ns[sample] - fleet.planned_at_ns[sample]
    took_ns = took_ns[fleet.applied_at_ns[sample] > 0]
    if not len(took_ns):
        return _ANSWER_S
    return float(np.clip(took_ns / NS_PER_S, 0.0, _ANSWER_S_MAX).mean())


def is_switched(fleet: Fleet, rows: Rows) -> Flags:
    """Tell which devices are on or off."""
    switched: Flags = _IS_SWITCHED.take(fleet.kind[span(rows)])
    return switched


class Fading(NamedTuple):
    """What is about to be lost with devices that have fallen silent. [W]"""

    power_w: float
    """What those no setpoint will reach do beyond their own schedule, until their timers end."""
    up_w: float
    """Headroom of those still counted on, whose vendor falls silent as a whole."""
    down_w: float


def fading(fleet: Fleet, rows: Rows, late: Ints, devices: Ints) -> Fading:
    """Return what will be lost within a revert time unless somebody speaks again.

    One late device has lost a report. When most of a vendor's are late at once, the vendor is gone,
    and that is known seconds before each of them counts as stale.

    Args:
        fleet: The partition.
        rows: Of one resource.
        late: Per vendor code, its devices that are late, stale or lost.
        devices: Per vendor code, its devices.
    """
    silent = rows[np.flatnonzero(fleet.freshness[span(rows)] >= np.uint8(Freshness.LATE))]
    gone = (late > _GONE * devices) & (devices >= _GROUP_MIN)
    stale = fleet.freshness[silent] >= np.uint8(Freshness.STALE)
    silent = silent[stale | gone[fleet.vendor[silent]]]
    silent = silent[fleet.active[silent]]
    counted = controllable(fleet, silent)
    left, fading_ = silent[~counted], silent[counted]
    ends_ns = fleet.reverts_at_ns[left]
    held = left[(ends_ns > fleet.now_ns) & (ends_ns < NEVER_NS)]
    power_w = float((fleet.estimate_w[held] - fleet.own_w[held]).sum())
    if not len(fading_):
        return Fading(power_w, 0.0, 0.0)
    part = shares(fleet, fading_)
    return Fading(power_w, float(part.up_w.sum()), float(part.down_w.sum()))


def readiness(fleet: Fleet, rows: Rows, switched: Flags) -> Floats:
    """Return p̂ · priority: what part of its headroom each device gives per unit of λ.

    p̂ is the learned probability that a command is followed. Devices that are on or off (`switched`)
    are ordered by their number alone: a probability that moves would switch them back and forth.
    """
    at = span(rows)
    responses = fleet.responses[at]
    ready = (responses / (responses + fleet.refusals[at])).astype(np.float64)
    ready[np.isnan(fleet.revert_s[at])] *= _NO_FAILSAFE_PRIORITY
    ready[switched] = 1.0
    return np.maximum(ready, 1.0 / TIER, out=ready)


def shares(fleet: Fleet, rows: Rows, horizon: float = HOLD_S) -> Shares:
    """Return how far and how readily each device moves."""
    at = span(rows)
    lower_w, upper_w = bounds(fleet, rows, horizon)
    own_w = np.minimum(np.maximum(fleet.own_w[at], lower_w), upper_w)
    up_w = upper_w - own_w
    down_w = own_w - lower_w
    # Less is noise: a plant that gives all the sun offers would be ordered up and released
    # again with every cloud.
    least_w = np.maximum(fleet.nameplate_up_w[at], fleet.nameplate_down_w[at])
    least_w *= _ROOM_MIN
    up_w *= up_w > least_w
    down_w *= down_w > least_w
    switched = is_switched(fleet, rows)
    return Shares(own_w, up_w, down_w, readiness(fleet, rows, switched), switched)


def setpoints(
    fleet: Fleet,
    rows: Rows,
    level: float,
    block_level: float,
    horizon: float = HOLD_S,
) -> Floats:
    """Return the setpoint of each row at this λ, for rows that are controllable. [W]

    NaN where a device is left on its own schedule: switched devices before their turn, and
    those that have no room to move.
    """
    if len(rows) > _CHUNK:
        pieces = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
        return np.concatenate(
            [setpoints(fleet, piece, level, block_level, horizon) for piece in pieces]
        )
    part = shares(fleet, rows, horizon)
    head_w = part.up_w if level >= 0 else part.down_w
    share_w = np.minimum(part.readiness * min(abs(level), TIER), 1.0)
    share_w *= head_w
    moved_w = part.own_w + share_w if level >= 0 else part.own_w - share_w
    moved_w[head_w <= 0.0] = np.nan
    switched = np.flatnonzero(part.switched)
    if len(switched):
        upwards = block_level >= 0
        head_w = (part.up_w if upwards else part.down_w)[switched]
        own_w = part.own_w[switched]
        flips = (head_w > 0.0) & (_turn(fleet, rows, switched) <= abs(block_level))
        whole_w = own_w + head_w if upwards else own_w - head_w
        moved_w[switched] = np.where(flips, whole_w, np.nan)
    return moved_w


def summed(
    fleet: Fleet,
    rows: Rows,
    near_level: float = 0.0,
    near_block_level: float | None = None,
    horizon: float = HOLD_S,
) -> tuple[Curve, Curve]:
    """Return the summed power of the controllable rows over λ: continuous, then blocks.

    Exact at the knots, which lie denser near the present levels, so that solving on them again and
    again converges to the exact sum. At most 256 knots each.
    """
    block_level = near_level if near_block_level is None else near_block_level
    corners = _Sorted() if len(rows) <= _SORTED_MAX else _Counted()
    own_w = block_own_w = 0.0
    for start in range(0, len(rows), _CHUNK):
        piece = rows[start : start + _CHUNK]
        counted = controllable(fleet, piece)
        part = shares(fleet, piece, horizon)
        at = 1.0 / part.readiness
        switched = np.flatnonzero(part.switched)
        if len(switched):
            at[switched] = _turn(fleet, piece, switched)
        counted_w = np.where(counted, part.own_w, 0.0)
        of_blocks_w = float(counted_w[switched].sum())
        own_w += float(counted_w.sum()) - of_blocks_w
        block_own_w += of_blocks_w
        up_w = np.where(counted, part.up_w, 0.0)
        down_w = np.where(counted, part.down_w, 0.0)
        corners.add(at, up_w, down_w, part.readiness, part.switched)
    lines = [corners.found(sign, False) for sign in (1, -1)]
    stairs = [corners.found(sign, True) for sign in (1, -1)]
    return _line(lines, own_w, near_level), _stairs(stairs, block_own_w, block_level)


Corners = tuple[Floats, Floats, Floats]
"""Ascending |λ|; headroom of the devices whose corner this is; their weight up to it. [W]"""


class _Sorted:
    """The corners of few devices, one by one."""

    def __init__(self) -> None:
        empty = np.empty(0)
        self._at, self._up_w, self._down_w, self._readiness = empty, empty, empty, empty
        self._switched = np.empty(0, np.bool_)

    def add(
        self, at: Floats, up_w: Floats, down_w: Floats, readiness: Floats, switched: Flags
    ) -> None:
        # Few devices are one piece.
        order = np.argsort(at, kind="stable")
        self._at, self._up_w, self._down_w = at[order], up_w[order], down_w[order]
        self._readiness, self._switched = readiness[order], switched[order]

    def found(self, sign: int, switched: bool) -> Corners:
        head_w = self._up_w if sign > 0 else self._down_w
        which = np.flatnonzero((head_w > 0.0) & (self._switched == switched))
        head_w = head_w[which]
        return self._at[which], head_w, head_w * self._readiness[which]


class _Counted:
    """The corners of many devices, summed in cells of |λ|; exact at the edges of the cells."""

    def __init__(self) -> None:
        self._head_w = {1: np.zeros(2 * _CELLS), -1: np.zeros(2 * _CELLS)}
        self._weight = {1: np.zeros(2 * _CELLS), -1: np.zeros(2 * _CELLS)}

    def add(
        self, at: Floats, up_w: Floats, down_w: Floats, readiness: Floats, switched: Flags
    ) -> None:
        cell = (at / (1.0 + at) * _CELLS_PER_PART).astype(np.intp)
        np.minimum(cell, _CELLS - 1, out=cell)
        cell += switched * _CELLS
        for sign, head_w in ((1, up_w), (-1, down_w)):
            self._head_w[sign] += np.bincount(cell, head_w, 2 * _CELLS)
            self._weight[sign] += np.bincount(cell, head_w * readiness, 2 * _CELLS)

    def found(self, sign: int, switched: bool) -> Corners:
        half = slice(_CELLS, None) if switched else slice(0, _CELLS)
        at, head_w, weight = _CELL_EDGES[1:], self._head_w[sign][half], self._weight[sign][half]
        # Of empty cells only the edge before a used one matters: the curve is straight there.
        used = head_w > 0.0
        if not used.any():
            return np.empty(0), np.empty(0), np.empty(0)
        used[:-1] |= used[1:]
        return at[used], head_w[used], weight[used]


def _line(sides: list[Corners], own_w: float, near_level: float) -> Curve:
    levels, powers_w = [np.zeros(1)], [np.full(1, own_w)]
    for (at, head_w, weight), sign in zip(sides, (1.0, -1.0), strict=True):
        if not len(at):
            continue
        still_moving = np.maximum(weight.sum() - np.cumsum(weight), 0.0)
        gained_w = np.maximum.accumulate(np.cumsum(head_w) + still_moving * at)
        # Of several devices that reach their limit together the last one's sum is complete.
        last = np.append(np.diff(at) > 0, True)
        at, gained_w = thinned(at[last], gained_w[last], sign * near_level)
        levels.append(sign * at)
        powers_w.append(own_w + sign * gained_w)
    return _curve(levels, powers_w)


def _stairs(sides: list[Corners], own_w: float, near_level: float) -> Curve:
    levels, powers_w = [np.zeros(1)], [np.full(1, own_w)]
    for (at, head_w, _), sign in zip(sides, (1.0, -1.0), strict=True):
        if not len(at):
            continue
        last = np.append(np.diff(at) > 0, True)
        at, whole_w = staircase(at[last], np.cumsum(head_w)[last], sign * near_level)
        levels.append(sign * at)
        powers_w.append(own_w + sign * whole_w)
    return _curve(levels, powers_w)


def _curve(levels: list[Floats], powers_w: list[Floats]) -> Curve:
    """Join both directions and zero, with the ends of the tier."""
    level, power_w = np.concatenate(levels), np.concatenate(powers_w)
    order = np.argsort(level, kind="stable")
    knots, knots_w = level[order].tolist(), power_w[order].tolist()
    if knots[-1] < TIER:
        knots, knots_w = [*knots, TIER], [*knots_w, knots_w[-1]]
    if knots[0] > -TIER:
        knots, knots_w = [-TIER, *knots], [knots_w[0], *knots_w]
    return Curve(knots, knots_w)


def _turn(fleet: Fleet, rows: Rows, which: NDArray[np.intp]) -> Floats:
    """Return |λ| at which each switched device changes over: spread evenly over (0, 1]."""
    device_no = fleet.device_nos(np.asarray(rows[which], np.int32))
    place = device_no * _GOLDEN
    # What `np.mod` gives, at a tenth of its cost: numbers of devices are not negative.
    turn: Floats = 1.0 - (place - np.floor(place))
    return turn
