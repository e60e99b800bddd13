"""What could be promised: a first, simple answer from what the plant has learned of its devices.

Devices follow independently with their learned probability; on top, every vendor may be gone for
the window with a small probability. The quantile is taken over both: all subsets of at most two
vendors are enumerated, and within each the sum is taken as normal.
"""

from collections.abc import Sequence
from itertools import combinations
from math import erf, sqrt

import numpy as np

from kapelle.fleet import curve
from kapelle.fleet.columns import Fleet
from kapelle.model.ids import Floats

VENDOR_OUTAGE = 0.005
"""Probability that a vendor's cloud is gone when it is needed."""


def firm_w(fleets: Sequence[Fleet], levels: Sequence[float] = (0.5, 0.9, 0.95, 0.99)) -> Floats:
    """Return the change towards export that is exceeded with each probability. [W]"""
    heads, odds, vendors = _responses(fleets)
    names = sorted(set(vendors))
    mean_w = dict.fromkeys(names, 0.0)
    variance = dict.fromkeys(names, 0.0)
    for name in names:
        mine = np.array([vendor == name for vendor in vendors], np.bool_)
        mean_w[name] = float((heads[mine] * odds[mine]).sum())
        variance[name] = float((heads[mine] ** 2 * odds[mine] * (1 - odds[mine])).sum())
    cases: list[tuple[float, float, float]] = []
    for gone in (lost for count in range(3) for lost in combinations(names, count)):
        kept = [name for name in names if name not in gone]
        chance = VENDOR_OUTAGE ** len(gone) * (1 - VENDOR_OUTAGE) ** len(kept)
        cases.append((chance, sum(mean_w[n] for n in kept), sqrt(sum(variance[n] for n in kept))))
    return np.array([_exceeded(cases, level) for level in levels])


def _responses(fleets: Sequence[Fleet]) -> tuple[Floats, Floats, list[str]]:
    heads: list[Floats] = []
    odds: list[Floats] = []
    vendors: list[str] = []
    for fleet in fleets:
        rows = np.flatnonzero(fleet.active[: fleet.size]).astype(np.int32)
        rows = rows[curve.controllable(fleet, rows)]
        heads.append(curve.shares(fleet, rows).up_w)
        responses, refusals = fleet.responses[rows], fleet.refusals[rows]
        odds.append((responses / (responses + refusals)).astype(np.float64))
        vendors += [fleet.names["vendor"][code] for code in fleet.vendor[rows]]
    return np.concatenate(heads), np.concatenate(odds), vendors


def _exceeded(cases: Sequence[tuple[float, float, float]], level: float) -> float:
    """Return the power exceeded with this probability, by bisection. [W]"""
    low_w, high_w = 0.0, max(mean_w + 6 * std_w for _, mean_w, std_w in cases)
    for _ in range(60):
        middle_w = (low_w + high_w) / 2
        above = sum(chance * _above(mean_w, std_w, middle_w) for chance, mean_w, std_w in cases)
        low_w, high_w = (middle_w, high_w) if above >= level else (low_w, middle_w)
    return low_w


def _above(mean_w: float, std_w: float, power_w: float) -> float:
    if std_w <= 0:
        return float(mean_w >= power_w)
    return 0.5 * (1 - erf((power_w - mean_w) / (std_w * sqrt(2))))
