"""The answer: what a resource can promise over a window, and what would be left of it without its
largest vendor. Pure, from the plant's view; a few milliseconds, whatever the fleet's size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from kapelle.dispatch.caps.cells import Capped
from kapelle.dispatch.firm.assembly import portfolio_of
from kapelle.dispatch.firm.mixture import Mixture, alone, mix
from kapelle.dispatch.firm.portfolio import Portfolio
from kapelle.dispatch.firm.within import caps_within
from kapelle.fleet.capacity.recalibration import LEVELS, Recalibration
from kapelle.fleet.plant import PlantView
from kapelle.model.plant import Direction

_SUSPECTS = 3
"""The worst vendor to lose is among so many largest."""
_NOMINAL = Recalibration()


@dataclass(frozen=True, slots=True)
class Loss:
    """One vendor gone for the whole window."""

    vendor: str
    odds: float
    """How probable that is. 0-1"""
    left_w: Sequence[float]
    """What could be promised then, by level. [W]"""


@dataclass(frozen=True, slots=True)
class FirmCapacity:
    """What can be promised in one direction; every power >= 0, by level of `LEVELS`. [W]"""

    promise_w: Sequence[float]
    alone_w: Sequence[float]
    """The answer if every device failed by itself: what common causes hide."""
    headroom_w: float
    """If everybody followed. [W]"""
    expected_w: float
    worst: Loss | None
    """None where nobody has a vendor to lose."""


def firm_capacity(
    view: PlantView, resource: str, direction: Direction, window_s: float, notice_s: float = 0.0
) -> FirmCapacity:
    """Say what can be promised from now on over a window.

    Args:
        view: The plant as told.
        resource: Name of the resource; an unknown one can promise nothing.
        direction: up: towards export; down: towards consumption.
        window_s: The least power over so long a time counts. [s]
        notice_s: How soon devices must have answered; 0: it does not matter. [s]
    """
    portfolio = portfolio_of(view.rooms, view.firmness, resource, direction, window_s, notice_s)
    caps = caps_within(view, resource, direction, window_s)
    return answer(portfolio, view.firmness.kept.recalibration, caps)


def answer(
    portfolio: Portfolio, recalibration: Recalibration = _NOMINAL, caps: Capped | None = None
) -> FirmCapacity:
    """Say what a portfolio can promise, as realised windows have taught to, and within caps."""
    mixture = mix(portfolio)
    most_w = caps.reach_w() if caps is not None else inf
    worst = _worst(portfolio, recalibration)
    if worst is not None:
        worst = replace(worst, left_w=_bounded_w(worst.left_w, most_w))
    return FirmCapacity(
        promise_w=_bounded_w(promises(mixture, recalibration), most_w),
        alone_w=_bounded_w(alone(portfolio).promises_w([1.0 - at for at in LEVELS]), most_w),
        headroom_w=min(portfolio.head_w, most_w),
        expected_w=min(float(mixture.odds @ mixture.mean_w), most_w),
        worst=worst,
    )


def _bounded_w(powers_w: Sequence[float], most_w: float) -> list[float]:
    return [min(power_w, most_w) for power_w in powers_w]


def promises(mixture: Mixture, recalibration: Recalibration) -> list[float]:
    """Return the most that can be promised at each of `LEVELS`. [W]"""
    return mixture.promises_w([recalibration.risk(at) for at in range(len(LEVELS))])


def _worst(portfolio: Portfolio, recalibration: Recalibration) -> Loss | None:
    odds = {group.name: group.odds for group in portfolio.groups}
    suspects = [v.name for v in portfolio.vendors if v.name][:_SUSPECTS]
    losses = [
        Loss(name, odds.get(group, 0.0), promises(mix(portfolio, gone=group), recalibration))
        for name in suspects
        if (group := f"vendor:{name}")
    ]
    return min(losses, key=lambda loss: loss.left_w[-2], default=None)
