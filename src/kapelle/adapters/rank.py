"""Ranks a device's reports: by its own counters where it sends both, else by its time."""

import numpy as np

from kapelle.model.ids import Longs

_LOWEST = -(2**63)


def rank(boot: Longs, seq: Longs, measured_at_ns: Longs) -> Longs:
    """Return the `order` of reports: `(boot << 32 | seq) - 2**63` where both are sent, else time.

    Counters make negative numbers and times do not, so that the two are never compared. `seq`
    alone ranks nothing: it begins again with every start, and all after it would count as old.

    Args:
        boot: Below 2**31; negative where it was not sent.
        seq: Below 2**32; negative where it was not sent.
        measured_at_ns: The device's time, 0 where it was not sent.
    """
    numbered = (np.maximum(boot, 0) << 32 | np.maximum(seq, 0)) + _LOWEST
    ranked: Longs = np.where((boot >= 0) & (seq >= 0), numbered, measured_at_ns)
    return ranked
