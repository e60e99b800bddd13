"""A disk that fails or fills up: acknowledging stops at once, reading goes on (R-03)."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from kapelle.errors import JournalFailed, JournalFull
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import SqliteJournal, open_journal
from kapelle.model.blocks import Readings
from kapelle.model.enums import Metric
from kapelle.model.orders import Hold
from kapelle.model.plant import Tick
from kapelle.ports import Snapshot
from kapelle.runtime.clock import SystemClock

ENTRIES = 60


async def append_many(directory: Path) -> None:
    """Append until told that the disk failed; say what was acknowledged and what still works."""
    settings = JournalSettings(directory, reserve_bytes=0, wal_bytes=100_000)
    async with open_journal(settings, SystemClock()) as journal:
        follower = asyncio.create_task(follow(journal))
        try:
            for n in range(ENTRIES):
                print("acknowledged", await journal.append("p/0", [Tick(n)], writer="a"))
        except JournalFailed as error:
            print("failed", error)
            for _ in range(3):
                try:
                    print("acknowledged", await journal.append("p/0", [Tick(0)], writer="a"))
                except JournalFailed:
                    print("refused")
            print("read", len(await journal.read("p/0", 0, ENTRIES)))
            print("follower", await follower)
        else:
            follower.cancel()


async def follow(journal: SqliteJournal) -> str:
    """Follow to the end there should not be."""
    try:
        async for _ in journal.follow("p/0", 0):
            pass
    except JournalFailed:
        return "told"
    return "ended"


STRACE = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,pwrite64", "-o"]
FAULTS = ["fdatasync:error=EIO:when=40+", "pwrite64:error=EIO:when=100+"]


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace to inject faults")
@pytest.mark.parametrize("fault", FAULTS)
def test_after_an_io_error_nothing_is_acknowledged_and_nothing_synced_again(tmp_path, fault):
    log = tmp_path / "strace"
    done = subprocess.run(
        [*STRACE, log, "-e", f"inject={fault}", sys.executable, __file__, tmp_path / "data"],
        capture_output=True,
        text=True,
    )
    if "ptrace" in done.stderr and "not permitted" in done.stderr.lower():
        pytest.skip("needs the right to trace processes")
    lines = done.stdout.splitlines()
    calls = log.read_text().splitlines()
    injected = [n for n, line in enumerate(calls) if "(INJECTED)" in line]
    assert injected
    stopped = next(n for n, line in enumerate(lines) if line.startswith("failed"))
    assert re.search(r"journal\.sqlite: disk I/O error .*nothing is acknowledged", lines[stopped])
    acknowledged = stopped
    assert lines[stopped + 1 : stopped + 4] == ["refused"] * 3
    assert lines[stopped + 4 :] == [f"read {acknowledged}", "follower told"]
    assert not [line for line in calls[injected[0] + 1 :] if "sync(" in line]
    again = subprocess.run(
        [sys.executable, __file__, tmp_path / "data"], capture_output=True, text=True, check=True
    )
    assert int(again.stdout.split()[1]) > acknowledged


@contextmanager
def small_disk(kind, point, megabytes):
    if os.getuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root to mount a small disk, and mount")
    if kind == "ext4" and not (shutil.which("mkfs.ext4") and Path("/dev/loop-control").exists()):
        pytest.skip("needs mkfs.ext4 and loop devices")
    point.mkdir()
    image = point.with_suffix(".img")
    if kind == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", point]
    else:
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        mount = ["mount", "-o", "loop", image, point]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if "permission denied" in mounted.stderr.lower():
        pytest.skip(f"needs the right to mount, as containers often lack it: {mounted.stderr}")
    mounted.check_returncode()
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


def block(n):
    times = np.full(500, n)
    zeros = np.zeros(500, np.uint8)
    return Readings(times.astype("i4"), times, times, times, zeros, {Metric.SOC: times * 1.0})


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_refuses_writers_serves_readers_and_recovers(tmp_path, kind):
    disk = tmp_path / "disk"
    with small_disk(kind, disk, 40):
        (disk / "other").write_bytes(bytes(16 << 20))
        asyncio.run(fill_and_recover(disk))


async def fill_and_recover(disk):
    settings = JournalSettings(
        disk / "data", reserve_bytes=4 << 20, wal_bytes=1 << 20, cache_bytes=100_000
    )
    acknowledged = {}
    async with open_journal(settings, SystemClock()) as journal:
        with pytest.raises(JournalFull, match=r"journal\.sqlite is full .*resumes by itself"):
            await append_blocks(journal, acknowledged, 10_000)
        assert len(acknowledged) > 100
        assert not (disk / "data" / "RESERVE").exists()
        for n in range(30):
            with pytest.raises(JournalFull):
                await journal.append("p/0", [block(n)], writer="ingest")
            # What stops the plant still fits, and so does the snapshot at the end.
            why = "there is no space left on the disk " * 1000
            await journal.append("plant", [Hold(True, n, why)], writer="api")
        await journal.save_snapshot("p/0", Snapshot(1, {"a": np.zeros(100_000)}, b""))
        lease = await journal.acquire("p/0", "owner", 5.0)
        await journal.renew(lease, 5.0)
        await check_all(journal, acknowledged)
        (disk / "other").unlink()
        acknowledged[await journal.append("p/0", [block(7)], writer="ingest")] = 7
        await append_blocks(journal, acknowledged, 20)
        await check_all(journal, acknowledged)
        assert (disk / "data" / "RESERVE").stat().st_size == 4 << 20
    async with open_journal(settings, SystemClock()) as journal:
        await check_all(journal, acknowledged)
        assert len(await journal.read("plant", 0, 100)) == 30
        assert (await journal.load_snapshot("p/0")).position == 1


async def append_blocks(journal, acknowledged, count):
    for n in range(count):
        acknowledged[await journal.append("p/0", [block(n)], writer="ingest")] = n


async def check_all(journal, acknowledged):
    found = await journal.read("p/0", 0, 100_000)
    assert {entry.position: int(entry.body.order[0]) for entry in found} == acknowledged
    assert not journal.damage()


def test_a_disk_that_hangs_is_a_disk_that_failed(tmp_path):
    async def run():
        settings = JournalSettings(tmp_path, reserve_bytes=0, stall_s=0.1)
        async with open_journal(settings, SystemClock()) as journal:
            await journal.append("p/0", [Tick(1)], writer="a")
            # Handed over to a writer that does not answer.
            journal._submissions.start(lambda request: None)
            with pytest.raises(JournalFailed, match="has not finished a write"):
                await journal.append("p/0", [Tick(2)], writer="a")
            with pytest.raises(JournalFailed):
                await journal.append("p/0", [Tick(3)], writer="a")
            assert len(await journal.read("p/0", 0, 9)) == 1

    asyncio.run(run())


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    asyncio.run(append_many(Path(sys.argv[1])))
