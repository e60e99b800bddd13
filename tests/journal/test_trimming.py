"""What every journal promises when it forgets: the past alone, and nothing marked as unread."""

from tests.journal.conftest import check, follow_until, ticks, times


def test_trimming_forgets_the_past_and_nothing_else(backend):
    async def scenario(journal):
        for n in range(1, 11):
            await journal.append("p/0", ticks(n), writer="a" if n < 4 else "b")
        await journal.append("p/1", ticks(1), writer="a")
        await journal.trim("p/0", 4)
        assert await journal.first("p/0") == 5
        assert await journal.first("p/1") == 1
        assert await journal.last("p/0", "a") == 3
        assert times(await journal.read("p/0", 0, 3)) == [5, 6, 7]
        assert times(await follow_until(journal, "p/0", 10)) == list(range(5, 11))
        await journal.trim("p/0", 2)
        assert await journal.first("p/0") == 5
        await journal.trim("p/0", 99)
        assert await journal.first("p/0") == 11
        assert await journal.read("p/0", 0, 9) == []
        assert await journal.append("p/0", ticks(11), writer="b", expected=10) == 11
        assert times(await follow_until(journal, "p/0", 11)) == [11]
        await journal.trim("p/9", 5)
        assert await journal.last("p/9") == 0

    check(backend, scenario)


def test_trimming_stops_before_what_a_reader_has_not_had(backend):
    async def scenario(journal):
        await journal.append("p/0", ticks(*range(1, 11)), writer="a")
        await journal.mark("p/0", "history", 4)
        await journal.mark("p/0", "bill", 6)
        await journal.mark("p/0", "bill", 7)
        assert await journal.marks("p/0") == {"history": 4, "bill": 7}
        await journal.trim("p/0", 9)
        assert await journal.first("p/0") == 5
        await journal.unmark("p/0", "history")
        await journal.unmark("p/0", "nobody")
        await journal.trim("p/0", 9)
        assert await journal.first("p/0") == 8
        await journal.unmark("p/0", "bill")
        await journal.trim("p/0", 9)
        assert await journal.first("p/0") == 10
        assert await journal.marks("p/0") == {}

    check(backend, scenario)


def test_a_reader_may_mark_before_there_is_anything(backend):
    async def scenario(journal):
        await journal.mark("p/7", "history", 0)
        await journal.append("p/7", ticks(1, 2), writer="a")
        await journal.trim("p/7", 2)
        assert await journal.first("p/7") == 1
        await journal.mark("p/7", "history", 99)
        assert await journal.marks("p/7") == {"history": 2}, "nobody has had what is to come"
        await journal.unmark("p/8", "history")
        assert await journal.marks("p/8") == {}

    check(backend, scenario)
