"""One process per directory of a plant: a lock that dies with its holder, and says who that is."""

import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from kapelle.errors import DataDirectoryHeld, JournalFailed
from kapelle.journal.directories import make_durable
from kapelle.model.ids import NS_PER_S

_NAME = "LOCK"


class Holder(msgspec.Struct, frozen=True):
    """Who uses a data directory."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


class DirectoryLock:
    """The data directory is ours until `release` or the end of the process."""

    def __init__(self, directory: Path, now_ns: int) -> None:
        """Make the directory where it is missing and take it.

        Raises:
            DataDirectoryHeld: Another process has it; the message names it.
            JournalFailed: It cannot be made or written; the message says what to do.
        """
        path = directory / _NAME
        try:
            make_durable(directory)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise unusable(directory, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read(self._file)
            os.close(self._file)
            raise DataDirectoryHeld(
                f"data directory {directory} is in use by {holder or 'another process'}; "
                "stop it, or give this one another directory"
            ) from error
        try:
            self._write(now_ns)
        except OSError as error:
            self.release()
            raise unusable(directory, error) from error

    def release(self) -> None:
        """Let the directory go."""
        os.close(self._file)

    def _write(self, now_ns: int) -> None:
        since = datetime.fromtimestamp(now_ns // NS_PER_S, UTC).isoformat()
        text = msgspec.json.encode(Holder(os.getpid(), socket.gethostname(), since))
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text + b"\n", 0)


def take_directories(places: Sequence[Path], journal: Path, now_ns: int) -> Iterator[DirectoryLock]:
    """Yield a lock on each directory a plant writes to, but the journal's, which takes its own.

    They are made where they are missing: the owner's alone, as secrets lie in them.

    Raises:
        DataDirectoryHeld: Another process uses one of them; its journal may lie elsewhere.
        JournalFailed: One cannot be made or written; the message says what to do.
    """
    for place in places:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(place, error) from error
    # One directory may serve as several.
    for place in sorted({place.resolve() for place in places} - {journal.resolve()}):
        yield DirectoryLock(place, now_ns)


def unusable(directory: Path, error: OSError) -> JournalFailed:
    """Say why a data directory cannot be used, and what helps."""
    return JournalFailed(
        f"data directory {directory} cannot be written ({error.strerror}); give user "
        f"{os.getuid()} the right to write there, mount it read-write, or set [journal] directory "
        "or [plant] data_dir"
    )


def _read(file: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(file, 4096, 0), type=Holder)
    except (OSError, ValueError):
        return None
