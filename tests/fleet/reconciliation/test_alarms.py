"""One notice per episode, none for what was over at once, one for a flood; also over restarts."""

import asyncio

import numpy as np
import pytest
from fleet_worlds import DEVICES, enrolled, fleet_of, s, say, sessions, tick
from hypothesis import given
from hypothesis import strategies as st
from test_owner import Plant, play, run_for

from kapelle.fleet.columns import Fleet
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.reconciliation.alarms import CLEARED, RAISED, AlarmSettings, step_alarms
from kapelle.fleet.reconciliation.conditions import mark
from kapelle.journal.memory import MemoryJournal
from kapelle.model.entries import KIND_OF, Entry, Kind
from kapelle.model.enums import Condition, SessionEvent
from kapelle.model.ids import PLANT
from kapelle.model.plant import Notice

BITS = list(Condition)


def step(fleet: Fleet, at_s: float, by_s: float = 1.0) -> list[Notice]:
    before_ns = fleet.now_ns
    fleet.now_ns = s(at_s)
    return step_alarms(fleet, before_ns or s(at_s - by_s))


def put(fleet: Fleet, rows: list[int], bit: Condition, raised: bool = True) -> None:
    mark(fleet, np.array(rows, np.intp), bit, np.full(len(rows), raised))


def test_an_episode_is_told_at_the_window_and_its_end_after_a_while() -> None:
    fleet = fleet_of(2)
    fleet.now_ns = s(1)
    put(fleet, [1], Condition.FROZEN)
    told = [n for at in range(2, 1000) for n in step(fleet, at)]
    assert [(n.code, n.at_ns, n.device_no) for n in told] == [(RAISED, s(30), 1)]
    put(fleet, [1], Condition.FROZEN, False)
    told = [n for at in range(1000, 2000) for n in step(fleet, at)]
    assert [(n.code, n.at_ns) for n in told] == [(CLEARED, s(1620))]
    assert "device 1: no longer" in told[0].text


def test_what_comes_and_goes_is_one_episode_or_none() -> None:
    fleet = fleet_of(2)
    told: list[Notice] = []
    for at in range(1, 7200):
        # Every four seconds, there for one: seldom at a window's edge, and never gone for long.
        fleet.now_ns = max(fleet.now_ns, s(at - 1))
        put(fleet, [0], Condition.DEAF, at % 4 == 0)
        told += step(fleet, at)
    assert [n.code for n in told] == [RAISED]
    fleet = fleet_of(2)
    fleet.now_ns = s(1)
    put(fleet, [0], Condition.DEAF)
    put(fleet, [0], Condition.DEAF, False)
    assert not [n for at in range(2, 2000) for n in step(fleet, at)]


@pytest.mark.parametrize("devices", [1, 3, 4, 5, 200])
def test_a_flood_is_one_notice_with_a_count(devices: int) -> None:
    fleet = fleet_of(300, vendor=(b"acme",) * 300)
    fleet.now_ns = s(1)
    put(fleet, list(range(devices)), Condition.UNIT_WRONG)
    told = [n for at in range(2, 100) for n in step(fleet, at)]
    assert sum(n.devices for n in told) == devices
    assert len(told) == (devices if devices <= 3 else 1)
    if devices >= 5:
        assert told[0].text.startswith(f"{devices} devices of vendor acme: power is off")


def test_whatever_is_wrong_few_notices_tell_it() -> None:
    draw = np.random.default_rng(1)
    named = tuple(b"v%d" % n for n in draw.integers(0, 40, 2000))
    fleet = fleet_of(2000, vendor=named, feeder=named[::-1])
    fleet.now_ns = s(1)
    for bit in BITS:
        put(fleet, np.flatnonzero(draw.random(2000) < 0.5).tolist(), bit)
    told = step(fleet, 30)
    assert len(told) <= 7 * len(BITS)
    assert sum(n.devices for n in told) == sum(
        int(np.count_nonzero(fleet.condition & np.uint16(bit))) for bit in BITS
    )


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(BITS), st.booleans()), max_size=40))
def test_every_episode_is_told_once_and_ends_once(
    changes: list[tuple[int, Condition, bool]],
) -> None:
    """Against a slow, obvious one: per device and condition, raised and cleared take turns."""
    fleet = fleet_of()
    fleet.now_ns = s(1)
    settings = AlarmSettings(group_min=100, singles_max=100)
    told: dict[tuple[int, str], list[str]] = {}
    for number, (row, bit, raised) in enumerate(changes):
        put(fleet, [row], bit, raised)
        for at in (61 * number + 31, 61 * number + 61):
            before_ns, fleet.now_ns = fleet.now_ns, s(at)
            for notice in step_alarms(fleet, before_ns, settings):
                what = notice.text.removeprefix(f"device {notice.device_no}: ")
                key = notice.device_no, what.removeprefix("no longer: ")
                told.setdefault(key, []).append(notice.code)
    for codes in told.values():
        assert codes == [RAISED, CLEARED] * (len(codes) // 2) + [RAISED] * (len(codes) % 2)
    condition, announced = fleet.condition[:DEVICES], fleet.announced[:DEVICES]
    assert (condition & ~announced == 0).all()
    assert sum(len(codes) % 2 for codes in told.values()) == sum(
        map(int.bit_count, announced.tolist())
    )


def test_partitions_tell_of_their_own_and_the_plant_hears_one_notice() -> None:
    view, position = PlantView(3), 0
    for partition, count in enumerate((6, 9, 5)):
        fleet = fleet_of(60, partition, 3, vendor=(b"acme",) * 20)
        fleet.now_ns = s(1)
        put(fleet, list(range(count)), Condition.FROZEN)
        for notice in step(fleet, 30):
            position += 1
            entry = Entry(PLANT, position, KIND_OF[Notice], "", 0, 0, notice)
            apply_plant(view, entry)
    (notice,) = view.notices
    assert notice.devices == 20
    assert notice.text == "20 devices of vendor acme: the meter repeats one value"


def test_what_dispatch_tells_of_a_group_twice_at_once_stays_two_notices() -> None:
    view = PlantView(2)
    both = [
        Notice(s(30), "cap-beyond", f"feeder f-1 is beyond its {way} limit", group="feeder/f-1")
        for way in ("export", "import")
    ]
    for position, notice in enumerate(both, 1):
        apply_plant(view, Entry(PLANT, position, KIND_OF[Notice], "", 0, 0, notice))
    assert list(view.notices) == both


async def _flap(plant: Plant) -> None:
    await plant.say(enrolled(range(4)), writer="registry")
    for number in range(1, 5):
        told = sessions((0, SessionEvent.UP, number), (0, SessionEvent.DOWN, number))
        await plant.say(told)


async def _notices(journal: MemoryJournal) -> list[Notice]:
    return [e.body for e in await journal.read(PLANT, 0, 1_000_000, {Kind.NOTICE})]


@pytest.mark.parametrize("killed_s", [28.5, 29.5, 30.5, 31.5, 40.5])
@pytest.mark.parametrize("unheard", [False, True])
def test_an_alarm_is_told_exactly_once_over_a_crash(killed_s: float, unheard: bool) -> None:
    """Killed before, at and after the window; or after the tick and before its sum is written."""

    async def nothing(*_: object) -> None: ...

    async def story(plant: Plant) -> None:
        await _flap(plant)
        killed = plant.owner("one")
        killed._stop = nothing
        sum_up = killed._sum_up

        async def until_the_last() -> None:
            if plant.clock.now_ns() < s(killed_s - 1.0):
                await sum_up()

        if unheard:
            killed._sum_up = until_the_last
        await run_for(killed_s, killed)
        await asyncio.sleep(5.0)
        after = plant.owner("two")
        await run_for(60.5, after)
        told = await _notices(plant.journal)
        assert [(n.code, n.device_no) for n in told] == [(RAISED, 0)]
        again = plant.owner("three")
        await run_for(10.5, again)
        assert len(await _notices(plant.journal)) == 1

    play(story)


def test_the_fold_tells_a_notice_at_its_tick_alone() -> None:
    fleet = fleet_of(1)
    tick(fleet, 1.0)
    say(fleet, sessions(*[(0, e, n) for n in range(1, 5) for e in (1, 2)], at_s=0.0))
    tick(fleet, 29.0)
    assert fleet.notices == []
    tick(fleet, 30.0)
    assert [n.code for n in fleet.notices] == [RAISED]
    tick(fleet, 31.0)
    assert fleet.notices == []
