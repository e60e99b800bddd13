"""What the process of simulated devices and its parent say to each other, as JSON lines."""

from typing import Literal

import msgspec

from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan


class Start(msgspec.Struct, frozen=True):
    """What fleet to play, against which plant. The same plan and seed make the same fleet."""

    host: str
    port: int
    plan: FleetPlan
    seed: int
    secrets: dict[str, str]
    """Device name -> password; devices that are not named stay out."""
    mix: dict[str, float] = msgspec.field(default_factory=dict)
    """Protocol -> share of the devices that speak it; empty: all speak MQTT."""
    ports: dict[str, int] = msgspec.field(default_factory=dict)
    """Protocol -> where plant and devices meet, for those that have a port of their own."""
    directory: str = ""
    """Where peers may keep files."""
    measured: str = ""
    """Folder with measured homes and sessions; empty: parametric ones."""
    faults: FaultPlan = msgspec.field(default_factory=FaultPlan)
    connects_per_s: float = 800.0
    back_off_s_max: float = 120.0
    """Longest pause between two attempts of a device to connect. [s]"""
    keep_alive_s: int = 30
    v5_share: float = 0.25


class Do(msgspec.Struct, frozen=True):
    """An order from whoever runs the process."""

    do: Literal["silence", "lose", "return", "stop"]
    fraction: float = 0.0
    by: Literal["vendor", "provider", "feeder", "gateway"] = "vendor"
    name: str = ""
    spare: str = ""
    """`silence`: a group (of `by`) that is left alone."""


class Part(msgspec.Struct, frozen=True):
    """What the devices of one protocol really do now."""

    devices: int
    connected: int
    power_w: float
    own_w: float
    """What they would do without orders. [W]"""


class Truth(msgspec.Struct, frozen=True, tag="truth", tag_field="event"):
    """What the devices really do now, and what they have been through."""

    at_ns: int
    power_w: float
    own_w: float
    """What they would do without orders. [W]"""
    connected: int
    reachable: int
    following: int
    reports: int
    """Telemetry of reachable devices, handed to their clients; each may be sent more than once."""
    published: int
    acked: int
    repeated: int
    forgotten: int
    commands: int
    unreadable: int
    effects: int
    double_effects: int
    stale_effects: int
    reverted: int
    expired: int
    fenced: int
    connects: int
    refused: int
    drops: int
    ack_ms: tuple[float, float]
    """Median and 99th percentile of publication to acknowledgement, since the last line. [ms]"""
    parts: dict[str, Part] = {}
    """By protocol."""
