"""Every journal is the same journal (`ports.Journal`), and still is after a restart."""

import asyncio
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from tests.journal.conftest import check, follow_until, ticks, times

from kapelle.errors import JournalConflict
from kapelle.model.plant import Tick
from kapelle.ports import Snapshot


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
