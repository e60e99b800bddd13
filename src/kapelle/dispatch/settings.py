"""How dispatch behaves: times, tolerances and limits of the loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from kapelle.fleet.envelopes import StandingCap


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """Settings of the room. Times in seconds, fractions 0-1."""

    retry_s: float = 2.5
    """A command that was not answered is sent again after this; each pause is longer. [s]"""
    retry_growth: float = 1.5
    unknown_s: float = 5.0
    """No answer for so long: the device is not counted on until it answers. [s]"""
    attempts_max: int = 5
    command_ttl_s: float = 5.0
    """A device that receives a command later than this ignores it, and so it does a further try of
    one that was not answered. Not longer than `unknown_s`: what may still be obeyed when its device
    is given up holds its replacement back. [s]"""
    overshoot_budget: float = 0.02
    """What those who do not answer may add, should they act after all, as a part of the commitment:
    this, or one device. Beyond it nobody takes their place until they cannot act any more."""
    refresh_at: float = 0.5
    """Part of the revert time after which a setpoint is sent again, at the latest …"""
    refresh_spread: float = 0.4
    """… and up to this part of it sooner, so that a fleet commanded at once does not stay so."""
    overtake_s: float = 1.0
    """A command without an answer is overtaken by another after this at the earliest … [s]"""
    overtake: float = 0.03
    """… and only by one that differs by more than this part of nameplate."""
    dead_band: float = 0.03
    """Change of a setpoint, in nameplates, that is not worth a command. Spread 0.5-1.5."""
    plan_error: float = 0.002
    """Sum of such changes left undone, as part of all shares; beyond, a few make up for it."""
    verify_after: int = 2
    """Readings in a row that agree before a command counts as verified."""
    diverge_after: int = 3
    """Readings in a row that disagree before a device counts as diverged."""
    cycle_wait_s: float = 0.5
    """How long the summaries of slower partitions are waited for. [s]"""
    trim_per_s: float = 0.05
    """Part of the remaining error that the trim takes up each second."""
    trim_max: float = 0.1
    """Largest trim as a part of the commitment."""
    trim_fades_s: float = 60.0
    """Where the estimate cannot tell an error from noise, the trim decays with this time. [s]"""
    settle_s: float = 12.0
    """After the plan has moved, measurements follow this much later; the trim rests. [s]"""
    moved: float = 0.02
    """A plan moved when its sum has changed by more than this part of the commitment."""
    waiting_max: float = 0.1
    """The trim rests while more than this part of all commands waits for an answer."""
    measured_share_min: float = 0.5
    """The trim rests while less than this part of the power is measured."""
    summary_age_s_max: float = 10.0
    """Summaries older than this are no ground to start an order on. [s]"""
    shortfall_after_s: float = 2.0
    """A target out of reach for so long is announced. [s]"""
    group_devices_min: int = 10
    """Smaller groups are not announced when they vanish or return."""
    signal_every_s: float = 10.0
    """Levels that have not changed are repeated this often. [s]"""
    promise: Literal["headroom", "p90", "p95", "p99"] = "headroom"
    """How much of what is asked is promised: all there is headroom for, or what is so sure."""
    stage_above_w: float = inf
    """Larger orders, either way, begin with a few devices and grow as meters prove them. [W]"""
    stage_first: float = 0.01
    """Share of the devices in the first stage …"""
    stage_devices_min: float = 3.0
    """… and about how many at least."""
    stage_growth: float = 4.0
    """Each stage has so many times the devices of the one before."""
    stage_failed_max: float = 0.25
    """More of a stage than this rejected, opted out, diverged or unknown ends the order."""
    stage_s_max: float = 300.0
    """Whoever has not been verified after this counts as failed. [s]"""
    reserve_share: float = 0.0
    """This part of headroom is never promised: it is there to replace who drops out."""
    reserve: Mapping[str, float] = field(default_factory=dict)
    """The same for single resources, by name."""
    caps: tuple[StandingCap, ...] = ()
    """What groups may export and import at any time: `[[dispatch.caps]]` for each."""
    vendor_share_max: float = 1.0
    """Devices of one vendor carry at most this part of what an order commits; 1: all of it. 0-1"""
    lease_s: float = 5.0
    """How long the dispatcher's lease lasts without renewal. [s]"""
    snapshot_every_s: float = 300.0
    """What the plant's topic has told is saved this often, and when the service stops. [s]"""
    retain_s: float = 3600.0
    """Entries of the plant's topic younger than this are kept even where snapshots no longer need
    them. [s]"""

    def __post_init__(self) -> None:
        shares = {
            "reserve_share": self.reserve_share,
            "vendor_share_max": self.vendor_share_max,
        }
        shares |= {f"reserve.{name}": share for name, share in self.reserve.items()}
        for name, share in shares.items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} lies between 0 and 1")
