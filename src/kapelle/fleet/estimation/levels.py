"""Where each kind stands as a whole, and stood some time ago; shares of nameplate."""

from collections.abc import Mapping
from math import exp, isnan, nan

import msgspec
import numpy as np

from kapelle.fleet.estimation.steady import CADENCES_DRIFT, DRIFT_S, LEVEL_S
from kapelle.model.enums import DeviceKind

_HISTORY_LEVELS = 14
_HISTORY_LENGTH = 16
_CADENCES_FOLLOWED = 3.0
"""Over so many reports (`LEVEL_S` at most) it is averaged who makes a level."""


Moments = list[list[list[float]]]
"""By octave: the last moments [s] and what each kind had `chained` by then."""


class Level(msgspec.Struct):
    """One kind, as far as it reports and is on its own schedule; shares of nameplate."""

    level: float = 0.0
    chained: float = 0.0
    """Moves of those on their own schedule, added up since the beginning: the level but for who is
    in it. Two moments are compared by this, as devices that fall silent take no level along."""
    exposure: float = 0.0
    plate_rate_w: float = 0.0
    """Nameplate of those who report, from how much of it does in a second. [W]"""
    count_rate: float = 0.0
    report_rate: float = 0.0
    seconds: float = 0.0
    elapsed_s: float = 0.0
    moved: float = 0.0
    """Moves of the level, forgotten over `DRIFT_S`."""
    moved_s: float = 0.0

    @property
    def age_s(self) -> float:
        """Return how old the readings are on the whole that make the level. [s]"""
        return 0.5 * self.count_rate / self.report_rate if self.report_rate else 0.0

    @property
    def drifted(self) -> float:
        """Return how far the kind has moved since."""
        return self.moved / self.moved_s * self.age_s if self.moved_s else 0.0

    @property
    def follow_s(self) -> float:
        """Return over how long it is averaged who reports. [s]

        A move is a share of those who made it: were they taken for more than they are, as after
        some fell silent, all would seem to move less.
        """
        return min(_CADENCES_FOLLOWED * 2.0 * self.age_s or LEVEL_S, LEVEL_S)

    @property
    def is_settled(self) -> bool:
        """Return whether everyone can have reported a second time."""
        return self.elapsed_s * self.report_rate > 3.0 * self.count_rate > 0.0

    @property
    def plate_w(self) -> float:
        """Return the nameplate of those who report. [W]"""
        return self.plate_rate_w / self.seconds if self.seconds else 0.0

    @property
    def devices(self) -> float:
        """Return how many report."""
        return self.count_rate / self.seconds if self.seconds else 0.0


def learn_levels(levels: dict[int, Level], told: Mapping[int, list[float]], dt_s: float) -> None:
    """Learn from what one tick told, by kind."""
    for kind in sorted(levels.keys() | told.keys()):
        state = levels.setdefault(kind, Level())
        if kind not in told:
            # Nobody of this kind is on his own schedule: it stands where it stood.
            continue
        gap, plate_gap, power_gap, off_w, reports = told[kind]
        fade = exp(-dt_s / max(state.follow_s, dt_s))
        state.plate_rate_w = state.plate_rate_w * fade + plate_gap
        state.count_rate = state.count_rate * fade + gap
        state.report_rate = state.report_rate * fade + reports
        state.seconds = state.seconds * fade + dt_s
        state.elapsed_s += dt_s
        moved = off_w / state.plate_w if state.plate_w else 0.0
        if state.is_settled:
            fade = exp(-dt_s / max(DRIFT_S, 2.0 * CADENCES_DRIFT * state.age_s))
            state.moved = state.moved * fade + moved
            state.moved_s = state.moved_s * fade + dt_s
        state.chained += moved
        before = state.exposure * exp(-dt_s / LEVEL_S)
        state.exposure = before + plate_gap
        if state.exposure:
            state.level = ((state.level + moved) * before + power_gap) / state.exposure


def remember(history: Moments, levels: Mapping[int, Level], tick: int, now_s: float) -> None:
    """Note where every kind stands, in each octave for which this tick is a moment."""
    if not history:
        history.extend([] for _ in range(_HISTORY_LEVELS))
    kinds = range(len(DeviceKind))
    moment = [now_s, *(_told_level(levels.get(k)) for k in kinds)]
    for octave, moments in enumerate(history):
        if tick % (1 << octave) == 0:
            moments.append(moment)
            if len(moments) > _HISTORY_LENGTH:
                del moments[0]


def _told_level(level: Level | None) -> float:
    return level.chained if level is not None and level.is_settled else nan


def level_then(history: Moments, level: Level, kind: int, at_s: float) -> float:
    """Return where a kind stood some time ago, as a share of nameplate; NaN where never known.

    It differs from the present level by what devices moved since, not by which of them report.
    Before the first moment that is known it is taken to have stood as it stood then.
    """
    found: list[tuple[float, float]] = []
    for moments in history:
        known = [(m[0], m[1 + kind]) for m in moments if not isnan(m[1 + kind])]
        if known and (not found or known[0][0] < found[0][0]):
            found = known
        if found and found[0][0] <= at_s:
            break
    if not found:
        return nan
    then = float(np.interp(at_s, [at for at, _ in found], [chained for _, chained in found]))
    return then + level.level - level.chained
