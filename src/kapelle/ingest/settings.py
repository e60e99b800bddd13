"""What ingest may be told: bounds on device time, on batches and on bad devices."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Defaults suit a plant of some thousand devices that report every few seconds."""

    ahead_s_max: float = 300.0
    """Device time further ahead of ours than this is quarantined. [s]"""
    ahead_s_flagged: float = 1.0
    """Device time further ahead than this is kept and flagged `Quality.AHEAD`. [s]"""
    age_s_max: float = 45 * 86_400.0
    """Older readings are quarantined: no settlement is reopened for them. [s]"""
    power_margin: float = 1.5
    """Power beyond this many times nameplate, plus `power_slack_w`, is quarantined."""
    power_slack_w: float = 100.0
    batch_rows: int = 20_000
    """A commit takes at most about this many rows; as many wait at most behind it."""
    linger_s: float = 0.002
    """Longest wait for more rows before a commit: the bound on latency that batching adds. [s]"""
    enough_rows: int = 2_000
    """With this many rows together a commit starts at once."""
    raw_bytes_max: int = 4_096
    """What a device sent is kept in quarantine up to this length."""
    bad_per_minute: int = 20
    """A device with more unusable reports a minute is muted: the rest is counted, not kept."""
    unresolved_per_minute: int = 2_000
    """The same bound for all senders together whose device is not enrolled."""
    mute_s: float = 300.0
    """How long a device stays muted. [s]"""
