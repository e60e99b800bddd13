"""Energy as it is published: what each register has counted so far, brought up to date at ticks.

It follows the newest reading of each register, so it cannot wait for what later readings explain;
the ledger (`history.ledger`) does, from all of them. What it counts it never takes back.
"""

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.metering.accounts import limits, round_mwh, to_mwh
from kapelle.fleet.metering.arrange import Places
from kapelle.fleet.metering.registers import LAG_NS
from kapelle.fleet.reconciliation.conditions import mark
from kapelle.model.enums import Condition, Metric
from kapelle.model.ids import Bytes, Flags

_CHUNK = 1 << 15
_UNIT_BITS = 30
"""Times are kept in units of 2**30 ns, a good second: four bytes last until 2116."""
_DOUBTS = 3
"""The low two bits of a register's four: readings in a row that cannot be."""
_CALM = 12
"""The high two: readings that must count before the register is trusted again."""


def step_energy(fleet: Fleet) -> None:
    """Count on every register that was read since the tick before.

    A rise is counted if full power could have made it since the last look and a quarter of an hour
    more (slow registers). A fall of two steps is held; a declared rollover counted on. A fall by
    half or more that the next reading confirms is a reset. Whatever else cannot be counts for
    nothing, is `Condition.REGISTER_WRONG` the second time in a row, and where it comes three times
    the register goes on from there.
    """
    for register, metric in enumerate((Metric.EXPORT_WH, Metric.IMPORT_WH)):
        for start in range(0, fleet.size, _CHUNK):
            at = slice(start, min(start + _CHUNK, fleet.size))
            measured = fleet.measured_at_ns[metric, at] >> _UNIT_BITS
            rows = np.flatnonzero(measured != fleet.register_at[register, at]) + start
            if len(rows):
                _count(fleet, register, metric, rows)


def _count(fleet: Fleet, register: int, metric: Metric, rows: Places) -> None:
    reads_mwh = to_mwh(fleet.value[metric, rows])
    base_mwh = fleet.register_mwh[register, rows]
    now = fleet.measured_at_ns[metric, rows] >> _UNIT_BITS
    before = fleet.register_at[register, rows].astype(np.int64)
    first = before == 0
    passed_ns = (np.maximum(now - before, 0) + 1) << _UNIT_BITS
    mwh_per_ns, slack_mwh, rollover_mwh = limits(
        np.maximum(fleet.nameplate_up_w[rows], fleet.nameplate_down_w[rows]),
        fleet.meter_rollover_wh[rows].astype(np.float64),
        fleet.meter_resolution_wh[rows].astype(np.float64),
    )
    unknown = ~(fleet.meter_resolution_wh[rows] > 0)
    slack_mwh = np.maximum(slack_mwh, np.where(unknown, round_mwh(reads_mwh, base_mwh), 0))
    most_mwh = (passed_ns + LAG_NS) * mwh_per_ns + slack_mwh

    risen_mwh = reads_mwh - base_mwh
    on_mwh = risen_mwh + rollover_mwh
    held = (risen_mwh < 0) & (risen_mwh >= -slack_mwh)
    turned = (risen_mwh < -slack_mwh) & (rollover_mwh > 0) & (on_mwh >= 0)
    turned &= on_mwh <= np.minimum(most_mwh, rollover_mwh / 2)
    rises = (risen_mwh >= 0) & (risen_mwh <= most_mwh)
    fits = first | held | turned | rises

    state = fleet.register_doubt[rows] >> np.uint8(4 * register) & np.uint8(15)
    doubts, calm = state & _DOUBTS, state & _CALM
    falls = 2 * reads_mwh <= base_mwh
    begins = ~fits & (doubts >= np.where(falls, 1, 2))
    counted_mwh = np.where(rises, risen_mwh, 0) + np.where(turned, on_mwh, 0)
    # A reset began at 0, if there was time for what it shows since.
    counted_mwh[begins & falls & (reads_mwh <= most_mwh)] = reads_mwh[
        begins & falls & (reads_mwh <= most_mwh)
    ]
    counted_mwh[first] = 0
    fleet.energy_mwh[register, rows] += counted_mwh
    goes_on = first | turned | rises | begins
    fleet.register_mwh[register, rows] = np.where(goes_on, reads_mwh, base_mwh)
    fleet.register_at[register, rows] = now

    wrong = begins & ~falls
    doubts = np.where(fits | begins, 0, doubts + 1).astype(np.uint8)
    eased = np.where(fits & (calm > 0), calm - 4, calm)
    calm = np.where(wrong, _CALM, eased).astype(np.uint8)
    _keep(fleet, register, rows, (doubts | calm).astype(np.uint8))
    known = fleet.register_doubt[rows]
    wrong = _is_wrong(known & np.uint8(15)) | _is_wrong(known >> np.uint8(4))
    mark(fleet, rows, Condition.REGISTER_WRONG, wrong)


def _keep(fleet: Fleet, register: int, rows: Places, state: Bytes) -> None:
    known = fleet.register_doubt[rows]
    other = known & np.uint8(15 << (4 * (1 - register)))
    changed = other | (state << np.uint8(4 * register))
    # Untouched pages of zeros take no memory.
    places = np.flatnonzero(changed != known)
    fleet.register_doubt[rows[places]] = changed[places]


def _is_wrong(state: Bytes) -> Flags:
    wrong: Flags = ((state & _DOUBTS) >= 2) | ((state & _CALM) > 0)
    return wrong
