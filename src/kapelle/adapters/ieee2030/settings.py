"""Settings of the server that IEEE 2030.5 clients connect to."""

import ipaddress
from dataclasses import dataclass

CONTROLS = ("", "fixed_w", "target_w", "storage_target_w")


@dataclass(frozen=True, slots=True)
class Ieee2030Settings:
    """The utility server: clients begin at `https://host:port/dcap`, always with mutual TLS."""

    host: str = "127.0.0.1"
    port: int = 8443
    """0 takes a free one; `Ieee2030Endpoint.port` says which."""
    tls_certificate: str = ""
    """PEM file with the server's certificate (ECDSA on P-256) and its chain."""
    tls_key: str = ""
    """PEM file with the certificate's private key."""
    tls_client_authority: str = ""
    """PEM file of the authorities that sign the certificates of clients."""
    gcm: bool = True
    """Also take the AES-GCM suites with ECDSA, as utilities under CSIP-AUS do. False: only
    ECDHE-ECDSA-AES128-CCM8, which the standard demands."""
    pins: str = ""
    """File of registration PINs, a line `LFDI PIN` each; who is not in it has no Registration."""
    poll_s: int = 10
    """How often clients are asked to look for controls. [s]"""
    poll_spread_s: int = 2
    """Clients are asked for up to so much more, each for its own, so that they do not come all at
    once. [s]"""
    post_s: int = 10
    """How often clients are asked to send readings. [s]"""
    silence_s: float = 60.0
    """A client not heard for so long is away: it is told nothing. More than `poll_s`. [s]"""
    control: str = ""
    """How a setpoint is written: "fixed_w", "target_w" or "storage_target_w" (CSIP-AUS); empty:
    what the client says it can, the most exact first, else fixed_w."""
    unsaid_flow: str = ""
    """What a positive power is whose flowDirection is 0 (not applicable): "load" or "generation";
    empty: such readings are refused, because a guess might turn the sign."""
    forward_is_export: tuple[str, ...] = ()
    """LFDIs of clients whose flowDirection 1 counts towards the grid, "*" for all. By the standard
    it counts towards the customer; some clients give a DER's output that direction."""
    primacy: int = 1
    """Of the program with our controls; among several servers' the lowest counts. 1: contracted
    premises service provider."""
    randomize_s: int = 0
    """Clients begin a control up to so much later, each at random. 0: at once. [s]"""
    default_export_w: float = -1.0
    """opModExpLimW of the DefaultDERControl, which holds without a control. Below 0: none. [W]"""
    default_import_w: float = -1.0
    """opModImpLimW of the DefaultDERControl. Below 0: none. [W]"""
    notify_networks: tuple[str, ...] = ()
    """Networks besides the public ones to which notifications may go: "192.168.0.0/16"."""
    body_size_max: int = 65_536
    """Longest message of a client; beyond it 413. [bytes]"""
    request_s: float = 10.0
    """From the first byte of a request to its last, and for an answer to be taken. [s]"""
    idle_s: float = 120.0
    """A connection on which nobody asks for so long is closed. [s]"""
    handshake_s: float = 10.0
    half_open_max: int = 256
    """Handshakes at the same time; further connections wait until one is over."""
    connections_max: int = 10_000
    """Beyond it connections are dropped at once."""
    connections_per_client_max: int = 8
    requests_per_s: float = 20.0
    """Requests of one client in the long run; beyond it 429. [1/s]"""
    requests_burst: int = 200
    mirrors_max: int = 16
    """Mirror usage points of one client."""
    subscriptions_max: int = 16
    """Subscriptions of one client."""

    def __post_init__(self) -> None:
        if self.control not in CONTROLS:
            raise ValueError(f"control is one of {CONTROLS}")
        if self.unsaid_flow not in ("", "load", "generation"):
            raise ValueError('unsaid_flow is "load", "generation" or empty')
        if not 1 <= self.poll_s < self.silence_s:
            raise ValueError("poll_s is at least 1 and less than silence_s")
        for network in self.notify_networks:
            ipaddress.ip_network(network)
        if not 0 <= self.primacy <= 255:
            raise ValueError("primacy lies between 0 and 255")
        if not 0 <= self.randomize_s <= 3600:
            raise ValueError("randomize_s lies between 0 and 3600")
        if self.half_open_max < 1:
            raise ValueError("half_open_max is at least 1")
        if self.post_s < 1 or self.poll_spread_s < 0:
            raise ValueError("post_s is at least 1, poll_spread_s not negative")
