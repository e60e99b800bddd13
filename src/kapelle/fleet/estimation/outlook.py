"""The mean and the error of a resource's sum, from what partitions tell and what was learned."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import expm1, inf, isnan, nan, sqrt

from kapelle.fleet.estimation.evidence import OCTAVES, PV_CLUSTER
from kapelle.fleet.estimation.learned import Learned, merged
from kapelle.fleet.estimation.levels import level_then
from kapelle.fleet.estimation.scatter import keep_and_scatter
from kapelle.fleet.estimation.sharing import shared
from kapelle.fleet.settings import FleetSettings
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Evidence, ResourceSummary

Z_95 = 1.959964
"""Half-width of the central 95 % of a normal distribution, in standard deviations."""
_PRESUMED = 0.4
"""What is presumed of the steady weighs as much as this many independent looks: plants do a third
or three times of it (the standard deviation `s` of a logarithm is worth `1 / (2 s²)` looks)."""
_LEAST = 1e-3
"""Of the presumed variance, where nothing moves: not yet proven that nothing will."""
_DARK = 0.02


@dataclass(slots=True)
class Outlook:
    """What the partitions' own sums do not show."""

    moved_w: float = 0.0
    """How far the silent have moved since, going by those of their kind who report. [W]"""
    by_kind_w: dict[str, float] = field(default_factory=dict)
    """The same by kind."""
    std_w: float = 0.0
    half_w: float = 0.0
    """Half the width of the 95 % interval. [W]"""
    steady_w2: float = 0.0
    silent_w2: float = 0.0
    other_w2: float = 0.0


def look(
    learned: Learned,
    resource: str,
    parts: Sequence[ResourceSummary],
    settings: FleetSettings | None = None,
) -> Outlook:
    """Return mean and error of the sum of these parts."""
    settings = settings or FleetSettings()
    made = Outlook()
    if not parts:
        return made
    told = merged(part.evidence for part in parts)
    made.steady_w2, freedom = _steady(learned, resource, parts, settings.live_common_share)
    _add_silent(made, learned, told, settings)
    drifts_w = [state.drifted_w for state in learned.steady.get(resource, {}).values()]
    made.moved_w += sum(drifts_w)
    made.other_w2 += sum(part.variance_w2 for part in parts)
    vendors: dict[str, float] = {}
    for part in parts:
        for vendor, std_w in part.shared_std_w.items():
            vendors[vendor] = vendors.get(vendor, 0.0) + std_w
    made.other_w2 += sum(std_w * std_w for _, std_w in sorted(vendors.items()))
    made.std_w = sqrt(made.steady_w2 + made.silent_w2 + made.other_w2)
    # For the tails what is presumed counts as one look: without any the interval is 2.8 times as
    # wide, as one that may be wrong by a factor of three has to be.
    wide_w2 = student_95(1.0 + freedom) ** 2 * made.steady_w2
    made.half_w = sqrt(wide_w2 + Z_95**2 * (made.silent_w2 + made.other_w2))
    return made


def student_95(freedom: float) -> float:
    """Return half the width of the central 95 % of Student's distribution, in standard deviations.

    Exact to 1 % for three degrees of freedom and more; bounded below (Peizer and Pratt, 1968).
    """
    if freedom == inf:
        return Z_95
    part = (freedom - 5 / 6) / (freedom - 2 / 3 + 0.1 / freedom) ** 2
    return sqrt(freedom * expm1(Z_95**2 * part))


def _steady(
    learned: Learned, resource: str, parts: Sequence[ResourceSummary], live_share: float
) -> tuple[float, float]:
    """Return the variance of those who report, and on how many looks it rests."""
    presumed_w2 = sum(part.steady_variance_w2 for part in parts)
    presumed_w2 += (live_share * sum(part.steady_std_w for part in parts)) ** 2
    states = learned.steady.get(resource, {})
    plate = sum(state.plate for state in states.values())
    if not plate or not presumed_w2:
        return presumed_w2, inf
    freedom = sum(state.freedom * state.plate for state in states.values()) / plate
    found_w2 = sum(state.variance_w2 for state in states.values())
    weight = freedom / (freedom + _PRESUMED)
    # In logarithms: what is presumed is wrong by a factor, if it is.
    ratio = max(found_w2 / presumed_w2, _LEAST)
    return presumed_w2 * ratio**weight, freedom


def _add_silent(made: Outlook, learned: Learned, told: Evidence, settings: FleetSettings) -> None:
    spread_w: dict[int, float] = {}
    plates_w: dict[int, float] = {}
    for place, (_, plate_w, power_w, plate_age, plate2) in sorted(told.silent.items()):
        kind = place // OCTAVES
        age_s = plate_age / plate_w if plate_w else 0.0
        presumed = settings.drift_share[kind], settings.drift_s[kind]
        keep, scatter = keep_and_scatter(learned.cells, kind, age_s, presumed)
        level = learned.levels.get(kind)
        unit = 1.0
        then = nan
        if level is not None:
            # The level is a mean of readings some of which are old.
            back_s = max(age_s - level.age_s, 0.0)
            then = level_then(learned.history, level, kind, learned.now_ns / NS_PER_S - back_s)
        if level is not None and not isnan(then):
            now = level.level + level.drifted
            if kind == DeviceKind.PV:
                unit = max(now, 0.0)
                scale = now / then if then > _DARK else 0.0
                expected_w = plate_w * now + keep * scale * (power_w - plate_w * then)
            else:
                expected_w = plate_w * now + keep * (power_w - plate_w * then)
            made.moved_w += expected_w - power_w
            name = DeviceKind(kind).name.lower()
            made.by_kind_w[name] = made.by_kind_w.get(name, 0.0) + expected_w - power_w
        std = sqrt(scatter) * unit
        common = shared(learned.groups, PV_CLUSTER) if kind == DeviceKind.PV else 0.0
        made.silent_w2 += (1.0 - common) * plate2 * std * std
        spread_w[kind] = spread_w.get(kind, 0.0) + plate_w * std
        plates_w[kind] = plates_w.get(kind, 0.0) + plate_w

    for name, plate_w in sorted(told.silent_groups.items()):
        pv = name.startswith(PV_CLUSTER)
        kind = int(DeviceKind.PV) if pv else int(name.partition("/")[0])
        common = shared(learned.groups, PV_CLUSTER if pv else f"{kind}/")
        if kind in plates_w:
            std = spread_w[kind] / plates_w[kind]
            made.silent_w2 += common * (plate_w * std) ** 2
    for kind, std_w in spread_w.items():
        # The mean of those who report is itself a sample.
        level = learned.levels.get(kind)
        if level is not None and level.devices:
            made.silent_w2 += std_w * std_w / max(level.devices, 1.0)
