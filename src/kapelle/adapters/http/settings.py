"""What the telemetry route may be told: sizes, what may wait, and how long."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Bounds for `POST /v1/telemetry`, which shares the API's address."""

    enabled: bool = True
    body_bytes_max: int = 16 * 1024 * 1024
    """Largest body, before and after decompression."""
    rows_max: int = 100_000
    """Most readings in one request."""
    bytes_waiting_max: int = 128 * 1024 * 1024
    """All bodies together that are being read or wait for the journal; beyond it 503."""
    rows_waiting_max: int = 400_000
    """All readings together that wait for the journal; beyond it 503."""
    body_s: float = 30.0
    """A body arrives within this long. [s]"""
    durable_s: float = 30.0
    """A request waits at most so long for the journal. [s]"""
    retry_after_s: int = 2
    """Least pause asked of a client that was turned away; up to three times it, by turns. [s]"""
    names_remembered_max: int = 500_000
    """Rows of device names remembered with their numbers, for senders that repeat them."""
    listed_max: int = 1_000
    """Most unusable rows listed in one answer; all are counted."""
