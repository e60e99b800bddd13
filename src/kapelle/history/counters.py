"""What the recorder counted, for status and metrics."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Numbers since the start of the process."""

    rows: Counter[str] = field(default_factory=Counter)
    """Rows written, by table."""
    bytes: int = 0
    """Of files written, flushes only. [bytes]"""
    files: int = 0
    flushes: int = 0
    last_flush_ns: int = 0
    """When the last flush was durable; 0 before the first. [UTC ns]"""
    flush_s: float = 0.0
    """How long the last flush took. [s]"""
    waiting_rows: int = 0
    """Rows in memory, not yet durable in the record; the journal has them."""
    oldest_ns: int = 0
    """When the oldest of them was journalled; 0 without any. [UTC ns]"""
    merges: int = 0
    """Hours and days merged."""
    unmerged: int = 0
    """Merges that could not be done and are tried again."""
    merge_reason: str = ""
    """Why; empty without any."""
    expired_files: int = 0
    """Files removed because their time was over."""
    too_late_rows: int = 0
    """Rows older than their table is kept."""
    gaps: int = 0
    """Times the journal had forgotten what the record had not taken over."""
    failures: int = 0
    reason: str = ""
    """Why no record is written now; empty while all is well."""
    ledger_reason: str = ""
    """Why the ledger of energy stands still, for some devices or all; empty while all is well."""

    energy_error_wh: float = 0.0
    """By how much the ledger differs from what registers counted, over what was closed. [Wh]"""

    def lag_s(self, now_ns: int) -> float:
        """Return the age of the oldest row that is not yet in the record; 0 without any. [s]"""
        return max(0.0, (now_ns - self.oldest_ns) / 1e9) if self.oldest_ns else 0.0
