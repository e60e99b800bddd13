"""How much groups of devices may export and import together: what was said, and what counts now.

Limits come from the configuration, for good, and as entries, for a time. At each moment the latest
entry that was told of a group and covers the moment counts, or none; beside it the configured
limits of the group, of which the tightest count. A window that begins is kept a little before its
time: devices need some seconds to follow.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import msgspec
import numpy as np

from kapelle.model.ids import NS_PER_S, Floats
from kapelle.model.plant import Envelopes

EACH = "*"
LEVELS = ("site", "feeder", "zone")
LEAD_S = 3.0
"""So long before it begins, a tighter limit is kept already. [s]"""
WINDOWS_MAX = 300
"""Windows of one group that are remembered; a day of five minutes each, and some."""


@dataclass(frozen=True, slots=True)
class StandingCap:
    """One `[[dispatch.caps]]`: what a site, feeder or zone may export and import at any time.

    Exactly one of `site`, `feeder` and `zone` is given; "*" stands for each of them on its own.
    """

    site: str = ""
    feeder: str = ""
    zone: str = ""
    export_limit_w: float = inf
    """The sum of power of its devices is at most this. [W]"""
    import_limit_w: float = inf
    """… and at least minus this. [W]"""

    def __post_init__(self) -> None:
        if sum(bool(getattr(self, level)) for level in LEVELS) != 1:
            raise ValueError(f"a cap is about one of {', '.join(LEVELS)}; write one for each")
        if not (self.export_limit_w >= 0 and self.import_limit_w >= 0):
            raise ValueError("export_limit_w and import_limit_w are not negative")

    @property
    def level(self) -> str:
        """What it is about: one of `LEVELS`."""
        return next(level for level in LEVELS if getattr(self, level))

    @property
    def name(self) -> str:
        """Which site, feeder or zone; "*" for each."""
        return str(getattr(self, self.level))


class Limits(NamedTuple):
    """What one group, or every group of a level by its code, may do. [W]"""

    export_w: float
    import_w: float


class Caps(NamedTuple):
    """The limits of one level by the code of its groups; infinite for none. [W]"""

    export_w: Floats
    import_w: Floats


class Window(msgspec.Struct, frozen=True, array_like=True):
    """A limit told for a time."""

    export_w: float
    import_w: float
    starts_at_ns: int
    ends_at_ns: int
    at_ns: int
    issued_by: str = ""


@dataclass(slots=True, eq=False)
class Book:
    """All limits of groups. What entries told is state; what is configured and derived is not."""

    windows: dict[str, list[Window]] = field(default_factory=dict)
    """By `level/name`, in the order they were told."""
    standing: tuple[StandingCap, ...] = ()
    vendor_share_max: float = 1.0
    """Devices of one vendor carry at most this part of what an order commits. 0-1"""
    _now: dict[str, Limits] = field(default_factory=dict)
    _from_ns: int = 0
    _until_ns: int = -1
    """`_now` holds within [from, until)."""
    _caps: dict[str, tuple[int, Caps | None]] = field(default_factory=dict)
    """By level: for how many names it was made, and what."""

    def is_idle(self, now_ns: int) -> bool:
        """Whether nothing limits any group now, whatever was told of another time."""
        if self.standing or self.vendor_share_max < 1.0:
            return False
        return not self.windows or not self.in_force(now_ns)

    def apply(self, told: Envelopes) -> None:
        """Take up what was told; forget what it covers and what was over by then."""
        new = Window(
            told.export_w,
            told.import_w,
            told.starts_at_ns,
            told.ends_at_ns,
            told.at_ns,
            told.issued_by,
        )
        if new.ends_at_ns <= max(new.starts_at_ns, new.at_ns):
            # It was over before it was told, or never begins.
            return
        for name in told.names:
            key = f"{told.level}/{name}"
            kept = [w for w in self.windows.get(key, []) if not _is_covered(w, new)]
            kept = [w for w in kept if w.ends_at_ns > told.at_ns]
            if kept or min(new.export_w, new.import_w) < inf:
                self.windows[key] = [*kept, new][-WINDOWS_MAX:]
            else:
                self.windows.pop(key, None)
        self._until_ns = -1

    def in_force(self, now_ns: int) -> Mapping[str, Limits]:
        """Return what entries tell of each group now, or a moment ahead where that is tighter."""
        if not self._from_ns <= now_ns < self._until_ns:
            lead_ns = int(LEAD_S * NS_PER_S)
            self._now = {}
            turns = [1 << 62]
            for key, windows in self.windows.items():
                limits = _tighter(_at(windows, now_ns), _at(windows, now_ns + lead_ns))
                if min(limits) < inf:
                    self._now[key] = limits
                for window in windows:
                    for edge_ns in (window.starts_at_ns, window.ends_at_ns):
                        turns += [t for t in (edge_ns - lead_ns, edge_ns) if t > now_ns]
            self._from_ns, self._until_ns = now_ns, min(turns)
            self._caps = {}
        return self._now

    def tightest(self, from_ns: int, until_ns: int) -> dict[str, Limits]:
        """Return the tightest limits that entries tell of each group over a time."""
        until_ns += int(LEAD_S * NS_PER_S)
        return {key: _tightest(windows, from_ns, until_ns) for key, windows in self.windows.items()}

    def caps(self, level: str, names: list[str], now_ns: int) -> Caps | None:
        """Return the limits of every group of a level, by its code; None where there are none.

        Args:
            level: One of `LEVELS`.
            names: The code table: a code is a place in it. The first is no group.
            now_ns: The moment.
        """
        if not self.windows and not self.standing:
            return None
        told = self.in_force(now_ns)
        made = self._caps.get(level)
        if made is None or made[0] != len(names):
            made = self._caps[level] = len(names), self._made(level, names, told)
        return made[1]

    def _made(self, level: str, names: list[str], told: Mapping[str, Limits]) -> Caps | None:
        caps = Caps(np.full(len(names), inf), np.full(len(names), inf))
        code_of = {name: code for code, name in enumerate(names) if code}
        for cap in self.standing:
            if cap.level == level:
                which = slice(1, None) if cap.name == EACH else code_of.get(cap.name, 0)
                if which:
                    caps.export_w[which] = np.minimum(caps.export_w[which], cap.export_limit_w)
                    caps.import_w[which] = np.minimum(caps.import_w[which], cap.import_limit_w)
        start = f"{level}/"
        for key, limits in told.items():
            code = code_of.get(key.removeprefix(start), 0) if key.startswith(start) else 0
            if code:
                caps.export_w[code] = min(caps.export_w[code], limits.export_w)
                caps.import_w[code] = min(caps.import_w[code], limits.import_w)
        some = np.isfinite(caps.export_w).any() or np.isfinite(caps.import_w).any()
        return caps if some else None


def _is_covered(window: Window, new: Window) -> bool:
    # What was before it was told does not matter any more.
    begins_ns = max(window.starts_at_ns, new.at_ns)
    return new.starts_at_ns <= begins_ns and window.ends_at_ns <= new.ends_at_ns


def _at(windows: list[Window], now_ns: int) -> Limits:
    for window in reversed(windows):
        if window.starts_at_ns <= now_ns < window.ends_at_ns:
            return Limits(window.export_w, window.import_w)
    return Limits(inf, inf)


def _tightest(windows: list[Window], from_ns: int, until_ns: int) -> Limits:
    within = [w for w in windows if w.starts_at_ns < until_ns and w.ends_at_ns > from_ns]
    edges = {from_ns, *(w.starts_at_ns for w in within), *(w.ends_at_ns for w in within)}
    turns = sorted(edge for edge in edges if from_ns <= edge < until_ns)
    counts = [Limits(inf, inf)] * len(turns)
    for window in within:
        # Later words over earlier ones.
        first, last = bisect_left(turns, window.starts_at_ns), bisect_left(turns, window.ends_at_ns)
        counts[first:last] = [Limits(window.export_w, window.import_w)] * (last - first)
    return Limits(min(each.export_w for each in counts), min(each.import_w for each in counts))


def _tighter(one: Limits, other: Limits) -> Limits:
    return Limits(min(one.export_w, other.export_w), min(one.import_w, other.import_w))
