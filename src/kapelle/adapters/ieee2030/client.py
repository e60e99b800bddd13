"""What the server knows of one client while it runs."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from kapelle.adapters.ieee2030.codec import Part, Ratings, control_modes, ratings
from kapelle.adapters.ieee2030.controls import Controls
from kapelle.adapters.ieee2030.metering import Mirror, Signs
from kapelle.adapters.mqtt.throttle import TokenBucket


@dataclass(slots=True)
class Subscription:
    """Where a client wants to hear that a resource has changed."""

    number: int
    resource: str
    """Path of what it subscribed to."""
    uri: str
    limit: int


@dataclass(slots=True)
class Client:
    """One enrolled device that has been heard."""

    lfdi: str
    device_no: int
    controls: Controls
    bucket: TokenBucket
    signs: Signs
    since_s: int
    """When it was first heard. [s UTC]"""
    heard_ns: int = 0
    session: int = 0
    """Number of its session; 0: it is away."""
    mirrors: dict[str, Mirror] = field(default_factory=dict)
    """By mRID."""
    documents: dict[str, bytes] = field(default_factory=dict)
    """What it PUT, as it was sent, by the last part of the path: `dercap`, `derg`, …"""
    capability: Ratings = field(default_factory=Ratings)
    settings: Ratings = field(default_factory=Ratings)
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    last_number: int = 0
    """Of subscriptions."""
    unkept: set[str] = field(default_factory=set)
    """What has changed, besides controls, and is to outlive a restart: subscriptions, documents."""
    _modes: dict[str, AbstractSet[str]] = field(default_factory=dict)

    def take(self, part: Part) -> None:
        """Keep what a DERCapability or DERSettings says about controls."""
        if part.name == "DERSettings":
            self.settings = ratings(part)
        elif part.name == "DERCapability":
            self.capability = ratings(part)
        else:
            return
        self._modes[part.name] = control_modes(part)

    @property
    def ratings(self) -> Ratings:
        """Return what it is set to, where it says so, else what it was made for."""
        pairs = zip(self.settings, self.capability, strict=True)
        return Ratings(*(said if said is not None else made for said, made in pairs))

    @property
    def modes(self) -> AbstractSet[str]:
        """Return the ways to write a setpoint that it takes: enabled, else supported."""
        return self._modes.get("DERSettings") or self._modes.get("DERCapability") or set()
