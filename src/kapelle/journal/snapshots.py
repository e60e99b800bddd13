"""Snapshots as files: columns as they lie in memory, two generations, never half of one.

A file is a mark, the columns on multiples of 64 bytes, then a directory of them in MessagePack
with its length and CRC at the very end: it can be written in one go, and a file that was cut short
has no end.
"""

import errno
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
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
_DRAFT = ".draft"
_COLUMN_BYTES = 64
"""Most that a column's entry in the directory takes besides its name."""
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


@dataclass(frozen=True, slots=True)
class Draft:
    """A snapshot on its way to the disk."""

    path: Path
    final: Path
    contents: _Contents


class SnapshotFiles:
    """The snapshots of all topics, below one directory."""

    def __init__(self, directory: Path, damage: Damage) -> None:
        self._directory = directory
        self._damage = damage
        self._drafts = 0

    def save(self, topic: str, snapshot: Snapshot) -> None:
        """Keep a snapshot; raises as `draft` and `finish`."""
        self.finish(self.draft(topic, snapshot))

    def draft(self, topic: str, snapshot: Snapshot) -> "Draft":
        """Hand the columns of a snapshot to the system; they may change once this returns.

        It is worth nothing yet: checksums and flush are left to `finish`, which takes longer.

        Raises:
            JournalFull: No space; the older ones are still there.
            JournalFailed: The disk failed; the older ones are still there.
            ValueError: A column holds Python objects.
        """
        folder = self._folder(topic)
        final = folder / f"{snapshot.position:020d}{_SUFFIX}"
        self._drafts += 1
        path = final.with_suffix(f".{self._drafts}{_DRAFT}")
        with _translated(final):
            make_durable(folder)
            try:
                with path.open("wb", buffering=0) as file:
                    _reserve(file, snapshot)
                    columns = _write_columns(file, snapshot)
            except (OSError, ValueError):
                path.unlink(missing_ok=True)
                raise
        contents = _Contents(topic, snapshot.position, snapshot.meta, columns)
        return Draft(path, final, contents)

    def finish(self, draft: "Draft") -> None:
        """Make a drafted snapshot count, durably; the one before is kept, older ones go.

        Raises:
            JournalFull, JournalFailed: As for `draft`.
        """
        with _translated(draft.final):
            try:
                with draft.path.open("r+b", buffering=0) as file:
                    _finish(file, draft.contents)
                    os.fsync(file.fileno())
                draft.path.replace(draft.final)
            except OSError:
                draft.path.unlink(missing_ok=True)
                raise
            sync_directory(draft.final.parent)
            for old in self.generations(draft.contents.topic)[:-_GENERATIONS]:
                old.unlink()

    def clear(self) -> None:
        """Remove drafts that a crash left."""
        for path in self._directory.glob(f"*/*{_DRAFT}"):
            path.unlink(missing_ok=True)

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

    def bytes(self) -> int:
        """Return what all snapshots take on the disk. [bytes]"""
        size = 0
        for path in self._directory.glob(f"*/*{_SUFFIX}"):
            # One that goes while we look takes nothing.
            with suppress(FileNotFoundError):
                size += path.stat().st_size
        return size

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


@contextmanager
def _translated(final: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"snapshot {final}: {error.strerror}"
        if error.errno in _FULL:
            raise JournalFull(f"{what}; the one before is kept, free space there") from error
        raise JournalFailed(f"{what}; check the disk and the system log") from error


def _reserve(file: IO[bytes], snapshot: Snapshot) -> None:
    """Take the space first, so that a full disk is met while the columns still stand."""
    size = sum(column.nbytes + _ALIGN for column in snapshot.columns.values())
    names = sum(len(name) + _COLUMN_BYTES for name in snapshot.columns)
    size += names + len(snapshot.meta) + _PIECE_BYTES
    os.posix_fallocate(file.fileno(), 0, size)


def _write_columns(file: IO[bytes], snapshot: Snapshot) -> list[_Column]:
    columns: list[_Column] = []
    at = _put(file, _MARK)
    for name, column in snapshot.columns.items():
        at += _put(file, bytes(-at % _ALIGN))
        if column.dtype.hasobject:
            raise ValueError(f"column {name} of a snapshot holds Python objects")
        columns.append(_Column(name, column.dtype.str, column.shape, at, 0))
        # Row by row, where rows are parts of longer ones: a copy of all would cost memory.
        deep = column.ndim > 1 and not column.flags.c_contiguous
        for part in column if deep else (column,):
            raw = _bytes_of(np.ascontiguousarray(part))
            # The space taken first reads as zeros, and nobody waits for what is there already.
            at += _put(file, raw) if _any(raw) else file.seek(len(raw), os.SEEK_CUR) - at
    return columns


def _finish(file: IO[bytes], contents: _Contents) -> None:
    """Add up checksums of what was written, and write the directory behind it."""
    end, columns = len(_MARK), list[_Column]()
    for column in contents.columns:
        size = math.prod(column.shape) * np.dtype(column.dtype).itemsize
        columns.append(msgspec.structs.replace(column, crc=_crc_of(file, column.offset, size)))
        end = column.offset + size
    tail = msgspec.msgpack.encode(msgspec.structs.replace(contents, columns=columns))
    file.seek(end)
    end += _put(file, tail + _END.pack(FORMAT, len(tail), zlib.crc32(tail), 0, _MARK))
    file.truncate(end)


def _crc_of(file: IO[bytes], offset: int, size: int) -> int:
    crc = 0
    for start in range(offset, offset + size, _PIECE_BYTES):
        crc = zlib.crc32(
            os.pread(file.fileno(), min(_PIECE_BYTES, offset + size - start), start), crc
        )
    return crc


def _put(file: IO[bytes], raw: bytes | memoryview) -> int:
    left = memoryview(raw)
    while left:
        # A write returns early at 2 GB, and when the disk fills up.
        left = left[file.write(left) :]
    return len(raw)


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


def _any(raw: memoryview) -> bool:
    return bool(np.frombuffer(raw, np.bool_).any())


def _crc(raw: memoryview) -> int:
    crc = 0
    for start in range(0, len(raw), _PIECE_BYTES):
        crc = zlib.crc32(raw[start : start + _PIECE_BYTES], crc)
    return crc
