"""A copy made while the journal is written is a journal: whole, of one moment, and it opens."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from kapelle.errors import Invalid, JournalDamaged
from kapelle.journal.backup import copy_journal, copy_snapshots, topics_of
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.plant import Tick
from kapelle.ports import Snapshot
from kapelle.runtime import archive
from kapelle.runtime.clock import SystemClock

TOPICS = ("p/0", "p/1")


def opened(directory):
    return open_journal(JournalSettings(directory, reserve_bytes=0), SystemClock())


async def busy(journal, stop, written):
    """Append, mark, save and trim, as a plant does; entries say their own position."""
    while not stop.is_set():
        for topic in TOPICS:
            last = written.get(topic, 0)
            await journal.append(
                topic, [Tick(last + n) for n in range(1, 12)], writer="owner", epoch=1
            )
            written[topic] = last = last + 11
            await journal.mark(topic, "history", last - 5)
            if last % 5 == 0:
                await journal.save_snapshot(topic, Snapshot(last, {"n": np.array([last])}, b""))
                await journal.trim(topic, last - 300)


def test_copies_of_a_busy_journal_are_whole_and_of_one_moment(tmp_path):
    async def scenario():
        copies, stop, written = [], asyncio.Event(), {}
        async with opened(tmp_path / "j") as journal, asyncio.TaskGroup() as tasks:
            tasks.create_task(busy(journal, stop, written))
            await asyncio.sleep(0.3)
            for number in range(8):
                before, target = dict(written), tmp_path / str(number)
                topics = await asyncio.to_thread(topics_of, tmp_path / "j")
                newest = await asyncio.to_thread(
                    copy_snapshots, tmp_path / "j", target, iter(topics)
                )
                readers = {"history": {topic: before[topic] - 40 for topic in TOPICS}}
                copied = await asyncio.to_thread(copy_journal, tmp_path / "j", target, readers)
                copies.append((before, target, newest, copied))
            stop.set()
        for before, target, newest, copied in copies:
            async with opened(target) as journal:
                assert not journal.damage()
                for topic in TOPICS:
                    last = await journal.last(topic)
                    assert last == copied.last[topic] >= before[topic], "what was acknowledged"
                    first = await journal.first(topic)
                    assert first == copied.trimmed[topic] + 1
                    entries = await journal.read(topic, 0, last)
                    assert [e.body.now_ns for e in entries] == list(range(first, last + 1))
                    marked = (await journal.marks(topic))["history"]
                    assert marked == copied.marks[topic] == before[topic] - 40
                    snapshot = await journal.load_snapshot(topic)
                    held = snapshot.position if snapshot else 0
                    assert held == newest.get(topic, 0) <= last
                    # It goes on where it ended.
                    assert await journal.append(topic, [Tick(1)], writer="w") == last + 1
        # One moment: appends to both topics alternate, so neither is a round ahead.
        for *_, copied in copies:
            assert abs(copied.last["p/0"] - copied.last["p/1"]) <= 11

    asyncio.run(scenario())


def test_a_damaged_page_costs_its_entries_and_no_others(tmp_path):
    async def write():
        async with opened(tmp_path / "j") as journal:
            for n in range(400):
                await journal.append("p/0", [Tick(n)] * 5, writer="owner")

    async def read():
        async with opened(tmp_path / "copy") as journal:
            return len(await journal.read("p/0", 0, 9999))

    asyncio.run(write())
    path = tmp_path / "j" / "journal.sqlite"
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2 // 8192 * 8192
    raw[middle : middle + 16] = b"\xff" * 16
    path.write_bytes(raw)
    copied = copy_journal(tmp_path / "j", tmp_path / "copy", {})
    assert copied.remarks
    assert all("not in the backup" in remark for remark in copied.remarks)
    assert asyncio.run(read()) == 2000 - len(copied.remarks) > 1000


def test_a_draft_appears_whole_or_not_at_all(tmp_path):
    final, inner = tmp_path / "made", Path("a") / "b"

    def write(draft):
        (draft / "a").mkdir()
        (draft / inner).write_text("b")

    def interrupted():
        with archive.drafted(final) as draft:
            write(draft)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    # As after a crash: what it left is not taken over.
    (tmp_path / ".made.partial").mkdir()
    (tmp_path / ".made.partial" / "old").write_text("old")
    with archive.drafted(final) as draft:
        with (
            pytest.raises(Invalid, match="another process is making"),
            archive.drafted(final),
        ):
            pass
        write(draft)
    assert [str(path.relative_to(final)) for path in final.rglob("*")] == ["a", "a/b"]
    with pytest.raises(Invalid, match="not empty"), archive.drafted(final):
        pass


@pytest.mark.parametrize("harm", ["change", "cut", "remove", "manifest"])
def test_every_change_of_an_archive_is_named(tmp_path, harm):
    taken = archive.Taken(
        kapelle="0", plant="p", partitions=1, host="h", taken_at_ns=1, taken_at="then", topics={},
        readers={}, registry="none", revision=0, remarks=[],
    )  # fmt: skip
    (tmp_path / "file").write_bytes(b"0123456789" * 100)
    sealed = archive.seal(tmp_path, taken)
    assert archive.check(tmp_path) == sealed
    path = tmp_path / ("manifest.json" if harm == "manifest" else "file")
    match harm:
        case "change":
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        case "cut":
            path.write_bytes(path.read_bytes()[:-1])
        case "remove":
            path.unlink()
        case _:
            path.write_text(path.read_text().replace('"then"', '"thou"'))
    named = "manifest.json: was changed" if harm == "manifest" else "file: "
    with pytest.raises(JournalDamaged, match=named):
        archive.check(tmp_path)


def test_what_is_done_to_a_copy_does_not_happen_to_the_plant(tmp_path):
    source = tmp_path / "s"
    source.write_bytes(b"as it was" * 1_000)
    copy = tmp_path / "backup" / "s"
    archive.clone_or_copy(source, copy)
    assert copy.stat().st_mode & 0o077 == 0
    with copy.open("r+b") as file:
        file.truncate(3)
    assert source.read_bytes() == b"as it was" * 1_000
    with pytest.raises(FileNotFoundError):
        archive.clone_or_copy(tmp_path / "gone", tmp_path / "backup" / "gone")
    assert not (tmp_path / "backup" / "gone").exists()
