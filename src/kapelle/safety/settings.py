"""Limits that no command passes, whoever wrote it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SafetySettings:
    """Settings of the last hop before the transport."""

    beyond_nameplate: float = 0.001
    """Setpoints may exceed the nameplate by this part of it: rounding, never more."""
    revert_s_max: float = 3600.0
    """A revert timer longer than this does not count as one. [s]"""
    allow_no_failsafe: bool = True
    """Whether devices enrolled without a revert timer may be commanded at all. They carry less
    either way."""
    commands_per_minute: float = 30.0
    """Most commands a device is sent, in the long run …"""
    commands_burst: float = 10.0
    """… and at once."""
    send_at_once: int = 1000
    """Commands handed to a transport between two looks at the hold."""
    send_timeout_s: float = 10.0
    """A transport that has not taken a hand-over by then is passed over. [s]"""
