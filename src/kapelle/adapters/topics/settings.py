"""What other people's topics mean, and whose discovery is listened to."""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from kapelle.adapters import quantities
from kapelle.adapters.mqtt.settings import ClientSettings

DEVICE = "{device}"
"""Stands for the device in a topic, as one whole step of it."""
DISCOVERED = "homeassistant"
"""What the address of a discovered device begins with: `homeassistant/<identifier>`."""
VALUE = "$value"
"""Stands for the setpoint in a command's payload."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SIGN = (
    'positive is "export" or "import" for a power, and for nothing else: say which way it counts'
)


@dataclass(frozen=True, slots=True)
class TopicValue:
    """One value of a device: the topic that has it, and what it means there."""

    topic: str
    """`tele/{device}/SENSOR`."""
    metric: str
    """power_w, soc, export_wh, import_wh, max_w, min_w, voltage_v, frequency_hz or setpoint_w."""
    unit: str
    """W, kW, MW, Wh, kWh, MWh, fraction, percent, V or Hz."""
    path: str = ""
    """Keys and places in its JSON, joined by dots; empty: the payload is the number."""
    positive: str = ""
    """`export` or `import`: the direction in which it counts upwards. Only for powers, and there it
    must be said."""
    time: str = ""
    """Path of the moment it was measured. Without one, what the broker has retained is left out."""
    time_form: Literal["rfc3339", "unix", "unix-ms", "utc"] = "rfc3339"

    def __post_init__(self) -> None:
        check_topic(self.topic)
        quantities.check(self.metric, self.unit, self.positive)


@dataclass(frozen=True, slots=True)
class TopicAvailability:
    """A topic that says whether a device is there: its will, mostly."""

    topic: str
    """Without `{device}` it is about all devices of its scheme."""
    online: str = "online"
    offline: str = "offline"
    path: str = ""
    """In its JSON; empty: the payload is the word."""

    def __post_init__(self) -> None:
        check_topic(self.topic)
        if self.online == self.offline:
            raise ValueError("online and offline are different words")


@dataclass(frozen=True, slots=True)
class TopicCommand:
    """How to tell a device something. The first that fits is used."""

    topic: str
    payload: str
    """Text in which $value stands for the setpoint."""
    when: Literal["set", "import", "export", "idle", "release"] = "set"
    """set: any setpoint; import, export, idle: one that consumes, feeds in, is 0; release: back to
    its own schedule."""
    unit: Literal["W", "kW"] = "W"
    positive: Literal["", "export", "import"] = ""
    """Direction in which $value counts upwards; must be said where $value is used."""
    value_min: float = -math.inf
    """Below it the command is refused. [unit]"""
    value_max: float = math.inf
    echo: str = ""
    """What the scheme's state shows once it is done, with $value; empty: nothing tells."""
    qos: Literal[0, 1] = 1
    retain: bool = False

    def __post_init__(self) -> None:
        check_topic(self.topic)
        if (VALUE in self.payload) != bool(self.positive):
            raise ValueError('positive is "export" or "import" where payload has $value')
        if self.when == "release" and VALUE in self.payload:
            raise ValueError("a release has no $value")
        if VALUE in self.echo and VALUE not in self.payload:
            raise ValueError("echo has $value only where payload has it")
        if not self.value_min <= self.value_max:
            raise ValueError("value_min is at most value_max")


@dataclass(frozen=True, slots=True)
class TopicScheme:
    """The topics of one kind of device. Its devices have the address `<name>/<device>`."""

    name: str
    values: tuple[TopicValue, ...] = ()
    availability: tuple[TopicAvailability, ...] = ()
    """A device is there when all of them say so; without any, once it was heard."""
    commands: tuple[TopicCommand, ...] = ()
    state_topic: str = ""
    """Where a device shows what it was set to, the `echo` of commands."""
    state_path: str = ""
    device: str = ""
    """The one device of topics that do not name any."""
    ask_topic: str = ""
    """Published to again and again, for devices that fall silent otherwise."""
    ask_payload: str = ""
    ask_s: float = 30.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == DISCOVERED:
            raise ValueError(f"name is lower-case letters, digits and -, and not {DISCOVERED}")
        if not self.values:
            raise ValueError("values names at least one: [[topics.schemes.values]]")
        metrics = [value.metric for value in self.values]
        if len(set(metrics)) < len(metrics):
            raise ValueError("each metric stands in one value of a scheme")
        if self.device and not is_step(self.device):
            raise ValueError("device is one step of a topic")
        named = [value.topic for value in self.values]
        named += [command.topic for command in self.commands]
        named += [self.state_topic] if self.state_topic else []
        for topic in named:
            if not self.device and DEVICE not in topic.split("/"):
                raise ValueError(
                    f"{topic} does not say whose it is: put {DEVICE} in a step, or set device"
                )
        for topic in filter(None, (self.state_topic, self.ask_topic)):
            check_topic(topic)
        if self.commands and not any(command.when == "release" for command in self.commands):
            raise ValueError('commands need one with when = "release"')
        if any(command.echo for command in self.commands) != bool(self.state_topic):
            raise ValueError("an echo is shown at state_topic: set both, or neither")
        if self.ask_s < 1:
            raise ValueError("ask_s is at least 1")


@dataclass(frozen=True, slots=True)
class TopicEntity:
    """What entities of Home Assistant discovery mean. The first that fits is used."""

    metric: str
    """setpoint_w of a number is what commands are written to; of a switch, it is on or off."""
    component: Literal["sensor", "number", "switch"] = "sensor"
    unique_id: str = "*"
    """Which, with `*` for anything."""
    device_class: str = ""
    """power, energy, battery, …; empty: any."""
    device: str = "*"
    """Of which devices, by their identifiers, with `*` for anything."""
    positive: str = ""
    """`export` or `import`: the direction in which it counts upwards, of a switch the direction in
    which it is on. Only for powers, and there it must be said."""
    unit: str = ""
    """Only where the entity says none itself."""
    release: str = ""
    """What is published where its own schedule shall return: a number in its unit, or the payload
    of on or off. Only with setpoint_w of a number or switch, and there it must be said."""

    def __post_init__(self) -> None:
        if self.metric not in quantities.METRICS:
            raise ValueError(f"metric is one of {', '.join(quantities.METRICS)}")
        if self.unit:
            quantities.check(self.metric, self.unit, self.positive)
        if (self.metric in quantities.DIRECTED) != (self.positive in ("export", "import")):
            raise ValueError(_SIGN)
        if self.component == "switch" and self.metric != "setpoint_w":
            raise ValueError("a switch is a setpoint_w")
        if self.is_commanded != bool(self.release):
            raise ValueError("release is said for the setpoint_w of a number or switch alone")

    @property
    def is_commanded(self) -> bool:
        """Tell whether commands are written to it."""
        return self.metric == "setpoint_w" and self.component != "sensor"


@dataclass(frozen=True, slots=True)
class TopicDiscovery:
    """Home Assistant MQTT discovery; off without entities."""

    entities: tuple[TopicEntity, ...] = ()
    prefix: str = "homeassistant"
    birth: bool = False
    """Say `online` at `<prefix>/status` on connecting, as Home Assistant does, so that devices
    announce themselves again. Only where no Home Assistant says it."""
    announced_max: int = 20_000
    """Announcements that are remembered; further ones are not listened to."""

    def __post_init__(self) -> None:
        check_topic(self.prefix)


@dataclass(frozen=True, slots=True)
class TopicsSettings(ClientSettings):
    """A broker the user already runs, with devices behind it that speak words of their own."""

    client_id: str = "kapelle-topics"
    session_expiry_s: int = 0
    """Stays 0: what waited at the broker meanwhile would look fresh. [s]"""
    schemes: tuple[TopicScheme, ...] = ()
    discovery: TopicDiscovery = field(default_factory=TopicDiscovery)
    payload_size_max: int = 65_536
    """A longer one is not read. [bytes]"""
    echo_s: float = 60.0
    """A setpoint a device shows later than this is no answer to its command. [s]"""
    settle_s: float = 10.0
    """Who has not come so long after connecting is gone. [s]"""

    def __post_init__(self) -> None:
        if not self.schemes and not self.discovery.entities:
            raise ValueError(
                "says nothing to listen to: [[topics.schemes]] or [[topics.discovery.entities]]"
            )
        names = [scheme.name for scheme in self.schemes]
        if len(set(names)) < len(names):
            raise ValueError("two schemes bear one name")
        if min(self.payload_size_max, self.echo_s, self.settle_s) <= 0:
            raise ValueError("payload_size_max, echo_s and settle_s are above 0")
        if self.session_expiry_s:
            raise ValueError("session_expiry_s stays 0: what waited would look fresh")


def check_topic(topic: str) -> None:
    """Raise ValueError where this is no topic with at most one whole step `{device}`."""
    steps = topic.split("/")
    if not topic.isprintable() or topic[:1] in ("", "$") or set(topic) & set("+#"):
        raise ValueError(f"{topic!r} is no topic: + and # stand nowhere, {DEVICE} once at most")
    if steps.count(DEVICE) > 1 or any(DEVICE in step and step != DEVICE for step in steps):
        raise ValueError(f"{topic}: {DEVICE} is one whole step of a topic, once")


def is_step(text: str) -> bool:
    """Tell whether this can stand as one step of a topic."""
    return bool(text) and text.isprintable() and not set(text) & set("+#/")
