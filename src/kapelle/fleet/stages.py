"""Who takes part in an order already: a first few, then more, or each from a moment of its own.

S-22: a staged order moves a share of its devices first, chosen by a fixed hash of device and order.
S-21: in a randomised one each device begins and ends at its own moment, uniform over a window, by
another hash. Both follow from the signal, so every replay finds the same. Whoever waits is left on
his own schedule and counts as nobody's to control (`curve.trust`).
"""

import numpy as np

from kapelle.fleet.claims import active_rows, by_rank
from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.desired import in_force
from kapelle.fleet.reconciliation.conditions import distrusted
from kapelle.model.enums import Exclusion, Phase
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints
from kapelle.model.signals import Signal

_BEFORE_NS = 2 * NS_PER_S
"""Commands carry the time of a tick, signals that of dispatch, which may be a little ahead."""
_STAGE, _START, _END = 1, 2, 3
_FAILED = (Exclusion.REJECTED, Exclusion.OPTED_OUT, Exclusion.UNKNOWN, Exclusion.DIVERGED)


def step_stages(fleet: Fleet) -> None:
    """Note who waits, as of the last tick. A device follows the order of the earliest rank."""
    waits = fleet.waits[: fleet.size]
    running = by_rank(in_force(fleet))
    if not any(is_partial(signal) for signal in running):
        if waits.any():
            waits[:] = False
        return
    waits[:] = False
    for signal in reversed(running):
        rows = active_rows(fleet, signal.resource)
        waits[rows] = _waits(fleet, rows, signal) if is_partial(signal) else False


def is_partial(signal: Signal) -> bool:
    """Tell whether some devices may have to wait."""
    return signal.stage < 1.0 or signal.randomise_s > 0.0


def counts(fleet: Fleet, rows: Ints, signal: Signal | None) -> dict[str, int]:
    """Return of a staged order's devices how many were asked, how many the meter proves, and how
    many failed, by cause; empty for any other order."""
    if signal is None or signal.stage >= 1.0:
        return {}
    at = span(rows)
    mine = ~fleet.waits[at] & (fleet.planned_at_ns[at] >= signal.rank - _BEFORE_NS)
    follows = mine & (fleet.order_no[at] == signal.order_no)
    excluded = fleet.excluded[at]
    failed = {
        cause.name.lower(): int(np.count_nonzero(mine & (excluded == np.uint8(cause))))
        for cause in _FAILED
    }
    trusted = follows & (excluded == np.uint8(Exclusion.NONE))
    doubted = mine & (excluded == np.uint8(Exclusion.NONE)) & distrusted(fleet, rows)
    failed["condition"] = int(np.count_nonzero(doubted))
    trusted &= ~doubted
    verified = trusted & (fleet.phase[at] == np.uint8(Phase.VERIFIED))
    counted = {"verified": int(np.count_nonzero(verified)), **failed}
    asked = int(np.count_nonzero(trusted)) + sum(failed.values())
    return {"asked": asked, **{name: count for name, count in counted.items() if count}}


def place(device_no: Ints, order_no: int, salt: int = _STAGE) -> Floats:
    """Return a number of each device in [0, 1), uniform, and another one for each order.

    Source:
        G. Steele, D. Lea, C. Flood, Fast splittable pseudorandom number generators (2014): the
        finaliser of SplitMix64.
    """
    mixed = device_no.astype(np.uint64) << np.uint64(32)
    mixed ^= np.uint64((order_no << 2 | salt) & 0xFFFFFFFF)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _waits(fleet: Fleet, rows: Ints, signal: Signal) -> Flags:
    device_no = fleet.device_nos(rows)
    waits: Flags = place(device_no, signal.order_no) >= signal.stage
    if signal.randomise_s > 0.0:
        window_ns = signal.randomise_s * NS_PER_S
        since_ns, left_ns = fleet.now_ns - signal.rank, signal.ends_at_ns - fleet.now_ns
        if since_ns < window_ns:
            waits |= place(device_no, signal.order_no, _START) * window_ns > since_ns
        if left_ns < window_ns:
            waits |= place(device_no, signal.order_no, _END) * window_ns >= left_ns
    return waits
