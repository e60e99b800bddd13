"""What every journal promises whoever appends: positions, writers' lines, epochs, whole batches."""

import asyncio

import pytest
from tests.journal.conftest import check, follow_until, ticks, times

from kapelle.errors import JournalConflict
from kapelle.model.entries import Kind
from kapelle.model.plant import Tick


def test_appending_gives_positions_from_one_on_in_every_topic(backend):
    async def scenario(journal):
        assert await journal.last("p/0") == 0
        assert await journal.first("p/0") == 1
        assert await journal.append("p/0", ticks(1), writer="owner") == 1
        assert await journal.append("p/0", ticks(2, 3), writer="ingest") == 3
        assert await journal.append("plant", ticks(4), writer="owner") == 1
        assert await journal.last("p/0") == 3
        assert await journal.last("p/0", "owner") == 1
        assert await journal.last("p/0", "ingest") == 3
        assert await journal.last("p/0", "nobody") == 0
        assert await journal.last("p/9", "owner") == 0

    check(backend, scenario)


def test_an_entry_says_everything(backend, block_maker):
    async def scenario(journal):
        backend.clock.ns = 42
        block = block_maker(3)
        await journal.append("p/0", [block, Tick(7)], writer="ingest", epoch=5)
        first, second = await journal.read("p/0", 0, 10)
        assert (first.topic, first.position, first.kind) == ("p/0", 1, Kind.READINGS)
        assert (first.writer, first.epoch, first.written_at_ns) == ("ingest", 5, 42)
        assert (second.position, second.kind, second.body) == (2, Kind.TICK, Tick(7))
        assert first.body.order.tolist() == block.order.tolist()
        assert not first.body.order.flags.writeable

    check(backend, scenario)


def test_what_is_appended_is_fixed_when_it_is_handed_over(backend, block_maker):
    async def scenario(journal):
        block = block_maker(3)
        before = block.order.tolist()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(journal.append("p/0", [block], writer="ingest"))
            await asyncio.sleep(0)
            block.order[:] = 0
        (entry,) = await journal.read("p/0", 0, 1)
        assert entry.body.order.tolist() == before

    check(backend, scenario)


def test_a_line_that_moved_on_refuses_whoever_expected_otherwise(backend):
    async def scenario(journal):
        await journal.append("p/0", ticks(1), writer="owner", expected=0)
        await journal.append("p/0", ticks(2), writer="ingest", expected=0)
        with pytest.raises(JournalConflict, match="expected its last entry at 0, it is at 1"):
            await journal.append("p/0", ticks(3), writer="owner", expected=0)
        # Positions count all writers; `expected` is the writer's own last one.
        assert await journal.append("p/0", ticks(3), writer="owner", expected=1) == 3
        assert times(await journal.read("p/0", 0, 9)) == [1, 2, 3]

    check(backend, scenario)


def test_a_lower_epoch_is_fenced_off_in_its_line_only(backend):
    async def scenario(journal):
        await journal.append("p/0", ticks(1), writer="owner", epoch=3)
        with pytest.raises(JournalConflict, match="epoch 2, but epoch 3"):
            await journal.append("p/0", ticks(2), writer="owner", epoch=2)
        await journal.append("p/0", ticks(2), writer="owner", epoch=3)
        await journal.append("p/0", ticks(3), writer="owner", epoch=4)
        await journal.append("p/0", ticks(4), writer="ingest", epoch=0)
        await journal.append("p/1", ticks(1), writer="owner", epoch=1)
        assert times(await journal.read("p/0", 0, 9)) == [1, 2, 3, 4]

    check(backend, scenario)


def test_of_two_who_expect_the_same_one_wins(backend):
    async def scenario(journal):
        results = []

        async def claim(n):
            try:
                results.append(await journal.append("p/0", ticks(n), writer="o", expected=0))
            except JournalConflict:
                results.append(None)

        async with asyncio.TaskGroup() as tasks:
            for n in range(5):
                tasks.create_task(claim(n))
        assert sorted(results, key=str) == [1, None, None, None, None]
        assert await journal.last("p/0") == 1

    check(backend, scenario)


def test_concurrent_appends_stay_whole_and_in_order(backend):
    async def scenario(journal):
        async def write(writer):
            position = 0
            for n in range(20):
                bodies = ticks(*(writer * 1000 + n * 3 + i for i in range(3)))
                position = await journal.append(
                    "p/0", bodies, writer=f"w{writer}", expected=position
                )

        async with asyncio.TaskGroup() as tasks:
            followers = [tasks.create_task(follow_until(journal, "p/0", 600)) for _ in range(3)]
            for writer in range(10):
                tasks.create_task(write(writer))
        whole = times(await journal.read("p/0", 0, 1000))
        assert len(whole) == 600
        for start in range(0, 600, 3):
            assert whole[start + 1] == whole[start] + 1
            assert whole[start + 2] == whole[start] + 2
        for writer in range(10):
            own = [time for time in whole if time // 1000 == writer]
            assert own == sorted(own)
            assert len(own) == 60
        for follower in followers:
            assert times(follower.result()) == whole
            assert [e.position for e in follower.result()] == list(range(1, 601))

    check(backend, scenario)
