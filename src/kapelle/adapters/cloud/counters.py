"""What a cloud's adapter counts."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Counts since the start; all only rise, save `sessions`.

    Reasons become labels of metrics: each is one of a fixed set, never what a vendor wrote.
    """

    sessions: int = 0
    """Devices that can be reached now."""
    connected: int = 0
    """Devices that came back, or were seen for the first time."""
    takeovers: int = 0
    flaps: int = 0
    connects_refused: Counter[str] = field(default_factory=Counter)
    """Deliveries of the webhook that were refused, by reason."""
    drops: Counter[str] = field(default_factory=Counter)
    """Devices that could be reached no longer, by reason."""
    requests: int = 0
    failed: int = 0
    """Requests that were not answered, or with an error of the cloud."""
    outages: int = 0
    deliveries: int = 0
    repeated: int = 0
    """Deliveries that had been stored before."""
    unreadable: int = 0
    commands_sent: int = 0
    commands_received: int = 0
    """Commands the vendor has taken."""
    commands_unsent: int = 0
