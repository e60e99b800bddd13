"""How each device stands to what is desired of it: where asking, saying and doing meet.

Decided anew at every tick from what the columns say. Nothing here moves a command: `dispatch` asks
on other grounds. So a standing can be read by anybody and acted on by nobody in a loop.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, is_heard
from kapelle.fleet.reconciliation.verify import DEFAULTS as VERIFY
from kapelle.fleet.reconciliation.verify import tolerance
from kapelle.model.enums import DeviceMode, Exclusion, Metric, Phase, Standing
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


def _between(codes: Bytes, first: int, last: int) -> Flags:
    """Tell which codes lie in a range; below it unsigned numbers wrap to above it.

    With tables of the codes the whole step took twice as long.
    """
    inside: Flags = codes - np.uint8(first) <= np.uint8(last - first)
    return inside


def _open(phase: Bytes) -> Flags:
    return _between(phase, Phase.PLANNED, Phase.RECEIVED)


def _in_force(phase: Bytes) -> Flags:
    return _between(phase, Phase.ACCEPTED, Phase.VERIFIED)


def _diverged(standing: Bytes) -> Flags:
    return _between(standing, Standing.DIVERGED_SIZE, Standing.LEFT)


def _refused(standing: Bytes) -> Flags:
    return _between(standing, Standing.OPTED_OUT, Standing.REJECTED)


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
    before, phase = fleet.standing[at], fleet.phase[at]
    asked = fleet.order_no[at] != 0
    free = ~asked & ((before != 0) | _open(phase))
    if asked.any():
        standing = _asked(fleet, settings, at, phase, before)
        standing[~asked] = Standing.NONE
    elif free.any():
        standing = np.zeros(len(phase), np.uint8)
    else:
        return
    some = np.flatnonzero(free)
    if len(some):
        standing[some] = _let_go(fleet, some + at.start, before[some])
    changed = np.flatnonzero(standing != before)
    if len(changed):
        fleet.standing[changed + at.start] = standing[changed]
        fleet.standing_at_s[changed + at.start] = fleet.now_ns // NS_PER_S


def _let_go(fleet: Fleet, rows: Places, before: Bytes) -> Bytes:
    """Return the standing of devices no order asks anything of."""
    phase, excluded = fleet.phase[rows], fleet.excluded[rows]
    kept = (excluded != 0) & (before > Standing.PENDING)
    # What was never answered may still be followed; a device without a timer for good.
    follows = fleet.reverts_at_ns[rows] > fleet.now_ns
    answered = (phase == Phase.COMPLETED) | (phase == Phase.NONE)
    waits = _open(phase) | (~answered & follows)
    waiting = np.where(_open(phase), Standing.PENDING, Standing.UNREACHABLE)
    waiting[(phase == Phase.REJECTED) | (phase == Phase.CANCELLED)] = Standing.REJECTED
    waiting[~_reached(fleet, rows)] = Standing.UNREACHABLE
    return np.where(kept, before, np.where(waits, waiting, Standing.NONE)).astype(np.uint8)


def _reached(fleet: Fleet, at: slice | Places) -> Flags:
    reached: Flags = is_heard(fleet.freshness[at]) & fleet.connected[at]
    return reached


def _asked(
    fleet: Fleet, settings: StandingSettings, at: slice, phase: Bytes, before: Bytes
) -> Bytes:
    """Return the standing of every row of a chunk as if an order asked something of it.

    Whole chunks are slices, and what concerns few is gathered for few: a million devices under an
    order cost a few milliseconds.
    """
    standing: Bytes = _BY_PHASE.take(phase)
    followed = (standing == np.uint8(Standing.PENDING)) & (fleet.followed[at] > 0)
    np.copyto(standing, np.uint8(Standing.IN_SYNC), where=followed)
    excluded = fleet.excluded[at]
    if excluded.any():
        # Who is excluded keeps its name while it is asked again.
        some = np.flatnonzero(
            (excluded != 0)
            & (
                _open(phase)
                | (phase == np.uint8(Phase.UNKNOWN))
                | (phase == np.uint8(Phase.EXPIRED))
                | _in_force(phase)
            )
        )
        named = _BY_EXCLUSION[excluded[some]]
        standing[some] = np.where(named != 0, named, standing[some])
    _find_divergence(fleet, settings, at, standing, before)
    _name_override(fleet, at, standing)
    standing[~_reached(fleet, at) & ~_refused(standing)] = Standing.UNREACHABLE
    return standing


def _find_divergence(
    fleet: Fleet, settings: StandingSettings, at: slice, standing: Bytes, before: Bytes
) -> None:
    """Find whose meter has left the setpoint, and tell who had followed and who goes backwards."""
    phase, strayed = fleet.phase[at], fleet.strayed[at]
    off = _in_force(phase) & (strayed > 0) & (fleet.followed[at] == 0)
    known = _diverged(before) & (strayed >= settings.strayed)
    some = np.flatnonzero(off & ~known)
    if len(some):
        rows, many = some + at.start, strayed[some] >= settings.strayed
        told_ns = fleet.applied_at_ns[rows]
        late = fleet.now_ns - told_ns >= int(settings.doubt_s * NS_PER_S)
        # A reading that was off under the command before says nothing about this one.
        settled = fleet.heard_at_ns[rows] >= told_ns + int(VERIFY.settle_s * NS_PER_S)
        is_off = (told_ns > 0) & settled & (many | (late & (phase[some] != Phase.VERIFIED)))
        off[some[~is_off]] = False
    standing[off] = Standing.DIVERGED_SIZE
    which = np.flatnonzero(standing == np.uint8(Standing.DIVERGED_SIZE))
    # A divergence keeps the name it got: it followed this very command, or went the other way. A
    # new command would have made it PENDING in between.
    was = before[which]
    standing[which] = np.where(_diverged(was), was, standing[which])
    fresh = which[~_diverged(was)]
    if len(fresh):
        standing[fresh] = _named(fleet, fresh + at.start, before[fresh])


def _named(fleet: Fleet, rows: Places, before: Bytes) -> Bytes:
    power_w, desired_w = fleet.value[Metric.POWER_W, rows], fleet.desired_w[rows]
    tolerance_w = tolerance(fleet, rows)
    opposite = (power_w * desired_w < 0) & (np.abs(power_w) > tolerance_w)
    opposite &= np.abs(desired_w) > tolerance_w
    named = np.where(opposite, Standing.DIVERGED_SIGN, Standing.DIVERGED_SIZE)
    return np.where(before == Standing.IN_SYNC, Standing.LEFT, named).astype(np.uint8)


def _name_override(fleet: Fleet, at: slice, standing: Bytes) -> None:
    """Tell from devices that fail those somebody on site has taken over."""
    local = np.flatnonzero(fleet.value[Metric.MODE, at] == float(DeviceMode.LOCAL))
    if len(local):
        rows = local + at.start
        # Said before our command took effect, it is what the command was to end.
        since_ns = fleet.applied_at_ns[rows] + int(VERIFY.settle_s * NS_PER_S)
        now = fleet.measured_at_ns[Metric.MODE, rows] == fleet.measured_at_ns[Metric.POWER_W, rows]
        since = now & (fleet.heard_at_ns[rows] >= since_ns)
        stands = standing[local]
        taken = (stands > Standing.PENDING) | ((stands == Standing.PENDING) & since)
        standing[local[taken & ~_refused(stands)]] = Standing.OVERRIDDEN
    says_w = fleet.value[Metric.SETPOINT_W, at]
    said = says_w == says_w
    if said.any():
        some = np.flatnonzero(said & _diverged(standing))
        rows = some + at.start
        measured_at_ns = fleet.measured_at_ns
        # Left out on its own schedule, a setpoint of long ago would still stand in its column.
        now = measured_at_ns[Metric.SETPOINT_W, rows] == measured_at_ns[Metric.POWER_W, rows]
        other = np.abs(says_w[some] - fleet.desired_w[rows]) > tolerance(fleet, rows)
        standing[some[now & other]] = Standing.OVERRIDDEN
