"""Directories that appear whole or not at all, with a manifest that tells if a byte has changed."""

import errno
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import msgspec

from kapelle.errors import Invalid, JournalDamaged, JournalFailed, JournalFull

FORMAT = 1
MANIFEST = "manifest.json"
_NOTE = "backup.json"
_PIECE_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FICLONE = 0x40049409
"""ioctl_ficlone(2): btrfs, XFS and others share blocks until one of the two is written."""


class _Note(msgspec.Struct, frozen=True):
    """What a data directory knows of its backups."""

    taken_at_ns: int


class Sealed(msgspec.Struct, frozen=True):
    """One file of an archive."""

    bytes: int
    blake2b: str


class Taken(msgspec.Struct, frozen=True):
    """What an archive says about itself."""

    kapelle: str
    """Version that made it."""
    plant: str
    partitions: int
    host: str
    taken_at_ns: int
    taken_at: str
    topics: dict[str, tuple[int, int]]
    """First and last position of each."""
    readers: dict[str, dict[str, int]]
    """How far history and quarantine have followed each topic."""
    registry: str
    """`sqlite`: in the archive; `postgresql`: not; `none`."""
    revision: int
    """Of the registry."""
    remarks: list[str]


class Manifest(msgspec.Struct, frozen=True):
    """Everything in an archive, and its hash."""

    format: int
    taken: Taken
    files: dict[str, Sealed]
    blake2b: str = ""
    """Of this manifest without it."""

    def hash(self) -> str:
        """Return the hash of everything else in here."""
        return blake2b(
            msgspec.json.encode((self.format, self.taken, self.files)), digest_size=32
        ).hexdigest()

    @property
    def bytes(self) -> int:
        """Return the size of all files. [bytes]"""
        return sum(file.bytes for file in self.files.values())


@contextmanager
def drafted(final: Path) -> Iterator[Path]:
    """Yield a directory beside `final` that takes its place once all is written and durable.

    Left early, it is removed; after a crash the next attempt removes it.

    Raises:
        Invalid: `final` holds something, or another process is making it.
        JournalFull, JournalFailed: The disk there is full, or failed.
    """
    check_empty(final)
    draft = final.parent / f".{final.name}.partial"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir(mode=0o700, exist_ok=True)
        held = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _take(held, draft, final)
            try:
                yield draft
                _sync_tree(draft)
                draft.replace(final)
                _sync(final.parent)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        finally:
            os.close(held)
    except OSError as error:
        where = f"{error.filename or final}: {error.strerror or error}"
        if error.errno in _FULL:
            raise JournalFull(f"{where}; free space there, nothing was kept") from error
        raise JournalFailed(f"{where}; nothing was kept") from error


def check_empty(final: Path) -> None:
    """Refuse a place that holds something. Raises Invalid."""
    if final.is_dir() and not any(final.iterdir()):
        return
    if final.exists() or final.is_symlink():
        raise Invalid(f"{final} exists and is not empty; name another place, or move it away")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file for its owner alone."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o600)


def clone_or_copy(source: Path, target: Path) -> None:
    """Copy a file for its owner alone, sharing its blocks where the file system can.

    Never by a hard link: what is done to a backup must not happen to the plant.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with source.open("rb") as out_of, target.open("wb") as into:
        target.chmod(0o600)
        try:
            fcntl.ioctl(into, _FICLONE, out_of.fileno())
        except OSError:
            shutil.copyfileobj(out_of, into, _PIECE_BYTES)


def read_only(path: Path) -> str:
    """Return the URI under which SQLite opens a file for reading, whatever its name."""
    return f"file:{quote(str(path))}?mode=ro"


def copy_database(source: Path, target: Path) -> None:
    """Copy an SQLite database as it is at one moment, also while others write to it."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(read_only(source), uri=True, timeout=30.0)) as ours,
            closing(sqlite3.connect(target)) as theirs,
        ):
            ours.backup(theirs)
            # One file, without a log beside it.
            theirs.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise JournalFull(f"{target}: {error}; free space there, nothing was kept") from error
        raise JournalDamaged(f"{source}: {error}; kapelle verify says more") from error
    target.chmod(0o600)


def seal(draft: Path, taken: Taken) -> Manifest:
    """Write the manifest of everything in a directory and return it."""
    files = {
        str(path.relative_to(draft)): Sealed(path.stat().st_size, _hash(path))
        for path in sorted(draft.rglob("*"))
        if path.is_file()
    }
    manifest = Manifest(FORMAT, taken, files)
    manifest = msgspec.structs.replace(manifest, blake2b=manifest.hash())
    path = draft / MANIFEST
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    path.chmod(0o600)
    return manifest


def note_backup(data: Path, at_ns: int) -> None:
    """Remember in a data directory that a backup was made. Raises OSError."""
    draft = data / f".{_NOTE}.{os.getpid()}"
    try:
        draft.write_bytes(msgspec.json.encode(_Note(at_ns)) + b"\n")
        draft.replace(data / _NOTE)
    finally:
        draft.unlink(missing_ok=True)


def noted_backup_ns(data: Path) -> int | None:
    """Return when the newest backup of a data directory was made; None where none is known."""
    try:
        return msgspec.json.decode((data / _NOTE).read_bytes(), type=_Note).taken_at_ns
    except (OSError, msgspec.MsgspecError):
        return None


def check(directory: Path, said: Callable[[str], None] = lambda _: None) -> Manifest:
    """Return the manifest of an archive all of whose files are as they were.

    Raises:
        Invalid: It is no archive, or of a newer version.
        JournalDamaged: Naming every file that is missing or was changed.
    """
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise Invalid(f"{directory} holds no backup: {MANIFEST} is missing") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JournalDamaged(f"{path}: unreadable ({error}); use another backup") from error
    if manifest.format > FORMAT:
        made = manifest.taken.kapelle
        raise Invalid(f"{directory} was made by Kapelle {made}; restore it with that or newer")
    if manifest.blake2b != manifest.hash():
        raise JournalDamaged(f"{path}: was changed (hash wrong); use another backup")
    flaws = []
    _check_names(directory, manifest)
    for name, sealed in manifest.files.items():
        said(name)
        flaw = _flaw(directory / name, sealed)
        if flaw:
            flaws.append(f"{name}: {flaw}")
    if flaws:
        raise JournalDamaged(f"{directory}: {'; '.join(flaws)}; use another backup")
    return manifest


def _check_names(directory: Path, manifest: Manifest) -> None:
    """Refuse files that lie, or would be put, anywhere else. Raises JournalDamaged.

    A hash tells of bits that flipped, not of who wrote it: an archive may come from anybody.
    """
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise JournalDamaged(f"{directory}: {name!r} lies outside of it; use another backup")
        on_the_way = [directory / each for each in (path, *path.parents[:-1])]
        if any(each.is_symlink() for each in on_the_way):
            raise JournalDamaged(f"{directory}: {name!r} is a link; use another backup")


def _flaw(path: Path, sealed: Sealed) -> str:
    try:
        size = path.stat().st_size
        if size != sealed.bytes:
            return f"has {size} bytes, not {sealed.bytes}"
        return "" if _hash(path) == sealed.blake2b else "was changed (hash wrong)"
    except OSError as error:
        return error.strerror or str(error)


def _take(held: int, draft: Path, final: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Invalid(f"another process is making {final} just now") from error
    # What a crash left.
    for path in draft.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _hash(path: Path) -> str:
    hashed = blake2b(digest_size=32)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            hashed.update(piece)
    return hashed.hexdigest()


def _sync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
