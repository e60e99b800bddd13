"""What we ask of devices and how far it has come: commands, answers and phases as they are told.

A phase is entered only on evidence of that phase. No answer is UNKNOWN, not failed: the device
may have acted, and a late answer reopens the command. Nothing here decides anything; `dispatch`
does, and says so in entries.
"""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.model.blocks import Acks, Commands, Phases
from kapelle.model.enums import AckStatus, Exclusion, Freshness, Metric, Phase
from kapelle.model.ids import NS_PER_S, Flags, Ints, Longs
from kapelle.model.signals import Signal

BACK_OFF_S = 60.0
"""Pause before a device that failed is tried again; doubles with every failure in a row."""
BACK_OFF_S_MAX = 3600.0
NEVER_NS = 1 << 62
"""When the revert timer of a device that has none ends."""
_FORGETTING = np.float32(0.98)
_GOLDEN = 0.6180339887498949
_ABOUT = 0.1
"""What counts as about a setpoint, as a part of nameplate …"""
_ABOUT_W = 50.0
"""… but at least this. [W]"""
_SAME = 0.02
"""A change by less than this part of nameplate, well within what verification tolerates, …"""
_SAME_W = 20.0
"""… or by less than this leaves a setpoint the same. [W]"""
_AHEAD_NS = 2 * NS_PER_S
"""An answer may carry a time this far after the last tick; ticks are a second apart."""
_COUNTED_MAX = 250

_ANSWERED = (AckStatus.ACCEPTED, AckStatus.APPLIED, AckStatus.COMPLETED)
_REOPENED_BELOW = np.zeros(32, np.uint8)
"""How far each phase is along the funnel, as the status of an answer that would add nothing."""
_REOPENED_BELOW[[Phase.RECEIVED]] = AckStatus.RECEIVED
_REOPENED_BELOW[[Phase.UNKNOWN, Phase.LOST]] = AckStatus.RECEIVED
_REOPENED_BELOW[[Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED]] = AckStatus.RECEIVED
_REOPENED_BELOW[[Phase.ACCEPTED]] = AckStatus.ACCEPTED
_REOPENED_BELOW[[Phase.APPLIED, Phase.VERIFIED]] = AckStatus.APPLIED
_REOPENED_BELOW[[Phase.COMPLETED, Phase.OPTED_OUT, Phase.DIVERGED]] = AckStatus.COMPLETED

_PHASE_OF_STATUS = {
    AckStatus.RECEIVED: Phase.RECEIVED,
    AckStatus.ACCEPTED: Phase.ACCEPTED,
    AckStatus.APPLIED: Phase.APPLIED,
    AckStatus.COMPLETED: Phase.COMPLETED,
}
_REFUSALS = {
    AckStatus.REJECTED: (Phase.REJECTED, Exclusion.REJECTED),
    AckStatus.OPTED_OUT: (Phase.OPTED_OUT, Exclusion.OPTED_OUT),
}
_UNANSWERED = np.isin(
    np.arange(32), [Phase.PLANNED, Phase.SENT, Phase.RECEIVED, Phase.UNKNOWN, Phase.EXPIRED]
)
_UNANSWERED_BY_TRY = {
    Phase.SENT: np.isin(np.arange(32), [Phase.PLANNED]),
    # What went out before may be followed, whatever became of a further try.
    Phase.CANCELLED: np.isin(np.arange(32), [Phase.PLANNED]),
    Phase.REJECTED: _UNANSWERED,
    Phase.EXPIRED: _UNANSWERED,
    Phase.UNKNOWN: _UNANSWERED,
}
"""Where a finding about one try of a command applies: it takes back no answer to another."""
_GIVEN_UP = np.isin(np.arange(32), [Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED, Phase.LOST])
_AWAITS_ANSWER = np.isin(np.arange(32), [Phase.PLANNED, Phase.SENT, Phase.RECEIVED, Phase.UNKNOWN])
_AWAITS_FIRST = np.isin(np.arange(32), [Phase.PLANNED, Phase.SENT, Phase.RECEIVED])
_PROMISING = np.isin(np.arange(32), np.arange(Phase.PLANNED, Phase.COMPLETED))
_BEFORE_RECEIVED = np.isin(np.arange(32), [Phase.PLANNED, Phase.SENT])
_IS_HEARD = np.isin(np.arange(8), [Freshness.LIVE, Freshness.LATE])


def apply_commands(fleet: Fleet, commands: Commands) -> None:
    """Take over what is asked of each device: a new revision, or another try of the present one.

    Revisions that are not newer and owners of the past change nothing.
    """
    rows, known = _known(fleet, commands.device_no)
    current = commands.epoch[known] >= fleet.epoch[rows]
    rows, known = rows[current], known[current]
    revision, present = commands.revision[known], fleet.revision[rows]
    is_new = revision > present
    is_again = (revision == present) & (commands.attempt[known] > fleet.attempt[rows])

    at, new = rows[is_new], known[is_new]
    _keep_timer(fleet, at[np.isnan(commands.setpoint_w[new])])
    # A command that overtakes one without an answer does not start the waiting anew.
    waits = _AWAITS_ANSWER[fleet.phase[at]] & (fleet.order_no[at] != 0)
    waits &= (commands.order_no[new] != 0) & (fleet.excluded[at] == Exclusion.NONE)
    since_ns = np.where(waits, fleet.planned_at_ns[at], commands.issued_at_ns[new])
    # Who strayed stays suspected as long as the same owner asks something for the same order.
    anew = commands.order_no[new] != fleet.order_no[at]
    fleet.strayed[at[anew | (commands.epoch[new] > fleet.epoch[at])]] = 0
    nameplate_w = np.maximum(fleet.nameplate_up_w[at], fleet.nameplate_down_w[at])
    # What the meter has shown of a setpoint holds for the same one refreshed. NaN is no setpoint.
    off_w = np.abs(commands.setpoint_w[new] - fleet.desired_w[at])
    same = (off_w <= np.maximum(_SAME * nameplate_w, _SAME_W)) & ~waits
    fleet.followed[at[~same]] = 0
    _keep_prior(fleet, at, commands.order_no[new])
    fleet.desired_w[at] = commands.setpoint_w[new]
    fleet.order_no[at] = commands.order_no[new]
    fleet.revision[at] = commands.revision[new]
    fleet.phase[at] = Phase.PLANNED
    fleet.planned_at_ns[at] = since_ns
    fleet.sent_at_ns[at] = 0
    fleet.applied_at_ns[at] = 0
    # A release that was refused or given up, and is tried again, is open again.
    at = rows[is_again]
    fleet.phase[at[(fleet.order_no[at] == 0) & _GIVEN_UP[fleet.phase[at]]]] = Phase.PLANNED
    for taken in (is_new, is_again):
        at, which = rows[taken], known[taken]
        fleet.attempt[at] = commands.attempt[which]
        fleet.epoch[at] = commands.epoch[which]
        fleet.tried_at_ns[at] = commands.issued_at_ns[which]
        fleet.not_after_ns[at] = commands.not_after_ns[which]


def apply_acks(fleet: Fleet, acks: Acks) -> None:
    """Take devices at their word, for the command they name if it is the present one.

    The order of answers in a block does not matter: the furthest counts, opting out above all.
    """
    rows, known = _known(fleet, acks.device_no)
    # -1: a transport's acknowledgement knows no epoch. A higher one than ours cannot be meant
    # for a command of ours.
    ours = acks.epoch[known] <= fleet.epoch[rows]
    rows, known = rows[ours], known[ours]
    # Whatever a device answers, and to whichever command, it hears. Its transport is not it.
    fleet.unanswered[rows[acks.status[known] != AckStatus.RECEIVED]] = 0
    _apply_overtaken(fleet, rows[acks.revision[known] < fleet.revision[rows]])
    meant = acks.revision[known] == fleet.revision[rows]
    rows, known = rows[meant], known[meant]
    said, at_ns = acks.status[known], acks.at_ns[known]
    for status, phase in _PHASE_OF_STATUS.items():
        which = said == status
        if which.any():
            _apply_progress(fleet, rows[which], at_ns[which], status, phase)
    for status, (phase, exclusion) in _REFUSALS.items():
        which = said == status
        if which.any():
            _apply_refusal(fleet, np.unique(rows[which]), phase, exclusion)
    which = said == AckStatus.EXPIRED
    if which.any():
        at = rows[which]
        at = np.unique(at[_UNANSWERED[fleet.phase[at]]])
        fleet.phase[at] = Phase.EXPIRED


def apply_phases(fleet: Fleet, phases: Phases) -> None:
    """Enter what the owner and the last hop found: sent, unknown, verified, diverged, and so on."""
    rows, known = _known(fleet, phases.device_no)
    meant = phases.revision[known] == fleet.revision[rows]
    rows, known = rows[meant], known[meant]
    found = phases.phase[known]
    for phase in np.unique(found).tolist():
        at, at_ns = rows[found == phase], phases.at_ns[known[found == phase]]
        if phase == Phase.SENT:
            fleet.sent_at_ns[at] = at_ns
        if Phase(phase) in _UNANSWERED_BY_TRY:
            applies = _UNANSWERED_BY_TRY[Phase(phase)][fleet.phase[at]]
            at, at_ns = at[applies], at_ns[applies]
        match Phase(phase):
            case Phase.UNKNOWN:
                _count_unanswered(fleet, at)
                astray = ~holds_setpoint(fleet, at)
                _exclude(fleet, at[astray], at_ns[astray], Exclusion.UNKNOWN)
            case Phase.DIVERGED:
                _exclude(fleet, at, at_ns, Exclusion.DIVERGED)
            case Phase.REJECTED:
                _exclude(fleet, at, at_ns, Exclusion.REJECTED)
            case Phase.VERIFIED:
                # The meter is evidence enough where the answer got lost.
                silent = at[fleet.applied_at_ns[at] == 0]
                _count_response(fleet, silent)
                fleet.applied_at_ns[silent] = fleet.tried_at_ns[silent]
                _start_timer(fleet, silent)
                fleet.excluded[at] = Exclusion.NONE
                fleet.failures[at] = 0
                fleet.unanswered[at] = 0
            case _:
                pass
        fleet.phase[at] = phase


def _count_unanswered(fleet: Fleet, rows: Ints) -> None:
    """Count commands without an answer of devices that are heard and have a session."""
    # Said again of the same command, it is no further one.
    first = _AWAITS_FIRST[fleet.phase[rows]] & fleet.connected[rows]
    rows = rows[first & _IS_HEARD[fleet.freshness[rows]]]
    fleet.unanswered[rows] = np.minimum(fleet.unanswered[rows], _COUNTED_MAX) + 1


def holds_setpoint(fleet: Fleet, rows: Ints) -> Flags:
    """Tell whose meter shows about what is asked now, under a command whose timer still runs.

    Where only a small change or a refresh got lost, the device goes on delivering: nothing has to
    be replaced before its timer ends.
    """
    nameplate_w = np.maximum(fleet.nameplate_up_w[rows], fleet.nameplate_down_w[rows])
    off_w = np.abs(fleet.value[Metric.POWER_W, rows] - fleet.desired_w[rows])
    heard = _IS_HEARD[fleet.freshness[rows]]
    holds: Flags = heard & (fleet.reverts_at_ns[rows] > fleet.now_ns)
    holds &= off_w <= np.maximum(_ABOUT * nameplate_w, _ABOUT_W)
    return holds


def in_force(fleet: Fleet) -> list[Signal]:
    """Return the signals whose order runs."""
    return [s for s in fleet.signals.values() if s.order_no and s.ends_at_ns > fleet.now_ns]


def step_exclusions(fleet: Fleet) -> None:
    """Let devices back in whose back-off is over, while no order runs.

    While one runs nobody is let back in by time alone: he is probed and has to answer.
    """
    if in_force(fleet):
        return
    excluded = np.flatnonzero(fleet.excluded[: fleet.size])
    over = fleet.excluded_until_ns[excluded] <= fleet.now_ns
    fleet.excluded[excluded[over]] = Exclusion.NONE


def _apply_overtaken(fleet: Fleet, rows: Ints) -> None:
    """An answer to an earlier command says that the device listens: the wait starts anew."""
    rows = rows[_AWAITS_ANSWER[fleet.phase[rows]]]
    fleet.planned_at_ns[rows] = np.maximum(fleet.planned_at_ns[rows], fleet.tried_at_ns[rows])


def _apply_progress(
    fleet: Fleet, rows: Ints, at_ns: Longs, status: AckStatus, phase: Phase
) -> None:
    further = _REOPENED_BELOW[fleet.phase[rows]] < status
    if phase == Phase.RECEIVED:
        further &= _BEFORE_RECEIVED[fleet.phase[rows]]
    rows, at_ns = rows[further], at_ns[further]
    if status in _ANSWERED:
        first = fleet.applied_at_ns[rows] == 0
        _count_response(fleet, np.unique(rows[first]))
        told_ns = np.clip(at_ns, fleet.planned_at_ns[rows], fleet.now_ns + _AHEAD_NS)
        # The first answer tells when the device began to follow.
        fleet.applied_at_ns[rows[first]] = told_ns[first]
        _start_timer(fleet, rows)
        back = fleet.excluded[rows] != Exclusion.DIVERGED
        fleet.excluded[rows[back]] = Exclusion.NONE
    released = np.isnan(fleet.desired_w[rows])
    fleet.phase[rows] = phase
    if status in _ANSWERED:
        fleet.phase[rows[released]] = Phase.COMPLETED
        fleet.reverts_at_ns[rows[released]] = 0
    if status == AckStatus.COMPLETED:
        # The device went back to its own schedule by itself.
        fleet.reverts_at_ns[rows] = np.minimum(fleet.reverts_at_ns[rows], fleet.applied_at_ns[rows])


def _apply_refusal(fleet: Fleet, rows: Ints, phase: Phase, exclusion: Exclusion) -> None:
    if phase == Phase.REJECTED:
        # Said of a further try of a command it follows already, it takes nothing back.
        rows = rows[_UNANSWERED[fleet.phase[rows]]]
    at_ns = np.full(len(rows), fleet.now_ns, np.int64)
    _exclude(fleet, rows, at_ns, exclusion)
    fleet.phase[rows] = phase


def _exclude(fleet: Fleet, rows: Ints, at_ns: Longs, exclusion: Exclusion) -> None:
    """Stop counting on devices, for longer each time. Refusing a release is no reason."""
    asked = fleet.order_no[rows] != 0
    rows, at_ns = rows[asked], at_ns[asked]
    # Of one command a failure counts once, and only where somebody counted on the device.
    counted = rows[_PROMISING[fleet.phase[rows]] & (fleet.excluded[rows] == Exclusion.NONE)]
    fleet.trials.add_failed(fleet.kind[counted], fleet.vendor[counted])
    fleet.responses[rows] *= _FORGETTING
    fleet.refusals[rows] = fleet.refusals[rows] * _FORGETTING + np.float32(1.0)
    doubled = np.exp2(np.minimum(fleet.failures[rows], 6).astype(np.float64))
    pause_s = np.minimum(BACK_OFF_S * doubled, BACK_OFF_S_MAX)
    if exclusion == Exclusion.OPTED_OUT:
        pause_s[:] = BACK_OFF_S_MAX
    if exclusion == Exclusion.UNKNOWN:
        # Who fell silent together is not probed together: should they all act, it were too much.
        pause_s *= 0.5 + np.mod(fleet.device_nos(rows) * _GOLDEN, 1.0)
        # Whoever was out of reach is asked again as soon as he is back.
        heard = _IS_HEARD[fleet.freshness[rows]]
        pause_s[~(heard & fleet.connected[rows])] = 0.0
    fleet.excluded[rows] = exclusion
    fleet.excluded_until_ns[rows] = at_ns + (pause_s * NS_PER_S).astype(np.int64)
    fleet.failures[rows] = np.minimum(fleet.failures[rows], _COUNTED_MAX) + 1


def _count_response(fleet: Fleet, rows: Ints) -> None:
    asked = rows[fleet.order_no[rows] != 0]
    # What was booked as a refusal for want of an answer is taken back: it was only late.
    unknown = fleet.excluded[asked] == Exclusion.UNKNOWN
    fleet.trials.add_followed(fleet.kind[asked], fleet.vendor[asked], unknown)
    late = asked[unknown]
    fleet.refusals[late] = np.maximum(fleet.refusals[late] - np.float32(1.0), np.float32(0.0))
    fleet.failures[late] = np.maximum(fleet.failures[late], 1) - 1
    fleet.responses[asked] = fleet.responses[asked] * _FORGETTING + np.float32(1.0)
    fleet.refusals[asked] *= _FORGETTING


def _start_timer(fleet: Fleet, rows: Ints) -> None:
    """Note when the device will revert: counted from the evidence, so never too late for it."""
    reverts_at_ns = _reverts_at_ns(fleet, rows, fleet.applied_at_ns[rows])
    fleet.reverts_at_ns[rows] = np.maximum(fleet.reverts_at_ns[rows], reverts_at_ns)


def _keep_prior(fleet: Fleet, rows: Ints, order_no: Ints) -> None:
    """Note of devices that another order is about to have, or none, whose setpoint they are at."""
    told = fleet.order_no[rows]
    before = np.where(fleet.applied_at_ns[rows] == 0, fleet.prior_no[rows], 0)
    prior = np.where((told != order_no) & (told != 0), told, before)
    # Zeros over zeros would take memory.
    changed = prior != fleet.prior_no[rows]
    fleet.prior_no[rows[changed]] = prior[changed]


def _keep_timer(fleet: Fleet, rows: Ints) -> None:
    """Note of devices to be released until when they may follow what they never answered."""
    asked = ~np.isnan(fleet.desired_w[rows]) & (fleet.applied_at_ns[rows] == 0)
    rows = rows[asked & (fleet.revision[rows] > 0)]
    reverts_at_ns = _reverts_at_ns(fleet, rows, fleet.not_after_ns[rows])
    fleet.reverts_at_ns[rows] = np.maximum(fleet.reverts_at_ns[rows], reverts_at_ns)


def _reverts_at_ns(fleet: Fleet, rows: Ints, since_ns: Longs) -> Longs:
    revert_s = fleet.revert_s[rows].astype(np.float64)
    timed = ~np.isnan(revert_s)
    reverts_at_ns = np.full(len(rows), NEVER_NS, np.int64)
    reverts_at_ns[timed] = since_ns[timed] + (revert_s[timed] * NS_PER_S).astype(np.int64)
    return reverts_at_ns


def _known(fleet: Fleet, device_no: Ints) -> tuple[Ints, NDArray[np.intp]]:
    """Return the rows of devices that are enrolled here, and their places in the block."""
    rows = fleet.rows(device_no)
    places = np.flatnonzero((rows >= 0) & (rows < fleet.size))
    return rows[places], places
