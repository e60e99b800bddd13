"""Limits that no command passes, whoever wrote it."""

from dataclasses import dataclass
from math import inf

EACH = "*"
LEVELS = ("zone", "feeder", "site", "device")


@dataclass(frozen=True, slots=True)
class GroupLimit:
    """One `[[safety.limits]]`: what may happen at once in a zone, feeder, site, device or all.

    At most one of `zone`, `feeder`, `site` and `device` is given; "*" stands for each of them on
    its own, none for the whole plant. Every limit that applies to a device holds for it.
    """

    zone: str = ""
    feeder: str = ""
    site: str = ""
    device: str = ""
    power_w: float = inf
    """How far all its devices together may stand above, and below, their own schedules. [W]"""
    ramp_w_per_min: float = inf
    """How fast setpoints may move them up, and down, in the long run … [W/min]"""
    ramp_burst_s: float = 10.0
    """… and so much of it at once: one device's step must fit into it. [s]"""
    switching_max: float = inf
    """How many switched devices may be turned on or off within 10 s …"""
    switching_share: float = 1.0
    """… and which share of the group's switched devices. 0-1"""

    def __post_init__(self) -> None:
        if sum(bool(getattr(self, level)) for level in LEVELS) > 1:
            raise ValueError(f"a limit is about one of {', '.join(LEVELS)}; write one for each")
        if not min(self.power_w, self.ramp_w_per_min, self.switching_max) >= 0:
            raise ValueError("power_w, ramp_w_per_min and switching_max are not negative")
        if not (self.ramp_burst_s > 0 and 0 <= self.switching_share <= 1):
            raise ValueError("ramp_burst_s is above 0 and switching_share within 0 to 1")

    @property
    def level(self) -> str:
        """What it is about: one of `LEVELS`, or `plant`."""
        return next((level for level in LEVELS if getattr(self, level)), "plant")

    @property
    def name(self) -> str:
        """Which zone, feeder, site or device; "*" for each, empty for the plant."""
        return "" if self.level == "plant" else str(getattr(self, self.level))

    @property
    def limits_switching(self) -> bool:
        """Whether it says anything about switching."""
        return self.switching_max < inf or self.switching_share < 1.0


@dataclass(frozen=True, slots=True)
class SafetySettings:
    """Settings of the last hop before the transport."""

    limits: tuple[GroupLimit, ...] = ()
    """Limits of power, ramp and switching: `[[safety.limits]]` for each."""
    beyond_nameplate: float = 0.001
    """Setpoints may exceed the nameplate by this part of it: rounding, never more."""
    revert_s_max: float = 3600.0
    """A revert timer longer than this does not count as one. [s]"""
    allow_no_failsafe: bool = True
    """Whether devices enrolled without a revert timer may be commanded at all. They carry less
    either way."""
    valid_s_max: float = 60.0
    """A command that may be obeyed later than this is refused: it outlives its reason. [s]"""
    commands_per_minute: float = 30.0
    """Most commands a device is sent, in the long run …"""
    commands_burst: float = 10.0
    """… and at once."""
    commands_per_hour: float = 600.0
    """No hour has more commands to one device, and …"""
    commands_per_day: float = 7200.0
    """… no day. Counted in quarters: the hour may be an hour and a quarter, the day 30 h."""
    dwell_s: float = 60.0
    """A switched device that was turned on, off or let go stays so for this long. [s]"""
    authority_w_per_hour: float = inf
    """Most power one issuer's orders may move within an hour, counted over all commands. [W]"""
    operate_above_w: float = inf
    """Orders for more than this, either way, take a second person: select, then operate. [W]"""
    rearm_by_two: bool = False
    """Whether lifting a hold takes two persons."""
    reversals_max: float = inf
    """More devices than this sent one way and back within a minute: hold."""
    unexplained_sigmas: float = inf
    """Setpoints that move more power within a minute than the orders in force ask for, by more
    than so many standard deviations: hold."""
    save_every_s: float = 300.0
    """What the gate has let through is saved this often, and when it stops. [s]"""
    send_at_once: int = 1000
    """Commands handed to a transport between two looks at the hold."""
    send_timeout_s: float = 10.0
    """A transport that has not taken a hand-over by then is passed over. [s]"""
