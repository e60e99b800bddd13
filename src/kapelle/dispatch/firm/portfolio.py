"""What a promise is computed from: vendors with moments of their power, and what fails together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from kapelle.model.ids import Flags, Floats


@dataclass(frozen=True, slots=True)
class Response:
    """Devices of one kind and vendor, in one direction over one window."""

    head_w: float
    """Sum of headrooms. [W]"""
    square_w2: float
    """Sum of their squares. [W2]"""
    share: float
    """Part of the headroom that follows, on average. 0-1"""
    share_std: float
    """Standard deviation of that part by what they share, our doubt about it included. 0-1"""


@dataclass(frozen=True, slots=True)
class Vendor:
    """The power of all devices of a vendor while it is there: mean, variance, third cumulant.

    `own` is what averages away over devices, `shared` what does not: with a part k of the devices
    left the one shrinks with k, the other with k squared and cubed.
    """

    name: str
    head_w: float
    mean_w: float
    own_variance_w2: float
    own_third_w3: float
    shared_std_w: float
    shared_third_w3: float
    square_w2: float


@dataclass(frozen=True, slots=True)
class Group:
    """Devices that fail together, and how probably they do within the window."""

    name: str
    odds: float
    within: Flags | Floats
    """The part of each place that is theirs, shape (vendors, places). 0-1"""


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Everything a promise needs: a few numbers per vendor, whatever the fleet's size."""

    vendors: Sequence[Vendor]
    spread: Floats
    """Part of each vendor's power by place, shape (vendors, places); rows add up to 1."""
    groups: Sequence[Group]

    @property
    def head_w(self) -> float:
        """All of the headroom. [W]"""
        return sum(v.head_w for v in self.vendors)

    @property
    def mean_w(self) -> Floats:
        """Mean power by place, while all are there, shape (vendors, places). [W]"""
        return np.array([v.mean_w for v in self.vendors])[:, np.newaxis] * self.spread


def vendor_of(name: str, kinds: Sequence[Response]) -> Vendor:
    """Return the moments of a vendor's power.

    Given the part P that follows, a device of headroom h gives h or nothing. P itself is a Beta
    variable, so that the sum is beta-binomial: variance H²·var P + Σh²·E[P(1-P)], third cumulant
    H³·κ₃(P) + 3·H·Σh²·cov(P, P(1-P)) + Σh³·E[P(1-P)(1-2P)] (law of total cumulance; Brillinger
    1969). What kinds of one vendor share they share fully: their deviations add up. Σh³ is taken
    as (Σh²)²/Σh, which is exact for equal devices.
    """
    head_w = mean_w = own = own_third = shared_w = shared_third = square = 0.0
    for kind in kinds:
        if kind.head_w <= 0:
            continue
        p = min(max(kind.share, 0.0), 1.0)
        spread = min(kind.share_std**2, 0.9 * p * (1.0 - p))
        third = _beta_third(p, spread)
        both = p * (1.0 - p) - spread
        turn = (1.0 - 2.0 * p) * spread - third
        head_w += kind.head_w
        mean_w += kind.head_w * p
        square += kind.square_w2
        own += kind.square_w2 * both
        cube = kind.square_w2**2 / kind.head_w
        own_third += cube * (both * (1.0 - 2.0 * p) - 2.0 * turn)
        shared_w += kind.head_w * sqrt(spread)
        shared_third += kind.head_w**3 * third + 3.0 * kind.head_w * kind.square_w2 * turn
    return Vendor(name, head_w, mean_w, own, own_third, shared_w, shared_third, square)


def _beta_third(mean: float, variance: float) -> float:
    """Return the third central moment of a Beta variable."""
    if variance <= 0.0:
        return 0.0
    weight = mean * (1.0 - mean) / variance - 1.0
    return 2.0 * variance * (1.0 - 2.0 * mean) / (weight + 2.0)


def merged(rest: Sequence[Vendor], odds: Sequence[float]) -> Vendor:
    """Return several small vendors as one, each of which is there or not by itself.

    Args:
        rest: The vendors.
        odds: How probably each is gone as a whole.
    """
    there = [1.0 - q for q in odds]
    pairs = list(zip(rest, there, strict=True))
    # A vendor's power times whether it is there: law of total cumulance.
    varies_w2 = [v.own_variance_w2 + v.shared_std_w**2 for v in rest]
    alone = sum(a * (1 - a) * v.mean_w**2 for v, a in pairs)
    both = sum(3 * a * (1 - a) * v.mean_w * w2 for (v, a), w2 in zip(pairs, varies_w2, strict=True))
    return Vendor(
        name="",
        head_w=sum(v.head_w for v in rest),
        mean_w=sum(v.mean_w * a for v, a in pairs),
        own_variance_w2=sum(w2 * a for w2, a in zip(varies_w2, there, strict=True)) + alone,
        own_third_w3=sum((v.own_third_w3 + v.shared_third_w3) * a for v, a in pairs)
        + sum(a * (1 - a) * (1 - 2 * a) * v.mean_w**3 for v, a in pairs)
        + both,
        shared_std_w=0.0,
        shared_third_w3=0.0,
        square_w2=sum(v.square_w2 for v in rest),
    )


def grouped(
    names: Mapping[str, Flags | Floats], odds: Mapping[str, float], mean_w: Floats
) -> Sequence[Group]:
    """Return the groups that have any power to lose, the weightiest first.

    Weight is what a group adds to the variance of the whole: q(1 - q)·M².
    """
    power_w = {name: float((mean_w * within).sum()) for name, within in names.items()}
    groups = [
        Group(name, odds[name], within)
        for name, within in sorted(names.items())
        if odds[name] > 0 and power_w[name] > 0
    ]
    weight = [g.odds * (1 - g.odds) * power_w[g.name] ** 2 for g in groups]
    order = sorted(range(len(groups)), key=lambda at: (-weight[at], groups[at].name))
    return [groups[at] for at in order]
