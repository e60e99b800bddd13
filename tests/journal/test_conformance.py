"""What every journal promises, whatever it is made of (`ports.Journal`)."""

import asyncio
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from kapelle.errors import JournalConflict
from kapelle.model.entries import Kind
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Hold, Tick
from kapelle.ports import Lease, Snapshot


def check(backend, scenario):
    """Run a scenario on an open journal."""

    async def run():
        async with asyncio.timeout(30), backend.open() as journal:
            await scenario(journal)
            assert not journal.damage()

    asyncio.run(run())


def ticks(*times):
    return [Tick(time) for time in times]


def times(entries):
    return [entry.body.now_ns for entry in entries]


async def follow_until(journal, topic, position, after=0, kinds=None):
    found = []
    async for entries in journal.follow(topic, after, kinds):
        assert entries
        found += entries
        if found[-1].position >= position:
            return found
    raise AssertionError("a follow ended by itself")


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


def test_leases_pass_from_hand_to_hand_with_rising_epochs(backend):
    async def scenario(journal):
        first = await journal.acquire("p/0", "one", 5.0)
        assert (first.name, first.holder) == ("p/0", "one")
        with pytest.raises(JournalConflict, match="held by one"):
            await journal.acquire("p/0", "two", 5.0)
        assert (await journal.acquire("p/1", "two", 5.0)).holder == "two"
        await backend.clock.sleep(4)
        await journal.renew(first, 5.0)
        await backend.clock.sleep(4)
        with pytest.raises(JournalConflict, match="held by one"):
            await journal.acquire("p/0", "two", 5.0)
        await backend.clock.sleep(1.001)
        second = await journal.acquire("p/0", "two", 5.0)
        assert second.epoch > first.epoch
        with pytest.raises(JournalConflict, match="was lost to two"):
            await journal.renew(first, 5.0)
        # The one who lost it cannot give it away.
        await journal.release(first)
        with pytest.raises(JournalConflict):
            await journal.acquire("p/0", "one", 5.0)
        await journal.release(second)
        with pytest.raises(JournalConflict):
            await journal.renew(second, 5.0)
        third = await journal.acquire("p/0", "one", 5.0)
        assert third.epoch > second.epoch
        # A holder that forgot it holds it takes it over at once, with another epoch.
        assert (await journal.acquire("p/0", "one", 5.0)).epoch > third.epoch
        with pytest.raises(JournalConflict):
            await journal.renew(third, 5.0)
        with pytest.raises(JournalConflict):
            await journal.renew(Lease("p/8", "one", 1), 5.0)

    check(backend, scenario)


def test_epochs_are_no_lower_than_the_time_so_that_an_empty_journal_is_obeyed(backend):
    async def scenario(journal):
        for _ in range(2):
            first = await journal.acquire("p/0", "one", 5.0)
            assert first.epoch >= backend.clock.ns // NS_PER_S
        # Also where the clock stands still they rise.
        assert (await journal.acquire("p/0", "one", 5.0)).epoch == first.epoch + 1

    check(backend, scenario)


def test_the_newest_snapshot_comes_back_as_it_was_saved(backend):
    async def scenario(journal):
        assert await journal.load_snapshot("p/0") is None
        columns = {
            "floats": np.array([1.0, np.nan, -0.0]),
            "flags": np.array([True, False]),
            "deep": np.arange(24, dtype=np.int16).reshape(8, 3),
            "view": np.arange(10, dtype=np.int64)[::2],
            "none": np.empty(0, np.float32),
        }
        expected = {name: column.copy() for name, column in columns.items()}
        await journal.save_snapshot("p/0", Snapshot(1, {}, b""))
        await journal.save_snapshot("p/0", Snapshot(5, columns, b"rest"))
        columns["floats"][:] = 7
        await journal.save_snapshot("p/1", Snapshot(9, {}, b"other"))
        found = await journal.load_snapshot("p/0")
        assert (found.position, found.meta) == (5, b"rest")
        assert list(found.columns) == list(expected)
        for name, column in expected.items():
            again = found.columns[name]
            assert (again.dtype, again.shape) == (column.dtype, column.shape)
            assert again.tobytes() == column.tobytes()
        found.columns["floats"][:] = 8
        again = await journal.load_snapshot("p/0")
        assert again.columns["floats"].tobytes() == expected["floats"].tobytes()

    async def with_entries(journal):
        for topic in ("p/0", "p/1"):
            await journal.append(topic, ticks(*range(9)), writer="a")
        await scenario(journal)

    check(backend, with_entries)


def test_columns_may_change_once_they_are_released(backend):
    async def scenario(journal):
        column = np.arange(200_000)
        deep = np.arange(24.0).reshape(3, 8)[:, :5]

        def change():
            column[:] = deep[:] = -1

        snapshot = Snapshot(1, {"a": column, "b": deep}, b"")
        await journal.save_snapshot("p/0", snapshot, released=change)
        assert column[7] == -1
        found = await journal.load_snapshot("p/0")
        assert found.columns["a"].tolist() == list(range(200_000))
        assert found.columns["b"].tolist() == np.arange(24.0).reshape(3, 8)[:, :5].tolist()

    check(backend, scenario)


def test_a_snapshot_of_an_owner_that_was_replaced_hides_no_newer_one(backend):
    async def scenario(journal):
        await journal.append("p/0", ticks(*range(9)), writer="a")
        for position in (9, 7, 3):
            await journal.save_snapshot("p/0", Snapshot(position, {}, b""))
            assert (await journal.load_snapshot("p/0")).position == 9

    check(backend, scenario)


def test_what_was_acknowledged_is_there_after_a_restart(backend):
    epochs = []

    async def before(journal):
        await journal.append("p/0", ticks(1, 2, 3), writer="owner", epoch=7)
        await journal.append("p/0", ticks(4), writer="ingest")
        await journal.append("plant", ticks(1), writer="api")
        await journal.mark("p/0", "history", 3)
        await journal.mark("p/0", "gone", 1)
        await journal.unmark("p/0", "gone")
        await journal.mark("p/5", "history", 0)
        await journal.trim("p/0", 2)
        await journal.save_snapshot("p/0", Snapshot(4, {"a": np.arange(3)}, b"m"))
        lease = await journal.acquire("p/0", "one", 5.0)
        epochs.append(lease.epoch)
        await journal.release(lease)

    async def after(journal):
        assert await journal.first("p/0") == 3
        assert await journal.last("p/0") == 4
        assert await journal.last("p/0", "owner") == 3
        assert times(await journal.read("p/0", 0, 9)) == [3, 4]
        assert times(await follow_until(journal, "plant", 1)) == [1]
        assert (await journal.load_snapshot("p/0")).position == 4
        with pytest.raises(JournalConflict):
            await journal.append("p/0", ticks(9), writer="owner", epoch=6)
        assert await journal.append("p/0", ticks(5), writer="owner", epoch=7, expected=3) == 5
        assert (await journal.acquire("p/0", "two", 5.0)).epoch > epochs[0]
        assert await journal.marks("p/0") == {"history": 3}
        assert await journal.marks("p/5") == {"history": 0}
        await journal.trim("p/0", 5)
        assert await journal.first("p/0") == 4

    check(backend, before)
    check(backend, after)


def test_all_backends_hold_the_same_after_the_same_work(tmp_path, backend_maker, block_maker):
    def work(name):
        backend, held = backend_maker(name, tmp_path / name), []

        async def scenario(journal):
            for n in range(30):
                backend.clock.ns += n
                await journal.append(
                    f"p/{n % 3}", [block_maker(n, seed=n), Tick(n)], writer=f"w{n % 2}", epoch=n
                )
            for topic in ("p/0", "p/1", "p/2"):
                held.extend(await journal.read(topic, 0, 100))

        check(backend, scenario)
        return held

    for one, other in zip(work("memory"), work("sqlite"), strict=True):
        assert replace(one, body=None) == replace(other, body=None)
        assert repr(one.body) == repr(other.body)


WRITERS = st.sampled_from(["a", "b"])
OPERATIONS = st.one_of(
    st.tuples(st.just("append"), WRITERS, st.integers(1, 3), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("trim"), st.integers(0, 8)),
    st.tuples(st.just("mark"), st.sampled_from(["r", "s"]), st.integers(0, 8)),
    st.tuples(st.just("unmark"), st.sampled_from(["r", "s"])),
    st.tuples(st.just("read"), st.integers(0, 8), st.integers(1, 5)),
    st.tuples(st.just("restart")),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATIONS, max_size=12))
@pytest.mark.parametrize("name", ["memory", "sqlite"])
def test_it_behaves_as_a_list_would(name, tmp_path_factory, backend_maker, operations):
    backend = backend_maker(name, tmp_path_factory.mktemp("data"))
    entries, lines, trimmed, marks = [], {}, 0, {}

    async def perform(journal, operation, *arguments):
        nonlocal trimmed
        if operation == "append":
            writer, count, epoch, stale = arguments
            last, highest = lines.get(writer, (0, 0))
            expected = last + 1 if stale else last
            new = [(len(entries) + i + 1, writer) for i in range(count)]
            bodies = ticks(*(position for position, _ in new))
            try:
                reached = await journal.append(
                    "t", bodies, writer=writer, epoch=epoch, expected=expected
                )
            except JournalConflict:
                assert stale or epoch < highest
                return
            assert not stale
            assert epoch >= highest
            entries.extend(new)
            lines[writer] = (len(entries), epoch)
            assert reached == len(entries)
        elif operation == "trim":
            await journal.trim("t", arguments[0])
            trimmed = max(trimmed, min(arguments[0], len(entries), *marks.values()))
        elif operation == "mark":
            await journal.mark("t", *arguments)
            marks[arguments[0]] = min(arguments[1], len(entries))
        elif operation == "unmark":
            await journal.unmark("t", *arguments)
            marks.pop(arguments[0], None)
        else:
            after, limit = arguments
            found = await journal.read("t", after, limit)
            start = max(after, trimmed)
            assert [(e.body.now_ns, e.writer) for e in found] == entries[start : start + limit]

    async def run():
        waiting = list(operations)
        while waiting:
            async with backend.open() as journal:
                while waiting and waiting[0][0] != "restart":
                    await perform(journal, *waiting.pop(0))
                waiting = waiting[1:]
                assert await journal.last("t") == len(entries)
                assert await journal.first("t") == trimmed + 1
                assert await journal.marks("t") == marks
                assert not journal.damage()

    asyncio.run(run())
