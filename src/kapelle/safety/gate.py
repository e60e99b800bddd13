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
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kapelle.model.blocks import Commands
from kapelle.model.enums import Phase
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Floats, Ints
from kapelle.ports import Directory, Places
from kapelle.safety.authority import OrderBook
from kapelle.safety.groups import UNLABELLED
from kapelle.safety.limits import Ledger
from kapelle.safety.passed import Moves, Passed, Rows, apply_moves, moves
from kapelle.safety.plausibility import TripWire
from kapelle.safety.rates import Rates
from kapelle.safety.settings import LEVELS, SafetySettings
from kapelle.safety.switching import keeps_dwell, switches

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
_SETTLE_NS = NS_PER_S
"""Setpoints that have run out are taken off the sums this often."""
_NARROWEST_FIRST = (*reversed(LEVELS), "plant")


class Known(NamedTuple):
    """What the registry knows of the devices of a block."""

    nameplate_w: tuple[Floats, Floats]
    """Highest power towards export and towards consumption; NaN: not enrolled."""
    places: Places


@dataclass(slots=True, eq=False)
class GateState:
    """What the gate remembers."""

    held: bool = False
    hold_reason: str = ""
    now_ns: int = 0
    """The latest time it was told."""
    epochs: dict[int, int] = field(default_factory=dict)
    """Highest epoch seen of each partition's owner."""
    passed: Passed = field(default_factory=Passed)
    rates: Rates = field(default_factory=Rates)
    orders: OrderBook = field(default_factory=OrderBook)
    ledgers: list[Ledger] = field(default_factory=list)
    """Of each configured limit, the narrowest first."""
    trip_wire: TripWire = field(default_factory=TripWire)
    tripped: str = ""
    """Why the gate has just held the plant by itself, until somebody has taken note."""
    settled_ns: int = 0
    version: int = -1
    """Of the directory the ledgers know."""

    @classmethod
    def of(cls, settings: SafetySettings) -> "GateState":
        """Return the state of a gate that has passed nothing yet."""
        limits = sorted(settings.limits, key=lambda each: _NARROWEST_FIRST.index(each.level))
        return cls(ledgers=[Ledger(limit) for limit in limits])


def rearm(state: GateState) -> None:
    """End a hold. What tripped the wire was seen by whoever lifts it, and is forgotten."""
    state.held, state.hold_reason, state.tripped = False, "", ""
    state.trip_wire = TripWire()


def know(state: GateState, directory: Directory, device_no: Ints) -> Known:
    """Return what the directory says of devices; the ledgers hear of it where it has changed."""
    if state.version != directory.version:
        for ledger in state.ledgers:
            ledger.know(directory, state.passed)
        state.version = directory.version
        # Standing power is added up anew: devices may have come under another limit.
        state.settled_ns = 0
    return Known(directory.nameplate(device_no), directory.places(device_no))


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
    state.now_ns = max(state.now_ns, now_ns)
    _advance(state)
    broken = np.zeros(len(commands), np.uint8)
    _check_alone(broken, state, commands, known, partitions, settings)
    rows = np.flatnonzero(broken == 0)
    if len(rows):
        asked = _asked(state, commands, known, rows, settings)
        broken[rows] = _check_together(state, asked, settings)
    reason = state.trip_wire.reason(state.orders.explained_w(state.now_ns), settings)
    if reason and not state.held:
        state.held, state.hold_reason, state.tripped = True, reason, reason
        _refuse(broken, np.ones(len(commands), np.bool_), HOLD)
    return broken


def go_on(state: GateState, now_ns: int) -> None:
    """Take note that it is this late, though nobody asks: time does not go back on a restart."""
    state.now_ns = max(state.now_ns, now_ns)
    _advance(state)


def charge_again(
    state: GateState,
    commands: Commands,
    known: Known,
    at_ns: int,
    partitions: int,
    settings: SafetySettings,
    *,
    sure: bool,
) -> None:
    """Charge what left before a restart, whatever the limits say.

    Args:
        state: What the gate remembers; brought up to date.
        commands: One partition's; a device may occur again.
        known: What the registry knows of their devices.
        at_ns: When they left, or later.
        partitions: How many the plant has.
        settings: The limits.
        sure: Whether they left. Where nobody knows, they count as sent, a release as lost, and
            their devices as told who knows what.
    """
    go_on(state, at_ns)
    rows = np.arange(len(commands))
    is_known = ~np.isnan(known.nameplate_w[0])
    _is_stale(state, commands, is_known, partitions)
    if sure:
        # Of a device that was removed meanwhile what it was told is all that is known.
        told_w = np.abs(np.nan_to_num(commands.setpoint_w))
        up_w, down_w = (np.where(is_known, each_w, told_w) for each_w in known.nameplate_w)
        known = known._replace(nameplate_w=(up_w, down_w))
    else:
        # These rules do not depend on the moment: whatever breaks one has not left.
        broken = np.zeros(len(commands), np.uint8)
        _check_form(broken, commands, known, settings)
        late_ns = at_ns + int(settings.valid_s_max * NS_PER_S)
        _refuse(broken, commands.not_after_ns > late_ns, OUTLIVES)
        is_ordered = state.orders.is_known(commands.order_no)
        rows = np.flatnonzero((broken == 0) & (is_ordered | np.isnan(commands.setpoint_w)))
    while len(rows):
        first = np.unique(commands.device_no[rows], return_index=True)[1]
        asked = _asked(state, commands, known, rows[np.sort(first)], settings)
        if sure:
            _charge(state, asked, np.arange(len(first)), settings)
        else:
            move = asked.move
            before_ns = state.passed.until_ns[move.device_no]
            _charge(state, asked, np.flatnonzero(move.is_setpoint), settings)
            state.rates.charge(move.device_no[~move.is_setpoint], state.now_ns, settings)
            state.passed.doubt(move.device_no, before_ns, state.now_ns)
        rows = np.delete(rows, first)
    # Nobody sees a fault of sign or a fight of two in what is only gone through again.
    state.trip_wire = TripWire()


def _advance(state: GateState) -> None:
    now_ns = state.now_ns
    state.rates.advance(now_ns)
    state.orders.advance(now_ns)
    state.trip_wire.advance(now_ns)
    for ledger in state.ledgers:
        ledger.advance(now_ns)
    if now_ns - state.settled_ns >= _SETTLE_NS:
        state.settled_ns = now_ns
        state.trip_wire.settle(state.passed, now_ns)
        for ledger in state.ledgers:
            ledger.settle(state.passed, now_ns)


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
    _refuse(broken, _is_stale(state, commands, is_known, partitions), EPOCH)
    if state.held:
        _refuse(broken, np.ones(len(commands), np.bool_), HOLD)
    _refuse(broken, _is_repeated(commands.device_no), TWICE)
    _refuse(broken, commands.not_after_ns < now_ns, EXPIRED)
    late_ns = now_ns + int(settings.valid_s_max * NS_PER_S)
    _refuse(broken, commands.not_after_ns > late_ns, OUTLIVES)
    _check_form(broken, commands, known, settings)
    released = np.isnan(commands.setpoint_w)
    orders = state.orders
    _refuse(broken, ~(released | orders.in_force(commands.order_no, now_ns)), NO_ORDER)
    agreed = orders.is_agreed(commands.order_no, settings.operate_above_w)
    _refuse(broken, ~(released | agreed), NOT_AGREED)


def _check_form(broken: Bytes, commands: Commands, known: Known, settings: SafetySettings) -> None:
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


class _Asked(NamedTuple):
    """Commands that keep the rules of their own, and what they would do."""

    order_no: Ints
    setpoint_w: Floats
    move: Moves
    turns: Flags
    """Which turn a switched device."""
    more_w: Floats
    """How much further their devices may then stand off, up and down. [W]"""
    groups: list[Ints]
    """Their group in each ledger."""


def _asked(
    state: GateState, commands: Commands, known: Known, rows: Rows, settings: SafetySettings
) -> _Asked:
    some = Commands(*(getattr(commands, name)[rows] for name in Commands.COLUMNS))
    up_w, down_w = known.nameplate_w
    places = Places._make(column[rows] for column in known.places)
    move = moves(state.passed, some, (up_w[rows], down_w[rows]), state.now_ns, settings)
    standing_w = state.passed.standing_w(some.device_no, state.now_ns)
    return _Asked(
        order_no=some.order_no,
        setpoint_w=some.setpoint_w,
        move=move,
        turns=switches(state.passed, move, places.switched, state.now_ns),
        more_w=np.maximum(move.departs_w - standing_w, 0.0),
        groups=[ledger.of(some.device_no, places) for ledger in state.ledgers],
    )


def _check_together(state: GateState, asked: _Asked, settings: SafetySettings) -> Bytes:
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
    _charge(state, asked, np.flatnonzero(broken == 0), settings)
    return broken


def _charge(state: GateState, asked: _Asked, rows: Rows, settings: SafetySettings) -> None:
    """Enter what passes everywhere."""
    move, now_ns = asked.move.at(rows), state.now_ns
    for ledger, group in zip(state.ledgers, asked.groups, strict=True):
        ledger.charge(group[rows], move, asked.more_w[:, rows], asked.turns[rows])
    state.rates.charge(move.device_no, now_ns, settings)
    ordered = asked.order_no[rows][move.is_setpoint]
    state.orders.charge(ordered, move.furthest_w[move.is_setpoint])
    state.trip_wire.note(state.passed, move, now_ns)
    apply_moves(state.passed, move, asked.setpoint_w[rows], now_ns)


def _refuse(broken: Bytes, which: Flags, rule: str) -> None:
    broken[which & (broken == 0)] = RULES.index(rule)


def _refuse_rows(broken: Bytes, rows: Rows, keeps: Flags, rule: str) -> None:
    broken[rows[~keeps]] = RULES.index(rule)


def _is_repeated(device_no: Ints) -> Flags:
    """Tell which rows are about a device that an earlier row of the block is about."""
    repeated = np.ones(len(device_no), np.bool_)
    repeated[np.unique(device_no, return_index=True)[1]] = False
    return repeated


def _is_stale(state: GateState, commands: Commands, is_known: Flags, partitions: int) -> Flags:
    stale = np.zeros(len(commands), np.bool_)
    partition = commands.device_no % partitions
    for each in np.unique(partition).tolist():
        mine = partition == each
        # A row of nobody's proves no ownership.
        newest = commands.epoch[mine & is_known].max(initial=0)
        highest = max(state.epochs.get(each, 0), int(newest))
        state.epochs[each] = highest
        stale |= mine & (commands.epoch < highest)
    return stale
