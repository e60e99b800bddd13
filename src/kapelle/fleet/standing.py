"""How each device stands to what is desired of it: where asking, saying and doing meet.

Decided anew at every tick from what the columns say. Nothing here moves a command: `dispatch` asks
on other grounds. So a standing can be read by anybody and acted on by nobody in a loop.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.fleet.verify import DEFAULTS as VERIFY
from kapelle.fleet.verify import tolerance
from kapelle.model.enums import DeviceMode, Exclusion, Freshness, Metric, Phase, Standing
from kapelle.model.ids import NS_PER_S, Bytes, Flags

Places = NDArray[np.intp]
_CHUNK = 1 << 15


@dataclass(frozen=True, slots=True)
class StandingSettings:
    """How long a device is given the benefit of the doubt."""

    strayed: int = 3
    """Readings in a row off the setpoint are no blip, …"""
    doubt_s: float = 30.0
    """… nor is one that came this long after the device said it follows. [s]"""


DEFAULTS = StandingSettings()


def _lookup(table: dict[Phase, Standing]) -> Bytes:
    made = np.full(256, Standing.NONE, np.uint8)
    for phase, standing in table.items():
        made[phase] = standing
    return made


_BY_PHASE = _lookup(
    {
        Phase.PLANNED: Standing.PENDING,
        Phase.SENT: Standing.PENDING,
        Phase.RECEIVED: Standing.PENDING,
        Phase.ACCEPTED: Standing.PENDING,
        Phase.APPLIED: Standing.PENDING,
        Phase.VERIFIED: Standing.IN_SYNC,
        # It went back to its own schedule while the order goes on.
        Phase.COMPLETED: Standing.LEFT,
        # The last hop held the command back: refused, if not by the device.
        Phase.CANCELLED: Standing.REJECTED,
        Phase.SUPERSEDED: Standing.PENDING,
        Phase.REJECTED: Standing.REJECTED,
        Phase.OPTED_OUT: Standing.OPTED_OUT,
        # Nobody missed it: whoever is missed is excluded, and that counts.
        Phase.UNKNOWN: Standing.IN_SYNC,
        Phase.EXPIRED: Standing.IN_SYNC,
        Phase.DIVERGED: Standing.DIVERGED_SIZE,
        Phase.LOST: Standing.UNREACHABLE,
    }
)
_BY_EXCLUSION = np.full(256, Standing.NONE, np.uint8)
_BY_EXCLUSION[Exclusion.SILENT] = Standing.UNREACHABLE
_BY_EXCLUSION[Exclusion.UNREACHABLE] = Standing.UNREACHABLE
_BY_EXCLUSION[Exclusion.UNKNOWN] = Standing.UNREACHABLE
_BY_EXCLUSION[Exclusion.DIVERGED] = Standing.DIVERGED_SIZE
_BY_EXCLUSION[Exclusion.REJECTED] = Standing.REJECTED
_BY_EXCLUSION[Exclusion.OPTED_OUT] = Standing.OPTED_OUT
_FOLLOWED = np.isin(np.arange(256), [Standing.IN_SYNC, Standing.LEFT])
_REFUSED = np.isin(np.arange(256), [Standing.REJECTED, Standing.OPTED_OUT])
_OPEN = np.isin(np.arange(256), [Phase.PLANNED, Phase.SENT, Phase.RECEIVED])
_IN_FORCE = np.isin(np.arange(256), [Phase.ACCEPTED, Phase.APPLIED, Phase.VERIFIED])


def step_standing(fleet: Fleet, settings: StandingSettings = DEFAULTS) -> None:
    """Say how every device stands as of `fleet.now_ns`; needs verification before.

    Under an order a device is IN_SYNC, or PENDING as long as it has time to answer (then it is
    excluded as unknown) and to settle (then its meter decides), or a named exception. A device that
    was let go for an exception keeps it while it is excluded; one that has only not answered its
    release is PENDING until it has, or until its timer has ended.
    """
    if not fleet.revision[: fleet.size].any():
        return
    for start in range(0, fleet.size, _CHUNK):
        _stand(fleet, settings, slice(start, min(start + _CHUNK, fleet.size)))


def _stand(fleet: Fleet, settings: StandingSettings, at: slice) -> None:
    before = fleet.standing[at]
    asked = fleet.order_no[at] != 0
    concerned = asked | (before != 0) | (_OPEN[fleet.phase[at]])
    which = np.flatnonzero(concerned)
    if not len(which):
        return
    rows = which + at.start
    before, asked = before[which], asked[which]
    standing = np.zeros(len(rows), np.uint8)
    mine = np.flatnonzero(asked)
    if len(mine):
        standing[mine] = _asked(fleet, settings, rows[mine], before[mine])
    free = np.flatnonzero(~asked)
    if len(free):
        standing[free] = _let_go(fleet, rows[free], before[free])
    changed = np.flatnonzero(standing != before)
    if len(changed):
        fleet.standing[rows[changed]] = standing[changed]
        fleet.standing_at_s[rows[changed]] = fleet.now_ns // NS_PER_S


def _let_go(fleet: Fleet, rows: Places, before: Bytes) -> Bytes:
    """Return the standing of devices no order asks anything of."""
    phase, excluded = fleet.phase[rows], fleet.excluded[rows]
    kept = (excluded != 0) & (before > Standing.PENDING)
    # What was never answered may still be followed; a device without a timer for good.
    follows = fleet.reverts_at_ns[rows] > fleet.now_ns
    answered = (phase == Phase.COMPLETED) | (phase == Phase.NONE)
    waits = _OPEN[phase] | (~answered & follows)
    waiting = np.where(_OPEN[phase], Standing.PENDING, Standing.UNREACHABLE)
    waiting[(phase == Phase.REJECTED) | (phase == Phase.CANCELLED)] = Standing.REJECTED
    waiting[~_reached(fleet, rows)] = Standing.UNREACHABLE
    return np.where(kept, before, np.where(waits, waiting, Standing.NONE)).astype(np.uint8)


def _reached(fleet: Fleet, rows: Places) -> Flags:
    freshness = fleet.freshness[rows]
    heard = (freshness == Freshness.LIVE) | (freshness == Freshness.LATE)
    reached: Flags = heard & fleet.connected[rows]
    return reached


def _asked(fleet: Fleet, settings: StandingSettings, rows: Places, before: Bytes) -> Bytes:
    phase = fleet.phase[rows]
    standing = _BY_PHASE[phase]
    excluded = _BY_EXCLUSION[fleet.excluded[rows]]
    open_or_unheard = _OPEN[phase] | (phase == Phase.UNKNOWN) | (phase == Phase.EXPIRED)
    # Who is excluded keeps its name while it is asked again.
    again = (excluded != 0) & (open_or_unheard | _IN_FORCE[phase])
    standing = np.where(again, excluded, standing)

    strayed, followed = fleet.strayed[rows], fleet.followed[rows]
    told_ns = fleet.applied_at_ns[rows]
    standing[(standing == Standing.PENDING) & (followed > 0)] = Standing.IN_SYNC
    late = (fleet.now_ns - told_ns >= int(settings.doubt_s * NS_PER_S)) & (strayed > 0)
    off = _IN_FORCE[phase] & (told_ns > 0) & ((strayed >= settings.strayed) | late)
    # A reading that was off under the command before says nothing about this one.
    off &= fleet.seen_at_ns[rows] > 0
    off &= fleet.heard_at_ns[rows] >= told_ns + int(VERIFY.settle_s * NS_PER_S)
    off &= (phase != Phase.VERIFIED) | (strayed >= settings.strayed)
    off &= followed == 0
    standing[off] = Standing.DIVERGED_SIZE
    _name_divergence(fleet, rows, standing, before)
    _name_override(fleet, rows, standing)
    away = ~_reached(fleet, rows) & ~_REFUSED[standing]
    standing[away] = Standing.UNREACHABLE
    return standing.astype(np.uint8)


def _name_divergence(fleet: Fleet, rows: Places, standing: Bytes, before: Bytes) -> None:
    """Tell who left what it had followed, and who goes the other way, from the rest."""
    which = np.flatnonzero(standing == Standing.DIVERGED_SIZE)
    if not len(which):
        return
    at, was = rows[which], before[which]
    power_w, desired_w = fleet.value[Metric.POWER_W, at], fleet.desired_w[at]
    tolerance_w = tolerance(fleet, at)
    opposite = (power_w * desired_w < 0) & (np.abs(power_w) > tolerance_w)
    opposite &= np.abs(desired_w) > tolerance_w
    named = np.where(opposite, Standing.DIVERGED_SIGN, Standing.DIVERGED_SIZE)
    # It followed this very command: a new one would have made it PENDING in between.
    standing[which] = np.where(_FOLLOWED[was], Standing.LEFT, named)


def _name_override(fleet: Fleet, rows: Places, standing: Bytes) -> None:
    """Tell from devices that fail those somebody on site has taken over."""
    local = fleet.value[Metric.MODE, rows] == DeviceMode.LOCAL
    # Said before our command took effect, it is what the command was to end.
    since_ns = fleet.applied_at_ns[rows] + int(VERIFY.settle_s * NS_PER_S)
    said_ns = fleet.measured_at_ns[Metric.MODE, rows]
    since = (said_ns == fleet.measured_at_ns[Metric.POWER_W, rows]) & (
        fleet.heard_at_ns[rows] >= since_ns
    )
    local &= (standing > Standing.PENDING) | ((standing == Standing.PENDING) & since)
    strays = (standing >= Standing.DIVERGED_SIZE) & (standing <= Standing.LEFT)
    which = np.flatnonzero(strays)
    if len(which):
        at = rows[which]
        says_w, told_ns = fleet.value[Metric.SETPOINT_W, at], fleet.measured_at_ns
        # Left out on its own schedule, a setpoint of long ago would still stand in its column.
        now = told_ns[Metric.SETPOINT_W, at] == told_ns[Metric.POWER_W, at]
        other = np.abs(says_w - fleet.desired_w[at]) > tolerance(fleet, at)
        local[which] |= now & other
    standing[local & ~_REFUSED[standing]] = Standing.OVERRIDDEN
