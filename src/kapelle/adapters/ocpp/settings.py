"""Settings of the endpoint charging stations connect to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OcppSettings:
    """The CSMS: stations connect to `ws(s)://host:port/<identity>`, whatever stands before it."""

    host: str = "127.0.0.1"
    port: int = 9000
    """0 takes a free one; `OcppEndpoint.port` says which."""
    tls_certificate: str = ""
    """PEM file with the server's certificate and its chain; with it every connection is TLS
    (security profile 2)."""
    tls_key: str = ""
    """PEM file with the certificate's private key."""
    tls_client_authority: str = ""
    """PEM file of the authority that signs stations' certificates; with it a station shows one
    whose common name is its identity, and needs no password (security profile 3)."""
    insecure: bool = False
    """Allow security profile 1 (password without TLS) on addresses other machines can reach."""
    authorize: bool = True
    """Let everybody charge who shows a card. False: only whom the station itself knows."""
    heartbeat_s: int = 30
    """How often a station without a vehicle says that it lives. [s]"""
    sample_s: int = 10
    """How often a station is asked to report while it charges; 0: as it is set up. [s]"""
    charging_rate_unit: str = "A"
    """What limits are sent in where a station does not say what it takes: A or W."""
    volts: float = 230.0
    """Phase to neutral, where a station does not measure it. [V]"""
    stack_level: int = 0
    """Of our profiles. Among several of one purpose the highest counts."""
    call_s: float = 10.0
    """A station that takes longer to answer a call has not answered it. [s]"""
    command_s: float = 30.0
    """From the moment it is a command's turn to what became of it: several calls. [s]"""
    handshake_s: float = 10.0
    """From accepting a connection to a complete handshake, TLS included. [s]"""
    silence_s: float = 900.0
    """A station that answers pings and says nothing for so long is dropped: it may hang. [s]"""
    ping_s: float = 20.0
    """How often a connection is tried; one that does not answer as soon is dropped. [s]"""
    message_size_max: int = 65_536
    """Longest message of a station; beyond it the connection is closed with 1009. [bytes]"""
    connections_max: int = 10_000
    """Beyond it connections are dropped at once. Those in their handshake count as well."""
    messages_per_s: float = 10.0
    """Messages of one station in the long run; beyond it the station is not read. [1/s]"""
    messages_burst: int = 500
    """A station that comes back after an outage may send this many at once."""
    flaps_max: int = 3
    """Takeovers of one station's connection within `flap_window_s` that raise an alarm."""
    flap_window_s: float = 300.0

    def __post_init__(self) -> None:
        if self.charging_rate_unit not in ("A", "W"):
            raise ValueError('charging_rate_unit is "A" or "W"')
        if not 5 <= self.heartbeat_s <= 86_400:
            raise ValueError("heartbeat_s lies between 5 and 86400")
        if self.stack_level < 0 or self.sample_s < 0:
            raise ValueError("stack_level and sample_s are not negative")
