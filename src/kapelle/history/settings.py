"""Settings of the long record."""

from dataclasses import dataclass

LATE_DAYS = 45
"""Readings this late are still taken in (`age_s_max` of ingest), and revise what was closed."""


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """`[history]`: where the record lies, how it is written and how long each tier is kept."""

    enabled: bool = True
    """False: no record is kept, and the journal need not wait for one."""
    directory: str = ""
    """Where the record lies; `history` in the plant's data directory where empty."""
    flush_s: float = 30.0
    """Longest time between two flushes: queries see nothing younger. [s]"""
    flush_rows: int = 500_000
    """Rows in memory after which a flush begins at once; at most twice as many are held."""
    row_group: int = 16_384
    """Rows per group in a file: the least a query for one device decodes."""
    zstd_level: int = 3
    compact_files: int = 16
    """Small files of one partition and hour that are merged while the hour still runs."""
    close_s: float = 120.0
    """An hour is closed and merged this long after its end. [s]"""
    late_s: float = 600.0
    """Late rows of a past day wait this long for more before the day is merged again. [s]"""
    grace_s: float = 300.0
    """Files that were merged away stay this long for those who still read them. [s]"""
    compaction: bool = True
    """False: files stay as they were flushed; for examinations."""
    raw_days: int = 60
    """Readings as they came."""
    minute_days: int = 400
    """Means per minute."""
    quarter_days: int = 3660
    """Means per quarter-hour."""
    evidence_days: int = 800
    """Commands, answers, phases, sessions and published totals. Orders, notices, holds,
    corrections, memberships and energy are kept for good."""
    hold_s: float = 86_400.0
    """Where the record cannot be written for this long, the journal forgets what it would have
    kept for it, lest it fill the disk; the record will have a gap, and say so. [s]"""
    stop_timeout_s: float = 20.0
    """A plant that stops waits this long for its last flush. [s]"""

    def __post_init__(self) -> None:
        if self.raw_days <= LATE_DAYS:
            raise ValueError(f"raw_days is more than {LATE_DAYS}: late readings revise that long")
        if self.flush_s <= 0 or self.flush_rows < 1 or self.row_group < 1:
            raise ValueError("flush_s, flush_rows and row_group are more than 0")
        if not 1 <= self.zstd_level <= 19:
            raise ValueError("zstd_level lies between 1 and 19")
        if self.compact_files < 2:
            raise ValueError("compact_files is at least 2")
        if not self.raw_days <= self.minute_days <= self.quarter_days:
            raise ValueError("raw_days, minute_days and quarter_days do not fall: tiers follow")
