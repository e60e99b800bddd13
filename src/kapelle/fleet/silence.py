"""How long ago the devices of each vendor, and of each internet provider, were last heard: sums.

Whether a group fell silent as a whole is decided where the plant is summed up (`dispatch.groups`):
overdue reports alone name nobody, since when the plant itself stalls everybody's are. What decides
is whether the others were heard since the group's last word.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, Floats32, span
from kapelle.model.enums import Freshness
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Ints
from kapelle.model.summaries import Silence

Level = str
"""`vendor` or `provider`: the name of a table of codes, and of a column."""
STRAGGLERS = 0.05
"""A group that is silent as a whole may have so many that are heard yet. 0-1"""
AGES = 34
"""Quarter-octaves of age: less than 1 s, 1.25, 1.5, 1.75, 2, 2.5 … 256 s, and beyond."""
SINCE_S = (0.0, *(2.0 ** (n // 4) * (1 + n % 4 / 4) for n in range(AGES - 1)))
"""The age at which each begins. [s]"""
_ONE = int(np.float32(1.0).view(np.int32)) >> 21
_SLACK_S = 1.0
"""For transport, batching and the tick itself. [s]"""
_PROVIDERS_MAX = 64
"""Where more names are told, each is too small to be missed by name."""
_STATES = len(Freshness)


def levels(fleet: Fleet) -> tuple[Level, ...]:
    """Return by what devices are grouped here: by provider only where some, and few, are named."""
    named = 1 < len(fleet.names["provider"]) <= _PROVIDERS_MAX
    return ("vendor", "provider") if named else ("vendor",)


def codes_of(fleet: Fleet, level: Level) -> Ints:
    """Return the column of codes of a level."""
    codes: Ints = getattr(fleet, level)
    return codes


def age_s(fleet: Fleet, rows: Ints) -> Floats32:
    """Return how long ago devices were last heard, in true time. [s]"""
    ages_ns = fleet.now_ns - fleet.heard_at_ns[span(rows)]
    return (ages_ns * (1.0 / NS_PER_S)).astype(np.float32)


def is_due(fleet: Fleet, rows: Ints, ages_s: Floats32) -> Flags:
    """Tell who has been silent for longer than it takes to report; nobody whose rhythm is unknown.

    Sooner than `Freshness.LATE`, and no verdict on one device: a lost report does it.
    """
    due: Flags = ages_s > fleet.cadence_s[span(rows)] + np.float32(_SLACK_S)
    return due


def quarter_octaves(ages_s: Floats32) -> NDArray[np.int32]:
    """Return the place of each age in `SINCE_S`."""
    # A float's bits are its exponent and then its mantissa, whose first two tell the quarter.
    places: NDArray[np.int32] = (ages_s.view(np.int32) >> 21) - np.int32(_ONE - 1)
    return np.clip(places, 0, AGES - 1, out=places)


class Hearing:
    """Running sums over the rows of one resource, by level."""

    def __init__(self, fleet: Fleet, *, whole: bool) -> None:
        """Begin; `whole` where the resource is all devices, of which ages are told too."""
        self._fleet = fleet
        self._whole = whole
        sizes = {level: len(fleet.names[level]) for level in levels(fleet)}
        self._states = {level: np.zeros(n * _STATES, np.intp) for level, n in sizes.items()}
        self._ages = {level: np.zeros(n * AGES, np.intp) for level, n in sizes.items()}
        self._due = {level: np.zeros(n, np.intp) for level, n in sizes.items()}

    def add(self, rows: Ints, freshness: Bytes) -> None:
        """Add rows of which these are the `Freshness`."""
        for level, states in self._states.items():
            codes = codes_of(self._fleet, level)[span(rows)]
            states += np.bincount(codes * np.int32(_STATES) + freshness, minlength=len(states))
        if self._whole:
            self._add_ages(rows, freshness)

    def _add_ages(self, rows: Ints, freshness: Bytes) -> None:
        known = (freshness != np.uint8(Freshness.NEVER)) & (freshness != np.uint8(Freshness.LOST))
        rows = rows if known.all() else rows[known]
        ages_s = age_s(self._fleet, rows)
        places, due = quarter_octaves(ages_s), np.flatnonzero(is_due(self._fleet, rows, ages_s))
        for level, ages in self._ages.items():
            codes = codes_of(self._fleet, level)[span(rows)]
            ages += np.bincount(codes * np.int32(AGES) + places, minlength=len(ages))
            self._due[level] += np.bincount(codes[due], minlength=len(self._due[level]))

    def by(self, level: Level) -> NDArray[np.intp]:
        """Return how many devices are in each `Freshness`, shape (groups, states)."""
        return self._states[level].reshape(-1, _STATES)

    def counts(self) -> Mapping[Level, NDArray[np.intp]]:
        """Return `by` for all levels."""
        return {level: self.by(level) for level in self._states}

    def heard(self, level: Level) -> dict[str, list[int]]:
        """Return by name: devices, and those live or late."""
        if level not in self._states:
            return {}
        named = zip(self._fleet.names[level], self.by(level).tolist(), strict=True)
        return {
            name: [sum(states), states[Freshness.LIVE] + states[Freshness.LATE]]
            for name, states in named
            if any(states) and (name or level == "vendor")
        }

    def silences(self) -> dict[str, Silence]:
        """Return by `vendor/NAME` and `provider/NAME` how long ago devices were heard."""
        if not self._whole:
            return {}
        told = {}
        for level, ages in self._ages.items():
            late, due = self.by(level)[:, Freshness.LATE].tolist(), self._due[level].tolist()
            for code, row in enumerate(ages.reshape(-1, AGES).tolist()):
                name = self._fleet.names[level][code]
                if any(row) and (name or level == "vendor"):
                    told[f"{level}/{name}"] = Silence(late[code], due[code], row)
        return told
