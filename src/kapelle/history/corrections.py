"""What people's corrections make of measured energy: pure, so that a preview is the act itself.

A correction never touches what was measured: it says what counts instead, for as long as it
stands. So late readings still find their place beneath it, and taking it back shows them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kapelle.errors import Invalid
from kapelle.fleet.metering.accounts import MWH_PER_WH
from kapelle.history.tables import QUARTER_NS
from kapelle.model.enums import EnergyQuality
from kapelle.model.plant import Correction

REGISTERS = ("export", "import")
"""By the number the ledger gives them."""
_QUARTERS_MAX = 96 * 366
"""A year at a time: what is longer was mistyped."""
_SET_WH_MAX = 1e12
"""A large power station's year: thousands of devices set so high still add up in 64 bits."""


class Energy(NamedTuple):
    """Energy of one interval of one register."""

    mwh: int
    quality: int
    """Bits of `EnergyQuality`."""
    correction_no: int = 0
    """Of the correction that counts; 0: as measured."""


def in_force(corrections: Sequence[Correction]) -> list[Correction]:
    """Return the corrections that stand, oldest first: those no undo that stands takes back."""
    undone: set[int] = set()
    standing = []
    for each in sorted(corrections, key=lambda one: one.correction_no, reverse=True):
        if each.correction_no in undone:
            continue
        if each.method == "undo":
            undone.add(each.undoes)
        else:
            standing.append(each)
    return standing[::-1]


def corrected(
    measured: Mapping[int, Energy], corrections: Sequence[Correction]
) -> dict[int, Energy]:
    """Return what counts in each interval of one register of one device.

    Args:
        measured: By start [UTC ns], all that corrections reach and the intervals beside them.
        corrections: Those in force for this register, oldest first. Each starts from what was
            measured; where several meet, the last counts.
    """
    found = dict(measured)
    for each in corrections:
        starts = range(each.starts_at_ns, each.ends_at_ns, QUARTER_NS)
        for start, mwh in _asked(each, starts, measured).items():
            beneath = measured[start].quality if start in measured else 0
            found[start] = Energy(mwh, beneath | EnergyQuality.CORRECTED, each.correction_no)
    return found


def reach(known: Sequence[Correction], starts_at_ns: int, ends_at_ns: int) -> tuple[int, int]:
    """Return what must be looked at to tell what counts in an interval: all that corrections
    which touch it cover, and one quarter-hour beyond on both sides."""
    spans = [(c.starts_at_ns, c.ends_at_ns) for c in known if c.method != "undo"]
    first_ns, last_ns = starts_at_ns - QUARTER_NS, ends_at_ns + QUARTER_NS
    while True:
        touching = [span for span in spans if span[0] <= last_ns and span[1] >= first_ns]
        wider_ns = (
            min([first_ns, *(start - QUARTER_NS for start, _ in touching)]),
            max([last_ns, *(end + QUARTER_NS for _, end in touching)]),
        )
        if wider_ns == (first_ns, last_ns):
            return wider_ns
        first_ns, last_ns = wider_ns


def check(correction: Correction, known: Sequence[Correction]) -> None:
    """Refuse a correction that cannot be meant; `known` are all of its device.

    Raises:
        Invalid: With the reason and the remedy.
    """
    if correction.method == "undo":
        undone = {each.correction_no: each for each in known}.get(correction.undoes)
        if undone is None:
            raise Invalid(f"there is no correction {correction.undoes} of this device to undo")
        standing = {each.correction_no for each in in_force(known)}
        if undone.method != "undo" and undone.correction_no not in standing:
            raise Invalid(f"correction {correction.undoes} is undone already")
        return
    starts_at_ns, ends_at_ns = correction.starts_at_ns, correction.ends_at_ns
    if starts_at_ns % QUARTER_NS or ends_at_ns % QUARTER_NS:
        raise Invalid("a correction starts and ends on a quarter-hour")
    if not 0 < ends_at_ns - starts_at_ns <= _QUARTERS_MAX * QUARTER_NS:
        raise Invalid("a correction ends after it starts, and covers a year at most")
    if correction.method != "interpolate" and not 0 <= correction.value < math.inf:
        raise Invalid(f"{correction.value:g} is not energy: write a number from 0 upwards")
    if correction.method == "set" and correction.value > _SET_WH_MAX:
        raise Invalid(f"{correction.value:g} Wh is more than any meter counts")
    if correction.method == "scale" and correction.value > 1e6:
        raise Invalid(f"no unit is {correction.value:g} times another")
    if not correction.reason.strip() or not correction.issued_by.strip():
        raise Invalid("a correction needs an author and a reason: both stay in the ledger")


def _asked(each: Correction, starts: range, measured: Mapping[int, Energy]) -> dict[int, int]:
    """Return what a correction says of each interval it knows something about. [mWh]"""
    known = [measured[start].mwh if start in measured else None for start in starts]
    match each.method:
        case "set":
            weights = [mwh for mwh in known if mwh is not None]
            if len(weights) < len(known) or not sum(weights):
                # What is not known has no shape to follow.
                weights = [1] * len(known)
            return dict(zip(starts, divided(round(each.value * MWH_PER_WH), weights), strict=True))
        case "scale":
            return {
                start: round(mwh * each.value)
                for start, mwh in zip(starts, known, strict=True)
                if mwh is not None
            }
        case "interpolate":
            before = measured.get(each.starts_at_ns - QUARTER_NS)
            after = measured.get(each.ends_at_ns)
            if before is None and after is None:
                return {}
            first = before.mwh if before else (after.mwh if after else 0)
            last = after.mwh if after else first
            steps = len(starts) + 1
            return {
                start: first + round((last - first) * place / steps)
                for place, start in enumerate(starts, 1)
            }
        case _:
            return {}


def divided(total: int, weights: Sequence[int]) -> list[int]:
    """Divide a whole number by weights, so that the parts add up to it exactly."""
    whole, done, sofar, parts = sum(weights), 0, 0, []
    for weight in weights:
        sofar += weight
        through = (2 * total * sofar + whole) // (2 * whole)
        parts.append(through - done)
        done = through
    return parts
