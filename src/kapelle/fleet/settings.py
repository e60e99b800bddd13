"""What an operator may set about the live picture of the fleet."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """Freshness, estimation and the service around them.

    Everything the fold reads from here shapes the state: replay with other values gives another
    state from the next tick on, never a damaged one.
    """

    tick_s: float = 1.0
    """Time between ticks; ticks fall on its multiples, in every partition alike. [s]"""

    cadence_prior_s: float = 60.0
    """Assumed time between reports of a device that promised none, until two have come. [s]"""
    cadence_fall: float = 0.5
    """How much of the way a shorter gap moves the learned cadence. 0-1"""
    cadence_rise: float = 0.1
    """The same for a longer gap: small, because a lost report looks like one. 0-1"""
    cadence_rise_most: float = 4.0
    """A longer gap counts as at most this many cadences: an outage is not a rhythm."""
    cadence_s_min: float = 1.0
    """Ticks cannot tell apart what is faster. [s]"""
    late_after: float = 1.5
    """Live until silent for this many cadences (plus `slack_s`), then late …"""
    stale_after: float = 2.5
    """… then stale, and not counted on any more …"""
    lost_after: float = 10.0
    """… then lost."""
    slack_s: float = 1.0
    """Allowed on top of every such bound: transport, batching and the tick itself. [s]"""
    skew_window_s: float = 300.0
    """The clock error of a device is its least delay over this window and the one before. [s]"""

    gap_windows_max: int = 4096
    """Devices per partition of which we remember which reports are missing (544 bytes each).
    Beyond it, at the next tick, those heard from longest ago are given up: old reports of theirs
    are then neither late nor repeats."""
    restart_reports: int = 3
    """So many live reports in a row below a device's mark prove that its counters restarted."""
    restart_live_s: float = 30.0
    """Live is what arrives this soon after it was measured. [s]"""

    drift_share: tuple[float, ...] = (0.20, 0.15, 0.20, 0.35, 0.40, 0.15, 0.10)
    """How far a device on its own schedule strays from its last reading in the long run: standard
    deviation as a share of its nameplate, by `DeviceKind`. 0-1"""
    drift_s: tuple[float, ...] = (600.0, 600.0, 1800.0, 1200.0, 1800.0, 600.0, 1800.0)
    """Age at which half of that variance is reached, by `DeviceKind`. [s]"""
    commanded_share: float = 0.03
    """The same for a device that holds a setpoint. 0-1"""
    meter_share: float = 0.002
    """Error of a fresh reading, as a share of the nameplate. 0-1"""
    follow_share: float = 0.1
    """Doubt that a device which said yes also moves, as a share of the move. 0-1"""
    silent_share: float = 0.3
    """The same once it has fallen silent: the command may have died with it. 0-1"""
    flight_share: float = 0.3
    """Doubt about a device that was asked and cannot have answered, as a share of the move; shared
    by all such devices of a vendor. 0-1"""
    never_share: float = 0.25
    """Standard deviation of a device never heard, as a share of its nameplate. 0-1"""
    common_share: float = 0.1
    """Part of the error that the silent devices of one vendor share. 0-1"""
    live_common_share: float = 0.07
    """The same for devices that report: between their reports the sun moves for all. 0-1"""
    settle_s: float = 5.0
    """A released device is back on its own schedule this long after it said so. [s]"""

    lease_ttl_s: float = 10.0
    """The right to own a partition lapses this long after its holder died. [s]"""
    lease_wait_s: float = 30.0
    """How long start-up waits for a lease somebody else holds. [s]"""
    append_timeout_s: float = 120.0
    """The journal must have taken an entry of ours within this, or the service fails. Longer than
    the journal itself waits for a slow disk (`wait_s` and `stall_s`). [s]"""
    read_limit: int = 64
    """Entries read at once while replaying."""
    snapshot_every_entries: int = 50_000
    """A snapshot is taken after this many entries …"""
    snapshot_every_s: float = 300.0
    """… or this long after the last, whichever comes first. [s]"""
    stop_timeout_s: float = 20.0
    """Time for the last snapshot when the service stops. [s]"""
    retain_s: float = 3600.0
    """Entries younger than this are kept even where snapshots no longer need them. [s]"""
