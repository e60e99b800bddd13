"""S-20, switching: a device that is on or off is not turned more often than it stands."""

import numpy as np

from kapelle.model.ids import NS_PER_S, Flags
from kapelle.safety.passed import Moves, Passed, Told


def switches(passed: Passed, moves: Moves, switched: Flags, now_ns: int) -> Flags:
    """Tell which setpoints turn a switched device: on, off, or from we do not know what.

    A release may turn it as well, but that is its own schedule's doing.
    """
    told, _ = passed.state(moves.device_no, now_ns)
    turns: Flags = switched & moves.is_setpoint & (told != moves.told)
    return turns


def keeps_dwell(passed: Passed, moves: Moves, turns: Flags, now_ns: int, dwell_s: float) -> Flags:
    """Tell which rows leave a switched device as long as it has to stay, on, off or let go."""
    told, since_ns = passed.state(moves.device_no, now_ns)
    stayed = (told == Told.NOTHING) | (now_ns - since_ns >= int(dwell_s * NS_PER_S))
    keeps: Flags = ~turns | stayed
    return np.asarray(keeps)
