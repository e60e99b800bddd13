"""Vendors and internet providers whose devices are lost together, and their return."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.plant import Aggregate, added
from kapelle.fleet.silence import SINCE_S, STRAGGLERS
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Notice
from kapelle.model.summaries import Silence

_LOST_BELOW = 0.5
_BACK_ABOVE = 0.8
_FADING = 0.01
"""How fast, per cycle, the usual number of live devices follows a slow decline."""
_OTHERS_HEARD = 0.7
"""So many of the others heard since a group's last word: it is not the plant that stalls. After a
stall all return in turn; that all of ten do so last is less likely than one in 100,000."""
_STALLED = 0.5
"""The plant itself may be stalled while fewer of the others than this are heard in their time."""
_WAKE = 0.5
"""After a stall nobody is missed who may only be the last to return: not before things have gone
well for this part of his silence."""


@dataclass(slots=True)
class Group:
    """The live devices over time of one vendor, or behind one internet provider."""

    stalled_at_ns: int
    """When so few of the others were in time that the plant itself may have been stalled."""
    usual: float = 0.0
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class _Others:
    """All devices but those of one group."""

    usual: float
    """How many of them are live as a rule; those of vendors that are lost are not among them."""
    silence: Silence


def step_groups(
    groups: dict[str, Group], plant: Aggregate, now_ns: int, settings: DispatchSettings
) -> list[Notice]:
    """Return notices of groups whose live share broke down within seconds, or is back.

    A group is lost when most of its devices are stale; or sooner, when most are late and hardly any
    was heard in its time, while the others were heard since its last word. Where the others are
    silent too, it is no group that is lost.

    Args:
        groups: What is known of each, by `vendor/NAME`, `provider/NAME`.
        plant: All devices, summed up.
        now_ns: The time.
        settings: How small a group is not worth a word.
    """
    notices: list[Notice] = []
    whole = _whole(plant.silences)
    usual = sum(g.usual for name, g in groups.items() if _is_vendor(name) and not g.is_lost)
    for name, (devices, live) in sorted(heard(plant).items()):
        group = groups.setdefault(name, Group(now_ns))
        silence = plant.silences.get(name, Silence())
        in_time = live - silence.late
        others = _Others(usual - group.usual, _without(whole, silence))
        is_compared = bool(whole.ages) and others.usual >= 1.0
        if is_compared and _in_time(others.silence) < _STALLED * others.usual:
            group.stalled_at_ns = now_ns
        if group.is_lost:
            if live >= _BACK_ABOVE * group.usual and in_time >= _LOST_BELOW * group.usual:
                group.is_lost = False
                text = f"{words(name)}: {live} of {devices} devices are heard again"
                notices.append(Notice(now_ns, "group-back", text))
            continue
        broke_down = live < _LOST_BELOW * group.usual
        if is_compared:
            broke_down |= in_time < _LOST_BELOW * group.usual and _fell_silent(
                group, silence, others
            )
            calm_s = (now_ns - group.stalled_at_ns) / NS_PER_S
            broke_down &= calm_s > _WAKE * SINCE_S[_place(silence, _LOST_BELOW * group.usual)]
        if broke_down and devices >= settings.group_devices_min:
            group.is_lost = True
            said = f"{in_time} of {devices} devices are heard in time, {group.usual:.0f} were"
            notices.append(Notice(now_ns, "group-lost", f"{words(name)}: {said}"))
            continue
        group.usual = max(float(live), group.usual - _FADING * (group.usual - live))
    return notices


def heard(known: Aggregate) -> dict[str, tuple[int, int]]:
    """Return of all groups in a resource: devices, and those live or late."""
    vendors = {f"vendor/{name}": counts for name, counts in known.vendors.items()}
    return vendors | {f"provider/{name}": counts for name, counts in known.providers.items()}


def words(group: str) -> str:
    """Return `vendor acme` for `vendor/acme`; devices may have been enrolled without one."""
    by, _, name = group.partition("/")
    return f"{by} {name}" if name else f"the group without a {by}"


def _fell_silent(group: Group, silence: Silence, others: _Others) -> bool:
    """Tell whether hardly any device was heard in its time, and the others since its last word."""
    few = STRAGGLERS * group.usual
    since = sum(others.silence.ages[: _place(silence, few)])
    return _in_time(silence) <= few and since >= _OTHERS_HEARD * others.usual


def _place(silence: Silence, devices: float) -> int:
    """Return the highest age, as a place in `SINCE_S`, below which no more than so many are."""
    place = sum(1 for count in accumulate(silence.ages) if count <= devices)
    return min(place, len(SINCE_S) - 1)


def _in_time(silence: Silence) -> int:
    return sum(silence.ages) - silence.due


def _is_vendor(group: str) -> bool:
    return group.startswith("vendor/")


def _whole(silences: Mapping[str, Silence]) -> Silence:
    """Return the silence of all devices: each has one vendor, be it a nameless one."""
    return _sum(each for name, each in silences.items() if _is_vendor(name))


def _sum(silences: Iterable[Silence]) -> Silence:
    whole = Silence()
    for each in silences:
        whole = added(whole, each)
    return whole


def _without(whole: Silence, part: Silence) -> Silence:
    ages = [a - b for a, b in zip(whole.ages, part.ages, strict=False)]
    return Silence(whole.late - part.late, whole.due - part.due, ages)
