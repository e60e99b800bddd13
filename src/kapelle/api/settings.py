"""What the API may be told: where it listens, who may speak, how much and how long."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Loopback only unless told otherwise."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free port."""
    token_file: str = ""
    """File with the bearer token, made at the first start. Empty: `api.token` in the data
    directory."""
    tls_certificate: str = ""
    """PEM file; with `tls_key` the API speaks HTTPS."""
    tls_key: str = ""
    insecure: bool = False
    """Allow plain HTTP on an address that others can reach (behind a proxy that ends TLS)."""
    plan_wait_s: float = 2.0
    """An order waits so long for what dispatch makes of it. [s]"""
    orders_per_minute: int = 60
    """New, changed and cancelled orders a minute; more are refused with 429."""
    order_s_max: float = 7 * 86_400.0
    """Longest order. [s]"""
    ahead_s_max: float = 31 * 86_400.0
    """How far ahead an order may start. [s]"""
    body_bytes_max: int = 64 * 1024
    """Largest body of any request but telemetry."""
    request_s: float = 10.0
    """A request's headers, and then its body, arrive within this long. [s]"""
    connections_max: int = 4_096
    """Connections at once, idle ones included; more are answered 503."""
    shutdown_s: float = 5.0
    """Requests under way get so long when the plant stops. [s]"""
