"""What the OCPP adapter counts."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Counts since the start; all only rise, save `sessions` and `half_open`.

    Reasons become labels of metrics: each is one of a fixed set, never what a peer wrote.
    """

    sessions: int = 0
    """Stations connected now."""
    half_open: int = 0
    """Connections in their handshake now."""
    connected: int = 0
    takeovers: int = 0
    flaps: int = 0
    """Alarms: one station's connection was taken over too often."""
    connects_refused: Counter[str] = field(default_factory=Counter)
    """Connections that never became a session, by reason."""
    drops: Counter[str] = field(default_factory=Counter)
    """Connections we ended, by reason."""
    calls: int = 0
    """Calls of stations."""
    declined: int = 0
    """Calls answered with an error because the journal did not take them."""
    unreadable: int = 0
    """Calls, or parts of them, in quarantine."""
    astray: int = 0
    """Results to calls nobody waits for (any more)."""
    commands_sent: int = 0
    commands_received: int = 0
    """Calls of ours a station answered."""
    commands_unsent: int = 0
