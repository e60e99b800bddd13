"""What the MQTT adapter counts."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Counts since the start; all only rise, save `sessions` and `half_open`."""

    accepted: int = 0
    """TCP connections."""
    sessions: int = 0
    """Devices connected now."""
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
    """Commands without a session, subscription or room."""
    commands_replaced: int = 0
    """Queued commands a newer one took the place of."""
    commands_expired: int = 0
    """Queued commands whose time ended before they could be written."""
