"""How a vendor's cloud is reached, and how it reaches the plant."""

import base64
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from kapelle.adapters.cloud.documents import (
    CloudActions,
    CloudCommand,
    CloudPoll,
    CloudShape,
)
from kapelle.runtime.exposure import is_loopback

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TAKEN = (
    "mqtt", "http", "broker", "ocpp", "replay", "sunspec", "openadr", "ieee2030", "sparkplug",
    "topics",
)  # fmt: skip
NOTICED_S_MAX = 20.0
"""A cloud that stops answering is noticed within this long of its cadence. [s]"""


@dataclass(frozen=True, slots=True)
class CloudAuth:
    """How the plant proves who it is."""

    kind: Literal["none", "bearer", "basic", "oauth2"] = "none"
    """oauth2: an owner's refresh token (RFC 6749, 6), or without one client credentials (4.4)."""
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    token_url: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    """Empty: the client is a public one, as apps are."""
    client_in: Literal["header", "form"] = "header"
    """Where the client's id and secret go: HTTP Basic, or the form."""
    refresh_token: str = field(default="", repr=False)
    """Of an owner who has signed in. Vendors replace it with every use; the newest is kept in the
    data directory."""
    scope: str = ""
    audience: str = ""

    def __post_init__(self) -> None:
        needed = {"bearer": ("token",), "basic": ("user",), "oauth2": ("token_url", "client_id")}
        missing = [name for name in needed.get(self.kind, ()) if not getattr(self, name)]
        if missing:
            raise ValueError(f'kind = "{self.kind}" needs {" and ".join(missing)}')
        if self.kind == "oauth2" and not self.client_secret and not self.refresh_token:
            raise ValueError('kind = "oauth2" needs client_secret, refresh_token or both')


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One kind of event in a webhook's deliveries."""

    name: str
    """What stands at the webhook's `kind`: `user:battery:updated`."""
    item: str
    """Path of the device, or of the action, in the event."""
    shape: str = ""
    """Empty: it is about an action."""


@dataclass(frozen=True, slots=True)
class CloudWebhook:
    """What the vendor delivers to `/v1/webhooks/<name>`; off without events."""

    secret: str = field(default="", repr=False)
    """Key of the signature, at least 16 characters."""
    key_form: Literal["text", "base64"] = "text"
    """base64: the key is what the secret says in base64, after `whsec_` if that stands before."""
    events: tuple[CloudEvent, ...] = ()
    algorithm: Literal["sha1", "sha256"] = "sha256"
    signature_header: str = "x-signature"
    """Holds one signature, or several with spaces between."""
    signature_prefix: str = ""
    """What stands before a digest: `sha1=`."""
    encoding: Literal["hex", "base64"] = "hex"
    id_header: str = ""
    """The delivery's id, signed as `<id>.<timestamp>.<body>`; empty: it is not signed."""
    timestamp_header: str = ""
    """Seconds since 1970, signed together with the body as `<timestamp>.<body>`; empty: the body
    alone is signed."""
    skew_s_max: float = 300.0
    """Timestamps that are further off, either way, are refused. [s]"""
    items: str = ""
    """Path of the list of events; empty: the document is the list, or the one event."""
    kind: str = "event"
    time: str = ""
    """Path of an event's own time (RFC 3339)."""
    age_s_max: float = 90_000.0
    """Events older than this are left out: the vendor has long ceased to redeliver them. [s]"""
    heartbeat_s: float = 0.0
    """The vendor delivers something at least so often; 0: it does not. [s]"""
    answer_s: float = 4.0
    """From a request's head to the answer: below the vendor's own limit. [s]"""
    body_bytes_max: int = 1_048_576
    at_once_max: int = 32
    """Deliveries being read or stored; beyond it 503."""
    remembered_max: int = 50_000
    """Deliveries remembered, so that a repeated one is not stored twice."""

    def __post_init__(self) -> None:
        try:
            key = self.key
        except ValueError:
            raise ValueError('secret is no base64: mend it, or say key_form = "text"') from None
        if self.events and len(key) < 16:
            raise ValueError("secret is at least 16 characters long")
        if self.id_header and not self.timestamp_header:
            raise ValueError("id_header is signed with a timestamp_header")
        if not 0 < self.answer_s <= 60:
            raise ValueError("answer_s lies between 0 and 60")

    @property
    def key(self) -> bytes:
        """Return the key that signs. Raises ValueError where it is no base64."""
        if self.key_form == "text":
            return self.secret.encode()
        return base64.b64decode(self.secret.removeprefix("whsec_"), validate=True)


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """One vendor's cloud: an adapter of its own, whose name devices are enrolled with."""

    name: str
    base_url: str
    shapes: tuple[CloudShape, ...]
    polls: tuple[CloudPoll, ...] = ()
    commands: tuple[CloudCommand, ...] = ()
    auth: CloudAuth = field(default_factory=CloudAuth)
    actions: CloudActions = field(default_factory=CloudActions)
    webhook: CloudWebhook = field(default_factory=CloudWebhook)
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request: a version, say."""
    requests_per_s: float = 5.0
    """Quota in the long run; commands come before polls. [1/s]"""
    requests_burst: int = 20
    at_once: int = 8
    """Requests under way at the same moment."""
    answer_s: float = 8.0
    """A request that takes longer is not answered. [s]"""
    noticed_s: float = 15.0
    """How long requests fail before all devices of the cloud count as unreachable. [s]"""
    retry_s_max: float = 120.0
    """Longest pause between tries of a cloud that does not answer, unless it asks for more. [s]"""
    command_s: float = 30.0
    """From the moment it is a command's turn to the vendor's answer. [s]"""
    body_bytes_max: int = 4 * 1024 * 1024
    """Longest document; a longer one is not read to its end."""
    items_max: int = 10_000
    """Devices in one document."""
    pages_max: int = 1_000
    insecure: bool = False
    """Allow plain HTTP to other machines."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise ValueError("name is lower-case letters, digits and -, and not another adapter's")
        for url in filter(None, (self.base_url, self.auth.token_url)):
            self._check_url(url)
        if not 0 < self.noticed_s <= NOTICED_S_MAX:
            raise ValueError(f"noticed_s lies between 0 and {NOTICED_S_MAX:g}")
        if self.requests_per_s <= 0 or self.requests_burst < 2 or self.at_once < 1:
            raise ValueError("requests_per_s > 0, requests_burst >= 2, at_once >= 1")
        for name, told in self.headers.items():
            if name.lower() == "authorization":
                raise ValueError("headers hold no credentials: use [clouds.cloud.auth]")
            if not (name + told).isascii() or not told.isprintable():
                raise ValueError("headers are printable ASCII")
        if not self.polls and not self.webhook.events:
            raise ValueError("a cloud has polls, or a webhook with events")
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Hold what is asked for and delivered to the shapes it is read in."""
        shapes = {shape.name: shape for shape in self.shapes}
        lists = [poll.shape for poll in self.polls if not poll.is_by_device]
        delivered = {event.shape: event.name for event in self.webhook.events if event.shape}
        used = {poll.shape for poll in self.polls} | delivered.keys()
        used |= {name for command in self.commands for name in command.shapes}
        if unknown := sorted(used - shapes.keys()):
            raise ValueError(f"no shape is called {', '.join(unknown)}")
        for name in (*lists, *delivered):
            if not shapes[name].id:
                raise ValueError(f"shape {name} lacks `id`: where it stands whose it is")
        is_timed = self.webhook.time or self.webhook.timestamp_header
        for name, event in delivered.items():
            if not shapes[name].time and not is_timed:
                raise ValueError(
                    f"an old delivery of {event} would look new: say where its time stands, "
                    f"`time` of shape {name} or of the webhook, or `timestamp_header`"
                )

    def _check_url(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError(f"{url} is not the address of an API")
        if parts.scheme == "http" and not self.insecure and not is_loopback(parts.hostname):
            raise ValueError(f"{url} is plain HTTP: use https, or say insecure = true")


@dataclass(frozen=True, slots=True)
class CloudsSettings:
    """Every vendor's cloud: `[[clouds.cloud]]`."""

    cloud: tuple[CloudSettings, ...] = ()

    def __post_init__(self) -> None:
        names = [cloud.name for cloud in self.cloud]
        if len(set(names)) < len(names):
            raise ValueError("two clouds bear one name")
