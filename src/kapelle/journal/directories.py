"""Directories that are still there after a power cut."""

import os
from pathlib import Path


def make_durable(directory: Path) -> None:
    """Make a directory and what it lies in, so that a power cut does not take it away again."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_directory(made.parent)


def sync_directory(directory: Path) -> None:
    """Make durable what was created, renamed or removed in a directory."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def newest_snapshots(directory: Path) -> int | None:
    """Return when the oldest of all topics' newest snapshots was written; None without any.

    Args:
        directory: Where snapshots lie, a folder per topic.
    """
    newest = [
        max((file.stat().st_mtime_ns for file in folder.glob("*.snapshot")), default=0)
        for folder in directory.glob("*/")
    ]
    return min((at_ns for at_ns in newest if at_ns), default=None)
