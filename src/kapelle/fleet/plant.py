"""The plant as its journal topic tells it: orders, holds, and the sum over all partitions."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import isnan, nan

from msgspec.structs import replace

from kapelle.fleet.capacity import kept
from kapelle.fleet.capacity.learned import Firmness, hear_reach, hear_rooms
from kapelle.fleet.envelopes import Book
from kapelle.fleet.estimation.learned import Learned, hear
from kapelle.fleet.estimation.outlook import look
from kapelle.fleet.profiles import is_less
from kapelle.fleet.reconciliation.alarms import merged
from kapelle.model.entries import Entry
from kapelle.model.enums import Freshness, OrderStatus, Phase, Standing
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.orders import Amend, Cancel, Hold, Order, Plan, Prospect
from kapelle.model.plant import Envelopes, Notice
from kapelle.model.summaries import ResourceSummary, Room, Silence, Spread, Summary

_NOTICES_KEPT = 256
_ORDERS_KEPT = 1000
"""Beyond this many the oldest that is over is forgotten here; the journal's readers keep it."""


@dataclass(slots=True, eq=False)
class OrderState:
    """An order as it stands now."""

    order: Order
    """With the latest amendment applied."""
    status: OrderStatus = OrderStatus.PENDING
    """What dispatch last wrote about it."""
    plan: Plan | None = None
    cancelled_at_ns: int = 0
    """When somebody asked for its end; 0 where nobody did. Dispatch answers with a plan."""
    amended_at_ns: int = 0
    grown_by: str = ""
    """Who last had it ask for more; empty: nobody but who issued it."""

    @property
    def given_by(self) -> str:
        """Who answers for its size."""
        return self.grown_by or self.order.issued_by

    @property
    def baseline_w(self) -> float:
        """Power of the resource when the order started; NaN before. [W]"""
        return self.plan.baseline_w if self.plan else nan

    @property
    def committed_w(self) -> float:
        """The part of the target the plant promises; 0 before dispatch has spoken. [W]"""
        return self.plan.committed_w if self.plan else 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be done for it."""
        return self.status in (
            OrderStatus.COMPLETED,
            OrderStatus.CANCELLED,
            OrderStatus.DECLINED,
        )


@dataclass(slots=True, eq=False)
class PlantView:
    """State of the `plant` topic. Only `apply_plant` writes into it."""

    partitions: int
    position: int = 0
    """Position of the last applied entry."""
    envelopes: Book = field(default_factory=Book)
    """What was told of sites, feeders and zones."""
    summaries: dict[int, Summary] = field(default_factory=dict)
    """The newest of each partition that has spoken."""
    spreads: dict[int, Spread] = field(default_factory=dict)
    """The newest of each partition; not every summary has one."""
    orders: dict[int, OrderState] = field(default_factory=dict)
    held: bool = False
    hold_reason: str = ""
    held_at_ns: int = 0
    """Since when it is held, however often that was said again; 0 where it is not."""
    notices: deque[Notice] = field(default_factory=lambda: deque(maxlen=_NOTICES_KEPT))
    learned: Learned = field(default_factory=Learned)
    """How well the plant estimates."""
    firmness: Firmness = field(default_factory=Firmness)
    """Who follows, and what fails together."""
    rooms: dict[int, dict[str, dict[float, Room]]] = field(default_factory=dict)
    """By partition, resource and length of window: the newest that was told."""

    def resources(self) -> list[str]:
        """Return the names of all resources any partition has devices of, sorted."""
        return sorted({r.resource for s in self.summaries.values() for r in s.resources})


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One resource of the whole plant, with how much of it is known."""

    resource: str
    tick_ns: int
    """The oldest tick among the partitions in it; 0 without any."""
    age_s: float
    """Age of the oldest summary in it; NaN without any. [s]"""
    complete: bool
    """Whether every partition of the plant has spoken."""
    devices: int
    power_w: float
    """Best estimate. [W]"""
    std_w: float
    low_w: float
    """`[low_w, high_w]` holds the true power in 95 % of all cases. [W]"""
    high_w: float
    measured_w: float
    """The part of `power_w` that rests on live readings. [W]"""
    measured_share: float
    """Share of the nameplate whose readings are live; NaN without devices. 0-1"""
    oldest_age_s: float
    """Age of the oldest reading counted as live or late; NaN without any. [s]"""
    freshness: tuple[int, ...]
    """Number of devices in each `Freshness`, by its number."""
    nameplate_w: float
    uncontrolled_w: float
    headroom_up_w: float
    headroom_down_w: float
    commanded_w: float
    phases: tuple[int, ...]
    """Number of devices with a current command in each `Phase`, by its number."""
    excluded: dict[str, int]
    by_kind_w: dict[str, float]
    vendors: dict[str, tuple[int, int]]
    """Per vendor: devices, and how many of them are live or late."""
    providers: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The same per internet provider, where few are named."""
    silences: dict[str, Silence] = field(default_factory=dict)
    """By `vendor/NAME`, `provider/NAME`: how long ago devices were last heard."""
    standings: tuple[int, ...] = ()
    """Number of devices in each `Standing`, by its number."""
    conditions: dict[str, int] = field(default_factory=dict)
    """What is wrong with devices (`Condition`, lower case), and how many have it."""
    received: int = 0
    duplicates: int = 0
    late: int = 0
    lost: int = 0
    """Reports, as `ResourceSummary` counts them."""
    others_w: float = 0.0
    """What its devices do for other orders than its own, beyond their own schedule. [W]"""
    leaving_w: float = 0.0
    """The part of it that devices do who are counted on for its own. [W]"""
    claimed: dict[int, int] = field(default_factory=dict)
    """By order number: its devices that follow another order than its own."""

    @property
    def unmoved_w(self) -> float:
        """What devices no setpoint will reach do, but for what they do for other orders. [W]"""
        return self.uncontrolled_w - (self.others_w - self.leaving_w)

    @property
    def net_w(self) -> float:
        """Power but for what its devices do for other orders: what its own is judged by. [W]"""
        return self.power_w - self.others_w


def apply_plant(view: PlantView, entry: Entry) -> None:
    """Apply the next entry of the `plant` topic. Ones already applied change nothing."""
    if entry.position <= view.position:
        return
    view.position = entry.position
    match entry.body:
        case Summary() as summary:
            known = view.summaries.get(summary.partition)
            if known is None or summary.tick_ns > known.tick_ns:
                hear(view.learned, summary)
                hear_reach(view.firmness, summary)
            if known is None or summary.tick_ns >= known.tick_ns:
                view.summaries[summary.partition] = summary
                hear_rooms(view.rooms, summary)
                if summary.spread is not None:
                    view.spreads[summary.partition] = summary.spread
                _watch_prospects(view, summary.tick_ns)
        case Order() as order:
            view.orders.setdefault(order.order_no, OrderState(order))
            if len(view.orders) > _ORDERS_KEPT:
                over = (no for no, state in view.orders.items() if state.is_over)
                view.orders.pop(next(over, -1), None)
        case Amend() as amend:
            _apply_amend(view, amend)
        case Cancel() as cancel:
            cancelled = view.orders.get(cancel.order_no)
            if cancelled is not None and not cancelled.cancelled_at_ns:
                cancelled.cancelled_at_ns = cancel.at_ns
        case Plan() as plan:
            planned = view.orders.get(plan.order_no)
            if planned is not None:
                planned.plan, planned.status = plan, OrderStatus(plan.status)
            settle = kept.end if plan.status == OrderStatus.COMPLETED else kept.drop
            settle(view.firmness.kept, plan.order_no)
        case Prospect() as told:
            kept.begin(view.firmness.kept, told)
        case Envelopes() as envelopes:
            view.envelopes.apply(envelopes)
        case Hold() as hold:
            since_ns = view.held_at_ns or hold.at_ns
            view.held, view.hold_reason = hold.held, hold.reason
            view.held_at_ns = since_ns if hold.held else 0
            view.firmness.kept.windows.clear()
        case Notice() as notice:
            found = merged(notice, view.notices)
            if found is None:
                view.notices.append(notice)
            else:
                place, whole = found
                view.notices[place] = whole
        case _:
            pass


def _watch_prospects(view: PlantView, tick_ns: int) -> None:
    """Hold what orders change against what was said of it, once all have spoken for a tick."""
    windows = view.firmness.kept.windows
    if not windows or len(view.summaries) < view.partitions:
        return
    if any(summary.tick_ns != tick_ns for summary in view.summaries.values()):
        return
    powers_w: dict[str, float] = {}
    for order_no in list(windows):
        order = view.orders.get(order_no)
        if order is None or order.plan is None:
            kept.drop(view.firmness.kept, order_no)
            continue
        resource = order.order.resource
        if resource not in powers_w:
            powers_w[resource] = total(view, resource).net_w
        kept.watch(view.firmness.kept, order_no, powers_w[resource] - order.baseline_w, tick_ns)


def _apply_amend(view: PlantView, amend: Amend) -> None:
    state = view.orders.get(amend.order_no)
    if state is None or state.cancelled_at_ns or state.is_over:
        return
    was = state.order
    state.order = replace(
        was, target_w=amend.target_w, ends_at_ns=amend.ends_at_ns, profile=amend.profile
    )
    state.amended_at_ns = amend.at_ns
    if not is_less(was, state.order, amend.at_ns):
        # A second person agreed to what he saw: not to more, longer or the other way.
        state.order = replace(state.order, operated_by="")
        state.grown_by = amend.issued_by


def total(view: PlantView, resource: str = ALL, now_ns: int | None = None) -> Aggregate:
    """Return the sum of a resource over all partitions that have spoken.

    The silent are moved along with those of their kind who report, and the interval is as wide as
    the plant has learned that it must be (`fleet.estimation.outlook`).

    Args:
        view: The plant.
        resource: Name of the resource; an unknown one has no devices.
        now_ns: What `age_s` counts from; the newest tick of any partition when None.
    """
    newest_ns = max((s.tick_ns for s in view.summaries.values()), default=0)
    found = [
        (summary.tick_ns, part)
        for _, summary in sorted(view.summaries.items())
        for part in summary.resources
        if part.resource == resource
    ]
    parts = [part for _, part in found]
    tick_ns = min((tick for tick, _ in found), default=0)
    outlook = look(view.learned, resource, parts)
    power_w = sum(p.power_w for p in parts) + outlook.moved_w
    std_w = outlook.std_w
    nameplate_w = sum(p.nameplate_w for p in parts)
    measured_nameplate_w = sum(p.measured_nameplate_w for p in parts)
    ages = [p.oldest_age_s for p in parts if not isnan(p.oldest_age_s)]
    since_ns = newest_ns if now_ns is None else now_ns
    return Aggregate(
        resource=resource,
        tick_ns=tick_ns,
        age_s=(since_ns - tick_ns) / NS_PER_S if found else nan,
        complete=len(view.summaries) >= view.partitions,
        devices=sum(p.devices for p in parts),
        power_w=power_w,
        std_w=std_w,
        low_w=power_w - outlook.half_w,
        high_w=power_w + outlook.half_w,
        measured_w=sum(p.measured_w for p in parts),
        measured_share=measured_nameplate_w / nameplate_w if nameplate_w else nan,
        oldest_age_s=max(ages, default=nan),
        freshness=_places((p.freshness for p in parts), len(Freshness)),
        nameplate_w=nameplate_w,
        uncontrolled_w=sum(p.uncontrolled_w for p in parts) + outlook.moved_w,
        headroom_up_w=sum(p.headroom_up_w for p in parts),
        headroom_down_w=sum(p.headroom_down_w for p in parts),
        commanded_w=sum(p.commanded_w for p in parts),
        phases=_places((p.phases for p in parts), max(Phase) + 1),
        excluded=_merged_counts(p.excluded for p in parts),
        by_kind_w=_merged_powers([*(p.by_kind_w for p in parts), outlook.by_kind_w]),
        vendors=_merged_heard(p.vendors for p in parts),
        providers=_merged_heard(p.providers for p in parts),
        silences=_merged_silences(p.silences for p in parts),
        standings=_places((p.standings for p in parts), len(Standing)),
        conditions=_merged_counts(p.conditions for p in parts),
        received=sum(p.received for p in parts),
        duplicates=sum(p.duplicates for p in parts),
        late=sum(p.late for p in parts),
        lost=sum(p.lost for p in parts),
        others_w=sum(p.others_w for p in parts),
        leaving_w=sum(p.leaving_w for p in parts),
        claimed=_claimed(parts),
    )


def _places(rows: Iterable[Sequence[int]], places: int) -> tuple[int, ...]:
    counts = [0] * places
    for row in rows:
        for place, count in enumerate(row):
            counts[place] += count
    return tuple(counts)


def _merged_counts(tables: Iterable[dict[str, int]]) -> dict[str, int]:
    merged: Counter[str] = Counter()
    for table in tables:
        merged.update(table)
    return dict(sorted(merged.items()))


def _claimed(parts: Sequence[ResourceSummary]) -> dict[int, int]:
    claimed: Counter[int] = Counter()
    for part in parts:
        claimed.update(part.claimed)
    return dict(sorted(claimed.items()))


def _merged_powers(tables: Iterable[dict[str, float]]) -> dict[str, float]:
    merged: dict[str, float] = {}
    for table in tables:
        for name, power_w in table.items():
            merged[name] = merged.get(name, 0.0) + power_w
    return dict(sorted(merged.items()))


def _merged_silences(tables: Iterable[dict[str, Silence]]) -> dict[str, Silence]:
    merged: dict[str, Silence] = {}
    for table in tables:
        for name, silence in table.items():
            known = merged.get(name)
            merged[name] = silence if known is None else added(known, silence)
    return dict(sorted(merged.items()))


def added(one: Silence, other: Silence) -> Silence:
    """Return the silence of both together."""
    ages = [a + b for a, b in zip_longest(one.ages, other.ages, fillvalue=0)]
    return Silence(one.late + other.late, one.due + other.due, ages)


def _merged_heard(tables: Iterable[dict[str, list[int]]]) -> dict[str, tuple[int, int]]:
    merged: dict[str, tuple[int, int]] = {}
    for table in tables:
        for name, (devices, heard) in table.items():
            before = merged.get(name, (0, 0))
            merged[name] = (before[0] + devices, before[1] + heard)
    return dict(sorted(merged.items()))
