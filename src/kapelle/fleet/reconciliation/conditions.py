"""What is wrong with devices for longer than a moment: raised on evidence, cleared on its opposite.

Conditions live in the column `condition`, bits of `Condition`. `counting.sequence` sets
COUNTER_RESTARTED, `metering.live` REGISTER_WRONG, and whoever mutes a sender MUTED, by `mark`; the
others are decided here, once a tick, from the devices' own entries alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, Words, span
from kapelle.fleet.reconciliation.proofs import Proof, step_proofs
from kapelle.fleet.reconciliation.verify import tolerance
from kapelle.model.enums import Condition, DeviceKind, Metric
from kapelle.model.ids import NS_PER_S, Flags, Ints

Places = NDArray[np.intp]
_NO_SKEW = np.iinfo(np.int64).max
DISTRUSTED = np.uint16(
    Condition.FROZEN
    | Condition.SIGN_TURNED
    | Condition.UNIT_WRONG
    | Condition.DEAF
    | Condition.CONTESTED
)
"""Who has one of these is not counted on."""
VOID = np.uint16(
    Condition.FROZEN | Condition.SIGN_TURNED | Condition.UNIT_WRONG | Condition.CONTESTED
)
"""Whose reading is not what is: the meter of a deaf device is as good as any."""


@dataclass(frozen=True, slots=True)
class ConditionSettings:
    """When a condition is raised and when it is over."""

    flaps: float = 300.0
    """Three losses (or takeovers) within this are flapping (or contested) … [s]"""
    calm_s: float = 600.0
    """… and this long without another ends it. [s]"""
    unanswered: int = 3
    """Commands in a row without an answer make a device deaf; any answer cures it."""
    proofs: int = 3
    """Pieces of evidence in a row that raise a condition …"""
    cures: int = 2
    """… and pieces of the opposite that clear it."""
    hearsay_s: float = 6 * 3600.0
    """What rests on commands alone is over after this: only by asking again can it be known. [s]"""
    clock_s: float = 30.0
    """A clock is wrong beyond this, in two windows in a row … [s]"""
    clock_s_right: float = 20.0
    """… and right again within this. [s]"""
    sun_readings: int = 10
    """A solar inverter that repeats a value so often …"""
    sun_s: float = 900.0
    """… and for so long is stuck: the sky is never so still. [s]"""
    sun_share: float = 0.02
    """At night it may. Share of nameplate."""


DEFAULTS = ConditionSettings()


def distrusted(fleet: Fleet, rows: Ints) -> Flags:
    """Tell which devices are not counted on for a lasting condition, whatever they report."""
    doubted: Flags = (fleet.condition[span(rows)] & DISTRUSTED) != 0
    return doubted


def untrusted(fleet: Fleet, rows: Ints) -> Flags:
    """Tell whose power reading is no measured truth.

    Void since the condition holds: a frozen meter since `same_since_s` (device time), when it
    began to repeat itself; a turned sign, a wrong unit and a contested credential for as long as
    the condition is raised, and before for nobody knows how long. Such a device is as good as
    silent; where it follows a command nobody can say.
    """
    void: Flags = (fleet.condition[span(rows)] & VOID) != 0
    return void


def mark(fleet: Fleet, rows: Places, bit: Condition, raised: Flags) -> None:
    """Set or clear one condition of some devices, noting when any of it changed.

    For the conditions other rooms of the fold find: call it from their step at a tick, with
    distinct rows.
    """
    was = fleet.condition[rows]
    now: Words = np.where(raised, was | np.uint16(bit), was & ~np.uint16(bit)).astype(np.uint16)
    changed = now != was
    fleet.condition[rows[changed]] = now[changed]
    fleet.condition_at_s[rows[changed]] = fleet.now_ns // NS_PER_S


def step_conditions(fleet: Fleet, news: Places, settings: ConditionSettings = DEFAULTS) -> None:
    """Weigh what the last tick brought; needs freshness and verification before.

    Args:
        fleet: The partition.
        news: Rows whose newest power reading is another than at the tick before, ascending.
        settings: Bounds.
    """
    step_proofs(fleet, news)
    if len(news):
        _mark_frozen(fleet, settings, news)
        _mark_turned(fleet, settings, news)
        _mark_scaled(fleet, settings, news)
        _mark_clock(fleet, settings, news)
    _mark_times(fleet, settings, Condition.FLAPPING)
    _mark_times(fleet, settings, Condition.CONTESTED)
    _mark_deaf(fleet, settings)
    _forget_hearsay(fleet, settings)


def _has(fleet: Fleet, rows: Places, bit: Condition) -> Flags:
    has: Flags = (fleet.condition[rows] & np.uint16(bit)) != 0
    return has


def _decide(fleet: Fleet, rows: Places, bit: Condition, raises: Flags, clears: Flags) -> None:
    """Keep what is neither raised nor cleared; most devices are neither, so look at few."""
    has = _has(fleet, rows, bit)
    which = np.flatnonzero((raises & ~has) | (clears & has))
    if len(which):
        mark(fleet, rows[which], bit, ~has[which])


def _mark_frozen(fleet: Fleet, settings: ConditionSettings, rows: Places) -> None:
    stuck = fleet.proofs[Proof.STUCK, rows]
    raises = stuck >= settings.proofs
    sunny = np.flatnonzero(
        (fleet.kind[rows] == DeviceKind.PV) & (fleet.same[rows] >= settings.sun_readings - 1)
    )
    if len(sunny):
        at = rows[sunny]
        power_w = fleet.value[Metric.POWER_W, at]
        lasted_s = fleet.seen_w_at_s[at] - fleet.same_since_s[at]
        still = (power_w > settings.sun_share * fleet.nameplate_up_w[at]) & (power_w % 10.0 != 0)
        still &= lasted_s >= settings.sun_s
        # Who holds a setpoint is still by order; whose register agrees is still in truth.
        still &= ~(np.abs(power_w - fleet.desired_w[at]) <= tolerance(fleet, at))
        raises[sunny] |= still & (stuck[sunny] >= 0)
    _decide(fleet, rows, Condition.FROZEN, raises, stuck <= -settings.cures)


def _mark_turned(fleet: Fleet, settings: ConditionSettings, rows: Places) -> None:
    register, charge, command = fleet.proofs[: Proof.TURNED_BY_COMMAND + 1, rows]
    enough, over = settings.proofs, -settings.cures
    raises = (register >= enough) | (charge >= enough) | ((command >= enough) & (charge >= 0))
    # A register behind the same turned meter agrees with it: alone it clears no other evidence.
    clears = (register <= 0) & (charge <= 0)
    clears &= (command <= over) | (charge <= over) | ((command <= 0) & (register <= over))
    _decide(fleet, rows, Condition.SIGN_TURNED, raises, clears & ~raises)


def _mark_scaled(fleet: Fleet, settings: ConditionSettings, rows: Places) -> None:
    energy, command = fleet.proofs[Proof.SCALED_BY_ENERGY : Proof.SCALED_BY_COMMAND + 1, rows]
    enough, over = settings.proofs, -settings.cures
    raises = (energy >= enough) | ((command >= enough) & (energy >= 0))
    clears = (energy <= 0) & (command <= 0) & ((energy <= over) | (command <= over))
    _decide(fleet, rows, Condition.UNIT_WRONG, raises, clears & ~raises)


def _mark_clock(fleet: Fleet, settings: ConditionSettings, rows: Places) -> None:
    now_ns, before_ns = fleet.skew_ns[rows], fleet.skew_before_ns[rows]
    bound_ns, right_ns = int(settings.clock_s * NS_PER_S), int(settings.clock_s_right * NS_PER_S)
    known = (now_ns != _NO_SKEW) & (before_ns != _NO_SKEW)
    # One report that was long under way, or one wild stamp, spoils one window.
    wrong = (np.minimum(now_ns, before_ns) > bound_ns) | (np.maximum(now_ns, before_ns) < -bound_ns)
    right = (now_ns != _NO_SKEW) & (np.abs(now_ns) < right_ns)
    _decide(fleet, rows, Condition.CLOCK_WRONG, known & wrong, right)


def _mark_times(fleet: Fleet, settings: ConditionSettings, bit: Condition) -> None:
    size, now_s = fleet.size, fleet.now_ns // NS_PER_S
    times = fleet.lost_at_s if bit == Condition.FLAPPING else fleet.taken_at_s
    third = times[2, :size]
    recent = np.flatnonzero(third > max(now_s - int(settings.flaps), 0))
    has = np.flatnonzero(fleet.condition[:size] & np.uint16(bit))
    if len(recent):
        mark(fleet, recent, bit, np.ones(len(recent), np.bool_))
    calm = has[times[0, has].astype(np.int64) <= now_s - int(settings.calm_s)]
    if len(calm):
        mark(fleet, calm, bit, np.zeros(len(calm), np.bool_))


def _mark_deaf(fleet: Fleet, settings: ConditionSettings) -> None:
    size = fleet.size
    silent = fleet.unanswered[:size] >= settings.unanswered
    silent &= fleet.followed[:size] == 0
    rows = np.flatnonzero(silent | ((fleet.condition[:size] & np.uint16(Condition.DEAF)) != 0))
    if len(rows):
        _decide(fleet, rows, Condition.DEAF, silent[rows], fleet.unanswered[rows] == 0)


def _forget_hearsay(fleet: Fleet, settings: ConditionSettings) -> None:
    """Let go of what only commands have shown: a device not counted on is not asked any more."""
    size = fleet.size
    doubted = fleet.condition[:size] & np.uint16(Condition.SIGN_TURNED | Condition.UNIT_WRONG)
    rows = np.flatnonzero(doubted)
    if not len(rows):
        return
    old_s = fleet.now_ns // NS_PER_S - fleet.condition_at_s[rows].astype(np.int64)
    rows = rows[old_s >= settings.hearsay_s]
    proven = fleet.proofs[:, rows] >= settings.proofs
    for bit, witnesses, command in (
        (
            Condition.SIGN_TURNED,
            proven[Proof.TURNED_BY_REGISTER] | proven[Proof.TURNED_BY_CHARGE],
            Proof.TURNED_BY_COMMAND,
        ),
        (Condition.UNIT_WRONG, proven[Proof.SCALED_BY_ENERGY], Proof.SCALED_BY_COMMAND),
    ):
        at = rows[~witnesses & _has(fleet, rows, bit)]
        fleet.proofs[command, at] = 0
        mark(fleet, at, bit, np.zeros(len(at), np.bool_))
