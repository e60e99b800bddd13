"""What the VTN counts."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Counts since the start; all only rise, save `sessions`.

    Reasons become labels of metrics: each is one of a fixed set, never what a peer wrote.
    """

    sessions: int = 0
    """Gateways heard of lately."""
    connected: int = 0
    takeovers: int = 0
    """Never: several may speak for one gateway at once."""
    flaps: int = 0
    connects_refused: Counter[str] = field(default_factory=Counter)
    """Tokens refused, by reason."""
    drops: Counter[str] = field(default_factory=Counter)
    """Gateways that fell silent or are enrolled no more, by reason."""
    requests: int = 0
    unreadable: int = 0
    """Reports, or parts of them, in quarantine."""
    commands_sent: int = 0
    commands_received: int = 0
    """Events a gateway has fetched, or whose callback it answered."""
    commands_unsent: int = 0
    callbacks_sent: int = 0
    callbacks_failed: int = 0
    """Attempts that ended in no 2xx."""
    callbacks_given_up: int = 0
