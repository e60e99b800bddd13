"""What the plant has learned about its own estimates, from sums over all devices, tick by tick.

Three things, all from readings that came anyway (the model and its formulas: `docs/estimation.md`):

- how far the sum of those who report regularly runs ahead of what was said of it;
- for each kind, where it stands as a whole now and stood some time ago, and by age how much of an
  old reading's distance from its kind is left (`keep`) and how widely the outcomes scatter;
- how much of that scatter devices under one sky, or of one vendor, share.
"""

from collections.abc import Iterable, Mapping
from math import exp, isnan, log, nan
from typing import TypeVar

import msgspec
import numpy as np

from kapelle.fleet.estimation.evidence import OCTAVES, PV_CLUSTER
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.plant import Evidence, Summary

Key = TypeVar("Key", int, str)

MEMORY_S = 300.0
"""The liveliness of the plant is averaged over about this long (or 40 cadences). [s]"""
_CADENCES_KEPT = 40.0
_LEVEL_S = 60.0
_CELL_S = 7200.0
"""Over about this long (or 8 times the age) the scatter is averaged. [s]"""
_GROUP_S = 1800.0
_BOX = 0.735
"""A sum that forgets over this part of a cadence weighs what devices do alone and what they do
together as the error of the estimate does (`docs/estimation.md`)."""
_TOGETHER = 1.2
"""Delays weigh more than their part of the age where many devices move as one."""
DRIFT_S = 300.0
"""Over about this long (or 10 cadences) the direction of the whole is averaged. [s]"""
_CADENCES_DRIFT = 10.0
_BREAK_S = 60.0
"""After a longer pause in the summaries what ran before is not gone on with. [s]"""
_HISTORY_LEVELS = 14
_HISTORY_LENGTH = 16
_FREE = 0.9
"""Where fewer of those who report are on their own schedule they are no fair sample of a kind."""
_DARK = 0.02
"""PV at a lower share of nameplate teaches nothing about clouds."""


class Steady(msgspec.Struct):
    """Those of one resource who report at about one cadence."""

    ahead_w: float = 0.0
    """Surprises, forgotten over `_BOX` of a cadence. [W]"""
    squares: float = 0.0
    seconds: float = 0.0
    """How long, in effect, squares have been collected. [s]"""
    plate: float = 0.0
    gap: float = 0.0
    gap2: float = 0.0
    delay: float = 0.0
    elapsed_s: float = 0.0
    moved_w: float = 0.0
    """Surprises, forgotten over `_DRIFT_S`: where it goes on the whole. [W]"""
    moved_s: float = 0.0

    @property
    def gap_s(self) -> float:
        """Return the mean time between two reports. [s]"""
        return self.gap / self.plate if self.plate > 0 else 1.0

    @property
    def variance_w2(self) -> float:
        """Return the variance of the error of their sum."""
        if not self.seconds or not self.gap:
            return 0.0
        age_s = 0.5 * self.gap2 / self.gap + _TOGETHER * self.delay / self.plate
        return self.squares / self.seconds * age_s / (0.5 * _BOX * self.gap_s)

    @property
    def drift_w_per_s(self) -> float:
        """Return how fast their sum moves on the whole. [W/s]"""
        return self.moved_w / self.moved_s if self.moved_s else 0.0

    @property
    def drifted_w(self) -> float:
        """Return how far it has moved since the readings were taken. [W]"""
        if not self.seconds or not self.gap:
            return 0.0
        return self.drift_w_per_s * (0.5 * self.gap2 / self.gap + self.delay / self.plate)

    @property
    def freedom(self) -> float:
        """Return how many independent looks that rests on."""
        return self.seconds / self.gap_s


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


class Cell(msgspec.Struct):
    """Readings of one kind against anchors of one octave of age; centred within each tick."""

    freedom: float = 0.0
    then2: float = 0.0
    both: float = 0.0
    now2: float = 0.0
    age: float = 0.0
    count: float = 0.0
    at_s: float = 0.0


class Group(msgspec.Struct):
    """Pairs of devices of one kind that share something."""

    product: float = 0.0
    pairs: float = 0.0
    square: float = 0.0
    count: float = 0.0
    groups: float = 0.0


class Learned(msgspec.Struct):
    """All of it: part of the plant's state."""

    now_ns: int = 0
    pending_ns: int = 0
    pending: dict[str, Evidence] = {}
    """What the partitions have told of the newest tick, summed."""
    steady: dict[str, dict[int, Steady]] = {}
    levels: dict[int, Level] = {}
    history: list[list[list[float]]] = []
    """By octave: the last moments [s] and what each kind had `chained` by then."""
    cells: dict[int, Cell] = {}
    groups: dict[str, Group] = {}
    ticks: int = 0


def hear(learned: Learned, summary: Summary) -> None:
    """Take in one partition's evidence; the tick before is learned from once a newer one begins."""
    if summary.tick_ns > learned.pending_ns:
        _learn(learned)
        learned.pending, learned.pending_ns = {}, summary.tick_ns
    for part in summary.resources:
        before = learned.pending.get(part.resource)
        told = part.evidence
        learned.pending[part.resource] = told if before is None else merged((before, told))


def merged(parts: Iterable[Evidence]) -> Evidence:
    """Return the sums of several."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    return Evidence(
        steady=_added(p.steady for p in parts),
        silent=_added(p.silent for p in parts),
        silent_groups={
            name: sums[0]
            for name, sums in _added(
                {n: [w] for n, w in p.silent_groups.items()} for p in parts
            ).items()
        },
        levels=_added(p.levels for p in parts),
        anchors=_added(p.anchors for p in parts),
        groups=_added(p.groups for p in parts),
    )


def _added(tables: Iterable[Mapping[Key, list[float]]]) -> dict[Key, list[float]]:
    total: dict[Key, list[float]] = {}
    for table in tables:
        for key, sums in table.items():
            before = total.get(key)
            total[key] = (
                sums if before is None else [a + b for a, b in zip(before, sums, strict=True)]
            )
    return dict(sorted(total.items()))


def _learn(learned: Learned) -> None:
    told = learned.pending
    if not told:
        return
    dt_s = (learned.pending_ns - learned.now_ns) / NS_PER_S
    broken = learned.now_ns == 0 or dt_s > _BREAK_S
    learned.now_ns = learned.pending_ns
    learned.ticks += 1
    now_s = learned.now_ns / NS_PER_S
    for resource in [name for name in learned.steady if name not in told]:
        del learned.steady[resource]
    for resource, part in told.items():
        _learn_steady(learned.steady.setdefault(resource, {}), part.steady, dt_s, broken)
    all_ = told.get(ALL, Evidence())
    if not broken:
        _learn_levels(learned.levels, all_.levels, dt_s)
    _learn_groups(learned, all_, 1.0 if broken else dt_s)
    _learn_cells(learned.cells, all_.anchors, now_s)
    _remember(learned, now_s)


def _learn_steady(
    states: dict[int, Steady], told: Mapping[int, list[float]], dt_s: float, broken: bool
) -> None:
    for cadence in sorted(states.keys() | told.keys()):
        state = states.setdefault(cadence, Steady())
        plate, gap, gap2, delay, off_w = told.get(cadence, (0.0,) * 5)
        if broken:
            state.ahead_w = state.elapsed_s = 0.0
            dt_s = 1.0
        fade = exp(-dt_s / max(_LEVEL_S, 10.0 * state.gap_s))
        state.plate = state.plate * fade + plate
        state.gap = state.gap * fade + gap
        state.gap2 = state.gap2 * fade + gap2
        state.delay = state.delay * fade + delay
        gap_s = state.gap_s
        state.elapsed_s += dt_s
        state.ahead_w = state.ahead_w * exp(-dt_s / (_BOX * gap_s)) + off_w
        if state.elapsed_s > 2.0 * gap_s:
            fade = exp(-dt_s / max(DRIFT_S, _CADENCES_DRIFT * gap_s))
            state.moved_w = state.moved_w * fade + off_w
            state.moved_s = state.moved_s * fade + dt_s
            # What it does on the whole is made up for, and no error.
            ahead_w = state.ahead_w - state.drift_w_per_s * _BOX * gap_s
            fade = exp(-dt_s / max(MEMORY_S, _CADENCES_KEPT * gap_s))
            state.squares = state.squares * fade + ahead_w**2 * dt_s
            state.seconds = state.seconds * fade + dt_s


def _learn_levels(levels: dict[int, Level], told: Mapping[int, list[float]], dt_s: float) -> None:
    for kind in sorted(levels.keys() | told.keys()):
        state = levels.setdefault(kind, Level())
        if kind not in told:
            # Nobody of this kind is on his own schedule: it stands where it stood.
            continue
        gap, plate_gap, power_gap, off_w, reports = told[kind]
        fade = exp(-dt_s / _LEVEL_S)
        state.plate_rate_w = state.plate_rate_w * fade + plate_gap
        state.count_rate = state.count_rate * fade + gap
        state.report_rate = state.report_rate * fade + reports
        state.seconds = state.seconds * fade + dt_s
        state.elapsed_s += dt_s
        moved = off_w / state.plate_w if state.plate_w else 0.0
        if state.is_settled:
            fade = exp(-dt_s / max(DRIFT_S, 2.0 * _CADENCES_DRIFT * state.age_s))
            state.moved = state.moved * fade + moved
            state.moved_s = state.moved_s * fade + dt_s
        state.chained += moved
        before = state.exposure * fade
        state.exposure = before + plate_gap
        if state.exposure:
            state.level = ((state.level + moved) * before + power_gap) / state.exposure


def _learn_groups(learned: Learned, told: Evidence, dt_s: float) -> None:
    sums: dict[str, list[float]] = {}
    free: dict[int, float] = {}
    for name, (count, _, _) in told.groups.items():
        if not name.startswith(PV_CLUSTER):
            kind = int(name.partition("/")[0])
            free[kind] = free.get(kind, 0.0) + count
    for name, (count, total, square) in told.groups.items():
        pv = name.startswith(PV_CLUSTER)
        kind = int(DeviceKind.PV) if pv else int(name.partition("/")[0])
        level = learned.levels.get(kind)
        reports = told.levels.get(kind, [0.0] * 5)[4]
        if level is None or free.get(kind, 0.0) < _FREE * reports:
            # Whom an order leaves differ from their kind all alike: nothing they share by nature.
            continue
        off = total - count * level.level
        square += count * level.level**2 - 2.0 * level.level * total
        whole = sums.setdefault(PV_CLUSTER if pv else f"{kind}/", [0.0] * 5)
        part = (off * off - square, count * (count - 1.0), square, count, 1.0)
        for place, value in enumerate(part):
            whole[place] += value
    fade = exp(-dt_s / _GROUP_S)
    for name, whole in sums.items():
        group = learned.groups.setdefault(name, Group())
        group.product = group.product * fade + whole[0]
        group.pairs = group.pairs * fade + whole[1]
        group.square = group.square * fade + whole[2]
        group.count = group.count * fade + whole[3]
        group.groups = max(group.groups * fade, whole[4])


def _learn_cells(cells: dict[int, Cell], told: Mapping[int, list[float]], now_s: float) -> None:
    for place, (count, then, now, then2, both, now2, age) in told.items():
        if count < 2.0:
            continue
        before, after = then / count, now / count
        scale = 1.0
        if place // OCTAVES == DeviceKind.PV:
            # What clouds and roofs do is proportional to the sun.
            if min(before, after) < _DARK:
                continue
            scale = after / before
        unit = after if place // OCTAVES == DeviceKind.PV else 1.0
        cell = cells.setdefault(place, Cell(at_s=now_s))
        fade = exp(-(now_s - cell.at_s) / max(_CELL_S, 8.0 * age / count))
        cell.at_s = now_s
        cell.freedom = cell.freedom * fade + count - 1.0
        cell.then2 = cell.then2 * fade + (then2 - count * before**2) * scale**2 / unit**2
        cell.both = cell.both * fade + (both - count * before * after) * scale / unit**2
        cell.now2 = cell.now2 * fade + (now2 - count * after**2) / unit**2
        cell.age = cell.age * fade + age
        cell.count = cell.count * fade + count


def _remember(learned: Learned, now_s: float) -> None:
    if not learned.history:
        learned.history = [[] for _ in range(_HISTORY_LEVELS)]
    kinds = range(len(DeviceKind))
    levels = learned.levels
    moment = [now_s, *(_told_level(levels.get(k)) for k in kinds)]
    for octave, moments in enumerate(learned.history):
        if (learned.ticks - 1) % (1 << octave) == 0:
            moments.append(moment)
            if len(moments) > _HISTORY_LENGTH:
                del moments[0]


def _told_level(level: Level | None) -> float:
    return level.chained if level is not None and level.is_settled else nan


def level_then(learned: Learned, kind: int, age_s: float) -> float:
    """Return where a kind stood some time ago, as a share of nameplate; NaN where never known.

    It differs from the present level by what devices moved since, not by which of them report.
    Before the first moment that is known it is taken to have stood as it stood then.
    """
    at_s = learned.now_ns / NS_PER_S - age_s
    found: list[tuple[float, float]] = []
    for moments in learned.history:
        known = [(m[0], m[1 + kind]) for m in moments if not isnan(m[1 + kind])]
        if known and (not found or known[0][0] < found[0][0]):
            found = known
        if found and found[0][0] <= at_s:
            break
    if not found:
        return nan
    then = float(np.interp(at_s, [at for at, _ in found], [chained for _, chained in found]))
    level = learned.levels[kind]
    return then + level.level - level.chained


def keep_and_scatter(
    learned: Learned, kind: int, age_s: float, presumed: tuple[float, float]
) -> tuple[float, float]:
    """Return what is left of a reading's distance from its kind, and the variance of the rest.

    Args:
        learned: What is known.
        kind: `DeviceKind`.
        age_s: Of the reading. [s]
        presumed: Long-run standard deviation as a share of nameplate, and the age at which half of
            the variance is reached: what is said before anything was learned.
    """
    share, half_s = presumed
    prior = share * share * age_s / (age_s + half_s)
    found: list[tuple[float, float, float]] = []
    for octave in range(OCTAVES):
        cell = learned.cells.get(kind * OCTAVES + octave)
        if cell is None or cell.freedom < 1.0:
            continue
        age = cell.age / cell.count
        ridge = 1e-4 * cell.freedom
        # A few readings may say that distances grow; taken on over hours that has no bounds.
        keep = min(max((cell.both + ridge) / (cell.then2 + ridge), 0.0), 1.0)
        rest = max(cell.now2 - 2.0 * keep * cell.both + keep * keep * cell.then2, 0.0)
        first = share * share * age / (age + half_s)
        rest = (rest + 3.0 * first) / (cell.freedom + 3.0)
        found.append((log(age), keep, rest))
    if not found:
        return 1.0, prior
    at = log(max(age_s, 1.0))
    ages, keeps, rests = zip(*found, strict=True)
    keep, rest = float(np.interp(at, ages, keeps)), float(np.interp(at, ages, rests))
    if at < ages[0]:
        rest *= exp(at - ages[0])
    elif at > ages[-1]:
        ratio = exp(at - ages[-1])
        keep, rest = keep**ratio, rest * min(ratio, 4.0)
    return keep, rest


def shared(learned: Learned, name: str) -> float:
    """Return the part of the scatter that devices of one group share, 0-1."""
    group = learned.groups.get(name)
    if group is None or not group.pairs or group.square <= 0.0:
        return 0.0
    part = (group.product / group.pairs) / (group.square / group.count)
    return min(max(part, 0.0), 1.0)
