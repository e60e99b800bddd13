"""Flipped bits: found, named and left out; everything else is served, before and after (R-02)."""

import asyncio
import os
import random
import shutil
import sqlite3
import zlib

import numpy as np
import pytest

from kapelle.errors import KapelleError
from kapelle.journal.codec import JournalNewer, checksum
from kapelle.journal.damage import Damage
from kapelle.journal.settings import JournalSettings
from kapelle.journal.snapshots import SnapshotFiles
from kapelle.journal.sqlite import open_journal
from kapelle.model.plant import Notice, Tick
from kapelle.ports import Snapshot
from kapelle.runtime.clock import SystemClock

COUNT = 40
FLIPS = int(os.environ.get("KAPELLE_TEST_FLIPS", "40"))


def text(n):
    return f"this is notice number {n:04d} " * 8


async def fill(directory, *, ends_well=True):
    settings = JournalSettings(directory, reserve_bytes=0)
    async with open_journal(settings, SystemClock()) as journal:
        for n in range(1, COUNT + 1):
            await journal.append("p/0", [Notice(n, "code", text(n))], writer="owner")
            await journal.append("plant", [Tick(n)], writer="api")
        if not ends_well:
            # What a crash leaves behind: the log as it is.
            crashed = directory.with_name("crashed")
            crashed.mkdir()
            for file in directory.glob("journal*"):
                shutil.copy(file, crashed / file.name)


async def read_all(directory):
    settings = JournalSettings(directory, reserve_bytes=0)
    async with open_journal(settings, SystemClock()) as journal:
        notices = await journal.read("p/0", 0, 1000)
        ticks = await journal.read("plant", 0, 1000)
        follower = journal.follow("p/0", 0)
        followed = []
        last = notices[-1].position if notices else 0
        while last and (not followed or followed[-1].position < last):
            followed += await anext(follower)
        assert [e.position for e in followed] == [e.position for e in notices]
        return notices, ticks, journal.damage()


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_in_a_body_is_named_and_the_rest_is_served(tmp_path):
    asyncio.run(fill(tmp_path))
    path = tmp_path / "journal.sqlite"
    # Pages that were divided keep old copies behind; all of them get the flip.
    before = text(17).encode()
    path.write_bytes(path.read_bytes().replace(before, before.replace(b"notice", b"nOtice")))
    notices, ticks, damage = asyncio.run(read_all(tmp_path))
    assert [e.position for e in notices] == [n for n in range(1, COUNT + 1) if n != 17]
    assert len(ticks) == COUNT
    assert damage == ("p/0 17: checksum wrong; left out",)


def test_what_is_found_is_logged_once(tmp_path, caplog):
    asyncio.run(fill(tmp_path))
    path = tmp_path / "journal.sqlite"
    before = text(17).encode()
    path.write_bytes(path.read_bytes().replace(before, before.replace(b"notice", b"nOtice")))

    async def read_twice():
        settings = JournalSettings(tmp_path, reserve_bytes=0)
        async with open_journal(settings, SystemClock()) as journal:
            for _ in range(2):
                await journal.read("p/0", 0, 1000)

    asyncio.run(read_twice())
    said = [r.found for r in caplog.records if r.message == "journal is damaged"]
    assert said == ["p/0 17: checksum wrong; left out"]
    caplog.clear()
    damage = Damage([f"p/0 {n}: missing" for n in range(20_000)])
    assert len(damage.found()) == 10_000
    assert 50 < len(caplog.records) < 200


def test_a_missing_entry_is_named(tmp_path):
    asyncio.run(fill(tmp_path))
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        (topic,) = db.execute("SELECT id FROM topics WHERE name = 'p/0'").fetchone()
        for position in (5, 6, COUNT):
            db.execute("DELETE FROM entries WHERE place = ?", ((topic << 40) + position,))
    db.close()
    notices, _, damage = asyncio.run(read_all(tmp_path))
    assert len(notices) == COUNT - 3
    assert "p/0 5 to 6: missing" in damage
    assert f"p/0: entries {COUNT} to {COUNT} are missing" in damage


@pytest.mark.parametrize("seed", range(3))
def test_any_flipped_bit_is_harmless_or_found(tmp_path, seed):
    asyncio.run(fill(tmp_path / "whole"))
    draw = random.Random(seed)
    size = (tmp_path / "whole" / "journal.sqlite").stat().st_size
    for n in range(FLIPS):
        directory = tmp_path / str(n)
        shutil.copytree(tmp_path / "whole", directory)
        place, bit = draw.randrange(size), draw.randrange(8)
        flip(directory / "journal.sqlite", place, bit)
        check_found(directory, f"seed {seed}: byte {place} bit {bit}")
        shutil.rmtree(directory)


def check_found(directory, hint):
    try:
        notices, ticks, damage = asyncio.run(read_all(directory))
    except KapelleError as error:
        if str(directory) not in str(error):
            raise AssertionError(f"{hint}: does not name the file") from error
        return
    for entry in notices:
        assert entry.body == Notice(entry.position, "code", text(entry.position)), hint
    for entry in ticks:
        assert entry.body == Tick(entry.position), hint
    if len(notices) < COUNT or len(ticks) < COUNT:
        assert damage, hint


def test_a_flipped_bit_in_the_log_never_shortens_it_in_silence(tmp_path):
    asyncio.run(fill(tmp_path / "data", ends_well=False))
    crashed = tmp_path / "crashed"
    log = crashed / "journal.sqlite-wal"
    size, draw = log.stat().st_size, random.Random(1)
    shutil.copytree(crashed, tmp_path / "sound")
    assert asyncio.run(read_all(tmp_path / "sound"))[2] == ()
    places = [3, 9, 17, 25, *(draw.randrange(size) for _ in range(40))]
    for n, place in enumerate(places):
        directory = tmp_path / str(n)
        shutil.copytree(crashed, directory)
        flip(directory / log.name, place, draw.randrange(8))
        try:
            notices, ticks, damage = asyncio.run(read_all(directory))
        except KapelleError:
            continue
        # The last transaction cannot be told from one that a power cut tore.
        if len(notices) + len(ticks) < 2 * COUNT - 1:
            assert any("acknowledged transactions" in remark for remark in damage), place
            assert (directory / "journal.damaged").exists() or list(directory.glob("*.damaged"))


def test_a_torn_end_of_the_log_is_no_damage(tmp_path):
    asyncio.run(fill(tmp_path / "data", ends_well=False))
    log = tmp_path / "crashed" / "journal.sqlite-wal"
    log.write_bytes(log.read_bytes()[:-3000])
    notices, ticks, damage = asyncio.run(read_all(tmp_path / "crashed"))
    assert len(notices) + len(ticks) == 2 * COUNT - 1
    assert damage == ()


@pytest.mark.parametrize("change", ["kind", "schema"])
def test_an_entry_of_a_newer_version_stops_the_reader_and_is_not_skipped(tmp_path, change):
    async def run():
        settings = JournalSettings(tmp_path, reserve_bytes=0)
        async with open_journal(settings, SystemClock()) as journal:
            await journal.append("p/0", [Tick(1), Tick(2), Tick(3)], writer="a")
        with sqlite3.connect(tmp_path / "journal.sqlite") as db:
            row = db.execute("SELECT * FROM entries ORDER BY place LIMIT 1 OFFSET 1").fetchone()
            place, kind, writer, epoch, at_ns, _, body = row
            if change == "kind":
                kind = 99
            else:
                body = body[:2] + b"\x07\0" + body[4:]
            crc = checksum("p/0", 2, kind, writer, epoch, at_ns, zlib.crc32(body))
            db.execute(
                "UPDATE entries SET kind = ?, body = ?, crc = ? WHERE place = ?",
                (kind, body, crc, place),
            )
        db.close()
        async with open_journal(settings, SystemClock()) as journal:
            with pytest.raises(JournalNewer):
                await journal.read("p/0", 0, 9)
            with pytest.raises(JournalNewer):
                await anext(journal.follow("p/0", 0))
            assert len(await journal.read("p/0", 2, 9)) == 1

    asyncio.run(run())


def snapshot(position, seed=0):
    draw = np.random.default_rng(seed)
    return Snapshot(position, {"a": draw.random(1000), "b": np.arange(77, dtype="i2")}, b"meta")


def test_every_flipped_bit_and_every_cut_of_a_snapshot_leads_to_the_one_before(tmp_path):
    files = SnapshotFiles(tmp_path, Damage())
    files.save("p/0", snapshot(1))
    files.save("p/0", snapshot(2))
    newest = max(tmp_path.glob("*/*.snapshot"))
    whole, draw = newest.read_bytes(), random.Random(2)
    padding = range(8, 64)
    for _ in range(200):
        place = draw.choice([n for n in range(len(whole)) if n not in padding])
        flip(newest, place, draw.randrange(8))
        check_falls_back(tmp_path, whole, place)
        newest.write_bytes(whole[:place])
        check_falls_back(tmp_path, whole, place)
        newest.write_bytes(whole)
    assert SnapshotFiles(tmp_path, Damage()).load("p/0").position == 2


def check_falls_back(directory, whole, place):
    damage = Damage()
    try:
        found = SnapshotFiles(directory, damage).load("p/0")
    except KapelleError as error:
        if "format" not in str(error):
            raise AssertionError(place) from error
        return
    if damage.found():
        assert found.position == 1
        assert "snapshot 00000000000000000002.snapshot" in damage.found()[0]
    else:
        assert found.columns["a"].tobytes() == snapshot(2).columns["a"].tobytes(), place


def test_two_generations_are_kept_and_no_drafts(tmp_path):
    files = SnapshotFiles(tmp_path, Damage())
    for position in (1, 5, 9, 12):
        files.save("p/0", snapshot(position))
    assert sorted(int(p.stem) for p in tmp_path.glob("p%2F0/*")) == [9, 12]
    assert SnapshotFiles(tmp_path, Damage()).load("p/1") is None


def test_a_topic_that_lost_its_end_goes_on_behind_its_snapshot(tmp_path):
    async def run():
        settings = JournalSettings(tmp_path, reserve_bytes=0)
        async with open_journal(settings, SystemClock()) as journal:
            await journal.append("p/0", [Tick(1)], writer="a")
        SnapshotFiles(tmp_path / "snapshots", Damage()).save("p/0", snapshot(7))
        async with open_journal(settings, SystemClock()) as journal:
            assert any("entries 2 to 7 are missing" in remark for remark in journal.damage())
            assert await journal.append("p/0", [Tick(8)], writer="a", expected=1) == 8
            (entry,) = await journal.read("p/0", 7, 9)
            assert entry.body == Tick(8)

    asyncio.run(run())
