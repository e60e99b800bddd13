"""What commands that keep the rules of their own would do together, and entering what passes."""

from typing import NamedTuple

import numpy as np

from kapelle.model.blocks import Commands
from kapelle.model.ids import Flags, Floats, Ints
from kapelle.ports import Places
from kapelle.safety.passed import Moves, Rows, apply_moves, moves
from kapelle.safety.settings import SafetySettings
from kapelle.safety.state import GateState, Known
from kapelle.safety.switching import switches


class Asked(NamedTuple):
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


def asked_of(
    state: GateState, commands: Commands, known: Known, rows: Rows, settings: SafetySettings
) -> Asked:
    """Return what some rows of a block would do; each device occurs once among them."""
    some = Commands(*(getattr(commands, name)[rows] for name in Commands.COLUMNS))
    up_w, down_w = known.nameplate_w
    places = Places._make(column[rows] for column in known.places)
    move = moves(state.passed, some, (up_w[rows], down_w[rows]), state.now_ns, settings)
    standing_w = state.passed.standing_w(some.device_no, state.now_ns)
    return Asked(
        order_no=some.order_no,
        setpoint_w=some.setpoint_w,
        move=move,
        turns=switches(state.passed, move, places.switched, state.now_ns),
        more_w=np.maximum(move.departs_w - standing_w, 0.0),
        groups=[ledger.of(some.device_no, places) for ledger in state.ledgers],
    )


def charge(state: GateState, asked: Asked, rows: Rows, settings: SafetySettings) -> None:
    """Enter what passes everywhere."""
    move, now_ns = asked.move.at(rows), state.now_ns
    for ledger, group in zip(state.ledgers, asked.groups, strict=True):
        ledger.charge(group[rows], move, asked.more_w[:, rows], asked.turns[rows])
    state.rates.charge(move.device_no, now_ns, settings)
    ordered = asked.order_no[rows][move.is_setpoint]
    state.orders.charge(ordered, move.furthest_w[move.is_setpoint])
    state.trip_wire.note(state.passed, move, now_ns)
    apply_moves(state.passed, move, asked.setpoint_w[rows], now_ns)
