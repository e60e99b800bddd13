"""The journal's directory: who holds it, what versions it takes, what is said when it cannot be."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from kapelle.errors import DataDirectoryHeld, JournalDamaged, JournalFailed
from kapelle.journal.codec import JournalNewer
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import durability, open_journal
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Tick
from kapelle.ports import Snapshot
from kapelle.runtime.clock import SystemClock

NOBODY = 65534

HOLD = """
import asyncio, sys
from pathlib import Path
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.ports import Snapshot
from kapelle.runtime.clock import SystemClock

async def hold():
    async with open_journal(JournalSettings(Path(sys.argv[1])), SystemClock()):
        print("held", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(hold())
"""


async def write(directory, count=3, **settings):
    settings = JournalSettings(directory, **({"reserve_bytes": 0} | settings))
    async with open_journal(settings, SystemClock()) as journal:
        for n in range(count):
            await journal.append("p/0", [Tick(n)], writer="owner")
        return await journal.last("p/0"), journal.damage()


def with_journal(directory, story):
    """Open the journal, and let a story happen in it."""

    async def run():
        async with open_journal(JournalSettings(directory, reserve_bytes=0), SystemClock()) as it:
            await story(it)

    asyncio.run(run())


def test_a_second_process_is_refused_and_told_who_holds_the_directory(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(DataDirectoryHeld, match=f"process {holder.pid} on .* since 20"):
                asyncio.run(write(tmp_path))
        finally:
            holder.kill()
    assert asyncio.run(write(tmp_path)) == (3, ())


def test_a_journal_of_a_newer_format_is_left_as_it_is(tmp_path):
    asyncio.run(write(tmp_path))
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    before = {file.name: file.read_bytes() for file in tmp_path.glob("journal*")}
    with pytest.raises(JournalNewer, match="has format 9, this Kapelle knows up to 2"):
        asyncio.run(write(tmp_path))
    assert {file.name: file.read_bytes() for file in tmp_path.glob("journal*")} == before


@pytest.mark.parametrize("content", [b"something else entirely" * 10, b"\0" * 4096, b"x"])
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match=r"journal\.sqlite is not a Kapelle journal"):
        asyncio.run(write(tmp_path))
    assert path.read_bytes() == content


def test_another_programs_database_is_not_taken_over(tmp_path):
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("PRAGMA application_id = 77")
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    with pytest.raises(JournalDamaged, match="not a Kapelle journal"):
        asyncio.run(write(tmp_path))


@pytest.mark.parametrize("directory", ["/proc/kapelle", "/dev/null/kapelle"])
def test_a_directory_that_cannot_be_made_is_named_with_a_remedy(directory):
    with pytest.raises(JournalFailed, match=rf"{directory} cannot be written .*set \[journal\]"):
        asyncio.run(write(Path(directory)))


def test_a_read_only_directory_is_named_with_a_remedy():
    # pytest's own folders are closed to others, and root may write anywhere: so step down a while.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o555)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(NOBODY)
            with pytest.raises(JournalFailed, match=r"cannot be written .Permission denied"):
                asyncio.run(write(Path(folder)))
        finally:
            if root:
                os.seteuid(0)


def test_the_log_stays_short_and_is_gone_after_a_good_end(tmp_path, block_maker):
    async def run():
        settings = JournalSettings(tmp_path, reserve_bytes=0, wal_bytes=200_000)
        longest = 0
        async with open_journal(settings, SystemClock()) as journal:
            for n in range(300):
                await journal.append("p/0", [block_maker(100, seed=n)], writer="ingest")
                longest = max(longest, (tmp_path / "journal.sqlite-wal").stat().st_size)
            assert len(await journal.read("p/0", 0, 300)) == 300
        return longest

    assert asyncio.run(run()) < 1_000_000
    log = tmp_path / "journal.sqlite-wal"
    assert not log.exists() or log.stat().st_size == 0


def test_a_process_that_is_killed_loses_nothing_it_acknowledged(tmp_path):
    script = HOLD.replace(
        '        print("held", flush=True)\n',
        "        from kapelle.model.plant import Tick\n"
        "        for n in range(200):\n"
        '            await journal.append("p/0", [Tick(n)], writer="a")\n'
        '        print("held", flush=True)\n',
    ).replace("SystemClock()):", "SystemClock()) as journal:")
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout.readline() == b"held\n"
        finally:
            writer.kill()
    assert asyncio.run(write(tmp_path, count=1)) == (201, ())


def test_the_queue_is_bounded_and_everybody_gets_through(tmp_path):
    async def run():
        settings = JournalSettings(
            tmp_path, reserve_bytes=0, queue_entries=3, queue_bytes=100, cache_bytes=500
        )
        async with open_journal(settings, SystemClock()) as journal:
            async with asyncio.TaskGroup() as tasks:
                for n in range(100):
                    tasks.create_task(journal.append("p/0", [Tick(n)], writer=f"w{n}"))
                await asyncio.sleep(0)
                assert len(journal._submissions._waiting) <= 3
            found = await journal.read("p/0", 0, 200)
            assert sorted(entry.body.now_ns for entry in found) == list(range(100))

    asyncio.run(run())


def test_entries_older_than_the_cache_come_from_the_disk(tmp_path, block_maker):
    async def run():
        settings = JournalSettings(
            tmp_path, reserve_bytes=0, cache_bytes=20_000, batch_entries=7, batch_bytes=10_000
        )
        async with open_journal(settings, SystemClock()) as journal:
            for n in range(50):
                await journal.append("p/0", [block_maker(50, seed=n)], writer="a")
            positions = []
            async for entries in journal.follow("p/0", 3):
                assert len(entries) <= 7
                positions += [entry.position for entry in entries]
                if positions[-1] == 50:
                    break
            assert positions == list(range(4, 51))
            assert not journal.damage()

    asyncio.run(run())


def test_a_closed_journal_says_so(tmp_path):
    async def run():
        async with open_journal(JournalSettings(tmp_path, reserve_bytes=0), SystemClock()) as j:
            pass
        with pytest.raises(JournalFailed, match="the journal is closed"):
            await j.append("p/0", [Tick(1)], writer="a")

    asyncio.run(run())


def test_closing_finishes_what_was_asked_for_and_tells_followers(tmp_path):
    async def run():
        settings = JournalSettings(tmp_path, reserve_bytes=0)
        async with open_journal(settings, SystemClock()) as journal:

            async def follow():
                async for _ in journal.follow("p/0", 100):
                    pass

            following = asyncio.create_task(follow())
            appends = [
                asyncio.create_task(journal.append("p/0", [Tick(n)], writer="a")) for n in range(50)
            ]
            await asyncio.sleep(0)
        assert sorted([await append for append in appends]) == list(range(1, 51))
        with pytest.raises(JournalFailed, match="the journal is closed"):
            await following
        async with open_journal(settings, SystemClock()) as journal:
            assert await journal.last("p/0") == 50

    asyncio.run(run())


def test_durability_of_a_disk_and_of_memory(tmp_path):
    found = durability(tmp_path / "not" / "there" / "yet")
    assert found.fsync_ms > 0
    assert str(tmp_path) in found.text
    if Path("/dev/shm").is_dir():
        memory = durability(Path("/dev/shm"))
        assert not memory.ok
        assert "tmpfs" in memory.text
    assert not durability(Path("/proc")).ok


def test_time_goes_on_from_the_newest_entry_where_the_clock_was_set_back(tmp_path, backend_maker):
    backend = backend_maker("sqlite", tmp_path)

    async def hold() -> None:
        async with backend.open() as journal:
            await journal.append("p/0", [Tick(1)], writer="owner")
            backend.clock.ns += 5 * NS_PER_S
            await journal.append("p/1", [Tick(1)], writer="owner")
        written_ns = backend.clock.ns
        backend.clock.ns -= 3600 * NS_PER_S
        async with backend.open():
            assert backend.clock.ns == written_ns

    asyncio.run(hold())


def test_a_journal_of_before_there_were_marks_is_taken_over(tmp_path):
    asyncio.run(write(tmp_path))
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.executescript("DROP TABLE marks; PRAGMA user_version = 1")
    db.close()

    async def mark(journal):
        assert await journal.last("p/0") > 0
        await journal.mark("p/0", "history", 1)
        assert not journal.damage()

    with_journal(tmp_path, mark)
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT reader, position FROM marks").fetchall() == [("history", 1)]
    db.close()


@pytest.mark.parametrize("column", ["position", "crc"])
def test_a_damaged_mark_keeps_everything_until_it_is_renewed(tmp_path, column):
    async def before(journal):
        await journal.append("p/0", [Tick(n) for n in range(1, 6)], writer="a")
        await journal.mark("p/0", "history", 2)

    async def after(journal):
        (remark,) = journal.damage()
        assert remark == "p/0: mark of history: checksum wrong; nothing is trimmed"
        await journal.trim("p/0", 4)
        assert await journal.first("p/0") == 1
        await journal.mark("p/0", "history", 3)
        await journal.trim("p/0", 4)
        assert await journal.first("p/0") == 4

    with_journal(tmp_path, before)
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute(f"UPDATE marks SET {column} = 4")
    db.close()
    with_journal(tmp_path, after)


def test_no_position_is_given_out_twice_that_a_reader_has_had(tmp_path):
    async def before(journal):
        await journal.append("p/0", [Tick(n) for n in range(1, 6)], writer="a")
        await journal.mark("p/0", "history", 5)

    async def after(journal):
        assert "p/0: entries 4 to 5 are missing; a reader has had them" in journal.damage()
        assert await journal.append("p/0", [Tick(6)], writer="a") == 6

    with_journal(tmp_path, before)
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        # Lost with their page: the two newest entries, and the line that told of them.
        db.execute(
            "DELETE FROM entries WHERE place IN "
            "(SELECT place FROM entries ORDER BY place DESC LIMIT 2)"
        )
        db.execute("DELETE FROM lines")
    db.close()
    with_journal(tmp_path, after)


def test_it_tells_how_it_does(tmp_path):
    async def scenario():
        settings = JournalSettings(tmp_path, reserve_bytes=1 << 20)
        async with open_journal(settings, SystemClock()) as journal:
            for n in range(5):
                await journal.append("p/0", [Tick(n)] * 10, writer="a")
            await journal.mark("p/0", "history", 20)
            await journal.mark("plant", "history", 0)
            await journal.save_snapshot("p/0", Snapshot(50, {"a": np.zeros(1000)}, b""))
            await journal.trim("p/0", 99)
            told = journal.metrics()
        assert told.timings.fsync_s.count >= 7
        assert told.timings.commit_s.sum_s >= told.timings.fsync_s.sum_s > 0
        assert told.timings.snapshot_s.count == 1
        assert told.snapshot_bytes > 8000
        assert told.file_bytes > 8192
        assert (told.lags, told.held, told.damage) == ({"history": 30}, 30, 0)
        assert (told.waiting, told.waiting_bytes) == (0, 0)
        assert told.reserve_bytes == 1 << 20
        assert told.free_bytes > 0

    asyncio.run(scenario())
