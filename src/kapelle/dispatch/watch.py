"""What an operator should be told: targets out of reach, groups that vanish, and their return."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kapelle.dispatch.caps.binding import beyond_words
from kapelle.dispatch.caps.cells import beyond, told_by
from kapelle.dispatch.promise import parts_of
from kapelle.dispatch.settings import DispatchSettings
from kapelle.dispatch.words import power
from kapelle.fleet.plant import Aggregate, PlantView
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.orders import Order
from kapelle.model.plant import Notice

_LOST_BELOW = 0.5
_BACK_ABOVE = 0.8
_BEYOND = 0.02
"""Own schedules wander about a limit: beyond it by this part of it is worth a word."""
_FADING = 0.01
"""How fast, per cycle, the usual number of live devices follows a slow decline."""


@dataclass(slots=True)
class Group:
    """One vendor's live devices over time."""

    usual: float = 0.0
    is_lost: bool = False


@dataclass(slots=True)
class Shortfall:
    """How long one order has been out of reach."""

    since_ns: int = 0
    said_w: float = 0.0
    """Size of the shortfall as announced; 0 where none is. [W]"""


@dataclass(slots=True)
class Watch:
    """What was announced and has not ended."""

    groups: dict[str, Group] = field(default_factory=dict)
    shortfalls: dict[int, Shortfall] = field(default_factory=dict)
    unheard_since_ns: int = 0
    """Since when orders wait for partitions that have not spoken; 0 where none does."""
    unheard_said: bool = False
    beyond: set[str] = field(default_factory=set)
    """Groups that are beyond their cap on their own schedules, `export feeder/f-12`."""


def step_caps(watch: Watch, view: PlantView, now_ns: int) -> list[Notice]:
    """Return notices of groups that are beyond their cap without any order, or are so no more."""
    told = told_by(parts_of(view, ALL))
    if not told and not watch.beyond:
        return []
    found = {
        f"{cap.direction} {cap.group}": (cap, over_w)
        for sign in (1, -1)
        for cap, over_w in beyond(told, sign)
    }
    notices = []
    for key, (cap, over_w) in sorted(found.items()):
        if key not in watch.beyond and over_w > _BEYOND * cap.cap_w:
            watch.beyond.add(key)
            text = beyond_words(cap, over_w)
            notices.append(Notice(now_ns, "cap-beyond", text, power_w=over_w, group=cap.group))
    for key in sorted(watch.beyond - set(found)):
        watch.beyond.discard(key)
        direction, _, group = key.partition(" ")
        level, _, name = group.partition("/")
        text = f"{level} {name} keeps its {direction} limit again"
        notices.append(Notice(now_ns, "cap-kept", text, group=group))
    return notices


def step_groups(
    watch: Watch, plant: Aggregate, now_ns: int, settings: DispatchSettings
) -> list[Notice]:
    """Return notices of vendors whose live share broke down within seconds, or is back."""
    notices: list[Notice] = []
    for vendor, (devices, live) in sorted(plant.vendors.items()):
        group = watch.groups.setdefault(vendor, Group())
        if group.is_lost:
            if live >= _BACK_ABOVE * group.usual:
                group.is_lost = False
                text = f"vendor {vendor}: {live} of {devices} devices are heard again"
                notices.append(Notice(now_ns, "group-back", text))
            continue
        if devices >= settings.group_devices_min and live < _LOST_BELOW * group.usual:
            group.is_lost = True
            text = f"vendor {vendor}: {live} of {devices} devices are heard, {group.usual:.0f} were"
            notices.append(Notice(now_ns, "group-lost", text))
            continue
        group.usual = max(float(live), group.usual - _FADING * (group.usual - live))
    return notices


def step_partitions(
    watch: Watch, silent: Sequence[int], waits: bool, now_ns: int, settings: DispatchSettings
) -> list[Notice]:
    """Return a notice when an order waits long for partitions that are silent, or has not to.

    Args:
        watch: What was announced.
        silent: The partitions that have not spoken since dispatch began.
        waits: Whether any order waits for them.
        now_ns: The time.
        settings: How long is long.
    """
    if not (silent and waits):
        is_over = watch.unheard_said and not silent
        watch.unheard_since_ns, watch.unheard_said = 0, False
        text = "every partition is heard: orders are driven again"
        return [Notice(now_ns, "partitions-back", text)] if is_over else []
    watch.unheard_since_ns = watch.unheard_since_ns or now_ns
    waited_ns = now_ns - watch.unheard_since_ns
    if watch.unheard_said or waited_ns < int(settings.summary_age_s_max * NS_PER_S):
        return []
    watch.unheard_said = True
    text = f"partitions {list(silent)} have not spoken: orders go on with their last word, if any"
    return [Notice(now_ns, "partitions-silent", text)]


def step_shortfall(
    watch: Watch,
    order: Order,
    short_w: float,
    committed_w: float,
    cause: str,
    now_ns: int,
    settings: DispatchSettings,
) -> list[Notice]:
    """Return a notice when an order has been out of reach for a while, worsens, or is back."""
    said = watch.shortfalls.setdefault(order.order_no, Shortfall())
    accepted_w = max(order.tolerance * abs(committed_w), 1.0)
    if abs(short_w) <= accepted_w:
        said.since_ns = 0
        if said.said_w == 0.0 or abs(short_w) > 0.5 * accepted_w:
            return []
        said.said_w = 0.0
        text = f"order {order.order_no} can be met again"
        return [Notice(now_ns, "shortfall-over", text, order.order_no)]
    said.since_ns = said.since_ns or now_ns
    if now_ns - said.since_ns < int(settings.shortfall_after_s * NS_PER_S):
        return []
    if said.said_w != 0.0 and abs(short_w) < 1.5 * abs(said.said_w):
        return []
    said.said_w = short_w
    size = f"{power(abs(short_w))} of {power(abs(committed_w))}"
    text = f"order {order.order_no} misses {size}: {cause}"
    return [Notice(now_ns, "shortfall", text, order.order_no, short_w)]


def cause_of(watch: Watch, known: Aggregate) -> str:
    """Name what keeps devices from being counted on, common outages first."""
    lost = [
        f"vendor {vendor} is lost ({known.vendors[vendor][1]} of {known.vendors[vendor][0]} heard)"
        for vendor, group in sorted(watch.groups.items())
        if group.is_lost and vendor in known.vendors
    ]
    reasons = [f"{count:,} devices {why}" for why, count in sorted(known.excluded.items())]
    return ", ".join(lost + reasons) or "every device is at its limit"
