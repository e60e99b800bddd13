"""Acknowledged means durable: power cuts at any instant lose nothing that was accepted (R-01).

The journal lives on an ext4 image, which is a file on another ext4 image. A cut freezes the
*outer* file system: the inner disk stops between two of its block writes, in the middle of whatever
the kernel was doing, and nothing that sat in the inner page cache reaches it. A copy of the image
is what a power cut would have left.
"""

import asyncio
import fcntl
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from kapelle.journal.codec import encode
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import SqliteJournal, open_journal
from kapelle.model.blocks import Readings
from kapelle.model.enums import Metric
from kapelle.ports import Snapshot
from kapelle.runtime.clock import SystemClock

CUTS = int(os.environ.get("KAPELLE_TEST_CUTS", "10"))
SEED = int(os.environ.get("KAPELLE_TEST_SEED", "1"))
FREEZE, THAW = 0xC0045877, 0xC0045878
"""FIFREEZE and FITHAW of linux/fs.h."""


WRITERS = 4
TOPICS = ("p/0", "p/1")
KEPT = 500
"""Entries left by a trim, so that the disk never fills up."""


def missing() -> str:
    if os.getuid() != 0:
        return "needs root to mount a loop device"
    if not shutil.which("mkfs.ext4") or not shutil.which("losetup"):
        return "needs mkfs.ext4 and losetup"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    return ""


pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(missing()), reason=missing())]


def block(writer: int, number: int) -> Readings:
    """Return rows that say who wrote them, so that a reader can check every byte."""
    rows = 1 + number % 120
    return Readings(
        device_no=np.full(rows, writer, np.int32),
        order=np.arange(rows) + number,
        measured_at_ns=np.full(rows, number),
        received_at_ns=np.full(rows, number * 7),
        quality=np.zeros(rows, np.uint8),
        values={Metric.POWER_W: np.sin(np.arange(rows) * number)},
    )


def snapshot(position: int) -> Snapshot:
    """Return a snapshot whose content follows from its position."""
    draw = np.random.default_rng(position)
    return Snapshot(position, {"a": draw.random(5000), "b": np.arange(position)}, b"meta")


def tell(*words: object) -> None:
    """Say one thing in one write."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def write(journal: SqliteJournal, writer: int) -> None:
    """Append without end."""
    number = 0
    while True:
        number += 1
        topic = TOPICS[number % len(TOPICS)]
        position = await journal.append(topic, [block(writer, number)], writer=f"w{writer}")
        tell("entry", topic, position, writer, number)
        if writer == 0 and number % 15 == 0:
            await journal.save_snapshot(topic, snapshot(position))
            tell("snapshot", topic, position)
            await journal.trim(topic, position - KEPT)


async def append_on(directory: Path, synchronous: str) -> None:
    """Append from several writers without end."""
    settings = JournalSettings(
        directory, synchronous=synchronous, reserve_bytes=1 << 20, wal_bytes=500_000
    )
    async with open_journal(settings, SystemClock()) as journal, asyncio.TaskGroup() as tasks:
        for writer in range(WRITERS):
            tasks.create_task(write(journal, writer))


def run(*command):
    done = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextmanager
def mounted(image, point):
    """Mount an image whose loop device writes past the page cache of the disk beneath."""
    point.mkdir(exist_ok=True)
    device = run("losetup", "--find", "--show", "--direct-io=on", image)
    try:
        run("mount", "-o", "noatime", device, point)
        try:
            yield
        finally:
            run("umount", point)
    finally:
        run("losetup", "--detach", device)


def make_image(path, megabytes):
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    run("mkfs.ext4", "-q", "-F", path)


class Acknowledged:
    """What the writing process said, as it says it."""

    def __init__(self, stream):
        self.lines = []
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream):
        for line in stream:
            self.lines.append(line.split())

    def wait_end(self):
        """Wait until all is read: a pipe closed under its reader is an error of the reader."""
        self._thread.join(30)
        assert not self._thread.is_alive(), "somebody else holds the writer's pipe open"


@contextmanager
def frozen(point):
    folder = os.open(point, os.O_RDONLY)
    try:
        fcntl.ioctl(folder, FREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(folder, THAW, 0)
    finally:
        os.close(folder)


def cut_often(tmp_path, synchronous, cuts):
    """Cut the power of a writing process; return [(acknowledged, lost, damage)] of each cut."""
    draw = random.Random(SEED)
    make_image(tmp_path / "outer.img", 160)
    outer, inner, copy = tmp_path / "outer", tmp_path / "inner", tmp_path / "copy.img"
    found = []
    with mounted(tmp_path / "outer.img", outer):
        make_image(outer / "inner.img", 64)
        with (
            mounted(outer / "inner.img", inner),
            subprocess.Popen(
                [sys.executable, __file__, inner / "data", synchronous],
                stdout=subprocess.PIPE,
                text=True,
            ) as writer,
        ):
            acknowledged = Acknowledged(writer.stdout)
            try:
                while len(acknowledged.lines) < 20:
                    assert writer.poll() is None, "the writer ended"
                    time.sleep(0.01)
                for _ in range(cuts):
                    time.sleep(draw.uniform(0.0, 0.15))
                    known = list(acknowledged.lines)
                    with frozen(outer):
                        run("cp", "--sparse=always", outer / "inner.img", copy)
                    assert writer.poll() is None, "the writer ended"
                    found.append(asyncio.run(look(tmp_path, copy, known)))
                    if len(found) % 50 == 0:
                        lost = sum(cut[1] for cut in found)
                        print(f"{len(found)} cuts, {known[-1]}, {lost} lost", flush=True)
            finally:
                writer.kill()
                acknowledged.wait_end()
    return found


async def look(tmp_path, image, known):
    with mounted(image, tmp_path / "after"):
        settings = JournalSettings(tmp_path / "after" / "data", reserve_bytes=0)
        async with open_journal(settings, SystemClock()) as journal:
            held, saved, first = {}, {}, {}
            for topic in TOPICS:
                for entry in await journal.read(topic, 0, 1_000_000):
                    held[topic, entry.position] = encode(entry.body)
                kept = await journal.load_snapshot(topic)
                if kept is not None:
                    whole = snapshot(kept.position)
                    for name, column in whole.columns.items():
                        assert kept.columns[name].tobytes() == column.tobytes()
                    saved[topic] = kept.position
                first[topic] = await journal.first(topic)
                assert first[topic] <= max(1, saved.get(topic, 0))
            lost = []
            for what, topic, position, *rest in known:
                if what == "snapshot":
                    lost += [] if saved.get(topic, 0) >= int(position) else [(what, position)]
                elif int(position) < first[topic]:
                    continue
                elif held.get((topic, int(position))) != encode(block(*map(int, rest))):
                    lost.append((topic, position))
            return len(known), len(lost), journal.damage()


def test_no_power_cut_loses_what_was_acknowledged(tmp_path):
    found = cut_often(tmp_path, "full", CUTS)
    print(f"{len(found)} cuts, {found[-1][0]} acknowledged at the last")
    assert [(lost, damage) for _, lost, damage in found] == [(0, ())] * CUTS


def test_the_cut_is_real_without_fsync_it_loses(tmp_path):
    found = cut_often(tmp_path, "off", 2)
    assert any(lost for _, lost, _ in found)


if __name__ == "__main__":
    asyncio.run(append_on(Path(sys.argv[1]), sys.argv[2]))
