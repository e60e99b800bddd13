"""A utility's events as orders, and what became of orders as reports. Pure.

What should be ordered follows from the events as they are and the orders there are: after a lost
answer, or a restart, looking again does nothing twice. An order bears id and modification of its
event.
Source: OpenADR 3.1.0, Definitions: `DISPATCH_SETPOINT`, `DISPATCH_SETPOINT_RELATIVE`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from msgspec import UnsetType

from kapelle.adapters.openadr.codec import EXPORT_DEMAND
from kapelle.adapters.openadr.periods import duration_s, moment_ns
from kapelle.adapters.openadr.shapes import (
    Event,
    Id,
    Interval,
    IntervalPeriod,
    Moment,
    Report,
    ReportDescriptor,
    ReportResource,
    ValuesMap,
)
from kapelle.model.ids import NS_PER_S
from kapelle.words import power

RELATIVE, ABSOLUTE = "DISPATCH_SETPOINT_RELATIVE", "DISPATCH_SETPOINT"
_W = {"W": 1.0, "KW": 1e3, "MW": 1e6}
_INTERVALS_MAX = 96
_APART_NS = NS_PER_S
"""Intervals follow one another where no more lies between them."""
KEY = "openadr:"


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    id: Id
    modification_date_time: Moment


@dataclass(frozen=True, slots=True)
class Called:
    """An event of the utility, as far as it can be followed."""

    event_id: str
    modified: str
    starts_at_ns: int
    ends_at_ns: int
    steps: tuple[tuple[int, float], ...]
    """When each interval begins and its value, positive towards the grid. [W]"""
    is_absolute: bool
    """Whether values are power itself, rather than a change of it."""
    interval_ids: tuple[int, ...]

    @property
    def key(self) -> str:
        """Return what the order of this event, as it was last modified, is known by."""
        return f"{KEY}{self.event_id}:{self.modified}"


class Ask(NamedTuple):
    """An order as it should be."""

    starts_at_ns: int
    ends_at_ns: int
    steps: tuple[tuple[int, float], ...]
    """When each part begins and by how much power changes, positive towards the grid. [W]"""


class Given(NamedTuple):
    """An order that was given for an event."""

    order_no: int
    key: str
    ask: Ask
    baseline_w: float
    """NaN before it began. [W]"""
    committed_w: float
    state: str
    """pending, active, completed, cancelled or declined."""
    is_open: bool
    reason: str
    amended_at_ns: int
    """0 where it is as it was given."""


class Place(NamedTuple):
    """Give an order."""

    called: Called
    ask: Ask


class Change(NamedTuple):
    """Change an order to what its event says now."""

    order_no: int
    called: Called
    ask: Ask


class End(NamedTuple):
    """End an order: its event has gone."""

    order_no: int


class Refuse(NamedTuple):
    """Follow an event not."""

    called: Called
    reason: str


Step = Place | Change | End | Refuse


def call(raw: bytes, targets: frozenset[str]) -> Called | str:
    """Return an event that can be followed, or why it is not; empty where it is not for us.

    Args:
        raw: The event, as JSON.
        targets: Whom we answer to; empty: whoever the utility shows it to.
    """
    try:
        event = msgspec.json.decode(raw, type=Event)
        meta = msgspec.json.decode(raw, type=_Meta)
    except (msgspec.MsgspecError, RecursionError) as error:
        return f"event: {error}"
    if not moment_ns(meta.modification_date_time):
        return "modificationDateTime: is no time"
    meant = event.targets if isinstance(event.targets, list) else []
    if targets and meant and targets.isdisjoint(meant):
        return ""
    intervals = event.intervals if isinstance(event.intervals, list) else []
    kinds = {p.type for one in intervals for p in one.payloads if p.type in (RELATIVE, ABSOLUTE)}
    if not kinds:
        # Prices, alerts and levels are not ours to turn into power.
        return ""
    if len(kinds) > 1:
        return "payloads: both relative and absolute setpoints; send one kind"
    if len(intervals) > _INTERVALS_MAX:
        return f"intervals: more than {_INTERVALS_MAX}; send several events"
    kind = kinds.pop()
    factor = _factor(event, kind)
    if factor is None:
        return f"units: {kind} in none of {', '.join(_W)}; mend payloadDescriptors"
    return _called(meta, event.interval_period, intervals, kind, factor)


def _called(
    meta: _Meta,
    period: IntervalPeriod | UnsetType,
    intervals: Sequence[Interval],
    kind: str,
    factor: float,
) -> Called | str:
    steps: list[tuple[int, float]] = []
    next_ns: int | None = None
    for row, one in enumerate(intervals):
        begins_ns, length_s = _window(one.interval_period, period, next_ns)
        if begins_ns is None or not 1 <= length_s <= 1e8:
            return f"intervals/{row}: no start and length; give intervalPeriod"
        if next_ns is not None and abs(begins_ns - next_ns) > _APART_NS:
            return f"intervals/{row}: does not begin where the one before ends"
        values = [p.values for p in one.payloads if p.type == kind]
        value = values[0][0] if len(values) == 1 and len(values[0]) == 1 else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"intervals/{row}: {kind} is not one number"
        if not abs(float(value)) * factor < 1e12:
            return f"intervals/{row}: {kind} is beyond any plant"
        steps.append((begins_ns, -float(value) * factor + 0.0))
        next_ns = begins_ns + int(length_s * NS_PER_S)
    assert next_ns is not None
    return Called(
        event_id=meta.id,
        modified=meta.modification_date_time,
        starts_at_ns=steps[0][0],
        ends_at_ns=next_ns,
        steps=tuple(steps),
        is_absolute=kind == ABSOLUTE,
        interval_ids=tuple(one.id for one in intervals),
    )


def _window(
    own: IntervalPeriod | UnsetType, default: IntervalPeriod | UnsetType, next_ns: int | None
) -> tuple[int | None, float]:
    """Return when an interval begins, where that is said or follows, and its length. [s]"""
    given = [one for one in (own, default) if not isinstance(one, UnsetType)]
    lengths = [one.duration for one in given if isinstance(one.duration, str)]
    length_s = duration_s(lengths[0]) if lengths else math.nan
    starts = [one.start for one in given if isinstance(one.start, str)]
    is_own = not isinstance(own, UnsetType) and isinstance(own.start, str)
    if next_ns is not None and not is_own:
        return next_ns, length_s
    # A start that means "now" begins anew with every look: nobody could say when it ended.
    return (moment_ns(starts[0]) or None) if starts else None, length_s


def _factor(event: Event, kind: str) -> float | None:
    described = event.payload_descriptors if isinstance(event.payload_descriptors, list) else []
    units = next((one.units for one in described if one.payload_type == kind), None)
    return _W.get(units.upper() if isinstance(units, str) else "KW")


def ask(called: Called, now_ns: int, base_w: float) -> Ask | None:
    """Return the order an event asks for from now on; None where nothing is left of it.

    Args:
        called: The event.
        now_ns: What lies before is left out.
        base_w: What absolute values are changes from.
    """
    starts_at_ns = max(called.starts_at_ns, now_ns)
    if called.ends_at_ns - starts_at_ns < NS_PER_S:
        return None
    shift_w = base_w if called.is_absolute else 0.0
    steps = [(at_ns, value_w - shift_w) for at_ns, value_w in called.steps]
    begun = [step for step in steps if step[0] <= starts_at_ns]
    later = [step for step in steps if step[0] > starts_at_ns]
    # An interval of which less than a second is left is the next one's.
    if later and later[0][0] - starts_at_ns < NS_PER_S:
        begun, later = [later[0]], later[1:]
    return Ask(starts_at_ns, called.ends_at_ns, ((starts_at_ns, begun[-1][1]), *later))


def plan(
    called: Sequence[Called],
    given: Sequence[Given],
    *,
    now_ns: int,
    power_w: float,
    power_w_max: float,
    done: Mapping[str, str],
    is_complete: bool,
) -> list[Step]:
    """Return what must be done so that orders are what the events ask.

    Args:
        called: The events there are.
        given: The orders that were given for events.
        now_ns: The time.
        power_w: Power of the resource, for absolute setpoints; NaN where it is not known. [W]
        power_w_max: No larger change is asked for; 0: no bound. [W]
        done: Modification by event that needs nothing more: it was followed, or refused.
        is_complete: Whether these are all events: only then one that is missing has gone.
    """
    steps: list[Step] = []
    orders: dict[str, list[Given]] = {}
    for one in given:
        orders.setdefault(event_of(one.key), []).append(one)
    for event in called:
        mine = orders.pop(event.event_id, [])
        if done.get(event.event_id) == event.modified:
            continue
        steps += _step(event, mine, now_ns, power_w, power_w_max)
    if is_complete:
        steps += [End(one.order_no) for mine in orders.values() for one in mine if one.is_open]
    return steps


def _step(
    event: Called, mine: Sequence[Given], now_ns: int, power_w: float, power_w_max: float
) -> list[Step]:
    modified_ns = moment_ns(event.modified) or 0
    if any(one.key == event.key or one.amended_at_ns >= modified_ns for one in mine):
        # It was followed. Whether it is over, or goes on as an operator wants it, is not ours.
        return []
    current = next((one for one in mine if one.is_open), None)
    if event.is_absolute and event.starts_at_ns > now_ns + NS_PER_S:
        # A change from what power will be then is not known now.
        return []
    base_w = power_w if current is None or math.isnan(current.baseline_w) else current.baseline_w
    if event.is_absolute and math.isnan(base_w):
        return []
    wanted = ask(event, now_ns, base_w)
    if wanted is None:
        return [] if current is None else [End(current.order_no)]
    largest_w = max(abs(target_w) for _, target_w in wanted.steps)
    if 0 < power_w_max < largest_w:
        refused = Refuse(event, f"asks for {power(largest_w)}, more than power_max_w")
        return [refused] if current is None else [End(current.order_no), refused]
    if current is None:
        return [Place(event, wanted)]
    return [Change(current.order_no, event, wanted)]


def event_of(key: str) -> str:
    """Return the event whose order bears a key."""
    return key.removeprefix(KEY).partition(":")[0]


def report(
    called: Called,
    order: Given | None,
    *,
    now_ns: int,
    power_w: float,
    names: tuple[str, str],
) -> Report:
    """Return what became of an event. All of it is derived: estimates, not one meter's word.

    Args:
        called: The event.
        order: Its order, None where it was refused or is still to come.
        now_ns: The time.
        power_w: Power of the resource; NaN where it is not known. [W]
        names: Of the client, and of the resource.
    """
    payloads = [ValuesMap(type="OPERATING_STATE", values=[_state(order)])]
    if order is not None and order.is_open:
        payloads.append(ValuesMap(type="SETPOINT", values=[-order.committed_w / 1e3 + 0.0]))
    if not math.isnan(power_w):
        name, value_w = ("DEMAND", -power_w) if power_w <= 0 else (EXPORT_DEMAND, power_w)
        payloads.append(ValuesMap(type=name, values=[value_w / 1e3 + 0.0]))
    begun = [row for row, step in enumerate(called.steps) if step[0] <= now_ns]
    interval = Interval(id=called.interval_ids[begun[-1] if begun else 0], payloads=payloads)
    described = [
        ReportDescriptor(payload_type=name, units="KW", reading_type="ESTIMATED")
        for name in ("SETPOINT", "DEMAND", EXPORT_DEMAND)
    ]
    return Report(
        event_id=called.event_id,
        client_name=names[0],
        report_name="kapelle",
        payload_descriptors=described,
        resources=[ReportResource(resource_name=names[1], intervals=[interval])],
    )


def _state(order: Given | None) -> str:
    match order.state if order is not None else "refused":
        case "active":
            assert order is not None
            return "RUNNING_HEIGHTENED" if order.committed_w < 0 else "RUNNING_CURTAILED"
        case "pending" | "completed":
            return "NORMAL"
        case _:
            return "RUNNING_OPTED_OUT"
