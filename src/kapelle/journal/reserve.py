"""Space kept back on the journal's disk, so that shutdown and audit still fit when it is full."""

import os
from pathlib import Path

_NAME = "RESERVE"


class Reserve:
    """A file that takes up space until the space is needed."""

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self._path = directory / _NAME
        self._size = size

    def hold(self) -> bool:
        """Take the space (again), unless that would leave less than a quarter of it free.

        Returns:
            Whether it is held; False where the disk has no room for it.
        """
        if self._size == 0:
            return self.free_bytes() > 0
        if self._path.exists() and self._path.stat().st_size >= self._size:
            return True
        if self.free_bytes() < self._size * 5 // 4:
            return False
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(file, 0, self._size)
        except OSError:
            self._path.unlink()
            return False
        finally:
            os.close(file)
        return True

    def release(self) -> None:
        """Give the space back to the disk."""
        self._path.unlink(missing_ok=True)

    def held_bytes(self) -> int:
        """Return how much of it is held. [bytes]"""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def free_bytes(self) -> int:
        """Return what is free on the disk for us."""
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize
