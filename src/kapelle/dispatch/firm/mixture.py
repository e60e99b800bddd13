"""The distribution of what a portfolio delivers, as a mixture over what may fail together.

The groups whose loss matters most are enumerated, present or gone (2^K states; vendors and internet
providers are among them as long as they matter). In each state the power has a mean, a variance and
a skewness, to which smaller groups add their cumulants; it is taken as Pearson's type III. The
mixture's distribution function is inverted for the quantiles: a promise that holds in 95 % of all
cases is the most that at most 5 % of the mixture falls short of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kapelle.dispatch.firm.portfolio import Group, Portfolio
from kapelle.model.ids import Floats

ENUMERATED = 9
"""Groups that are enumerated: at most 512 states."""

_STEPS = 32
_LIKELY = 1e-10
"""States less likely than this are not looked into: they count as if nothing came."""
_NORMAL_BELOW = 1e-6
_SKEW_MAX = 3.0
"""Wilson and Hilferty's transformation is good up to here."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """States with their odds and the moments of the power in each. [W]"""

    odds: Floats
    mean_w: Floats
    std_w: Floats
    skew: Floats
    most_w: float
    """No state gives more. [W]"""

    def short(self, power_w: Floats) -> Floats:
        """Return the probability that less than each of these powers is delivered."""
        below = _below(power_w[:, np.newaxis], self.mean_w, self.std_w, self.skew)
        left_out = max(1.0 - float(self.odds.sum()), 0.0)
        return np.where(power_w > 0.0, below @ self.odds + left_out, 0.0)

    def promise_w(self, risk: float) -> float:
        """Return the most that is fallen short of with at most this probability. [W]"""
        return self.promises_w([risk])[0]

    def promises_w(self, risks: Sequence[float]) -> list[float]:
        """Return the most that is fallen short of with at most each of these probabilities. [W]

        By bisection of all at once: distributions with certain parts have steps, on which faster
        methods stall.
        """
        risk = np.array(risks)
        low_w, high_w = np.zeros(len(risk)), np.full(len(risk), self.most_w)
        whole = self.short(high_w) <= risk
        for _ in range(_STEPS):
            middle_w = (low_w + high_w) / 2.0
            held = self.short(middle_w) <= risk
            low_w, high_w = np.where(held, middle_w, low_w), np.where(held, high_w, middle_w)
        # Less than this is the trace of the bisection.
        low_w[low_w <= self.most_w * 1e-9] = 0.0
        return [float(each) for each in np.where(whole, self.most_w, low_w)]


def mix(portfolio: Portfolio, gone: str = "") -> Mixture:
    """Return the distribution of the power; `gone` is a group taken as lost for certain."""
    if not portfolio.vendors:
        return Mixture(np.ones(1), np.zeros(1), np.zeros(1), np.zeros(1), 0.0)
    used = portfolio.spread.any(axis=0)
    spread = portfolio.spread[:, used]
    groups = [Group(g.name, g.odds, g.within[:, used]) for g in portfolio.groups]
    certain = [g for g in groups if g.name == gone]
    groups = [g for g in groups if g.name != gone]
    for group in certain:
        spread *= 1.0 - group.within
    listed, folded = groups[:ENUMERATED], groups[ENUMERATED:]
    odds, left = _states(listed, spread)
    kept = left.sum(axis=2)
    vendors = portfolio.vendors
    mean_w = np.array([v.mean_w for v in vendors])
    own = np.array([v.own_variance_w2 for v in vendors])
    shared = np.array([v.shared_std_w for v in vendors]) ** 2
    own_third = np.array([v.own_third_w3 for v in vendors])
    shared_third = np.array([v.shared_third_w3 for v in vendors])
    mean = kept @ mean_w
    variance = kept @ own + kept**2 @ shared
    third = kept @ own_third + kept**3 @ shared_third
    if folded:
        q = np.array([g.odds for g in folded])
        flat = (left * mean_w[:, np.newaxis]).reshape(len(odds), -1)
        within = np.array([g.within.ravel() for g in folded], np.float64)
        # Where all cores are busy a product by threads takes up to thirty times as long.
        lost_w = np.einsum("sp,gp->sg", flat, within)
        mean = mean - lost_w @ q
        variance = variance + lost_w**2 @ (q * (1.0 - q))
        third = third - lost_w**3 @ (q * (1.0 - q) * (1.0 - 2.0 * q))
    mean, std = np.maximum(mean, 0.0), np.sqrt(np.maximum(variance, 0.0))
    skew = np.clip(third / np.maximum(std, 1e-9) ** 3, -_SKEW_MAX, _SKEW_MAX)
    most_w = float((spread.sum(axis=1) * np.array([v.head_w for v in vendors])).sum())
    return Mixture(odds, mean, std, skew, most_w)


def _states(groups: Sequence[Group], spread: Floats) -> tuple[Floats, Floats]:
    """Return the odds of every state and what is left by place in it.

    Returns:
        Shapes (states,) and (states, vendors, places).
    """
    odds = np.ones(1)
    left = spread[np.newaxis]
    for group in groups:
        lost = left * (1.0 - group.within)
        odds = np.concatenate([odds * (1.0 - group.odds), odds * group.odds])
        likely = odds >= _LIKELY
        odds, left = odds[likely], np.concatenate([left, lost])[likely]
    return odds, left


def alone(portfolio: Portfolio) -> Mixture:
    """Return the distribution if every device failed by itself, as often as it does: no common
    causes, nothing shared. Printed beside a promise to show what it hides."""
    mean_w = variance = 0.0
    up = np.ones_like(portfolio.spread)
    for group in portfolio.groups:
        up *= 1.0 - group.odds * group.within
    there = (portfolio.spread * up).sum(axis=1)
    for vendor, part in zip(portfolio.vendors, there.tolist(), strict=True):
        mean_w += vendor.mean_w * part
        p = vendor.mean_w * part / vendor.head_w if vendor.head_w else 0.0
        variance += vendor.square_w2 * p * (1.0 - p)
    std = np.sqrt(np.full(1, variance))
    return Mixture(np.ones(1), np.full(1, mean_w), std, np.zeros(1), portfolio.head_w)


def _below(power_w: Floats, mean_w: Floats, std_w: Floats, skew: Floats) -> Floats:
    """Return the probability in each state to deliver less: Pearson III by a cube root.

    `power_w` has shape (powers, 1), the others (states,), the outcome (powers, states).

    Source: Wilson and Hilferty, The distribution of chi-square, PNAS 17 (1931): to within 0.01 of
    the quantile for skewness up to 2; the normal where there is none.
    """
    certain = std_w <= 1e-9 * np.maximum(power_w, 1.0)
    z = (power_w - mean_w) / np.where(certain, 1.0, std_w)
    bent = np.abs(skew) > _NORMAL_BELOW
    by = np.where(bent, skew, 1.0)
    inside = 1.0 + by * z / 2.0
    root = np.cbrt(np.maximum(inside, 0.0))
    curved = 6.0 / by * (root - 1.0) + by / 6.0
    # Beyond the end of a skewed distribution nothing lies.
    curved = np.where(inside > 0.0, curved, np.where(by < 0.0, np.inf, -np.inf))
    below = normal(np.where(bent, curved, z))
    return np.where(certain, (mean_w < power_w).astype(np.float64), below)


def normal(z: Floats) -> Floats:
    """Return the standard normal distribution function, to 1.5e-7.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 7.1.26.
    """
    x = np.minimum(np.abs(z), 40.0) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * x)
    series = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    tail = 0.5 * series * np.exp(-x * x)
    below: Floats = np.where(z > 0, 1.0 - tail, tail)
    return below
