"""The order of checks every command passes, independent of whoever decided on it.

Each refusal names its rule. **Nothing is clamped**: a command outside its limits is a fault of its
writer, and a half-right command would hide it; the ledgers of its writer would be wrong as well,
and what the meter then shows looks like a device that strays. What many commands exceed together,
power, ramp, switching, is let through in order of arrival up to the limit, and the rest refused
as CANCELLED: nobody is to blame, and its owner tries again in a few seconds. So a plant with a
ramp moves at exactly its ramp.

The gate trusts no room above it. What it knows of devices it has passed itself (`passed`), or read
from the registry's directory; orders it reads from the plant's topic. Its time never goes back.
First come the rules that a command breaks by itself, then those that it breaks together with
others, from the device to the plant. Only what passes all of them is charged to any.

A hold stops every command, releases too: whoever holds the plant wants nothing sent, and devices go
back by their own timers. The owner tries a release again until it is answered, so that it follows
within half a minute after the hold. Otherwise nothing but its own form and rate stops a release.
"""

from collections.abc import Mapping

import numpy as np

from kapelle.model.blocks import Commands
from kapelle.model.enums import Phase
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Ints
from kapelle.safety.charging import Asked, asked_of, charge
from kapelle.safety.groups import UNLABELLED
from kapelle.safety.passed import Rows
from kapelle.safety.settings import SafetySettings
from kapelle.safety.state import GateState, Known, go_on, note_owners
from kapelle.safety.switching import keeps_dwell

HOLD = "S-24 hold"
EPOCH = "R-16 stale owner"
TWICE = "S-20 device twice in one block"
EXPIRED = "R-15 expired"
OUTLIVES = "R-15 valid too long"
UNKNOWN = "S-20 unknown device"
NAMEPLATE = "S-20 beyond nameplate"
NO_REVERT = "R-20 no revert timer"
NO_ORDER = "S-20 no order in force"
NOT_AGREED = "S-23 needs a second person"
RATE = "S-20 too many commands"
RATE_DAY = "S-20 too many commands in an hour or day"
DWELL = "S-20 switched too soon"
SWITCHING = "S-20 too many switched at once"
POWER = "S-20 too much power"
RAMP = "S-20 too fast"
NO_LABEL = "S-20 no zone, feeder or site"
AUTHORITY = "S-20 beyond the issuer's authority"

RULES = (
    "",
    EPOCH,
    HOLD,
    TWICE,
    EXPIRED,
    OUTLIVES,
    UNKNOWN,
    NAMEPLATE,
    NO_REVERT,
    NO_ORDER,
    NOT_AGREED,
    NO_LABEL,
    RATE,
    RATE_DAY,
    DWELL,
    SWITCHING,
    POWER,
    RAMP,
    AUTHORITY,
)
"""A refusal is a place in this tuple; 0 lets the command pass."""
PHASE_OF: Mapping[str, Phase] = {
    HOLD: Phase.CANCELLED,
    TWICE: Phase.CANCELLED,
    EXPIRED: Phase.EXPIRED,
    OUTLIVES: Phase.CANCELLED,
    UNKNOWN: Phase.REJECTED,
    NAMEPLATE: Phase.REJECTED,
    NO_REVERT: Phase.REJECTED,
    NO_ORDER: Phase.CANCELLED,
    NOT_AGREED: Phase.CANCELLED,
    NO_LABEL: Phase.REJECTED,
    RATE: Phase.CANCELLED,
    RATE_DAY: Phase.CANCELLED,
    DWELL: Phase.CANCELLED,
    SWITCHING: Phase.CANCELLED,
    POWER: Phase.CANCELLED,
    RAMP: Phase.CANCELLED,
    AUTHORITY: Phase.CANCELLED,
}
"""What becomes of a refused command. A stale owner's command never became anything.

CANCELLED counts against nobody: the command met a limit of ours, and its owner tries again later.
REJECTED says that this device cannot be commanded so.
"""


def check(
    state: GateState,
    commands: Commands,
    known: Known,
    now_ns: int,
    partitions: int,
    settings: SafetySettings,
) -> Bytes:
    """Return for each command the place in `RULES` of the first rule it breaks, 0 for none.

    Commands that pass are taken as sent: they use up what the limits leave.

    Args:
        state: What the gate remembers; brought up to date.
        commands: One partition's, in order of arrival.
        known: What the registry knows of their devices.
        now_ns: The time; one before an earlier one counts as that.
        partitions: How many the plant has.
        settings: The limits.
    """
    go_on(state, now_ns)
    broken = np.zeros(len(commands), np.uint8)
    _check_alone(broken, state, commands, known, partitions, settings)
    rows = np.flatnonzero(broken == 0)
    if len(rows):
        asked = asked_of(state, commands, known, rows, settings)
        broken[rows] = _check_together(state, asked, settings)
    reason = state.trip_wire.reason(state.orders.explained_w(state.now_ns), settings)
    if reason and not state.held:
        state.held, state.hold_reason, state.tripped = True, reason, reason
        _refuse(broken, np.ones(len(commands), np.bool_), HOLD)
    return broken


def _check_alone(
    broken: Bytes,
    state: GateState,
    commands: Commands,
    known: Known,
    partitions: int,
    settings: SafetySettings,
) -> None:
    """Refuse what each command breaks by itself."""
    now_ns = state.now_ns
    up_w, down_w = known.nameplate_w
    is_known = ~(np.isnan(up_w) | np.isnan(down_w))
    _refuse(broken, note_owners(state, commands, is_known, partitions), EPOCH)
    if state.held:
        _refuse(broken, np.ones(len(commands), np.bool_), HOLD)
    _refuse(broken, _is_repeated(commands.device_no), TWICE)
    _refuse(broken, commands.not_after_ns < now_ns, EXPIRED)
    late_ns = now_ns + int(settings.valid_s_max * NS_PER_S)
    _refuse(broken, commands.not_after_ns > late_ns, OUTLIVES)
    check_form(broken, commands, known, settings)
    released = np.isnan(commands.setpoint_w)
    orders = state.orders
    _refuse(broken, ~(released | orders.in_force(commands.order_no, now_ns)), NO_ORDER)
    agreed = orders.is_agreed(commands.order_no, settings.operate_above_w)
    _refuse(broken, ~(released | agreed), NOT_AGREED)


def check_form(broken: Bytes, commands: Commands, known: Known, settings: SafetySettings) -> None:
    """Refuse what no moment would make right."""
    short = (commands.ttl_s >= 0.0) & (commands.ttl_s <= settings.valid_s_max)
    _refuse(broken, ~short, OUTLIVES)
    up_w, down_w = known.nameplate_w
    _refuse(broken, np.isnan(up_w) | np.isnan(down_w), UNKNOWN)

    setpoint_w = commands.setpoint_w
    released = np.isnan(setpoint_w)
    more_w = settings.beyond_nameplate * np.maximum(up_w, down_w)
    inside = (setpoint_w <= up_w + more_w) & (setpoint_w >= -down_w - more_w)
    _refuse(broken, ~(released | inside), NAMEPLATE)
    reverts = (commands.revert_s > 0.0) & (commands.revert_s <= settings.revert_s_max)
    if settings.allow_no_failsafe:
        reverts |= np.isnan(commands.revert_s)
    _refuse(broken, ~(released | reverts), NO_REVERT)


def _check_together(state: GateState, asked: Asked, settings: SafetySettings) -> Bytes:
    """Refuse what commands, each in order, break together; charge the limits with the rest."""
    move, now_ns = asked.move, state.now_ns
    broken = np.zeros(len(move.device_no), np.uint8)
    for group in asked.groups:
        _refuse(broken, move.is_setpoint & (group == UNLABELLED), NO_LABEL)
    _refuse(broken, ~state.rates.keeps_minute(move.device_no, now_ns, settings), RATE)
    often = ~state.rates.keeps_day(move.device_no, settings)
    _refuse(broken, move.is_setpoint & often, RATE_DAY)
    stays = keeps_dwell(state.passed, move, asked.turns, now_ns, settings.dwell_s)
    _refuse(broken, ~stays, DWELL)

    def left() -> Rows:
        """Return the setpoints nothing has refused so far: only they count for what follows."""
        return np.flatnonzero((broken == 0) & move.is_setpoint)

    for ledger, group in zip(state.ledgers, asked.groups, strict=True):
        rows = left()
        _refuse_rows(
            broken, rows, ledger.keeps_switching(group[rows], asked.turns[rows]), SWITCHING
        )
        rows = left()
        _refuse_rows(
            broken,
            rows,
            ledger.keeps_power(group[rows], asked.more_w[:, rows], move.departs_w[:, rows]),
            POWER,
        )
        rows = left()
        _refuse_rows(broken, rows, ledger.keeps_ramp(group[rows], move.power_w[:, rows]), RAMP)
    rows = left()
    keeps = state.orders.keeps_authority(
        asked.order_no[rows], move.furthest_w[rows], settings.authority_w_per_hour
    )
    _refuse_rows(broken, rows, keeps, AUTHORITY)
    charge(state, asked, np.flatnonzero(broken == 0), settings)
    return broken


def _refuse(broken: Bytes, which: Flags, rule: str) -> None:
    broken[which & (broken == 0)] = RULES.index(rule)


def _refuse_rows(broken: Bytes, rows: Rows, keeps: Flags, rule: str) -> None:
    broken[rows[~keeps]] = RULES.index(rule)


def _is_repeated(device_no: Ints) -> Flags:
    """Tell which rows are about a device that an earlier row of the block is about."""
    repeated = np.ones(len(device_no), np.bool_)
    repeated[np.unique(device_no, return_index=True)[1]] = False
    return repeated
