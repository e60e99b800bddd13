"""What the silent do by now, going by those of their kind who report, and how wrong that may be.

The formulas and where they come from: `docs/estimation.md`, "The silent" and "What is shared".
"""

from dataclasses import dataclass, field
from math import inf, isnan, nan, sqrt

from kapelle.fleet.estimation.evidence import OCTAVES, PV_CLUSTER
from kapelle.fleet.estimation.learned import Learned
from kapelle.fleet.estimation.levels import level_then
from kapelle.fleet.estimation.scatter import DARK, Moves, Prior, strayed
from kapelle.fleet.estimation.sharing import Group, alone, apart_w2, family_of
from kapelle.fleet.settings import FleetSettings
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S
from kapelle.model.summaries import Evidence


@dataclass(slots=True)
class Silent:
    """Those who do not report, on their own schedule as far as anyone can know."""

    moved_w: dict[str, float] = field(default_factory=dict)
    """By kind: how far they are taken to have moved since they were heard. [W]"""
    variance_w2: float = 0.0
    """Of the error of their sum."""
    events: float = inf
    """How many events that variance was learned from."""


@dataclass(slots=True)
class _Kind:
    """The silent of one kind, summed over the ages of their readings."""

    plate_w: float = 0.0
    spread_w: float = 0.0
    """Were all to err alike, by so much."""
    square_w2: float = 0.0
    """Were each to err by itself, by the square of so much."""
    events_w: float = 0.0


def expect(learned: Learned, told: Evidence, settings: FleetSettings) -> Silent:
    """Return where the silent of a resource are, and how far off that may be."""
    made = Silent()
    kinds: dict[int, _Kind] = {}
    priors: dict[int, Prior] = {}
    for place, (_, plate_w, power_w, plate_age, plate2) in sorted(told.silent.items()):
        kind = place // OCTAVES
        if kind not in priors:
            priors[kind] = _prior(learned, kind, settings)
        age_s = plate_age / plate_w if plate_w else 0.0
        found = strayed(learned.cells, kind, age_s, priors[kind])
        then, now = _levels(learned, kind, age_s)
        unit = 1.0
        if not isnan(then):
            scale = 1.0
            if kind == DeviceKind.PV:
                unit = max(now, 0.0)
                scale = now / then if then > DARK else 0.0
            expected_w = plate_w * now + found.keep * scale * (power_w - plate_w * then)
            name = DeviceKind(kind).name.lower()
            made.moved_w[name] = made.moved_w.get(name, 0.0) + expected_w - power_w
        std = sqrt(found.variance) * unit
        silent = kinds.setdefault(kind, _Kind())
        silent.plate_w += plate_w
        silent.spread_w += plate_w * std
        silent.square_w2 += plate2 * std * std
        silent.events_w += plate_w * found.events
    doubt = 0.0
    for kind, silent in kinds.items():
        variance_w2 = _variance_w2(learned, kind, silent, told)
        made.variance_w2 += variance_w2
        doubt += variance_w2**2 * silent.plate_w / silent.events_w if silent.events_w else 0.0
    if doubt:
        # Satterthwaite (1946): as much doubt as one variance from so many events.
        made.events = made.variance_w2**2 / doubt
    return made


def _levels(learned: Learned, kind: int, age_s: float) -> tuple[float, float]:
    """Return where a kind stood when readings of this age were taken, and stands now; or NaN."""
    level = learned.levels.get(kind)
    if level is None:
        return nan, nan
    # The level is a mean of readings some of which are old.
    back_s = max(age_s - level.age_s, 0.0)
    then = level_then(learned.history, level, kind, learned.now_ns / NS_PER_S - back_s)
    return then, level.level + level.drifted


def _prior(learned: Learned, kind: int, settings: FleetSettings) -> Prior:
    level = learned.levels.get(kind)
    spread2 = learned.groups.get(f"{kind}/", Group()).variance
    alike = 1.0
    if kind == DeviceKind.PV and level is not None:
        spread2 /= max(level.level, DARK) ** 2
        skies = alone(learned.weights.get(PV_CLUSTER, {}))
        alike += _shared(learned, PV_CLUSTER, kind) * max(level.devices / skies - 1.0, 0.0)
    return Prior(
        presumed=(settings.drift_share[kind], settings.drift_s[kind]),
        moves=learned.moves.get(kind, Moves()),
        spread2=spread2,
        gap_s=max(2.0 * level.age_s, 1.0) if level is not None else 1.0,
        alike=alike,
    )


def _shared(learned: Learned, family: str, kind: int) -> float:
    level = learned.levels.get(kind)
    group = learned.groups.get(family, Group())
    return group.shared(level.devices) if level is not None else 0.0


def _variance_w2(learned: Learned, kind: int, silent: _Kind, told: Evidence) -> float:
    """Return the variance of the error of the silent of one kind."""
    families = [f"{kind}/"] + [PV_CLUSTER] * (kind == DeviceKind.PV)
    std = silent.spread_w / silent.plate_w if silent.plate_w else 0.0
    own, total_w2 = 1.0, 0.0
    for family in families:
        part = _shared(learned, family, kind)
        own -= part
        silent_w = {n: w for n, w in told.silent_groups.items() if family_of(n) == family}
        total_w2 += part * apart_w2(silent_w, learned.weights.get(family, {})) * std * std
    each_w2 = silent.square_w2
    level = learned.levels.get(kind)
    if level is not None and level.devices:
        # The mean of those who report is itself a sample.
        each_w2 += silent.spread_w**2 / max(level.devices, 1.0)
    return total_w2 + max(own, 0.0) * each_w2
