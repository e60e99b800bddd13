"""S-21: in a randomised order each device begins and ends at a moment of its own, evenly spread."""

import numpy as np
import pytest

from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.plant import total
from kapelle.fleet.stages import place, step_stages
from kapelle.model.blocks import Enrolled
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Tick
from kapelle.model.signals import Signal

DEVICES = 10_000
WINDOW_S = 600
LENGTH_S = 3600
START_NS = 1_800_000_000 * NS_PER_S
EACH_W = 4e3
KOLMOGOROV_1_PERCENT = 1.628
"""Critical value of sqrt(n) · D for large n (Kolmogorov, 1933)."""


def apart(values: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov statistic against the uniform distribution on [0, 1]."""
    ordered, count = np.sort(values), len(values)
    above = np.arange(1, count + 1) / count - ordered
    below = ordered - np.arange(count) / count
    return float(max(above.max(), below.max()))


def enrolled(count: int) -> Enrolled:
    blank = (b"",) * count
    return Enrolled(
        device_no=np.arange(count, dtype=np.int32),
        active=np.ones(count, np.uint8),
        kind=np.zeros(count, np.uint8),
        device_id=tuple(b"d%d" % n for n in range(count)),
        site=blank,
        vendor=blank,
        model=blank,
        zone=blank,
        feeder=blank,
        provider=blank,
        adapter=blank,
        address=blank,
        nameplate_up_w=np.full(count, EACH_W),
        nameplate_down_w=np.full(count, EACH_W),
        energy_wh=np.full(count, np.nan),
        reserve_soc=np.zeros(count),
        ramp_w_per_s=np.full(count, np.nan),
        revert_s=np.full(count, 120.0),
        report_every_s=np.full(count, 4.0),
    )


def taking_part(order_no: int) -> np.ndarray:
    """Play an order of an hour and return who takes part, shape (ticks, devices)."""
    fleet, position = Fleet.empty(0, 1), 0

    def say(body: Body) -> None:
        nonlocal position
        position += 1
        apply_entry(fleet, Entry("p/0", position, KIND_OF[type(body)], "test", 1, 0, body))

    say(enrolled(DEVICES))
    say(Tick(START_NS))
    ends_ns = START_NS + LENGTH_S * NS_PER_S
    say(Signal("all", order_no, 1.0, 0.0, 1, ends_ns, rank=START_NS, randomise_s=float(WINDOW_S)))
    seen = np.zeros((LENGTH_S, DEVICES), np.bool_)
    for second in range(LENGTH_S):
        # As a tick does, without all it does besides.
        fleet.now_ns = START_NS + second * NS_PER_S
        step_stages(fleet)
        seen[second] = ~fleet.waits[:DEVICES]
    return seen


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    return taking_part(7)


def test_ten_thousand_devices_begin_and_end_evenly_over_the_window(seen: np.ndarray) -> None:
    begins_s, ends_s = seen.argmax(axis=0), LENGTH_S - seen[::-1].argmax(axis=0)
    assert begins_s.max() <= WINDOW_S
    assert ends_s.min() >= LENGTH_S - WINDOW_S
    # A moment is found out at the next second: half of one is taken off.
    limit = KOLMOGOROV_1_PERCENT / np.sqrt(DEVICES)
    assert apart((begins_s - 0.5) / WINDOW_S) < limit
    assert apart((ends_s - 0.5 - (LENGTH_S - WINDOW_S)) / WINDOW_S) < limit
    # Who begins early does not end early or late for it, nor does the next order know this one's.
    count = np.sqrt(DEVICES)
    assert abs(np.corrcoef(begins_s, ends_s)[0, 1]) < 3.3 / count
    every = np.arange(DEVICES, dtype=np.int32)
    assert abs(np.corrcoef(place(every, 7), place(every, 8))[0, 1]) < 3.3 / count


def test_no_moment_moves_much_more_than_even_spreading_would(seen: np.ndarray) -> None:
    """Of n devices a second takes n/window, and by chance no more than a few deviations beyond."""
    power_w = seen.sum(axis=1) * EACH_W
    even = DEVICES / WINDOW_S
    most_w = (even + 5.0 * np.sqrt(even)) * EACH_W
    assert np.abs(np.diff(power_w, prepend=0.0, append=0.0)).max() <= most_w
    minute_w = np.abs(power_w[60:] - power_w[:-60]).max()
    assert minute_w <= (60 * even + 5.0 * np.sqrt(60 * even)) * EACH_W
    assert power_w[WINDOW_S : LENGTH_S - WINDOW_S].min() == DEVICES * EACH_W


def test_the_place_of_a_device_is_even_whatever_its_number_and_order() -> None:
    for order_no in (1, 2, 1000, 1 << 30):
        for step in (1, 4, 64):
            devices = np.arange(0, DEVICES * step, step, dtype=np.int32)
            assert apart(place(devices, order_no)) < 1.95 / np.sqrt(DEVICES)


def test_the_plant_ramps_keeps_its_promise_between_and_ramps_back(make_box, make_faults) -> None:  # type: ignore[no-untyped-def]  # fixtures are classes of the conftest
    box = make_box(devices=300, partitions=1, seed=2, faults=make_faults(), mix=(1.0,))
    box.run(30.0)
    order = box.order(0.5 * total(box.view).headroom_up_w, 300.0, randomise_s=60.0)
    box.run(340.0)
    t, share = box.share()
    t = t - 30.0
    for at_s in (15, 30, 45):
        assert share[t == at_s][0] == pytest.approx(at_s / 60, abs=0.12)
        assert share[t == 300 - at_s][0] == pytest.approx(at_s / 60, abs=0.12)
    full = share[(t >= 80) & (t <= 238)]
    assert full.min() >= 0.97
    assert share.max() <= 1.03
    assert np.abs(share[t >= 307]).max() < 0.02
    plan = box.view.orders[order.order_no].plan
    assert plan is not None
    assert plan.rollout is not None
    complete_s = (plan.rollout.complete_at_ns - order.starts_at_ns) / NS_PER_S
    assert 60.0 <= complete_s <= 66.0
    assert [n.code for n in box.notices if n.code != "at-risk"] == []
