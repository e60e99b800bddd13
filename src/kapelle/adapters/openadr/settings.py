"""Settings of the VTN gateways call, and of the VEN that follows a utility."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_DISPATCH_MAX_W = 1e9


@dataclass(frozen=True, slots=True)
class OpenAdrSettings:
    """The VTN, at `http(s)://host:port/openadr3/3.1.0`.

    It has a port of its own: gateways call it from other networks, and whatever they do there
    takes no connection from operators, nor does opening it open the operators' API.
    """

    host: str = "127.0.0.1"
    port: int = 9443
    """0 takes a free one; `Vtn.port` says which."""
    tls_certificate: str = ""
    """PEM file with the server's certificate and its chain; with `tls_key` it speaks HTTPS."""
    tls_key: str = ""
    insecure: bool = False
    """Allow plain HTTP on addresses other machines can reach (behind a proxy that ends TLS)."""
    public_url: str = ""
    """How gateways reach it, where a proxy stands before it: told as the token endpoint."""
    business_client: str = "business"
    """Client id of a party that may read everything and publish programs and events."""
    business_secret: str = ""
    """Its secret; empty: there is no such party."""
    token_s: float = 3_600.0
    """A token is good for so long. [s]"""
    poll_s: float = 5.0
    """Gateways look for events at least so often, or subscribe: commands are waited for so much
    longer than those of devices that are told at once. [s]"""
    absent_s: float = 30.0
    """A gateway that was not heard of for so long is absent: it is told nothing. [s]"""
    report_s: float = 10.0
    """How often gateways are asked to report. [s]"""
    ended_s: float = 3_600.0
    """An event that has ended stays to be seen, and reported on, for so long. [s]"""
    objects_max: int = 1_000
    """Objects of one kind a client may have; of its reports the oldest go, others are refused."""
    body_bytes_max: int = 262_144
    body_s: float = 10.0
    """A request's head, and then its body, arrive within so long. [s]"""
    connections_max: int = 4_096
    """Connections at once; beyond it requests are answered 503."""
    requests_per_s: float = 20.0
    """Requests of one client in the long run; beyond it they are answered 429. [1/s]"""
    requests_burst: int = 200
    callback_s: float = 5.0
    """One attempt at a callback, from resolving its host to its answer. [s]"""
    callback_tries: int = 4
    """Then a notification is given up; gateways that also poll miss nothing."""
    callbacks_waiting_max: int = 1_000
    """Notifications that wait for one client; beyond it the oldest go."""
    callbacks_at_once: int = 64
    callback_networks: tuple[str, ...] = ()
    """Networks callbacks may go to although they are private: `["10.1.0.0/16"]`."""
    callback_authority: str = ""
    """PEM file of the authority that signs callbacks' certificates; empty: the system's."""

    def __post_init__(self) -> None:
        if not 1 <= self.callback_tries <= 10:
            raise ValueError("callback_tries lies between 1 and 10")
        if self.poll_s < 0:
            raise ValueError("poll_s is not negative")
        if min(self.token_s, self.absent_s, self.report_s, self.ended_s) < 1:
            raise ValueError("token_s, absent_s, report_s and ended_s are at least 1")
        if self.business_secret and len(self.business_secret) < 16:
            raise ValueError("business_secret has at least 16 characters")

    @property
    def business_id(self) -> str:
        """Client id of the business party; empty: there is none, whatever a gateway is called."""
        return self.business_client if self.business_secret else ""


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """The VEN: which utility's program is followed, and what its events may ask."""

    url: str = ""
    """Base of the utility's VTN, such as `https://vtn.example/openadr3/3.1.0`."""
    client_id: str = ""
    program: str = ""
    """Name of the program that is followed."""
    client_secret: str = ""
    token_url: str = ""
    """Where tokens come from; empty: as the VTN says at `/auth/server`."""
    authority: str = ""
    """PEM file of the authority that signs the VTN's certificate; empty: the system's."""
    resource: str = "all"
    """What its events change the power of: one of the plant's resources."""
    resource_name: str = "kapelle"
    """What the plant is called in reports, and as a target."""
    targets: tuple[str, ...] = ()
    """Asked for with every poll; events of other targets are not ours."""
    power_max_w: float = 0.0
    """No event may change power by more than this; 0: no bound but the plant's own. [W]"""
    poll_s: float = 5.0
    """How often events are asked for. [s]"""
    report_s: float = 30.0
    """How often what becomes of an order is reported. [s]"""
    answer_s: float = 10.0
    """A request that takes longer has failed. [s]"""
    body_bytes_max: int = 1_048_576
    """Longest answer that is read."""
    events_max: int = 200
    """Events looked at; a VTN that has more is not followed further."""
    insecure: bool = False
    """Allow plain HTTP to other machines."""

    def __post_init__(self) -> None:
        missing = [name for name in ("url", "client_id", "program") if not getattr(self, name)]
        if missing:
            raise ValueError(f"{' and '.join(missing)} must be given")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError("url begins with https:// (or http://)")
        if not 0 <= self.power_max_w <= _DISPATCH_MAX_W:
            raise ValueError("power_max_w lies between 0 and 1e9")
        if min(self.poll_s, self.report_s, self.answer_s) < 0.1:
            raise ValueError("poll_s, report_s and answer_s are at least 0.1")


def is_id(text: str) -> bool:
    """Tell whether this may be the id of an object."""
    return _ID.fullmatch(text) is not None
