"""What the gate remembers, as a snapshot: a restart goes on where it was.

What was passed since the snapshot is charged anew from the journal (`restart`). A limit that was
configured since begins as if it had just been used up.
"""

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from kapelle.errors import JournalDamaged
from kapelle.ports import Snapshot
from kapelle.safety.authority import Standing, Told
from kapelle.safety.settings import GroupLimit
from kapelle.safety.state import GateState
from kapelle.safety.windows import below

TOPIC = "last-hop"
"""Where the snapshots stand; its entries only say when one was taken."""
_VERSION = 1


class _Meta(msgspec.Struct):
    version: int
    positions: dict[str, int]
    now_ns: int
    epochs: dict[int, int]
    orders: dict[int, Standing]
    issuers: dict[str, int]
    limits: list[GroupLimit]


class _Part(Protocol):
    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return what there is to remember."""


def to_snapshot(state: GateState, positions: dict[str, int], position: int = 0) -> Snapshot:
    """Return a copy of the accounts.

    Args:
        state: What the gate remembers.
        positions: By topic, up to where entries are in it.
        position: Of the snapshot in its own topic.
    """
    orders = state.orders.told()
    meta = _Meta(
        _VERSION,
        positions,
        state.now_ns,
        state.epochs,
        orders.orders,
        orders.issuers,
        [ledger.limit for ledger in state.ledgers],
    )
    columns: dict[str, NDArray[np.generic]] = {}
    parts: dict[str, _Part] = {
        "passed": state.passed,
        "rates": state.rates,
        "orders": state.orders,
    }
    parts |= {f"ledger/{place}": ledger for place, ledger in enumerate(state.ledgers)}
    for part, one in parts.items():
        columns |= {f"{part}/{name}": column.copy() for name, column in one.columns().items()}
    return Snapshot(position, columns, msgspec.msgpack.encode(meta))


def restore(state: GateState, snapshot: Snapshot) -> dict[str, int]:
    """Take up the accounts into a new state; return up to where entries are in it, by topic.

    Raises:
        JournalDamaged: It was written by another version, or does not fit together.
    """
    try:
        meta = msgspec.msgpack.decode(snapshot.meta, type=_Meta)
    except msgspec.MsgspecError as error:
        raise JournalDamaged(f"accounts at {snapshot.position}: {error}") from error
    if meta.version != _VERSION:
        what = f"version {meta.version}, this program reads {_VERSION}"
        raise JournalDamaged(f"accounts at {snapshot.position}: {what}")
    columns = snapshot.columns
    try:
        state.passed.restore(below("passed/", columns))
        state.rates.restore(below("rates/", columns))
        orders = Told(meta.orders, meta.issuers)
        state.orders.restore(orders, below("orders/", columns))
        for ledger in state.ledgers:
            if ledger.limit in meta.limits:
                place = meta.limits.index(ledger.limit)
                ledger.restore(below(f"ledger/{place}/", columns))
            else:
                ledger.begin_spent(meta.now_ns)
    except (KeyError, ValueError) as error:
        raise JournalDamaged(f"accounts at {snapshot.position}: {error}") from error
    state.now_ns, state.epochs = meta.now_ns, meta.epochs
    return meta.positions
