"""What the plant has learned about promises: who follows, how fast, and what fails together.

Folded from the `Reach` of every partition, which only adds up; so the outcome does not depend on
how devices are spread over partitions.
"""

import msgspec

from kapelle.fleet.capacity.kept import Kept
from kapelle.fleet.capacity.outages import Outages, Place, group_names, learn_outages
from kapelle.fleet.capacity.responses import HOURS, SLOT_S, Responses, learn_responses
from kapelle.fleet.capacity.room import DELAYS, FEEDERS
from kapelle.model.ids import NS_PER_S
from kapelle.model.summaries import Reach, Room, Summary

_BREAK_S = 60.0
"""After a longer pause in the summaries what ran before is not gone on with. [s]"""
_DELAYS_KEEP = 0.999
_PROMPT = (0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0)
"""Part of the answers that come within each octave of delay, before any came …"""
_PROMPT_WEIGHT = 20.0
"""… and how many answers that is worth."""


class Firmness(msgspec.Struct):
    """All of it: part of the plant's state."""

    now_ns: int = 0
    pending_ns: int = 0
    pending: dict[int, Reach] = {}
    """What the partitions have told of the newest tick."""
    counted: dict[int, dict[str, list[int]]] = {}
    """By partition, the trials already taken in."""
    slot: int = 0
    """Number of the quarter of an hour under way."""
    trials: dict[str, list[float]] = {}
    """By `kind/vendor`: followed and not in it."""
    lost: list[str] = []
    """Vendors that were out during it."""
    outages: Outages = msgspec.field(default_factory=Outages)
    looked_ns: int = 0
    """The newest tick at which the whole plant was seen."""
    responses: Responses = msgspec.field(default_factory=Responses)
    delays: list[float] = []
    kept: Kept = msgspec.field(default_factory=Kept)
    """Whether promises were."""


Rooms = dict[int, dict[str, dict[float, Room]]]
"""By partition, resource and length of window: the newest that was told."""


def hear_rooms(rooms: Rooms, summary: Summary) -> None:
    """Keep what one partition says its resources can do; what it no longer has is forgotten."""
    mine = rooms.setdefault(summary.partition, {})
    present = {part.resource for part in summary.resources}
    for gone in [name for name in mine if name not in present]:
        del mine[gone]
    for part in summary.resources:
        if part.room is not None:
            mine.setdefault(part.resource, {})[part.room.window_s] = part.room


def hear_reach(firmness: Firmness, summary: Summary) -> None:
    """Take in one partition's counts; the tick before is learned from once a newer one begins.

    Counts of an older tick come too late to be compared with the others'. Nothing is lost with
    them: trials are counted from the beginning, and the partition's next telling has them all.
    """
    if summary.reach is None:
        return
    if summary.tick_ns > firmness.pending_ns:
        _learn(firmness)
        firmness.pending, firmness.pending_ns = {}, summary.tick_ns
    if summary.tick_ns == firmness.pending_ns:
        firmness.pending[summary.partition] = summary.reach


def _learn(firmness: Firmness) -> None:
    told = [reach for _, reach in sorted(firmness.pending.items())]
    if not told:
        return
    firmness.now_ns = firmness.pending_ns
    # Devices of a partition that is late with its counts are not silent.
    if firmness.counted.keys() <= firmness.pending.keys():
        dt_s = (firmness.now_ns - firmness.looked_ns) / NS_PER_S
        broken = firmness.looked_ns == 0 or dt_s > _BREAK_S
        firmness.looked_ns = firmness.now_ns
        by_net = through(told)
        learn_outages(firmness.outages, heard(told), dt_s, broken, FEEDERS, by_net)
    slot = firmness.now_ns // (SLOT_S * NS_PER_S)
    if slot != firmness.slot:
        _end_slot(firmness)
        firmness.slot = slot
    firmness.lost = sorted({*firmness.lost, *_vendors_out(firmness.outages)})
    for partition, reach in sorted(firmness.pending.items()):
        _count(firmness, partition, reach)
        if reach.delays:
            before = firmness.delays or [0.0] * DELAYS
            firmness.delays = [
                _DELAYS_KEEP * a + b for a, b in zip(before, reach.delays, strict=True)
            ]


def _vendors_out(outages: Outages) -> list[str]:
    return [
        name.removeprefix("vendor:")
        for name in sorted(outages.groups)
        if name.startswith("vendor:") and outages.down(name)
    ]


def _end_slot(firmness: Firmness) -> None:
    if firmness.trials:
        hour = firmness.slot * SLOT_S // 3600 % HOURS
        slot = {name: (max(x, 0), max(y, 0)) for name, (x, y) in sorted(firmness.trials.items())}
        learn_responses(firmness.responses, slot, set(firmness.lost), hour)
    firmness.trials, firmness.lost = {}, []


def _count(firmness: Firmness, partition: int, reach: Reach) -> None:
    before = firmness.counted.get(partition)
    firmness.counted[partition] = reach.trials
    if before is None:
        # Of what lies before we first heard of it nobody knows the hour.
        return
    for name, counts in reach.trials.items():
        was = before.get(name, [0, 0])
        if counts != was and sum(counts) >= sum(was):
            have = firmness.trials.setdefault(name, [0.0, 0.0])
            # A late answer takes a failure back, so that one of them may fall.
            have[0] += counts[0] - was[0]
            have[1] += counts[1] - was[1]


def heard(told: list[Reach]) -> dict[Place, tuple[float, float]]:
    """Return the sum over partitions by vendor, region and feeder group."""
    sums: dict[Place, tuple[float, float]] = {}
    for reach in told:
        for vendor, places in reach.heard.items():
            for at, (known, now) in places.items():
                place = (vendor, at // FEEDERS, at % FEEDERS)
                before = sums.get(place, (0.0, 0.0))
                sums[place] = (before[0] + known, before[1] + now)
    return sums


def through(told: list[Reach]) -> dict[tuple[str, int], tuple[float, float]]:
    """Return the sum over partitions by vendor and group of internet providers."""
    sums: dict[tuple[str, int], tuple[float, float]] = {}
    for reach in told:
        for vendor, nets in reach.providers.items():
            for net, (known, now) in nets.items():
                before = sums.get((vendor, net), (0.0, 0.0))
                sums[vendor, net] = (before[0] + known, before[1] + now)
    return sums


def groups_of(vendor: str, at: int) -> tuple[str, str, str]:
    """Return the names of the groups that devices of a vendor at a place belong to."""
    return group_names((vendor, at // FEEDERS, at % FEEDERS), FEEDERS)


def prompt_share(firmness: Firmness, notice_s: float) -> float:
    """Return the part of those who follow that do so within a notice; without one, all. [s]"""
    if notice_s <= 0:
        return 1.0
    delays = firmness.delays or [0.0] * DELAYS
    total = sum(delays)
    octave = max(min(int(notice_s).bit_length() - 1, DELAYS - 1), 0)
    within = sum(delays[: octave + 1])
    return (_PROMPT_WEIGHT * _PROMPT[octave] + within) / (_PROMPT_WEIGHT + total)
