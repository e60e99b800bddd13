"""What is learned at plant level does not depend on which partition speaks first."""

from collections.abc import Iterable

import pytest

from kapelle.fleet.capacity.learned import Firmness, hear_reach
from kapelle.model.ids import NS_PER_S
from kapelle.model.summaries import Reach, Summary

TICKS_S = range(1_000_000, 1_000_080, 10)
HEARD = {0: [70, 70], 1: [30, 0]}
"""By partition: devices of the one vendor that were ever heard, and those heard now."""


def told(order: Iterable[tuple[int, int]]) -> Firmness:
    """Return what is learned where partitions tell of their ticks in this order."""
    firmness = Firmness()
    for at_s, partition in order:
        reach = Reach(heard={"acme": {0: list(map(float, HEARD[partition]))}}, trials={}, delays=[])
        hear_reach(firmness, Summary(partition, at_s * NS_PER_S, 0, [], reach=reach))
    return firmness


IN_STEP = [(at_s, partition) for at_s in TICKS_S for partition in HEARD]


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(IN_STEP, id="in step"),
        pytest.param(
            [(TICKS_S[0], 1)]
            + [row for at_s in TICKS_S[1:] for row in ((at_s, 1), (at_s - 10, 0))]
            + [(TICKS_S[-1], 0)],
            id="one always a tick behind",
        ),
        pytest.param(
            [*IN_STEP[:4], *[(at_s, p) for p in (1, 0) for at_s in TICKS_S[2:5]], *IN_STEP[10:]],
            id="one late for a while",
        ),
    ],
)
def test_a_partition_late_with_its_counts_is_no_outage(order: list[tuple[int, int]]) -> None:
    """Seven in ten of the vendor are there all along, all of them in the partition that is late."""
    record = told(order).outages.groups.get("vendor:acme")
    assert record is None or record.events == 0.0


def test_devices_that_fall_silent_everywhere_are_one() -> None:
    firmness = told(IN_STEP)
    for at_s in (1_000_080, 1_000_090):
        for partition, (known, _) in HEARD.items():
            reach = Reach(heard={"acme": {0: [known, 0.0]}}, trials={}, delays=[])
            hear_reach(firmness, Summary(partition, at_s * NS_PER_S, 0, [], reach=reach))
    assert firmness.outages.groups["vendor:acme"].events == 1.0
