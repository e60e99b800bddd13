"""What an operator should be told: targets out of reach, caps not kept, silent partitions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from kapelle.dispatch.caps.binding import beyond_words
from kapelle.dispatch.caps.cells import beyond, told_by
from kapelle.dispatch.outages import Group, heard, words
from kapelle.dispatch.promise import parts_of
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.plant import Aggregate, PlantView
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.orders import Order
from kapelle.model.plant import Notice
from kapelle.words import counted, power

_BEYOND = 0.02
"""Own schedules wander about a limit: beyond it by this part of it is worth a word."""
_MUCH_WORSE = 1.5
"""A shortfall so many times the one announced is announced at once …"""
_WORSE = 0.05
"""… and one that has grown by this part of the commitment, as exact as sizes are promised, …"""
_WORSE_AFTER_S = 5.0
"""… once the last word is so old: devices fall overdue one by one. [s]"""
_OVER_AFTER_S = 5.0
"""What was missing has to be there for so long before it is said to be. [s]"""


@dataclass(slots=True)
class Shortfall:
    """How long one order has been out of reach."""

    since_ns: int = 0
    said_w: float = 0.0
    """Size of the shortfall as announced; 0 where none is. [W]"""
    said_at_ns: int = 0
    named: frozenset[str] = frozenset()
    """Groups whose loss was given as its cause."""
    met_since_ns: int = 0
    """Since when it is met again although a shortfall is announced; 0 where it is not."""


class Miss(Enum):
    """In which way an order misses its target, and why where no device is left out."""

    OUT_OF_REACH = "misses {}", "every device follows, and is at its limit or on its way there"
    TO_COME = "will miss {} as timers of silent devices end", "all others are at their limits then"
    NOT_FOLLOWED = "misses {} although they are in reach", "devices do other than they are asked"


@dataclass(frozen=True, slots=True)
class Cause:
    """What keeps an order from its target."""

    miss: Miss
    text: str
    """What keeps devices from being counted on."""
    groups: frozenset[str]
    """Groups with devices in the resource that are lost."""


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
    cause: Cause,
    now_ns: int,
    settings: DispatchSettings,
) -> list[Notice]:
    """Return a notice when an order is out of reach, worsens, gets its cause, or is back.

    It is out of reach when it has been so for a while, or at once with the loss of a group. Each
    group is such news once in an order's life, so that none says more than its groups and its
    growth make.
    """
    said = watch.shortfalls.setdefault(order.order_no, Shortfall())
    most_w = accepted_w(order, committed_w)
    if abs(short_w) <= most_w:
        said.since_ns = 0
        # What could be made up for is no news when the order is out of reach for other reasons.
        said.named |= cause.groups
        if said.said_w == 0.0 or abs(short_w) > 0.5 * most_w:
            said.met_since_ns = 0
            return []
        said.met_since_ns = said.met_since_ns or now_ns
        if now_ns - said.met_since_ns < int(_OVER_AFTER_S * NS_PER_S):
            return []
        said.said_w, said.met_since_ns = 0.0, 0
        text = f"order {order.order_no} can be met again"
        return [Notice(now_ns, "shortfall-over", text, order.order_no)]
    said.since_ns, said.met_since_ns = said.since_ns or now_ns, 0
    is_named = cause.groups <= said.named
    if is_named and now_ns - said.since_ns < int(settings.shortfall_after_s * NS_PER_S):
        return []
    if is_named and said.said_w != 0.0 and not _is_worse(said, short_w, committed_w, now_ns):
        return []
    said.said_w, said.said_at_ns, said.named = short_w, now_ns, said.named | cause.groups
    size = f"{power(abs(short_w))} of {power(abs(committed_w))}"
    what, _ = cause.miss.value
    text = f"order {order.order_no} {what.format(size)}: {cause.text}"
    return [Notice(now_ns, "shortfall", text, order.order_no, short_w)]


def accepted_w(order: Order, committed_w: float) -> float:
    """Return how much may be missing of a promise before it is worth a word. [W]"""
    return max(order.tolerance * abs(committed_w), 1.0)


def _is_worse(said: Shortfall, short_w: float, committed_w: float, now_ns: int) -> bool:
    """Tell whether a shortfall has grown so much since it was announced that it is news."""
    if abs(short_w) >= _MUCH_WORSE * abs(said.said_w):
        return True
    is_old = now_ns - said.said_at_ns >= int(_WORSE_AFTER_S * NS_PER_S)
    return is_old and abs(short_w) >= abs(said.said_w) + _WORSE * abs(committed_w)


def cause_of(watch: Watch, known: Aggregate, miss: Miss) -> Cause:
    """Name what keeps devices from being counted on, common outages first."""
    groups = heard(known)
    lost = [name for name, group in sorted(watch.groups.items()) if group.is_lost]
    lost = [name for name in lost if name in groups]
    said = [f"{words(name)} is lost ({counted(groups[name][0], 'device')})" for name in lost]
    said += [f"{counted(count, 'device')} {why}" for why, count in sorted(known.excluded.items())]
    _, otherwise = miss.value
    if not known.devices:
        otherwise = "its resource has no devices"
    elif miss is Miss.NOT_FOLLOWED and said:
        # Those were made up for: they are not all of it.
        said.insert(0, otherwise)
    return Cause(miss, ", ".join(said) or otherwise, frozenset(lost))
