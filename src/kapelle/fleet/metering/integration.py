"""Energy from power, for want of registers."""

import numpy as np

from kapelle.fleet.metering.accounts import MWH_PER_W_NS, Account, by_device, never_falling
from kapelle.fleet.metering.intervals import GAP_S
from kapelle.fleet.metering.registers import Mark
from kapelle.model.enums import EnergyQuality
from kapelle.model.ids import NS_PER_S, Floats, Ints, Longs


def integrate(
    device_no: Ints, measured_at_ns: Longs, power_w: Floats, *, gap_s: float = GAP_S
) -> tuple[Account, Account]:
    """Add up power for want of registers: towards the grid, and from it.

    Between two readings power goes from one to the other in a straight line; where it changes its
    sign, each direction gets its triangle. A silence longer than `gap_s` counts for nothing, and
    no interval that touches it is known (`Mark.GAP`).

    Args:
        device_no: Ascending, in the order of `arrange`.
        measured_at_ns: Time of each reading.
        power_w: Finite; positive towards the grid. [W]
        gap_s: The longest silence that is filled. [s]
    """
    rows = len(device_no)
    starts, at = by_device(device_no)
    at_ns = never_falling(measured_at_ns, starts, at) if rows else measured_at_ns
    passed_ns = np.zeros(rows, np.int64)
    passed_ns[1:] = np.diff(at_ns)
    passed_ns[starts] = 0
    silent = passed_ns > int(gap_s * NS_PER_S)
    passed_ns[silent] = 0
    before_w = np.concatenate([power_w[:1], power_w[:-1]])
    mark = np.where(silent, np.uint8(Mark.GAP), np.uint8(Mark.OK))
    accounts = []
    for sign in (1.0, -1.0):
        old_w, new_w = before_w * sign, power_w * sign
        mean_w = (np.maximum(old_w, 0.0) + np.maximum(new_w, 0.0)) / 2
        crosses = old_w * new_w < 0
        if crosses.any():
            above_w, below_w = np.maximum(old_w, new_w), -np.minimum(old_w, new_w)
            span_w = np.where(crosses, above_w + below_w, 1.0)
            mean_w = np.where(crosses, above_w * above_w / span_w / 2, mean_w)
        risen_mwh = np.rint(mean_w * passed_ns * MWH_PER_W_NS).astype(np.int64)
        mwh = np.cumsum(risen_mwh)
        if rows:
            mwh -= mwh[starts][at]
        accounts.append(Account(device_no, at_ns, mwh, mark, EnergyQuality.INTEGRATED))
    return accounts[0], accounts[1]
