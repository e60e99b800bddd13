"""Charging what left before a restart: the limits go on counting it, whatever they say of it."""

import numpy as np

from kapelle.model.blocks import Commands
from kapelle.model.ids import NS_PER_S
from kapelle.safety.charging import asked_of, charge
from kapelle.safety.gate import OUTLIVES, RULES, check_form
from kapelle.safety.plausibility import TripWire
from kapelle.safety.settings import SafetySettings
from kapelle.safety.state import GateState, Known, go_on, note_owners


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
    note_owners(state, commands, is_known, partitions)
    if sure:
        # Of a device that was removed meanwhile what it was told is all that is known.
        told_w = np.abs(np.nan_to_num(commands.setpoint_w))
        up_w, down_w = (np.where(is_known, each_w, told_w) for each_w in known.nameplate_w)
        known = known._replace(nameplate_w=(up_w, down_w))
    else:
        # These rules do not depend on the moment: whatever breaks one has not left.
        broken = np.zeros(len(commands), np.uint8)
        check_form(broken, commands, known, settings)
        late_ns = at_ns + int(settings.valid_s_max * NS_PER_S)
        broken[commands.not_after_ns > late_ns] = RULES.index(OUTLIVES)
        is_ordered = state.orders.is_known(commands.order_no)
        rows = np.flatnonzero((broken == 0) & (is_ordered | np.isnan(commands.setpoint_w)))
    while len(rows):
        first = np.unique(commands.device_no[rows], return_index=True)[1]
        asked = asked_of(state, commands, known, rows[np.sort(first)], settings)
        if sure:
            charge(state, asked, np.arange(len(first)), settings)
        else:
            move = asked.move
            before_ns = state.passed.until_ns[move.device_no]
            charge(state, asked, np.flatnonzero(move.is_setpoint), settings)
            state.rates.charge(move.device_no[~move.is_setpoint], state.now_ns, settings)
            state.passed.doubt(move.device_no, before_ns, state.now_ns)
        rows = np.delete(rows, first)
    # Nobody sees a fault of sign or a fight of two in what is only gone through again.
    state.trip_wire = TripWire()
