"""The mean and the error of a resource's sum, from what partitions tell and what was learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import expm1, inf, sqrt

from kapelle.fleet.estimation.learned import Learned, merged
from kapelle.fleet.estimation.silent import expect
from kapelle.fleet.settings import FleetSettings
from kapelle.model.summaries import ResourceSummary

Z_95 = 1.959964
"""Half-width of the central 95 % of a normal distribution, in standard deviations."""
_PRESUMED = 0.4
"""What is presumed of the steady weighs as much as this many independent looks: plants do a third
or three times of it (the standard deviation `s` of a logarithm is worth `1 / (2 s²)` looks)."""
_LEAST = 1e-3
"""Of the presumed variance, where nothing moves: not yet proven that nothing will."""


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
    silent = expect(learned, told, settings)
    # A variance that was learned from few events may be several times as large.
    made.silent_w2 = silent.variance_w2 * (student_95(silent.events) / Z_95) ** 2
    drifted_w = sum(state.drifted_w for state in learned.steady.get(resource, {}).values())
    made.moved_w = sum(silent.moved_w.values()) + drifted_w
    made.by_kind_w = _by_kind(parts, silent.moved_w, drifted_w)
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


def _by_kind(
    parts: Sequence[ResourceSummary], moved_w: Mapping[str, float], drifted_w: float
) -> dict[str, float]:
    """Return how far each kind is moved. Which of them drift is not told: as they weigh in it."""
    sums_w: dict[str, float] = {}
    for part in parts:
        for kind, power_w in sorted(part.by_kind_w.items()):
            sums_w[kind] = sums_w.get(kind, 0.0) + power_w
    weights = {kind: abs(power_w) for kind, power_w in sums_w.items()}
    whole = sum(weights.values())
    by_kind_w = dict(moved_w)
    for kind, weight in weights.items():
        share = weight / whole if whole else 1.0 / len(weights)
        by_kind_w[kind] = by_kind_w.get(kind, 0.0) + drifted_w * share
    return by_kind_w


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
