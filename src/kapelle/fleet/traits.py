"""What is particular about a device's part in an allocation, as the registry says it.

Most devices have none of it. So each attribute is encoded with its usual value as 0, which takes no
memory, and one column of bits tells which of the others are worth a look.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, span
from kapelle.model.blocks import Enrolled
from kapelle.model.enums import Trait
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Floats, Ints

AHEAD_S = 5.0
"""How far ahead a cycle looks: a device counts as far as it gets within this. [s]"""
_DWELL_S_MAX = 65_535.0
_MOMENT_S_MAX = 4_294_967_295


def particulars(block: Enrolled) -> dict[str, NDArray[Any]]:
    """Return the columns of what is particular about each row, and `traits` over them."""
    priority = np.nan_to_num(block.priority, nan=1.0)
    until_s = -(-block.opted_out_until_ns // NS_PER_S)
    found: dict[str, NDArray[Any]] = {
        "priority": np.where(priority == 1.0, 0.0, priority),
        "min_on_s": _whole_seconds(block.min_on_s),
        "min_off_s": _whole_seconds(block.min_off_s),
        "must_run": block.must_run != 0,
        "opted_out_until_s": np.clip(until_s, 0, _MOMENT_S_MAX),
    }
    dwells = (found["min_on_s"] > 0) | (found["min_off_s"] > 0)
    return found | {
        "traits": (
            (block.tier > 0) * np.uint8(Trait.TIER)
            | (found["priority"] > 0) * np.uint8(Trait.PRIORITY)
            | (block.steps > 0) * np.uint8(Trait.STEPS)
            | dwells * np.uint8(Trait.DWELLS)
            | found["must_run"] * np.uint8(Trait.MUST_RUN)
            | (found["opted_out_until_s"] > 0) * np.uint8(Trait.OPTED_OUT)
            | _is_slow(block) * np.uint8(Trait.SLOW)
        )
    }


def has(traits: int, *wanted: Trait) -> bool:
    """Tell whether the bits of many devices together contain any of these."""
    return traits & sum(wanted) != 0


def any_of(traits: Bytes) -> int:
    """Return every bit that any of these devices has. A microsecond for 32,768 of them."""
    return int(np.bitwise_or.reduce(traits)) if len(traits) else 0


def opted_out(fleet: Fleet, rows: Ints) -> Flags:
    """Tell whose owner has opted out for now."""
    # Whole seconds: the moment was rounded up, and now is rounded down.
    out: Flags = fleet.opted_out_until_s[span(rows)] > np.uint32(fleet.now_ns // NS_PER_S)
    return out


def _whole_seconds(span_s: Floats) -> Floats:
    # Rounded up: whoever asked for half a second gets no less.
    return np.clip(np.ceil(np.nan_to_num(span_s)), 0.0, _DWELL_S_MAX)


def _is_slow(block: Enrolled) -> NDArray[np.bool_]:
    nameplate_w = np.maximum(block.nameplate_up_w, block.nameplate_down_w)
    # NaN compares false: who says nothing is as fast as asked.
    slow: NDArray[np.bool_] = block.ramp_w_per_s * AHEAD_S < nameplate_w
    return slow
