"""What the IEEE 2030.5 adapter counts."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Counts since the start; all only rise, save `sessions` and `connections`.

    Reasons become labels of metrics: each is one of a fixed set, never what a peer wrote.
    """

    sessions: int = 0
    """Clients heard lately."""
    connections: int = 0
    """Open now."""
    connected: int = 0
    """Times a client was heard after it had been away."""
    takeovers: int = 0
    """Always 0: a client may have several connections."""
    flaps: int = 0
    """Always 0, likewise."""
    connects_refused: Counter[str] = field(default_factory=Counter)
    """Connections and requests of those who are not let in, by reason."""
    drops: Counter[str] = field(default_factory=Counter)
    """Connections we ended, by reason."""
    requests: int = 0
    declined: int = 0
    """Requests answered with 503 because the journal did not take them."""
    unreadable: int = 0
    """Messages, or parts of them, in quarantine."""
    astray: int = 0
    """Responses to controls that are not known (any more)."""
    notified: int = 0
    """Notifications a client took."""
    unnotified: int = 0
    """Notifications nobody took."""
    commands_sent: int = 0
    commands_received: int = 0
    """Controls of ours a client said it received."""
    commands_unsent: int = 0
