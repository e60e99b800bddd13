"""Gives devices their numbers: dense in every partition, and a site never split.

`device_no = row * partitions + partition`. A number is never given twice; the row of a device
that was removed stays empty.
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

NEW = -1


class Wanted(NamedTuple):
    """A device that is about to be written, at a site."""

    device_id: str
    site: str
    device_no: int
    """`NEW` where it has none yet."""


@dataclass(slots=True)
class Numbered:
    """What `number` decided."""

    device_nos: list[int]
    """As long as what was wanted; of no use where anything was refused."""
    sites: dict[str, int] = field(default_factory=dict)
    """Partition of each site that had none."""
    next_row: list[int] = field(default_factory=list)
    refused: list[tuple[int, int, int]] = field(default_factory=list)
    """Place in `wanted`, the device's partition, the partition of the site it should go to."""


def number(
    wanted: Sequence[Wanted], next_row: Sequence[int], site_partition: Mapping[str, int]
) -> Numbered:
    """Number new devices and place new sites; the same input gives the same numbers.

    A new site goes where its devices are; without any, to the partition with the fewest devices
    (counting those that left: their rows are still walked), the lowest of equals.

    A device never leaves its partition: its number is its identity in the journal, and a device
    that obeys only the highest epoch it has seen would be deaf to a partition that has counted
    less far. Moving it to a site of another partition is refused.
    """
    partitions = len(next_row)
    result = Numbered([one.device_no for one in wanted], next_row=list(next_row))
    place_of = dict(site_partition)

    for place, one in enumerate(wanted):
        if one.device_no == NEW:
            continue
        home = one.device_no % partitions
        if one.site not in place_of:
            place_of[one.site] = result.sites[one.site] = home
        elif place_of[one.site] != home:
            result.refused.append((place, home, place_of[one.site]))

    sizes = Counter(one.site for one in wanted if one.device_no == NEW)
    load = list(next_row)
    for site, size in sizes.items():
        if site in place_of:
            load[place_of[site]] += size
    heap = [(devices, partition) for partition, devices in enumerate(load)]
    heapq.heapify(heap)
    for site, size in sizes.items():
        if site not in place_of:
            devices, partition = heapq.heappop(heap)
            place_of[site] = result.sites[site] = partition
            heapq.heappush(heap, (devices + size, partition))

    for place, one in enumerate(wanted):
        if one.device_no == NEW:
            partition = place_of[one.site]
            result.device_nos[place] = result.next_row[partition] * partitions + partition
            result.next_row[partition] += 1
    return result
