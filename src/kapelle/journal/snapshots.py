"""Snapshots as files: columns as they lie in memory, two generations, never half of one.

A file is a mark, the columns on multiples of 64 bytes, then a directory of them in MessagePack
with its length and CRC at the very end: it can be written in one go, and a file that was cut short
has no end.
"""

import errno
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

import msgspec
import numpy as np
from numpy.typing import NDArray

from kapelle.errors import JournalDamaged, JournalFailed, JournalFull
from kapelle.journal.codec import JournalNewer
from kapelle.journal.damage import Damage
from kapelle.journal.directories import make_durable, sync_directory
from kapelle.journal.lines import TopicState
from kapelle.ports import Snapshot

FORMAT = 1

_GENERATIONS = 2
_MARK = b"KPLSNAP\n"
_END = struct.Struct("<IIII8s")
"""Format · length of the directory · its CRC-32 · 0 · mark."""
_ALIGN = 64
_SUFFIX = ".snapshot"
_PIECE_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Column(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    crc: int


class _Contents(msgspec.Struct, frozen=True):
    topic: str
    position: int
    meta: bytes
    columns: list[_Column]


class SnapshotFiles:
    """The snapshots of all topics, below one directory."""

    def __init__(self, directory: Path, damage: Damage) -> None:
        self._directory = directory
        self._damage = damage

    def save(self, topic: str, snapshot: Snapshot) -> None:
        """Keep a snapshot. Its columns are read where they lie and must not change meanwhile.

        Raises:
            JournalFull: No space; the older ones are still there.
            JournalFailed: The disk failed; the older ones are still there.
            ValueError: A column holds Python objects.
        """
        folder = self._folder(topic)
        final = folder / f"{snapshot.position:020d}{_SUFFIX}"
        draft = final.with_suffix(".draft")
        try:
            make_durable(folder)
            try:
                with draft.open("wb", buffering=0) as file:
                    _write(file, topic, snapshot)
                    os.fsync(file.fileno())
                draft.replace(final)
            except (OSError, ValueError):
                draft.unlink(missing_ok=True)
                raise
            sync_directory(folder)
            for old in self.generations(topic)[:-_GENERATIONS]:
                old.unlink()
        except OSError as error:
            what = f"snapshot {final}: {error.strerror}"
            if error.errno in _FULL:
                raise JournalFull(f"{what}; the one before is kept, free space there") from error
            raise JournalFailed(f"{what}; check the disk and the system log") from error

    def load(self, topic: str) -> Snapshot | None:
        """Return the newest undamaged snapshot; a damaged one is named in `damage`.

        Raises:
            JournalNewer: A newer Kapelle wrote it.
        """
        for path in reversed(self.generations(topic)):
            try:
                return self.read(topic, path)
            except JournalNewer:
                raise
            except (JournalDamaged, OSError) as error:
                self._damage.add(f"{topic}: snapshot {path.name}: {error}; the one before is used")
        return None

    def read(self, topic: str, path: Path) -> Snapshot:
        """Return the snapshot of a file. Raises JournalDamaged, JournalNewer, OSError."""
        return _read(path, topic)

    def reconcile(self, topics: Mapping[str, TopicState]) -> dict[str, TopicState]:
        """Return the topics, none of which ends before a snapshot of it was taken.

        One that does has lost its end. The snapshot holds what those entries did, so the topic
        goes on behind it, and no position is given out twice.
        """
        whole = dict(topics)
        for folder in sorted(self._directory.glob("*")):
            topic = unquote(folder.name)
            reached = max((int(path.stem) for path in self.generations(topic)), default=0)
            state = whole.get(topic, TopicState())
            if reached > state.last:
                whole[topic] = replace(state, last=reached)
                self._damage.add(
                    f"{topic}: entries {state.last + 1} to {reached} are missing; a snapshot "
                    "taken after them is there"
                )
        return whole

    def _folder(self, topic: str) -> Path:
        return self._directory / quote(topic, safe="")

    def generations(self, topic: str) -> list[Path]:
        """Return the files of a topic's snapshots, oldest first."""
        found = self._folder(topic).glob(f"*{_SUFFIX}")
        return sorted(path for path in found if path.stem.isdigit())


def _write(file: IO[bytes], topic: str, snapshot: Snapshot) -> None:
    columns: list[_Column] = []
    at = _put(file, _MARK)
    for name, column in snapshot.columns.items():
        at += _put(file, bytes(-at % _ALIGN))
        if column.dtype.hasobject:
            raise ValueError(f"column {name} of a snapshot holds Python objects")
        length, crc = _put_sealed(file, _bytes_of(np.ascontiguousarray(column)))
        columns.append(_Column(name, column.dtype.str, column.shape, at, crc))
        at += length
    contents = _Contents(topic, snapshot.position, snapshot.meta, columns)
    tail = msgspec.msgpack.encode(contents)
    _put(file, tail + _END.pack(FORMAT, len(tail), zlib.crc32(tail), 0, _MARK))


def _put(file: IO[bytes], raw: bytes | memoryview) -> int:
    left = memoryview(raw)
    while left:
        # A write returns early at 2 GB, and when the disk fills up.
        left = left[file.write(left) :]
    return len(raw)


def _put_sealed(file: IO[bytes], raw: memoryview) -> tuple[int, int]:
    """Write and check-sum piece by piece, while a piece is in the processor's cache."""
    crc = 0
    for start in range(0, len(raw), _PIECE_BYTES):
        piece = raw[start : start + _PIECE_BYTES]
        crc = zlib.crc32(piece, crc)
        _put(file, piece)
    return len(raw), crc


def _read(path: Path, topic: str) -> Snapshot:
    with path.open("rb", buffering=0) as file:
        contents = _read_contents(file)
        if (contents.topic, contents.position) != (topic, int(path.stem)):
            raise JournalDamaged(f"it is of {contents.topic} at {contents.position}")
        columns = {column.name: _read_column(file, column) for column in contents.columns}
    return Snapshot(contents.position, columns, contents.meta)


def _read_contents(file: IO[bytes]) -> _Contents:
    size = file.seek(0, os.SEEK_END)
    if size < _END.size + len(_MARK):
        raise JournalDamaged(f"cut short at {size} bytes")
    file.seek(size - _END.size)
    layout, length, crc, _, mark = _END.unpack(file.read(_END.size))
    if mark != _MARK or length > size - _END.size:
        raise JournalDamaged("cut short, or its end is damaged")
    file.seek(size - _END.size - length)
    tail = file.read(length)
    if len(tail) != length or zlib.crc32(tail) != crc:
        raise JournalDamaged("its directory has a wrong checksum")
    if layout > FORMAT:
        raise JournalNewer(f"snapshot of format {layout}, this Kapelle reads up to {FORMAT}")
    try:
        return msgspec.msgpack.decode(tail, type=_Contents)
    except ValueError as error:
        raise JournalDamaged(f"its directory is unreadable: {error}") from error


def _read_column(file: IO[bytes], column: _Column) -> NDArray[np.generic]:
    # The directory's checksum was right, so its shapes are those that were written.
    array: NDArray[np.generic] = np.empty(column.shape, np.dtype(column.dtype))
    raw = _bytes_of(array)
    file.seek(column.offset)
    left = raw
    while left:
        count = file.readinto(left)  # type: ignore[attr-defined]  # A raw file has it; IO does not say so.
        if not count:
            raise JournalDamaged(f"column {column.name} is cut short")
        left = left[count:]
    if _crc(raw) != column.crc:
        raise JournalDamaged(f"column {column.name} has a wrong checksum")
    return array


def _bytes_of(array: NDArray[np.generic]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _crc(raw: memoryview) -> int:
    crc = 0
    for start in range(0, len(raw), _PIECE_BYTES):
        crc = zlib.crc32(raw[start : start + _PIECE_BYTES], crc)
    return crc
