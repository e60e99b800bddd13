"""What every journal promises whoever reads or follows: all of it, in order, past into present."""

import asyncio

from tests.journal.conftest import check, follow_until, ticks, times

from kapelle.model.entries import Kind
from kapelle.model.orders import Hold
from kapelle.model.plant import Tick


def test_reading_is_limited_and_chooses_kinds(backend):
    async def scenario(journal):
        for n in range(10):
            await journal.append("p/0", [Tick(n), Hold(True, n)], writer="a")
        assert [e.position for e in await journal.read("p/0", 0, 3)] == [1, 2, 3]
        assert [e.position for e in await journal.read("p/0", 18, 9)] == [19, 20]
        assert await journal.read("p/0", 20, 9) == []
        assert await journal.read("p/7", 0, 9) == []
        holds = await journal.read("p/0", 4, 3, [Kind.HOLD])
        assert [e.position for e in holds] == [6, 8, 10]

    check(backend, scenario)


def test_following_goes_from_the_past_into_the_present(backend):
    async def scenario(journal):
        await journal.append("p/0", ticks(1, 2, 3), writer="a")
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(follow_until(journal, "p/0", 5, after=1))
            chooser = tasks.create_task(follow_until(journal, "p/0", 6, kinds={Kind.HOLD}))
            await asyncio.sleep(0.01)
            await journal.append("p/1", ticks(9), writer="a")
            await journal.append("p/0", ticks(4), writer="a")
            await asyncio.sleep(0.01)
            await journal.append("p/0", ticks(5), writer="a")
            await journal.append("p/0", [Hold(True, 1)], writer="a")
        assert times(follower.result()[:4]) == [2, 3, 4, 5]
        assert [e.position for e in chooser.result()] == [6]

    check(backend, scenario)


def test_following_a_topic_that_does_not_exist_yet_waits_for_it(backend):
    async def scenario(journal):
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(follow_until(journal, "p/3", 1))
            await asyncio.sleep(0.01)
            await journal.append("p/3", ticks(1), writer="a")
        assert times(follower.result()) == [1]

    check(backend, scenario)


def test_a_cancelled_follower_or_writer_disturbs_nobody(backend):
    async def scenario(journal):
        async with asyncio.TaskGroup() as tasks:
            leaving = [tasks.create_task(follow_until(journal, "p/0", 99)) for _ in range(3)]
            staying = tasks.create_task(follow_until(journal, "p/0", 3))
            await asyncio.sleep(0.01)
            for task in leaving:
                task.cancel()
            writer = tasks.create_task(journal.append("p/0", ticks(1), writer="a"))
            await asyncio.sleep(0)
            writer.cancel()
            await asyncio.sleep(0.01)
            known = await journal.last("p/0")
            while await journal.append("p/0", ticks(known), writer="a") < 3:
                pass
        positions = [entry.position for entry in staying.result()]
        assert positions[:3] == [1, 2, 3]
        again = await follow_until(journal, "p/0", 3, after=1)
        assert [entry.position for entry in again[:2]] == [2, 3]

    check(backend, scenario)


def test_a_follower_that_fell_behind_the_trim_goes_on_with_what_is_left(backend):
    async def scenario(journal):
        for n in range(1, 6):
            await journal.append("p/0", ticks(n), writer="a")
        follower = journal.follow("p/0", 0)
        await journal.trim("p/0", 5)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(anext(follower))
            await asyncio.sleep(0.01)
            await journal.append("p/0", ticks(6), writer="a")
        assert times(following.result()) == [6]

    check(backend, scenario)
