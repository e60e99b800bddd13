"""Settings of the MQTT endpoint and of the client to a broker the user already runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """The endpoint devices connect to."""

    host: str = "127.0.0.1"
    port: int = 1883
    """0 takes a free one; `MqttEndpoint.port` says which."""
    tls_certificate: str = ""
    """PEM file with the server's certificate and its chain; with it every connection is TLS."""
    tls_key: str = ""
    """PEM file with the certificate's private key."""
    insecure: bool = False
    """Allow plaintext on addresses other machines can reach. Passwords then cross the network."""
    payload_size_max: int = 65_536
    """Longest payload of a publication. [bytes]"""
    handshake_s: float = 10.0
    """From accepting a connection to a complete CONNECT; once more for TLS. [s]"""
    keep_alive_s_max: int = 900
    """Longest keep-alive granted; also what a client gets that asks for none. [s]"""
    connections_max: int = 100_000
    """Beyond it CONNECT is answered with `quota exceeded` / `server unavailable`."""
    half_open_max: int = 1_000
    """Connections without a complete CONNECT; beyond it accepting pauses."""
    connects_per_s: float = 2_000.0
    """Connections accepted in the long run; beyond it accepting pauses. [1/s]"""
    connects_burst: int = 4_000
    publishes_per_s: float = 50.0
    """Publications of one device in the long run; beyond it the device is not read. [1/s]"""
    publishes_burst: int = 1_000
    """A device that comes back after an outage may send this many at once."""
    inflight_max: int = 64
    """Publications of one device that wait for their acknowledgement (Receive Maximum)."""
    waiting_max: int = 20_000
    """Publications of all devices that wait for the consumer; beyond it nobody is read."""
    waiting_size_max: int = 64 * 1024 * 1024
    """The same bound on their payloads. [bytes]"""
    batch_max: int = 4_096
    """Publications handed over at once."""
    batch_big: int = 512
    """A batch of this many goes out without lingering."""
    linger_s: float = 0.003
    """How long the first publication of a small batch waits for others. [s]"""
    write_buffer_max: int = 65_536
    """What a device has not read yet; beyond it the device is dropped. [bytes]"""
    command_ack_s: float = 30.0
    """A device that leaves a command's PUBACK out for longer is dropped. [s]"""
    flaps_max: int = 3
    """Takeovers of one device's session within `flap_window_s` that raise an alarm."""
    flap_window_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """A connection to a broker the user already runs."""

    host: str = "127.0.0.1"
    port: int = 1883
    tls: bool = False
    tls_authority: str = ""
    """PEM file of the authority that signed the broker's certificate; empty: the system's."""
    insecure: bool = False
    """Allow plaintext to a broker on another machine."""
    version: int = 5
    """Protocol level: 5, or 4 for MQTT 3.1.1."""
    client_id: str = "kapelle"
    """Stays the same, so that the broker keeps what is not acknowledged while we are away."""
    username: str = ""
    password: str = ""
    keep_alive_s: int = 30
    session_expiry_s: int = 86_400
    """How long the broker keeps our subscriptions and messages while we are away (MQTT 3.1.1: as
    long as it likes); 0: it keeps nothing. [s]"""
    receive_max: int = 1_000
    """Publications the broker may have on their way to us without acknowledgement (MQTT 5)."""
    packet_size_max: int = 1_048_576
    connect_s: float = 10.0
    commands_inflight_max: int = 1_000
    """Publications of ours the broker has not acknowledged; beyond it nothing is written."""


@dataclass(frozen=True, slots=True)
class BrokerSettings(ClientSettings):
    """A broker the user already runs, with devices behind it that speak the plant's own words."""

    telemetry_topic: str = "v1/+/tel"
    """Filter with one `+`, which stands where the device's name is."""
    ack_topic: str = "v1/+/ack"
    command_topic: str = "v1/{id}/cmd"
    waiting_max: int = 20_000
    waiting_size_max: int = 64 * 1024 * 1024
    batch_max: int = 4_096
    batch_big: int = 512
    linger_s: float = 0.003
