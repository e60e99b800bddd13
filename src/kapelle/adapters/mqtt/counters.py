"""What the MQTT adapter counts."""

from collections import Counter
from dataclasses import dataclass, field

CONNECT = "connect: "
"""How the reasons for refusing a CONNECT begin."""
TLS_HANDSHAKE = "TLS handshake"


@dataclass(slots=True)
class Counters:
    """Counts since the start; all only rise, save `sessions` and `half_open`.

    Reasons become labels of metrics: each is one of a fixed set, never what a peer wrote.
    """

    accepted: int = 0
    """TCP connections."""
    sessions: int = 0
    """Devices connected now; behind a broker, heard since we connected to it."""
    half_open: int = 0
    """Connections without a complete CONNECT now."""
    connected: int = 0
    """CONNECTs accepted."""
    received_size: int = 0
    """[bytes]"""
    sent_size: int = 0
    publications: int = 0
    """Publications taken in, readable or not."""
    acknowledged: int = 0
    """PUBACKs and PUBRECs written, each after the journal had it."""
    declined: int = 0
    """Publications not acknowledged because the journal did not take them."""
    unreadable: int = 0
    """Rows sent to quarantine by the codec."""
    refused: Counter[str] = field(default_factory=Counter)
    """Connections, publications and subscriptions not allowed, by reason."""
    malformed: Counter[str] = field(default_factory=Counter)
    """Packets that broke the protocol, by reason."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Connections we ended, by reason: keep-alive, handshake, slow reader, …"""
    held: Counter[str] = field(default_factory=Counter)
    """Times a peer was not read for a while, by reason; accepting counts as one of them."""
    takeovers: int = 0
    flaps: int = 0
    """Alarms: one device's session was taken over too often."""
    commands_sent: int = 0
    commands_received: int = 0
    """PUBACKs of devices (or the broker) for commands."""
    commands_unsent: int = 0
    """Commands without a session, subscription or room, or behind an unanswered one."""

    @property
    def connects_refused(self) -> dict[str, int]:
        """Connections that never became a session, by reason."""
        return {
            reason.removeprefix(CONNECT): count
            for reason, count in self.refused.items()
            if reason.startswith(CONNECT) or reason == TLS_HANDSHAKE
        }

    @property
    def drops(self) -> dict[str, int]:
        """Connections we ended, by reason: overdue, slow, or not speaking MQTT."""
        return dict(self.dropped + self.malformed)
