"""Whoever looks at a journal from outside finds what is wrong with it, and only that."""

import asyncio
import shutil
from contextlib import closing, suppress

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from kapelle.errors import JournalDamaged
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.journal.verify import JournalExamination, is_held
from kapelle.model.plant import Tick
from kapelle.ports import Snapshot
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.doctor import Verdict

ENTRIES = 300


class Sum:
    """Adds up the times of ticks: a fold whose outcome a person can work out."""

    def __init__(self, alike=True):
        self.position, self.total, self.alike = 0, 0, alike

    def begin(self, snapshot):
        self.position, self.total = 0, 0
        if snapshot is not None:
            self.position, self.total = snapshot.position, int(snapshot.columns["total"][0])

    def apply(self, entry):
        if entry.position > self.position:
            self.position, self.total = entry.position, self.total + entry.body.now_ns

    def digest(self):
        return f"{self.position} {self.total}"

    def made_alike(self, snapshot):
        return self.alike

    def snapshot(self):
        return Snapshot(self.position, {"total": np.array([self.total])}, b"")


async def fill(directory, wrong=0):
    """Write entries and two snapshots of what they make; `wrong` is added to the newer."""
    async with open_journal(JournalSettings(directory, reserve_bytes=0), SystemClock()) as journal:
        fold = Sum()
        for n in range(ENTRIES):
            await journal.append("p/0", [Tick(n)], writer="owner", epoch=n // 100)
            for entry in await journal.read("p/0", n, 1):
                fold.apply(entry)
            if n == 99:
                await journal.save_snapshot("p/0", fold.snapshot())
            if n == 199:
                await journal.trim("p/0", 50)
                fold.total += wrong
                await journal.save_snapshot("p/0", fold.snapshot())
        await journal.append("plant", [Tick(1)], writer="owner")
        await journal.mark("p/0", "history", 250)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("filled") / "journal"
    asyncio.run(fill(directory))
    return directory


def look(directory, fold=None):
    """Return what is bad, and the fold as it was brought on."""
    fold = fold or Sum()
    with closing(JournalExamination(directory)) as examination:
        if not is_held(directory):
            examination.look_at_file()
        examination.whole = [examination.look_at_topic("p/0", fold)]
        examination.look_at_topic("plant", Sum())
        found = examination.findings
    return [f"{f.subject}: {f.found}" for f in found if f.verdict is not Verdict.OK], fold


def test_a_sound_journal_is_called_sound_and_left_as_it_is(filled):
    def files():
        # SQLite makes and leaves the index of its log, which holds nothing of its own.
        return {
            path.relative_to(filled): path.read_bytes()
            for path in filled.rglob("*")
            if path.is_file() and not path.name.endswith(("-shm", "-wal"))
        }

    before = files()
    flaws, fold = look(filled)
    assert (flaws, fold.total) == ([], sum(range(ENTRIES)))
    assert files() == before


def test_it_looks_at_a_journal_that_is_being_written(tmp_path):
    async def scenario():
        settings = JournalSettings(tmp_path, reserve_bytes=0)
        async with open_journal(settings, SystemClock()) as journal:
            stop = False

            async def write():
                n = 0
                while not stop:
                    n += 1
                    await journal.append("p/0", [Tick(n)], writer="owner")
                    if n % 7 == 0:
                        await journal.trim("p/0", n // 2)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(write())
                for _ in range(20):
                    await asyncio.sleep(0.02)
                    assert is_held(tmp_path)
                    flaws, _ = await asyncio.to_thread(look, tmp_path)
                    # Without a snapshot a trimmed topic cannot go on: that, and nothing else.
                    assert all("were dropped, and no sound" in flaw for flaw in flaws)
                stop = True

    asyncio.run(scenario())
    assert not is_held(tmp_path)


def test_a_snapshot_that_its_entries_do_not_lead_to_is_named(tmp_path):
    asyncio.run(fill(tmp_path, wrong=1))
    (flaw,), _ = look(tmp_path)
    assert "p/0: replay up to 200 does not give what the snapshot of 200 holds" in flaw
    assert look(tmp_path, Sum(alike=False))[0] == [], "made with other settings: nothing is said"


@pytest.mark.parametrize(
    ("number", "said"), [(0, ["000100.snapshot"]), (1, ["000200.snapshot"]), (2, ["100", "200"])]
)
def test_a_damaged_generation_is_named_and_the_other_used(tmp_path, filled, number, said):
    shutil.copytree(filled, tmp_path / "j")
    files = sorted((tmp_path / "j" / "snapshots" / "p%2F0").iterdir())
    for file in files[number : number + 1] if number < 2 else files:
        raw = bytearray(file.read_bytes())
        raw[64] ^= 1
        file.write_bytes(raw)
    flaws, fold = look(tmp_path / "j")
    assert all(any(name in flaw for flaw in flaws) for name in said)
    if number < 2:
        assert fold.total == sum(range(ENTRIES))
        assert len(flaws) == 1
    else:
        assert any("up to 50 were dropped, and no sound snapshot" in flaw for flaw in flaws)


@settings(max_examples=80, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.integers(0, 3))
def test_no_flipped_bit_goes_unnoticed_that_changes_anything(
    tmp_path_factory, filled, share, bit, name
):
    directory = tmp_path_factory.mktemp("flipped") / "journal"
    shutil.copytree(filled, directory)
    snapshots = sorted(directory.glob("snapshots/*/*.snapshot"))
    path = [directory / "journal.sqlite", directory / "journal.sqlite", *snapshots][name]
    raw = bytearray(path.read_bytes())
    raw[int(share * len(raw))] ^= 1 << bit
    path.write_bytes(raw)
    flaws = ["it cannot be read"]
    with suppress(JournalDamaged):
        flaws, _ = look(directory)
    if not flaws:
        assert held(directory) == held(filled)


def held(directory):
    """Return all a plant would find there."""

    async def read():
        copy = directory.with_name(directory.name + "-read")
        shutil.copytree(directory, copy)
        try:
            settings = JournalSettings(copy, reserve_bytes=0)
            async with open_journal(settings, SystemClock()) as journal:
                entries = await journal.read("p/0", 0, 9999) + await journal.read("plant", 0, 9)
                snapshot = await journal.load_snapshot("p/0")
                assert snapshot is not None
                lines = [await journal.last("p/0", "owner"), await journal.first("p/0")]
                return (
                    [(e.position, e.writer, e.epoch, e.body) for e in entries],
                    (snapshot.position, snapshot.columns["total"].tolist()),
                    lines,
                    dict(await journal.marks("p/0")),
                )
        finally:
            shutil.rmtree(copy)

    return msgspec.to_builtins(asyncio.run(read()))
