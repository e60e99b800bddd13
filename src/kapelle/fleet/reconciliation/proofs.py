"""What readings prove for or against a device: held against energy, charge and what it was asked.

One reading proves nothing. Evidence is counted: a piece in favour of a fault after another makes
the number of that `Proof` positive, a piece against it makes it negative. `conditions` decides.
"""

from dataclasses import dataclass
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.fleet.reconciliation.verify import DEFAULTS as VERIFY
from kapelle.fleet.reconciliation.verify import tolerance
from kapelle.model.enums import Condition, DeviceKind, Metric
from kapelle.model.ids import NS_PER_S, Flags, Floats, Longs

Places = NDArray[np.intp]
_CHUNK = 1 << 15
_COUNTED_MAX = 100
_SAME_MAX = 250
_DEAD_WH = 2000.0
"""A register that does not move while this much should have flowed counts nothing. [Wh]"""
_CERTAIN = 3
"""Pieces of evidence that one which leaves no doubt is worth."""


@unique
class Proof(IntEnum):
    """Rows of the column `proofs`."""

    TURNED_BY_REGISTER = 0
    TURNED_BY_CHARGE = 1
    TURNED_BY_COMMAND = 2
    SCALED_BY_ENERGY = 3
    SCALED_BY_COMMAND = 4
    STUCK = 5


@dataclass(frozen=True, slots=True)
class ProofSettings:
    """When power and energy can be compared, and what counts as a contradiction."""

    window_s: float = 300.0
    """Power is added up at least this long before energy is held against it … [s]"""
    window_s_max: float = 7200.0
    """… and at most this long. Registers that are counted on once an hour are waited for. [s]"""
    gap_s_max: float = 120.0
    """A longer gap between readings (and longer than three cadences) ends the adding up. [s]"""
    steps: float = 20.0
    """Energy must have moved by this many steps of the register …"""
    nameplate_h: float = 0.02
    """… and by this many hours of nameplate power. [h]"""
    charge: float = 0.03
    """State of charge must have moved, or should have, by this. 0-1"""
    agree: float = 2.0
    """Energy within this factor of the power added up agrees with it."""
    same: float = 1.03
    """Energy vouches for a meter that repeats itself where it agrees to within this factor, …"""
    steady_s: float = 3600.0
    """… and where it does only roughly, it is watched this long (some registers are slow) … [s]"""
    steady: float = 1.4
    """… and then held to this factor, …"""
    coarse_share: float = 0.2
    """… as long as no coarse meter would explain it by rounding. Share of nameplate."""
    scaled: tuple[float, float] = (500.0, 2000.0)
    """A factor between these is a thousand."""
    hybrid: tuple[float, float] = (0.65, 1.4)
    """Charge moving against power counts only within these factors of it, and only while power is
    drawn: behind some inverters a battery fills from panels while it exports."""


DEFAULTS = ProofSettings()


def step_proofs(fleet: Fleet, news: Places, settings: ProofSettings = DEFAULTS) -> None:
    """Look once at each device whose newest power reading is new; `news` ascends."""
    for start in range(0, len(news), _CHUNK):
        _look(fleet, settings, news[start : start + _CHUNK])


def _look(fleet: Fleet, settings: ProofSettings, rows: Places) -> None:
    power_w = fleet.value[Metric.POWER_W, rows]
    at_s = fleet.measured_at_ns[Metric.POWER_W, rows] // NS_PER_S
    was_w, was_s = fleet.seen_w[rows], fleet.seen_w_at_s[rows].astype(np.int64)
    gap_s = at_s - was_s
    first = was_s == 0
    # A clock that was set back, or a second reading of a moment, says nothing about repetition.
    same = ~first & (power_w == was_w) & (gap_s >= 0)
    fleet.same[rows] = np.where(same, np.minimum(fleet.same[rows], _SAME_MAX) + 1, 0)
    fleet.same_since_s[rows[~same]] = at_s[~same]
    _note_change(fleet, rows, same)

    cadence_s = np.nan_to_num(fleet.cadence_s[rows].astype(np.float64))
    broken = first | (gap_s < 0) | (gap_s > np.maximum(3.0 * cadence_s, settings.gap_s_max))
    # Where power changes direction, samples of it add up to anything.
    broken |= power_w * was_w < 0
    added_wh = (0.5 / 3600.0) * (power_w + was_w) * gap_s
    fleet.window_wh[rows] += np.where(broken, 0.0, added_wh).astype(np.float32)
    fleet.seen_w[rows], fleet.seen_w_at_s[rows] = power_w, at_s
    _compare_energy(fleet, settings, rows, at_s, broken)
    _compare_command(fleet, rows, power_w, at_s)


def _note_change(fleet: Fleet, rows: Places, same: Flags) -> None:
    """A meter that moves is not stuck; one that was has to move twice in a row."""
    stuck = fleet.proofs[Proof.STUCK, rows]
    if not stuck.any() and not fleet.condition[rows].any():
        return
    frozen = (fleet.condition[rows] & Condition.FROZEN) != 0
    moved = np.where(frozen, np.maximum(np.minimum(stuck, 0), 1 - _COUNTED_MAX) - 1, 0)
    stays = np.where(frozen & (stuck < 0), 0, stuck)
    fleet.proofs[Proof.STUCK, rows] = np.where(same, stays, moved)


def _count(fleet: Fleet, proof: Proof, rows: Places, speaks_for: Flags, against: Flags) -> None:
    which = np.flatnonzero(speaks_for | against)
    if not len(which):
        return
    rows, speaks_for = rows[which], speaks_for[which]
    now = fleet.proofs[proof, rows].astype(np.int16)
    more = np.minimum(np.maximum(now, 0) + 1, _COUNTED_MAX)
    less = np.maximum(np.minimum(now, 0) - 1, -_COUNTED_MAX)
    fleet.proofs[proof, rows] = np.where(speaks_for, more, less)


def _register_wh(fleet: Fleet, rows: Places) -> Floats:
    """Return export less import, NaN where the newest report did not say both it ever says."""
    export_wh, import_wh = fleet.value[Metric.EXPORT_WH, rows], fleet.value[Metric.IMPORT_WH, rows]
    at_ns = fleet.measured_at_ns[Metric.POWER_W, rows]
    net_wh = np.zeros(len(rows))
    said = np.zeros(len(rows), np.bool_)
    stale = np.zeros(len(rows), np.bool_)
    for metric, register_wh, sign in (
        (Metric.EXPORT_WH, export_wh, 1.0),
        (Metric.IMPORT_WH, import_wh, -1.0),
    ):
        has = register_wh == register_wh
        said |= has
        stale |= has & (fleet.measured_at_ns[metric, rows] != at_ns)
        np.add(net_wh, sign * register_wh, out=net_wh, where=has)
    net_wh[~said | stale] = np.nan
    return net_wh


def _compare_energy(
    fleet: Fleet, settings: ProofSettings, rows: Places, at_s: Longs, broken: Flags
) -> None:
    """Hold the power added up against registers and charge, where enough of either has moved."""
    register_wh = _register_wh(fleet, rows)
    soc = np.full(len(rows), np.nan)
    charged = np.flatnonzero(fleet.kind[rows] == DeviceKind.BATTERY)
    if len(charged):
        told = rows[charged]
        now = fleet.measured_at_ns[Metric.SOC, told] == fleet.measured_at_ns[Metric.POWER_W, told]
        soc[charged] = np.where(now, fleet.value[Metric.SOC, told], np.nan)

    # Zero is where nothing was said; a value of zero begins to count once it has moved.
    began_wh, began_soc = fleet.window_register_wh[rows], fleet.window_soc[rows]
    lasted_s = at_s - fleet.window_at_s[rows].astype(np.int64)
    wh = fleet.window_wh[rows].astype(np.float64)
    moved_wh = register_wh - began_wh
    filled = soc - began_soc
    nameplate_w = np.maximum(fleet.nameplate_up_w[rows], fleet.nameplate_down_w[rows])
    energy_wh = fleet.energy_wh[rows]
    most_wh = np.maximum(np.abs(wh), np.abs(moved_wh))
    moved_wh[began_wh == 0] = np.nan
    filled[began_soc == 0] = np.nan
    by_register = (moved_wh != 0) & (most_wh >= settings.nameplate_h * nameplate_w)
    by_register &= moved_wh == moved_wh
    some = np.flatnonzero(by_register)
    if len(some):
        steps_wh = settings.steps * _resolution_wh(fleet, rows[some])
        by_register[some] = most_wh[some] >= steps_wh
    expected = np.divide(wh, energy_wh, out=np.zeros(len(rows)), where=energy_wh > 0)
    by_charge = np.maximum(np.abs(filled), np.abs(expected)) >= settings.charge
    by_charge &= filled == filled
    over = lasted_s >= settings.window_s_max
    ready = (by_register | np.isnan(moved_wh)) & (by_charge | np.isnan(filled))
    closing = ~broken & (over | (ready & (by_register | by_charge)))
    closing &= lasted_s >= settings.window_s
    # A steady load repeats itself rightly; where its register says otherwise, its meter is stuck.
    steady = fleet.same_since_s[rows] <= fleet.window_at_s[rows]
    least_wh = np.minimum(np.abs(wh), np.abs(moved_wh))
    rough = (moved_wh * wh > 0) & (most_wh > settings.same * least_wh)
    rough &= most_wh <= settings.agree * least_wh
    closing &= ~(steady & rough & by_register & (lasted_s < settings.steady_s))

    which = np.flatnonzero(closing)
    if len(which):
        _judge(
            fleet,
            settings,
            rows[which],
            wh[which],
            np.where(by_register[which], moved_wh[which], np.nan),
            np.where(by_charge[which], -filled[which] * energy_wh[which], np.nan),
        )
        dead = over[which] & (moved_wh[which] == 0) & (began_wh[which] != 0)
        which, dead = which[steady[which]], dead[steady[which]]
        moved_wh[~by_register] = np.nan
        _judge_steady(
            fleet, settings, rows[which], wh[which], moved_wh[which], lasted_s[which], dead
        )
    register_wh, soc = np.nan_to_num(register_wh), np.nan_to_num(soc)
    began = (began_wh == 0) & (register_wh != 0) | (began_soc == 0) & (soc != 0)
    again = np.flatnonzero(closing | broken | began)
    at = rows[again]
    fleet.window_at_s[at], fleet.window_wh[at] = at_s[again], 0.0
    # Devices that have neither shall cost no memory: what is zero stays untouched.
    for column, values, were in (
        (fleet.window_register_wh, register_wh, began_wh),
        (fleet.window_soc, soc, began_soc),
    ):
        some = again[(values[again] != 0) | (were[again] != 0)]
        column[rows[some]] = values[some]


def _resolution_wh(fleet: Fleet, rows: Places) -> Floats:
    """Return the step of the registers, as far as their values show it. [Wh]"""
    finest_wh = np.full(len(rows), 1000.0)
    for metric in (Metric.EXPORT_WH, Metric.IMPORT_WH):
        register_wh = np.nan_to_num(fleet.value[metric, rows])
        step_wh = np.ones(len(rows))
        for coarser_wh in (10.0, 100.0, 1000.0):
            step_wh[register_wh % coarser_wh == 0] = coarser_wh
        finest_wh = np.minimum(finest_wh, step_wh)
    return finest_wh


def _judge(
    fleet: Fleet,
    settings: ProofSettings,
    rows: Places,
    wh: Floats,
    register_wh: Floats,
    charge_wh: Floats,
) -> None:
    """Count what a whole window says. NaN: this witness does not speak. [Wh, export positive]"""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, fill = register_wh / wh, charge_wh / wh
    factor, (least, most) = settings.agree, settings.scaled
    agrees = (ratio >= 1.0 / factor) & (ratio <= factor)
    turned = (ratio <= -1.0 / factor) & (ratio >= -factor)
    near, far = settings.hybrid
    fits = (fill >= 1.0 / (factor + 0.5)) & (fill <= factor + 0.5)
    drained = (fill <= -near) & (fill >= -far) & (wh < 0)
    scaled = ((ratio >= least) & (ratio <= most)) | ((fill >= least) & (fill <= most))

    # Whoever contradicted before and agrees now has been mended: that settles old commands too.
    mended = agrees & (fleet.proofs[Proof.TURNED_BY_REGISTER, rows] > 0)
    mended |= fits & (fleet.proofs[Proof.TURNED_BY_CHARGE, rows] > 0)
    fleet.proofs[Proof.TURNED_BY_COMMAND, rows[mended]] = 0
    mended = (agrees | fits) & (fleet.proofs[Proof.SCALED_BY_ENERGY, rows] > 0)
    fleet.proofs[Proof.SCALED_BY_COMMAND, rows[mended]] = 0
    _count(fleet, Proof.TURNED_BY_REGISTER, rows, turned, agrees)
    _count(fleet, Proof.TURNED_BY_CHARGE, rows, drained, fits)
    _count(fleet, Proof.SCALED_BY_ENERGY, rows, scaled, agrees | fits)


def _judge_steady(
    fleet: Fleet,
    settings: ProofSettings,
    rows: Places,
    wh: Floats,
    register_wh: Floats,
    lasted_s: Longs,
    dead: Flags,
) -> None:
    """Count for or against a stuck meter what a window says in which it never moved. [Wh]"""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = register_wh / wh
    factor = np.where(lasted_s >= settings.steady_s, settings.steady, settings.agree)
    free = (fleet.condition[rows] & Condition.FROZEN) == 0
    off = (ratio < 1.0 / factor) | (ratio > factor)
    # Turned signs and wrong units have names of their own.
    off &= ~((ratio >= -settings.agree) & (ratio <= -1.0 / settings.agree))
    off &= ratio < settings.scaled[0]
    nameplate_w = np.maximum(fleet.nameplate_up_w[rows], fleet.nameplate_down_w[rows])
    round_w = np.where(fleet.seen_w[rows] % 10.0 == 0, settings.coarse_share * nameplate_w, 0.0)
    off &= np.abs(register_wh - wh) * 3600.0 > round_w * np.maximum(lasted_s, 1)
    least_wh = np.maximum(settings.nameplate_h * nameplate_w, _DEAD_WH)
    dead = free & dead & (np.abs(wh) >= least_wh)
    exact = (ratio >= 1.0 / settings.same) & (ratio <= settings.same)
    _count(fleet, Proof.STUCK, rows, free & off, free & exact)
    # What vouched for it once, and does so no more.
    doubtful = free & ~off & ~exact & (ratio == ratio)
    fleet.proofs[Proof.STUCK, rows[doubtful]] = 0
    fleet.proofs[Proof.STUCK, rows[dead]] = _CERTAIN


def _compare_command(fleet: Fleet, rows: Places, power_w: Floats, at_s: Longs) -> None:
    """Hold settled readings of devices that said they follow against what they were asked."""
    desired_w, told_ns = fleet.desired_w[rows], fleet.applied_at_ns[rows]
    settled_ns = told_ns + int(VERIFY.settle_s * NS_PER_S)
    asked = (desired_w == desired_w) & (told_ns > 0) & (fleet.order_no[rows] != 0)
    asked &= fleet.heard_at_ns[rows] >= settled_ns
    which = np.flatnonzero(asked)
    if not len(which):
        return
    rows, power_w, at_s = rows[which], power_w[which], at_s[which]
    desired_w, told_ns = desired_w[which], told_ns[which]
    tolerance_w, own_w = tolerance(fleet, rows), fleet.own_w[rows]
    large = np.abs(desired_w) > 3.0 * tolerance_w
    # Who would be there anyway proves nothing.
    telling = large & (np.abs(desired_w - own_w) > 2.0 * tolerance_w)
    follows = telling & (np.abs(power_w - desired_w) <= tolerance_w)
    against = large & (np.abs(power_w + desired_w) <= tolerance_w)
    against &= np.abs(power_w - own_w) > 2.0 * tolerance_w
    scaled = large & (np.abs(1000.0 * power_w - desired_w) <= tolerance_w)
    scaled &= 1000.0 * np.abs(power_w - own_w) > 2.0 * tolerance_w
    for proof, speaks_for in (
        (Proof.TURNED_BY_COMMAND, against),
        (Proof.SCALED_BY_COMMAND, scaled),
    ):
        # Noise fits now and then: only an unbroken row counts.
        now = fleet.proofs[proof, rows]
        broken = large & ~speaks_for & (now > 0) & (now < _CERTAIN)
        fleet.proofs[proof, rows[broken]] = 0
        _count(fleet, proof, rows, speaks_for, follows)

    # The value began before the command took effect, is too odd for a nominal one and too large
    # for standby: a meter that lives would have moved a little at least.
    nameplate_w = np.maximum(fleet.nameplate_up_w[rows], fleet.nameplate_down_w[rows])
    odd = (power_w % 10.0 != 0) & (np.abs(power_w) > 0.01 * nameplate_w)
    since_s = (fleet.heard_at_ns[rows] - told_ns) // NS_PER_S
    unmoved = (fleet.same[rows] >= 4) & (at_s - fleet.same_since_s[rows] > since_s)
    unmoved &= odd & (np.abs(power_w - desired_w) > 2.0 * tolerance_w)
    unmoved &= fleet.proofs[Proof.STUCK, rows] >= 0
    _count(fleet, Proof.STUCK, rows, unmoved, np.zeros(len(rows), np.bool_))
