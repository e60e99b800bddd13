"""Settings of the embedded journal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """`[journal]`: where it lives and how much it may hold back, wait and use."""

    directory: Path = Path("data")
    """Data directory, for one process at a time. On a local disk: no tmpfs, overlay or NFS."""
    synchronous: Literal["full", "off"] = "full"
    """`full`: acknowledged means on disk. `off`: a power cut loses what the system had not written
    yet; for benchmarks and throw-away demonstrations."""
    reserve_bytes: int = 64 << 20
    """Space kept back on the disk, so that after it is full, what stops the plant, the audit and
    the snapshot at shutdown still fit. 0: none. [bytes]"""
    queue_bytes: int = 32 << 20
    """Bodies that may wait for the disk; then writers wait. [bytes]"""
    queue_entries: int = 8192
    """Entries that may wait for the disk; then writers wait."""
    wait_s: float = 30.0
    """Longest a writer waits for a place in the queue; then it is told JournalFull. [s]"""
    stall_s: float = 60.0
    """A disk that takes longer over one commit has failed. [s]"""
    group_bytes: int = 4 << 20
    """Largest group of bodies committed as one transaction. [bytes]"""
    wal_bytes: int = 16 << 20
    """Write-ahead log beyond which it is moved into the database. [bytes]"""
    cache_bytes: int = 32 << 20
    """Newest entries kept in memory for followers, all topics together. [bytes]"""
    batch_entries: int = 512
    """Most entries a follower is given at once."""
    batch_bytes: int = 4 << 20
    """Bodies after which a batch ends, whatever its number of entries. [bytes]"""
