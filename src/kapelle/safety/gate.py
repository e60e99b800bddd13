"""The check every command passes, independent of whoever decided on it.

A hold stops every command, releases too: whoever holds the plant wants nothing sent, and devices go
back by their own timers. The owner tries a release again until it is answered, so that it follows
within half a minute after the hold.

Each refusal names its rule. Nothing is clamped: a command outside its limits is a fault of its
writer, and a half-right command would hide it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kapelle.model.blocks import Commands
from kapelle.model.enums import Phase
from kapelle.model.ids import Bytes, Flags, Floats, Ints, Longs
from kapelle.safety.settings import SafetySettings

HOLD = "S-24 hold"
EPOCH = "R-16 stale owner"
EXPIRED = "R-15 expired"
UNKNOWN = "S-20 unknown device"
NAMEPLATE = "S-20 beyond nameplate"
NO_REVERT = "R-20 no revert timer"
RATE = "S-20 too many commands"

RULES = ("", EPOCH, HOLD, EXPIRED, UNKNOWN, NAMEPLATE, NO_REVERT, RATE)
"""A refusal is a place in this tuple; 0 lets the command pass."""
PHASE_OF: Mapping[str, Phase] = {
    HOLD: Phase.CANCELLED,
    EXPIRED: Phase.EXPIRED,
    UNKNOWN: Phase.REJECTED,
    NAMEPLATE: Phase.REJECTED,
    NO_REVERT: Phase.REJECTED,
    RATE: Phase.CANCELLED,
}
"""What becomes of a refused command. A stale owner's command never became anything.

CANCELLED counts against nobody: the command met a limit of ours, and its owner tries again later.
REJECTED says that this device cannot be commanded so.
"""
_S_PER_MINUTE = 60.0
_S_PER_NS = 1e-9


@dataclass(slots=True, eq=False)
class GateState:
    """What the gate remembers."""

    held: bool = False
    hold_reason: str = ""
    epochs: dict[int, int] = field(default_factory=dict)
    """Highest epoch seen of each partition's owner."""
    credit: Floats = field(default_factory=lambda: np.empty(0))
    """Commands each device may still be sent, as of `credited_ns`."""
    credited_ns: Longs = field(default_factory=lambda: np.empty(0, np.int64))


def check(
    state: GateState,
    commands: Commands,
    nameplate_w: tuple[Floats, Floats],
    now_ns: int,
    partitions: int,
    settings: SafetySettings,
) -> Bytes:
    """Return for each command the place in `RULES` of the first rule it breaks, 0 for none.

    Commands that pass use up their device's credit.

    Args:
        state: Hold, epochs and credits; the latter two are brought up to date.
        commands: One partition's.
        nameplate_w: Highest power towards export and towards consumption; NaN: not enrolled.
        now_ns: The time.
        partitions: How many the plant has.
        settings: The limits.
    """
    broken = np.zeros(len(commands), np.uint8)
    _refuse(broken, _is_stale(state, commands, partitions), EPOCH)
    if state.held:
        _refuse(broken, np.ones(len(commands), np.bool_), HOLD)
    _refuse(broken, commands.not_after_ns < now_ns, EXPIRED)
    up_w, down_w = nameplate_w
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

    passing = np.flatnonzero(broken == 0)
    spent = ~_spend(state, commands.device_no[passing], now_ns, settings)
    broken[passing[spent]] = RULES.index(RATE)
    return broken


def _refuse(broken: Bytes, which: Flags, rule: str) -> None:
    broken[which & (broken == 0)] = RULES.index(rule)


def _is_stale(state: GateState, commands: Commands, partitions: int) -> Flags:
    stale = np.zeros(len(commands), np.bool_)
    partition = commands.device_no % partitions
    for each in np.unique(partition).tolist():
        mine = partition == each
        highest = max(state.epochs.get(each, 0), int(commands.epoch[mine].max()))
        state.epochs[each] = highest
        stale |= mine & (commands.epoch < highest)
    return stale


def _spend(state: GateState, device_no: Ints, now_ns: int, settings: SafetySettings) -> Flags:
    """Take one command's credit from each device; return who had it. One command per device."""
    if not len(device_no):
        return np.zeros(0, np.bool_)
    needed = int(device_no.max()) + 1
    if needed > len(state.credit):
        more = max(needed, 2 * len(state.credit)) - len(state.credit)
        state.credit = np.append(state.credit, np.full(more, settings.commands_burst))
        state.credited_ns = np.append(state.credited_ns, np.full(more, now_ns, np.int64))
    elapsed_s = (now_ns - state.credited_ns[device_no]) * _S_PER_NS
    earned = np.maximum(elapsed_s, 0.0) * (settings.commands_per_minute / _S_PER_MINUTE)
    credit = np.minimum(state.credit[device_no] + earned, settings.commands_burst)
    had: Flags = credit >= 1.0
    state.credit[device_no] = credit - had
    state.credited_ns[device_no] = now_ns
    return had
