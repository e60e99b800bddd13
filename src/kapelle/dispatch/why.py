"""Why an order is as it is: what bound its promise, what binds it now, what came of it so far."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan

from kapelle.dispatch.caps.binding import in_force
from kapelle.dispatch.extent import Extent, extent
from kapelle.dispatch.promise import parts_of, room_of
from kapelle.dispatch.reserve import reserve_of
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet
from kapelle.fleet.plant import Aggregate, OrderState, PlantView, total
from kapelle.model.enums import OrderStatus
from kapelle.model.plant import Notice
from kapelle.words import power


@dataclass(frozen=True, slots=True)
class Why:
    """Everything that bound an order, as numbers and in words."""

    bound: Sequence[str]
    """What binds it now, one sentence each, the promise first."""
    delivered_w: float
    """Change against the baseline now, but for what its devices do for others; NaN: none. [W]"""
    reserve_w: float
    """Headroom in its direction that was kept from promises. [W]"""
    extent: Extent | None
    """None where it is not in force, or devices are kept by another process."""
    excluded: dict[str, int]
    """Why devices of its resource are not counted on, and how many."""
    claimed: dict[int, int]
    """Its devices that follow other orders, by their numbers."""
    caps: Sequence[str]
    """Limits of groups that bind now."""
    shortfall: Notice | None
    """What is missing now and why; None where nothing is."""
    life: Sequence[Notice]
    """What was said of it so far, oldest first, as far as it is remembered."""


def why(
    view: PlantView, state: OrderState, settings: DispatchSettings, fleets: Iterable[Fleet]
) -> Why:
    """Explain an order from the newest sums and, where they are at hand, its devices."""
    order, plan = state.order, state.plan
    known, parts = total(view, order.resource), parts_of(view, order.resource)
    is_active = state.status == OrderStatus.ACTIVE and plan is not None
    reserve = reserve_of(settings, order.resource, room_of(parts)) if parts else None
    reserve_w = 0.0
    if reserve is not None:
        reserve_w = reserve.up_w if order.target_w > 0 else reserve.down_w
    life = [notice for notice in view.notices if notice.order_no == order.order_no]
    caps = in_force(parts, state.committed_w) if is_active else []
    found = extent(fleets, order.order_no) if is_active else None
    shortfall = _shortfall(life) if is_active else None
    bound = [_promise(view, state)]
    if is_active:
        bound += _now(known, found, caps, shortfall)
    if reserve_w > 0.0:
        bound.append(f"{power(reserve_w)} of headroom are kept to replace who drops out")
    return Why(
        bound=bound,
        delivered_w=known.net_w - state.baseline_w if is_active else nan,
        reserve_w=reserve_w,
        extent=found,
        excluded=known.excluded,
        claimed=known.claimed,
        caps=caps,
        shortfall=shortfall,
        life=life,
    )


def _promise(view: PlantView, state: OrderState) -> str:
    order, plan = state.order, state.plan
    if plan is None and view.held:
        return "nothing is promised: every command is held, until kapelle release"
    if plan is None:
        newest_ns = max((summary.tick_ns for summary in view.summaries.values()), default=0)
        if newest_ns < order.starts_at_ns:
            return "nothing is promised before it begins"
        return "dispatch has not spoken of it yet: nothing is promised"
    if state.status == OrderStatus.DECLINED:
        return f"nothing of {power(order.target_w)} is promised: {plan.reason}"
    promised = f"{power(plan.committed_w)} of {power(order.target_w)} are promised"
    return f"{promised}: {plan.reason}" if plan.reason else f"{promised}: nothing bound it"


def _now(
    known: Aggregate, found: Extent | None, caps: Sequence[str], shortfall: Notice | None
) -> list[str]:
    said = [f"{count:,} devices follow order {number}" for number, count in known.claimed.items()]
    said += [f"{count:,} devices are not counted on: {why}" for why, count in _most(known.excluded)]
    if found is not None:
        said.append(
            f"level {found.level:.3g} in tier {found.tier}: {found.at_limit:,} devices are at their"
            f" limit, {found.between:,} in between, {found.untouched:,} left alone"
        )
    said += caps
    if shortfall is not None:
        said.append(shortfall.text)
    return said


def _most(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _shortfall(life: Sequence[Notice]) -> Notice | None:
    """Return the newest word of a shortfall, if it is not over."""
    said = [notice for notice in life if notice.code in ("shortfall", "shortfall-over")]
    return said[-1] if said and said[-1].code == "shortfall" else None
